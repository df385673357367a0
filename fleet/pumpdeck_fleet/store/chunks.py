"""Telemetry and scores as column chunks: append anything in any order, read any interval.

A day of a pump stands in one chunk while it holds at most DAY_CHUNK_ROWS rows, else in one chunk an hour. Hourly figures are
kept for days with more than `rollup_rows` rows and computed on reading for the others. Both depend on the rows alone, so the same
rows give the same tables however they were split, ordered or repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, format_ms
from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.snapshots import PumpSnapshot
from pumpdeck_fleet.numeric.columns import MAX_ROWS, pack_rows, unpack_rows
from pumpdeck_fleet.numeric.frame import Float32, TelemetryFrame, empty_frame
from pumpdeck_fleet.store import rollups
from pumpdeck_fleet.store.chunk_frames import by_hour, content_digest, joined
from pumpdeck_fleet.store.chunk_merge import (
    AppendCounts,
    Merge,
    add_counts,
    canonical_frame,
    join_frames,
    merge_frames,
)
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.hourly import HourlyReader
from pumpdeck_fleet.store.retention import OldChunk, Removed, old_chunks, remove_before
from pumpdeck_fleet.store.rollups import DAY_HOURS, HourRollup
from pumpdeck_fleet.store.series import PLACES, LastRow, Series, SeriesEnd, SeriesTable
from pumpdeck_fleet.store.snapshots import lay_aside

DAY_CHUNK_ROWS = 1_500
ROLLUP_ROWS = 240


class _Chunk(NamedTuple):
    """A chunk to be written: it starts at `hour` since 1970 and spans `hours` (1 or 24)."""

    hour: int
    hours: int
    frame: TelemetryFrame


@dataclass(slots=True)
class _Plan:
    """What one append will do to the tables. `merge` is the rule for days that hold rows already."""

    merge: Merge
    counts: AppendCounts = field(default=AppendCounts(0, 0, 0))
    chunks: list[_Chunk] = field(default_factory=list)
    obsolete: list[int] = field(default_factory=list)
    rolled: list[tuple[int, TelemetryFrame]] = field(default_factory=list)
    """(day, whole hours of that day whose figures must be set)"""


class ChunkTable:
    """Rows of one kind (`telemetry` or `scores`) by pump. Repeated, late and out-of-order rows are normal input."""

    def __init__(
        self, sql: Connection, kind: str, channels: tuple[str, ...] | None = None, rollup_rows: int = ROLLUP_ROWS
    ) -> None:
        """`channels`: the only ones of this kind, in their order; `None` lets every pump have its own, kept sorted by name.

        `rollup_rows`: days with more rows than that keep their hourly figures.
        """
        self._sql = sql
        self._rollup_rows = rollup_rows
        self._channels = channels
        self._series = SeriesTable(sql, kind)

    def append(self, pump: str, frame: TelemetryFrame) -> AppendCounts:
        """Merge rows into the pump's chunks; how many rows were new, changed an old one, or said the same.

        A row at a time that is there already is merged channel by channel (`merge_frames`).

        Raises:
            FormatError: a time before 1970 or out of range, or a channel this kind does not have.
            TooLargeError: more than 65,536 rows of a pump in one hour.
            OutsideTransactionError: no `atomic()` is open.
        """
        return self._take(pump, frame, merge_frames)

    def join(self, pump: str, frame: TelemetryFrame) -> AppendCounts:
        """As `append`, for rows of another workspace: in whatever order they come, the tables end the same (`join_frames`)."""
        return self._take(pump, frame, join_frames)

    def _take(self, pump: str, frame: TelemetryFrame, merge: Merge) -> AppendCounts:
        self._sql.check_writing()
        if not len(frame):
            return AppendCounts(0, 0, 0)
        frame = self._canonical(pump, frame)
        series = self._series.ensure(pump)
        plan = self._plan(series, frame, merge)
        self._carry_out(series, plan)
        if plan.chunks:
            last = plan.chunks[-1].frame
            end = SeriesEnd(int(last.at_ms[-1]), last.channels, int(last.flags[-1]), last.values[-1].astype("<f4").tobytes())
            self._series.grow(series, plan.counts.new, int(frame.at_ms[0]), end)
        return plan.counts

    def _canonical(self, pump: str, frame: TelemetryFrame) -> TelemetryFrame:
        wanted = self._channels or tuple(sorted(frame.channels))
        unknown = sorted(set(frame.channels) - set(wanted))
        if unknown:
            raise FormatError("has a channel of another kind", pump, expected=", ".join(wanted), found=", ".join(unknown))
        first, last = int(frame.at_ms[0]), int(frame.at_ms[-1])
        if first < 0 or last // HOUR_MS >= PLACES:
            raise FormatError("has a time out of range", pump, expected="1970 or later", found=first if first < 0 else last)
        return canonical_frame(frame, wanted)

    def _plan(self, series: Series, frame: TelemetryFrame, merge: Merge) -> _Plan:
        days = frame.at_ms // DAY_MS
        held = self._held(series, int(days[0]), int(days[-1]))
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(frame)]
        plan = _Plan(merge)
        for first, last in pairwise(cuts):
            day = int(days[first])
            self._plan_day(plan, series, frame.take(slice(first, last)), held.get(day, {}))
        return plan

    def _held(self, series: Series, first_day: int, last_day: int) -> dict[int, dict[int, int]]:
        """day -> {first hour of a chunk: hours it spans}, for days that may be touched."""
        bounds = (series.place(first_day * DAY_HOURS), series.place((last_day + 1) * DAY_HOURS))
        held: dict[int, dict[int, int]] = {}
        for place, hours in self._sql.rows("SELECT place, hours FROM chunk WHERE place >= ? AND place < ?", bounds):
            hour = place % PLACES
            held.setdefault(hour // DAY_HOURS, {})[hour] = hours
        return held

    def _plan_day(self, plan: _Plan, series: Series, rows: TelemetryFrame, held: Mapping[int, int]) -> None:
        day = int(rows.at_ms[0]) // DAY_MS
        if not held:
            plan.counts = add_counts(plan.counts, AppendCounts(len(rows), 0, 0))
            self._lay_out(plan, day, rows)
        elif held.get(day * DAY_HOURS) == DAY_HOURS:
            merged, counts = plan.merge(self._read(series, day * DAY_HOURS), rows)
            plan.counts = add_counts(plan.counts, counts)
            if counts.new or counts.changed:
                if len(merged) > DAY_CHUNK_ROWS:
                    plan.obsolete.append(series.place(day * DAY_HOURS))
                self._lay_out(plan, day, merged)
        else:
            for hour, part in by_hour(rows):
                old = self._read(series, hour) if hour in held else empty_frame(part.channels)
                merged, counts = plan.merge(old, part)
                plan.counts = add_counts(plan.counts, counts)
                if counts.new or counts.changed:
                    plan.chunks.append(_Chunk(hour, 1, merged))
                    plan.rolled.append((day, merged))

    def _lay_out(self, plan: _Plan, day: int, rows: TelemetryFrame) -> None:
        if len(rows) <= DAY_CHUNK_ROWS:
            plan.chunks.append(_Chunk(day * DAY_HOURS, DAY_HOURS, rows))
        else:
            plan.chunks.extend(_Chunk(hour, 1, part) for hour, part in by_hour(rows))
        if len(rows) > self._rollup_rows:
            plan.rolled.append((day, rows))

    def _carry_out(self, series: Series, plan: _Plan) -> None:
        touched = sorted({*plan.obsolete, *(series.place(chunk.hour) for chunk in plan.chunks)})
        if touched:
            lay_aside(self._sql, touched[0], touched[-1], touched)
        self._sql.write_many("DELETE FROM chunk WHERE place = ?", [(place,) for place in plan.obsolete])
        self._sql.write_many(
            "INSERT OR REPLACE INTO chunk (place, hours, rows, channels, flagged, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._chunk_row(series, chunk) for chunk in plan.chunks),
        )
        for day, rows in plan.rolled:
            self._roll(series, day, rows)

    def _chunk_row(self, series: Series, chunk: _Chunk) -> tuple[int, int, int, int, bool, bytes, bytes]:
        frame = chunk.frame
        if len(frame) > MAX_ROWS:
            which = f"{series.pump}, hour from {chunk.hour * HOUR_MS}"
            raise TooLargeError("has too many rows in one hour", which, expected=f"at most {MAX_ROWS}", found=len(frame))
        channels = self._series.channel_id(frame.channels)
        place, flagged = series.place(chunk.hour), bool(frame.flags.any())
        return place, chunk.hours, len(frame), channels, flagged, content_digest(frame), pack_rows(frame)

    def _roll(self, series: Series, day: int, rows: TelemetryFrame) -> None:
        place = series.place(day * DAY_HOURS)
        old = self._sql.row("SELECT channels, data FROM rollup_hour WHERE place = ?", (place,))
        figures = rollups.empty_day(len(rows.channels))
        channels = rows.channels
        rollup = rollups.roll_up(rows)
        if old is not None:
            names = self._series.channel_names(old[0])
            channels = names if names == channels else tuple(sorted({*names, *channels}))
            figures = rollups.widen_day(rollups.day_from_bytes(old[1], len(names)), names, channels)
            rollup = rollups.widen(rollup, channels)
        rollups.patch_day(figures, rollup)
        self._sql.write(
            "INSERT OR REPLACE INTO rollup_hour (place, channels, data) VALUES (?, ?, ?)",
            (place, self._series.channel_id(channels), figures.astype("<f4").tobytes()),
        )

    def _read(self, series: Series, hour: int) -> TelemetryFrame:
        (row,) = self._sql.rows(f"SELECT {_DATA} FROM chunk WHERE place = ?", (series.place(hour),))
        return self._unpack(series, *row)

    def _unpack(self, series: Series, rows: int, channels: int, flagged: int, data: bytes) -> TelemetryFrame:
        names = self._series.channel_names(channels)
        return unpack_rows(data, rows, names, bool(flagged), f"chunk of {series.pump}")

    # Reading

    def frame(
        self, pump: str, start_ms: int, end_ms: int, channels: tuple[str, ...] | None = None
    ) -> TelemetryFrame:
        """Rows with `start_ms <= at_ms < end_ms`; the named channels in that order (NaN where missing), or all there are."""
        parts = [part.between(start_ms, end_ms) for part in self._frames(pump, start_ms, end_ms)]
        return joined([part for part in parts if len(part)], channels or self._channels)

    def _frames(self, pump: str, start_ms: int, end_ms: int) -> Iterator[TelemetryFrame]:
        series = self._series.find(pump)
        if series is None or end_ms <= start_ms:
            return
        sql = f"SELECT {_DATA} FROM chunk WHERE {_TOUCHES}"
        for row in self._sql.each(sql, _bounds(series, start_ms, end_ms)):
            yield self._unpack(series, *row)

    def tail(self, pump: str, rows: int) -> TelemetryFrame:
        """The last `rows` rows."""
        series = self._series.find(pump)
        parts: list[TelemetryFrame] = []
        if series is not None:
            bounds = (series.place(0), series.place(PLACES))
            sql = f"SELECT {_DATA} FROM chunk WHERE place >= ? AND place < ? ORDER BY place DESC"
            for row in self._sql.each(sql, bounds):
                parts.append(self._unpack(series, *row))
                if sum(map(len, parts)) >= rows:
                    break
        whole = joined(parts[::-1], self._channels)
        return whole.take(slice(max(0, len(whole) - rows), len(whole)))

    def span(self, pump: str) -> tuple[int, int, int] | None:
        """(time of the first row, time of the last row, rows); `None` without rows."""
        return self._series.span(pump)

    def pumps(self) -> list[str]:
        """All pumps with rows, sorted."""
        return self._series.pumps()

    def total_rows(self) -> int:
        """Rows over all pumps."""
        return self._series.total_rows()

    def last(self, pumps: Sequence[str] | None = None) -> dict[str, LastRow]:
        """The last row of each pump that has one; of all pumps when `pumps` is None."""
        return self._series.last(pumps)

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        """(start, SHA-256 of the content) of the chunks that touch [start_ms, end_ms), in order of time.

        The digest covers channels, times, values and flags, not their compressed form: it is the same on every computer.
        """
        series = self._series.find(pump)
        if series is None:
            return []
        rows = self._sql.rows(f"SELECT place, digest FROM chunk WHERE {_TOUCHES}", _bounds(series, start_ms, end_ms))
        return [(place % PLACES * HOUR_MS, digest.hex()) for place, digest in rows]

    def held_frame(self, pump: str, part: PumpSnapshot, span: tuple[int, int]) -> TelemetryFrame:
        """The rows of a snapshot at `span[0] <= at_ms < span[1]`, each chunk proven by its digest, changed since or not.

        Raises:
            NotFoundError: a chunk is gone. DamagedError: a chunk does not hold what its digest says.
        """
        series = self._series.find(pump)
        start_ms, end_ms = max(span[0], part.start_ms), min(span[1], part.end_ms)
        parts = []
        for at_ms, digest in part.chunks:
            if at_ms < end_ms and at_ms + DAY_MS > start_ms:
                rows = self._version(series, at_ms, digest) if series else None
                if rows is None:
                    hint = "retention let it go; its digest stays in the record"
                    which = f"{pump}, {format_ms(at_ms)}"
                    raise NotFoundError("a chunk of a snapshot is gone", which, expected=digest, hint=hint)
                parts.append(rows.between(start_ms, end_ms))
        return joined([rows for rows in parts if len(rows)], self._channels)

    def held_chunk(self, pump: str, chunk: tuple[int, str]) -> TelemetryFrame:
        """One whole chunk of a snapshot by (start, digest). Raises: as `held_frame`."""
        series = self._series.find(pump)
        found = self._version(series, *chunk) if series else None
        if found is None:
            raise NotFoundError("a chunk of a snapshot is gone", f"{pump}, {format_ms(chunk[0])}", expected=chunk[1])
        return found

    def _version(self, series: Series, start_ms: int, digest: str) -> TelemetryFrame | None:
        """The chunk of that start and digest, from the telemetry or from what was laid aside."""
        values = (series.place(start_ms // HOUR_MS), bytes.fromhex(digest))
        for table in ("chunk", "chunk_kept"):
            row = self._sql.row(f"SELECT {_DATA} FROM {table} WHERE place = ? AND digest = ?", values)
            if row is not None:
                found = self._unpack(series, *row)
                if content_digest(found).hex() != digest:
                    which = f"chunk of {series.pump}, {format_ms(start_ms)}"
                    raise DamagedError("was altered", which, expected=digest, found=content_digest(found).hex())
                return found
        return None

    def old_chunks(self, before_ms: int) -> Iterator[OldChunk]:
        """Chunks that end before that time."""
        return old_chunks(self._sql, self._series, before_ms)

    def remove_before(self, before_ms: int, needed: Set[tuple[str, int]]) -> Removed:
        """Remove chunks that end before that time and are not `needed` (pump, start), with their hourly figures."""
        self._sql.check_writing()
        return remove_before(self._sql, self._series, before_ms, needed)

    def frames_at(self, pump: str, starts_ms: Sequence[int]) -> Iterator[TelemetryFrame]:
        """The rows of chunks that `chunk_digests` names by these starts, in order; many chunks to a frame."""
        series = self._series.find(pump)
        parts: list[TelemetryFrame] = []
        for start_ms in starts_ms if series is not None else ():
            assert series is not None
            parts.append(self._read(series, start_ms // HOUR_MS))
            if sum(map(len, parts)) >= MAX_ROWS:
                yield joined(parts, None)
                parts = []
        if parts:
            yield joined(parts, None)

    def rollup(self, pump: str, start_ms: int, end_ms: int) -> HourRollup:
        """Hourly figures of the hours that start in [start_ms, end_ms) and have values."""
        series = self._series.find(pump)
        parts = list(self._rollups(series, start_ms, end_ms)) if series else []
        return rollups.join(parts).between(start_ms, end_ms)

    def _rollups(self, series: Series, start_ms: int, end_ms: int) -> Iterator[HourRollup]:
        """Figures of all days that touch the interval, in order of time."""
        kept = self._kept_days(series, start_ms, end_ms)
        sql = f"SELECT place, {_DATA} FROM chunk WHERE rows <= {self._rollup_rows} AND hours = {DAY_HOURS} AND {_TOUCHES}"
        for place, *row in self._sql.each(sql, _bounds(series, start_ms, end_ms)):
            kept[place % PLACES // DAY_HOURS] = rollups.roll_up(self._unpack(series, *row))
        for day in sorted(kept):
            yield kept[day]

    def _kept_days(self, series: Series, start_ms: int, end_ms: int) -> dict[int, HourRollup]:
        bounds = (series.place(start_ms // DAY_MS * DAY_HOURS), series.place(-(-end_ms // HOUR_MS)))
        sql = "SELECT place, channels, data FROM rollup_hour WHERE place >= ? AND place < ?"
        kept = {}
        for place, channels, data in self._sql.rows(sql, bounds):
            names = self._series.channel_names(channels)
            hour = place % PLACES
            kept[hour // DAY_HOURS] = rollups.hours_of_day(rollups.day_from_bytes(data, len(names)), names, hour * HOUR_MS)
        return kept

    def hourly(self, pumps: Sequence[str], start_ms: int, end_ms: int, channel: str) -> Float32:
        """The largest value of each hour: float32 [pumps, hours] from the hour of `start_ms` on; NaN where there is none."""

        def unpack(rows: int, channels: int, flagged: int, data: bytes) -> TelemetryFrame:
            return self._unpack(Series(0, "a pump of the fleet"), rows, channels, flagged, data)

        return HourlyReader(self._sql, self._series, self._rollup_rows, unpack).largest(pumps, start_ms, end_ms, channel)


_DATA = "rows, channels, flagged, data"
# A chunk of a day starts up to 23 hours before the rows it holds; `place + hours` drops hour chunks that end too early.
_TOUCHES = "place >= ? AND place < ? AND place + hours > ? ORDER BY place"


def _bounds(series: Series, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    start_ms, end_ms = max(0, start_ms), min(max(0, end_ms), PLACES * HOUR_MS)
    return (
        series.place(start_ms // DAY_MS * DAY_HOURS),
        series.place(-(-end_ms // HOUR_MS)),
        series.place(start_ms // HOUR_MS),
    )
