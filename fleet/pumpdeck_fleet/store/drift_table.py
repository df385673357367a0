"""Sketches that devices returned, and the drift figures computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import to_text


@dataclass(frozen=True, slots=True)
class SketchRow:
    """One sketch: the bytes of `numeric/sketch.py`, and the digest of the edges it counts on."""

    pump: str
    day_ms: int
    edges_digest: str
    data: bytes


class SketchTable:
    """Sketches by pump and day. A sketch of an unfinished day is replaced by a later one on the same edges."""

    def __init__(self, sql: Connection, clock: Clock) -> None:
        self._sql = sql
        self._clock = clock

    def put(self, pump: str, day_ms: int, edges_digest: str, data: bytes) -> bool:
        """False when the very same bytes are there already."""
        key = (pump, day_ms, edges_digest)
        old = self._sql.row("SELECT data FROM sketch_day WHERE pump = ? AND day_ms = ? AND edges_digest = ?", key)
        if old is not None and old[0] == data:
            return False
        sql = "INSERT OR REPLACE INTO sketch_day (pump, day_ms, edges_digest, put_ms, data) VALUES (?, ?, ?, ?, ?)"
        self._sql.write(sql, (*key, self._clock.now_ms(), data))
        return True

    def get(self, pump: str, day_ms: int) -> SketchRow | None:
        """The sketch of that day; the one put last when the edges changed within it."""
        sql = f"SELECT {_SKETCH} FROM sketch_day WHERE pump = ? AND day_ms = ? ORDER BY put_ms DESC, rowid DESC"
        row = self._sql.row(sql, (pump, day_ms))
        return SketchRow(*row) if row else None

    def range(self, pump: str, start_ms: int, end_ms: int) -> list[SketchRow]:
        """Sketches of days in [start_ms, end_ms), in order of day."""
        sql = f"SELECT {_SKETCH} FROM sketch_day WHERE pump = ? AND day_ms >= ? AND day_ms < ? ORDER BY day_ms, put_ms, rowid"
        return [SketchRow(*row) for row in self._sql.rows(sql, (pump, start_ms, end_ms))]

    def of_days(self, start_ms: int, end_ms: int) -> list[SketchRow]:
        """Sketches of all pumps for days in [start_ms, end_ms), by pump and day: one query for the whole fleet."""
        sql = f"SELECT {_SKETCH} FROM sketch_day WHERE day_ms >= ? AND day_ms < ? ORDER BY pump, day_ms, put_ms, rowid"
        return [SketchRow(*row) for row in self._sql.rows(sql, (start_ms, end_ms))]

    def newest(self, window_ms: int) -> list[SketchRow]:
        """Of every pump the sketches of its newest day and of the days less than `window_ms` before that, by pump and day."""
        sql = (
            f"SELECT {', '.join('sketch_day.' + name for name in _SKETCH.split(', '))} FROM sketch_day"
            " JOIN (SELECT pump, max(day_ms) AS last_ms FROM sketch_day GROUP BY pump) AS end ON end.pump = sketch_day.pump"
            " WHERE sketch_day.day_ms > end.last_ms - ? ORDER BY sketch_day.pump, day_ms, put_ms, sketch_day.rowid"
        )
        return [SketchRow(*row) for row in self._sql.rows(sql, (window_ms,))]


_SKETCH = "pump, day_ms, edges_digest, data"


@dataclass(frozen=True, slots=True)
class DriftRow:
    """Drift of one pump when it was last judged: PSI by channel, and the worst of them."""

    pump: str
    at_ms: int
    worst: float
    psi_by_channel: Mapping[str, float]


class DriftTable:
    """Drift figures over time."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def put(self, pump: str, at_ms: int, psi_by_channel: Mapping[str, float], worst: float) -> None:
        """Keep a figure; the same pump and time replaces it."""
        body = to_text(dict(psi_by_channel))
        channel = max(psi_by_channel, key=lambda name: (psi_by_channel[name], name), default="")
        self._sql.write("INSERT OR REPLACE INTO drift (pump, at_ms, worst, body) VALUES (?, ?, ?, ?)", (pump, at_ms, worst, body))
        self._sql.write(
            "INSERT INTO pump_now (pump, drift_ms, drift_worst, drift_channel) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (pump) DO UPDATE SET drift_ms = excluded.drift_ms, drift_worst = excluded.drift_worst,"
            " drift_channel = excluded.drift_channel WHERE drift_ms IS NULL OR drift_ms <= excluded.drift_ms",
            (pump, at_ms, worst, channel),
        )

    def latest(self) -> dict[str, DriftRow]:
        """The newest figure of every pump that has one."""
        rows = self._sql.rows(
            "SELECT drift.pump, drift.at_ms, drift.worst, drift.body FROM pump_now"
            " JOIN drift ON drift.pump = pump_now.pump AND drift.at_ms = pump_now.drift_ms ORDER BY drift.pump"
        )
        return {row[0]: _drift(row) for row in rows}

    def of(self, pump: str) -> list[DriftRow]:
        """All figures of a pump, oldest first."""
        rows = self._sql.rows("SELECT pump, at_ms, worst, body FROM drift WHERE pump = ? ORDER BY at_ms", (pump,))
        return [_drift(row) for row in rows]


def _drift(row: Row) -> DriftRow:
    return DriftRow(row[0], row[1], row[2], json.loads(row[3]))
