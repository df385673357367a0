"""Removing old telemetry: chunks that end before a time, but for those that are said to be needed."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.series import PLACES, Series, SeriesTable


@dataclass(frozen=True, slots=True)
class Removed:
    """What went."""

    chunks: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class OldChunk:
    """A chunk that ends before the time asked for."""

    pump: str
    start_ms: int
    place: int
    rows: int
    bytes: int


def old_chunks(sql: Connection, series: SeriesTable, before_ms: int) -> Iterator[OldChunk]:
    """Chunks whose last hour ends at or before that time, by pump and time."""
    before = before_ms // HOUR_MS
    for pump in series.pumps():
        found = series.find(pump)
        assert found is not None
        query = "SELECT place, rows, length(data) FROM chunk WHERE place >= ? AND place + hours <= ? ORDER BY place"
        for place, rows, size in sql.rows(query, (found.place(0), found.place(before))):
            yield OldChunk(pump, place % PLACES * HOUR_MS, place, rows, size)


def remove_before(sql: Connection, series: SeriesTable, before_ms: int, needed: Set[tuple[str, int]]) -> Removed:
    """As `ChunkTable.remove_before`. The last row of a pump stays known, even when all its chunks go."""
    chunks = [one for one in old_chunks(sql, series, before_ms) if (one.pump, one.start_ms) not in needed]
    sql.write_many("DELETE FROM chunk WHERE place = ?", ((one.place,) for one in chunks))
    sql.write_many(
        "DELETE FROM rollup_hour WHERE place = ? AND NOT EXISTS"
        " (SELECT 1 FROM chunk WHERE chunk.place >= rollup_hour.place AND chunk.place < rollup_hour.place + 24)",
        ((place,) for place in sorted({one.place - one.place % PLACES % 24 for one in chunks})),
    )
    for pump in sorted({one.pump for one in chunks}):
        _shrink(sql, series.find(pump), sum(one.rows for one in chunks if one.pump == pump))
    return Removed(len(chunks), sum(one.rows for one in chunks), sum(one.bytes for one in chunks))


def _shrink(sql: Connection, series: Series | None, rows: int) -> None:
    assert series is not None
    row = sql.row("SELECT min(place) FROM chunk WHERE place >= ? AND place < ?", (series.place(0), series.place(PLACES)))
    first = row[0] if row else None
    sql.write(
        "UPDATE series SET rows = rows - ?, first_ms = max(first_ms, ?) WHERE id = ?",
        (rows, (first % PLACES if first is not None else 0) * HOUR_MS, series.id),
    )
