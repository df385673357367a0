"""One row for each pump and kind: how many rows there are, from when to when, and the last of them. No numpy: lists read this."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pumpdeck_fleet.store.connection import Connection, Row

PLACES = 1 << 24
"""Hours that one series has room for in the key of a chunk."""


@dataclass(frozen=True, slots=True)
class Series:
    """Where a pump's chunks of one kind stand."""

    id: int
    pump: str

    def place(self, hour: int) -> int:
        """The key of the chunk that starts at that hour since 1970."""
        return self.id * PLACES + hour


class LastRow(NamedTuple):
    """The last row of a pump; NaN is missing. A tuple, since ten thousand are made at once."""

    at_ms: int
    channels: tuple[str, ...]
    values: tuple[float, ...]
    flags: int


@dataclass(frozen=True, slots=True)
class SeriesEnd:
    """The last row on its way into the table; `values` are little-endian float32."""

    at_ms: int
    channels: tuple[str, ...]
    flags: int
    values: bytes


@lru_cache
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


class SeriesTable:
    """Series of one kind."""

    def __init__(self, sql: Connection, kind: str) -> None:
        self._sql = sql
        self._kind = kind
        self._undone = sql.undone
        self._channel_ids: dict[tuple[str, ...], int] = {}
        self._channel_names: dict[int, tuple[str, ...]] = {}

    def find(self, pump: str) -> Series | None:
        """The pump's series, if it ever had a row."""
        row = self._sql.row("SELECT id FROM series WHERE kind = ? AND pump = ?", (self._kind, pump))
        return Series(row[0], pump) if row else None

    def ensure(self, pump: str) -> Series:
        """The pump's series, made when it is new."""
        found = self.find(pump)
        if found is None:
            self._sql.write("INSERT INTO series (kind, pump) VALUES (?, ?)", (self._kind, pump))
            found = self.find(pump)
            assert found is not None
        return found

    def grow(self, series: Series, new_rows: int, first_ms: int, end: SeriesEnd) -> None:
        """Count new rows and widen the span; `end` becomes the last row unless a later one is known."""
        self._sql.write(
            "UPDATE series SET rows = rows + ?, first_ms = min(coalesce(first_ms, ?), ?) WHERE id = ?",
            (new_rows, first_ms, first_ms, series.id),
        )
        self._sql.write(
            "UPDATE series SET last_ms = ?, last_channels = ?, last_flags = ?, last_values = ?"
            " WHERE id = ? AND (last_ms IS NULL OR last_ms <= ?)",
            (end.at_ms, self.channel_id(end.channels), end.flags, end.values, series.id, end.at_ms),
        )

    def span(self, pump: str) -> tuple[int, int, int] | None:
        """(time of the first row, time of the last row, rows); `None` without rows."""
        sql = "SELECT first_ms, last_ms, rows FROM series WHERE kind = ? AND pump = ? AND rows > 0"
        row = self._sql.row(sql, (self._kind, pump))
        return (row[0], row[1], row[2]) if row else None

    def pumps(self) -> list[str]:
        """All pumps with rows of this kind, sorted."""
        sql = "SELECT pump FROM series WHERE kind = ? AND rows > 0 ORDER BY pump"
        return [row[0] for row in self._sql.rows(sql, (self._kind,))]

    def numbers(self) -> dict[str, int]:
        """Number of the series by pump."""
        return dict(self._sql.rows("SELECT pump, id FROM series WHERE kind = ?", (self._kind,)))

    def total_rows(self) -> int:
        """Rows of this kind over all pumps."""
        row = self._sql.row("SELECT coalesce(sum(rows), 0) FROM series WHERE kind = ?", (self._kind,))
        return int(row[0]) if row else 0

    def last(self, pumps: Sequence[str] | None = None) -> dict[str, LastRow]:
        """The last row of each pump that has one; of all pumps when `pumps` is None."""
        sql = "SELECT pump, last_ms, last_channels, last_values, last_flags FROM series WHERE kind = ? AND last_ms IS NOT NULL"
        if pumps is None:
            return {row[0]: self._last_row(row) for row in self._sql.rows(sql, (self._kind,))}
        rows = self._sql.rows(f"{sql} AND pump IN (SELECT value FROM json_each(?))", (self._kind, json.dumps(list(pumps))))
        return {row[0]: self._last_row(row) for row in rows}

    def _last_row(self, row: Row) -> LastRow:
        names = self.channel_names(row[2])
        return LastRow(row[1], names, _floats(len(names)).unpack(row[3]), row[4])

    def channel_id(self, channels: tuple[str, ...]) -> int:
        """The number under which this list of channels stands; given when it is new."""
        self._forget_undone()
        if channels not in self._channel_ids:
            names = json.dumps(channels, ensure_ascii=False)
            self._sql.write("INSERT INTO channel_set (names) VALUES (?) ON CONFLICT DO NOTHING", (names,))
            ((number,),) = self._sql.rows("SELECT id FROM channel_set WHERE names = ?", (names,))
            self._channel_ids[channels] = number
        return self._channel_ids[channels]

    def channel_names(self, number: int) -> tuple[str, ...]:
        """The list of channels of that number."""
        self._forget_undone()
        if number not in self._channel_names:
            ((names,),) = self._sql.rows("SELECT names FROM channel_set WHERE id = ?", (number,))
            self._channel_names[number] = tuple(json.loads(names))
        return self._channel_names[number]

    def _forget_undone(self) -> None:
        if self._undone != self._sql.undone:
            self._undone = self._sql.undone
            self._channel_ids.clear()
            self._channel_names.clear()
