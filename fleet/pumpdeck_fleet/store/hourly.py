"""The largest value of every hour of many pumps at once: what a fleet's sparklines are drawn from.

Two queries, however many pumps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.numeric.frame import Float32, TelemetryFrame
from pumpdeck_fleet.store import rollups
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.rollups import DAY_HOURS
from pumpdeck_fleet.store.series import PLACES, SeriesTable

# ?1 and ?2 are hours since 1970, ?3 the series' numbers; CROSS JOIN keeps SQLite from walking the big table first.
_OF_MANY = (
    f"FROM json_each(?3) AS wanted CROSS JOIN {{table}} AS held"
    f" ON held.place >= wanted.value * {PLACES} + ?1 AND held.place < wanted.value * {PLACES} + ?2"
)
# Of the four figures of a day, the third is the largest value.
_KEPT = f"SELECT place, channels, substr(data, 1 + length(data) / 2, length(data) / 4) {_OF_MANY.format(table='rollup_hour')}"
_SMALL = f"SELECT place, rows, channels, flagged, data {_OF_MANY.format(table='chunk')} AND held.hours = {DAY_HOURS}"

Unpack = Callable[[int, int, int, bytes], TelemetryFrame]
"""(rows, number of the channel list, flagged, data) -> the rows of a chunk"""


class HourlyReader:
    """Reads kept figures where a day has them, and the rows of days that are too small to have any."""

    def __init__(self, sql: Connection, series: SeriesTable, rollup_rows: int, unpack: Unpack) -> None:
        self._sql = sql
        self._series = series
        self._rollup_rows = rollup_rows
        self._unpack = unpack

    def largest(self, pumps: Sequence[str], start_ms: int, end_ms: int, channel: str) -> Float32:
        """float32 [pumps, hours], from the hour of `start_ms` to that of `end_ms`; NaN where there is no value."""
        first = start_ms // HOUR_MS
        matrix = np.full((len(pumps), max(0, -(-end_ms // HOUR_MS) - first)), np.nan, np.float32)
        numbers = self._series.numbers()
        line_of = {numbers[pump]: line for line, pump in enumerate(pumps) if pump in numbers}
        bounds = (start_ms // DAY_MS * DAY_HOURS, first + matrix.shape[1], json.dumps(list(line_of)))
        for places, days in (*self._kept(bounds, channel), *self._small(bounds, channel)):
            for place, day in zip(places, days, strict=True):
                _lay_over(matrix[line_of[place // PLACES]], day, place % PLACES - first)
        return matrix

    def _kept(self, bounds: tuple[int, int, str], channel: str) -> list[tuple[list[int], Float32]]:
        """(places, float32 [places, 24]) of the days that have figures, one item a list of channels."""
        by_channels: dict[int, tuple[list[int], list[bytes]]] = {}
        for place, channels, data in self._sql.rows(_KEPT, bounds):
            places, blobs = by_channels.setdefault(channels, ([], []))
            places.append(place)
            blobs.append(data)
        found = []
        for number, (places, blobs) in by_channels.items():
            names = self._series.channel_names(number)
            if channel in names:
                days = np.frombuffer(b"".join(blobs), "<f4").reshape(len(places), DAY_HOURS, len(names))
                found.append((places, days[:, :, names.index(channel)]))
        return found

    def _small(self, bounds: tuple[int, int, str], channel: str) -> list[tuple[list[int], Float32]]:
        """The same of the days that have none: their rows are few."""
        places, days = [], []
        for place, *row in self._sql.rows(f"{_SMALL} AND held.rows <= {self._rollup_rows}", bounds):
            part = rollups.roll_up(self._unpack(*row))
            if channel in part.channels:
                day = np.full(DAY_HOURS, np.nan, np.float32)
                day[part.hour_ms // HOUR_MS % DAY_HOURS] = part.maximum[:, part.channels.index(channel)]
                places.append(place)
                days.append(day)
        return [(places, np.stack(days))] if days else []


def _lay_over(line: Float32, day: Float32, offset: int) -> None:
    """Lay the 24 hours of a day over a line of hours, beginning at hour `offset` of it (before it when negative)."""
    start, end = max(0, offset), min(len(line), offset + DAY_HOURS)
    if start < end:
        line[start:end] = day[start - offset : end - offset]
