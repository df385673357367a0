"""Hourly figures of a frame: minimum, mean, maximum and count of each channel. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame

DAY_HOURS = 24
MINIMUM, MEAN, MAXIMUM, COUNT = range(4)


@dataclass(frozen=True, eq=False)
class HourRollup:
    """Figures of h hours that have rows, in order of time.

    hour_ms: int64 [h], start of the hour. minimum, mean, maximum: float32 [h, c], NaN where the hour has no value of the channel.
    count: float32 [h, c], values in the hour.
    """

    channels: tuple[str, ...]
    hour_ms: Int64
    minimum: Float32
    mean: Float32
    maximum: Float32
    count: Float32

    def between(self, start_ms: int, end_ms: int) -> HourRollup:
        """The hours that start in [start_ms, end_ms)."""
        first, last = np.searchsorted(self.hour_ms, [start_ms, end_ms], side="left")
        chosen = slice(int(first), int(last))
        figures = (self.minimum, self.mean, self.maximum, self.count)
        return HourRollup(self.channels, self.hour_ms[chosen], *(figure[chosen] for figure in figures))


def roll_up(frame: TelemetryFrame) -> HourRollup:
    """Figures of every hour that has a row."""
    hours = frame.at_ms // HOUR_MS
    starts = np.flatnonzero(np.diff(hours, prepend=np.int64(-1)))
    if not len(starts):
        nothing = np.zeros((0, len(frame.channels)), np.float32)
        return HourRollup(frame.channels, hours, nothing, nothing, nothing, nothing)
    values = frame.values
    count = np.add.reduceat(~np.isnan(values), starts, axis=0, dtype=np.int64)
    total = np.add.reduceat(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), starts, axis=0, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return HourRollup(
        frame.channels,
        hours[starts] * HOUR_MS,
        np.fmin.reduceat(values, starts, axis=0),
        mean.astype(np.float32),
        np.fmax.reduceat(values, starts, axis=0),
        count.astype(np.float32),
    )


def empty_day(channels: int) -> NDArray[np.float32]:
    """A day without rows: float32 [4, 24, c]."""
    day = np.full((4, DAY_HOURS, channels), np.nan, np.float32)
    day[COUNT] = 0
    return day


def patch_day(day: NDArray[np.float32], rollup: HourRollup) -> None:
    """Set the hours of `rollup` (all of one day) in a day's figures, in place."""
    places = (rollup.hour_ms // HOUR_MS) % DAY_HOURS
    day[MINIMUM, places] = rollup.minimum
    day[MEAN, places] = rollup.mean
    day[MAXIMUM, places] = rollup.maximum
    day[COUNT, places] = rollup.count


def hours_of_day(day: NDArray[np.float32], channels: tuple[str, ...], day_start_ms: int) -> HourRollup:
    """The hours of a day's figures that have rows. A row without any value leaves no trace here."""
    places = np.flatnonzero(day[COUNT].any(axis=1))
    hour_ms = day_start_ms + places.astype(np.int64) * HOUR_MS
    return HourRollup(channels, hour_ms, day[MINIMUM, places], day[MEAN, places], day[MAXIMUM, places], day[COUNT, places])


def day_from_bytes(data: bytes, channels: int) -> NDArray[np.float32]:
    """A day's figures from the store; a copy that may be patched."""
    return np.frombuffer(data, "<f4").reshape(4, DAY_HOURS, channels).astype(np.float32)


def widen_day(day: NDArray[np.float32], old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.float32]:
    """A day's figures over more channels."""
    if old == new:
        return day
    wide = empty_day(len(new))
    wide[:, :, [new.index(name) for name in old]] = day
    return wide


def widen(rollup: HourRollup, channels: tuple[str, ...]) -> HourRollup:
    """The figures over these channels, in this order."""
    if rollup.channels == channels:
        return rollup
    hours = len(rollup.hour_ms)
    places = [channels.index(name) for name in rollup.channels]

    def spread(figure: Float32, missing: float) -> Float32:
        wide = np.full((hours, len(channels)), missing, np.float32)
        wide[:, places] = figure
        return wide

    minimum, mean, maximum = (spread(figure, np.nan) for figure in (rollup.minimum, rollup.mean, rollup.maximum))
    return HourRollup(channels, rollup.hour_ms, minimum, mean, maximum, spread(rollup.count, 0))


def join(parts: Sequence[HourRollup]) -> HourRollup:
    """Figures of several days, in the order given, over all their channels."""
    channels = tuple(sorted({name for part in parts for name in part.channels}))
    if len({part.channels for part in parts}) == 1:
        channels = parts[0].channels
    wide = [widen(part, channels) for part in parts]
    nothing = np.zeros((0, len(channels)), np.float32)

    def stacked(name: str) -> Float32:
        return np.concatenate([nothing, *(getattr(part, name) for part in wide)])

    hour_ms = np.concatenate([np.zeros(0, np.int64), *(part.hour_ms for part in wide)])
    return HourRollup(channels, hour_ms, stacked("minimum"), stacked("mean"), stacked("maximum"), stacked("count"))
