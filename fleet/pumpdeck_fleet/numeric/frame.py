"""A block of telemetry rows of one pump as columns: what the store hands out, features read and chunks hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import FormatError

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt16 = NDArray[np.uint16]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TelemetryFrame:
    """Rows of one pump, strictly rising in time.

    channels: c names. at_ms: int64 [n], epoch ms UTC. values: float32 [n, c], NaN = missing. flags: uint16 [n],
    quality flags.

    Raises:
        FormatError: shapes or types do not fit, a channel stands twice, or time does not rise.
    """

    channels: tuple[str, ...]
    at_ms: Int64
    values: Float32
    flags: UInt16

    def __post_init__(self) -> None:
        rows = len(self.at_ms)
        for name, column, dtype, shape in (
            ("at_ms", self.at_ms, np.int64, (rows,)),
            ("values", self.values, np.float32, (rows, len(self.channels))),
            ("flags", self.flags, np.uint16, (rows,)),
        ):
            if column.dtype != dtype or column.shape != shape:
                expected = f"{np.dtype(dtype)} {shape}"
                raise FormatError("has the wrong shape or type", name, expected=expected, found=_describe(column))
        if len(set(self.channels)) != len(self.channels):
            raise FormatError("has a channel twice", ", ".join(self.channels))
        check_rising(self.at_ms)

    def __len__(self) -> int:
        return len(self.at_ms)

    def take(self, rows: slice | Bools | Int64) -> TelemetryFrame:
        """The chosen rows, in their order."""
        return TelemetryFrame(self.channels, self.at_ms[rows], self.values[rows], self.flags[rows])

    def between(self, start_ms: int, end_ms: int) -> TelemetryFrame:
        """Rows with `start_ms <= at_ms < end_ms`; a view."""
        first, last = np.searchsorted(self.at_ms, [start_ms, end_ms], side="left").tolist()
        return self if last - first == len(self.at_ms) else self.take(slice(first, last))

    def select(self, channels: tuple[str, ...]) -> TelemetryFrame:
        """The same rows with these channels in this order; a channel the frame lacks is missing (NaN) throughout."""
        if channels == self.channels:
            return self
        values = np.full((len(self), len(channels)), np.nan, np.float32)
        place = {name: index for index, name in enumerate(self.channels)}
        for index, name in enumerate(channels):
            if name in place:
                values[:, index] = self.values[:, place[name]]
        return TelemetryFrame(channels, self.at_ms, values, self.flags)


def _describe(column: NDArray[np.generic]) -> str:
    return f"{column.dtype} {column.shape}"


def check_rising(at_ms: Int64) -> None:
    """Raises FormatError unless time rises strictly from row to row."""
    if len(at_ms) > 1:
        bad = at_ms[1:] <= at_ms[:-1]
        if bad.any():
            row = int(bad.argmax()) + 1
            raise FormatError("time does not rise", f"row {row}", expected=f"> {at_ms[row - 1]}", found=int(at_ms[row]))


def run_starts(labels: NDArray[np.integer] | Float32) -> Int64:
    """Where a new value begins in labels [n], the first place among them; n is 1 or more."""
    return np.concatenate(([0], np.flatnonzero(labels[1:] != labels[:-1]) + 1))


def empty_frame(channels: tuple[str, ...]) -> TelemetryFrame:
    """No rows."""
    return TelemetryFrame(
        channels, np.zeros(0, np.int64), np.zeros((0, len(channels)), np.float32), np.zeros(0, np.uint16)
    )


def concatenate(frames: Iterable[TelemetryFrame]) -> TelemetryFrame:
    """Frames of one pump one after the other.

    Raises:
        FormatError: there is none, channels differ, or time does not rise over the seams.
    """
    parts = list(frames)
    if not parts:
        raise FormatError("no frames to put together", "concatenate")
    channels = parts[0].channels
    for part in parts:
        if part.channels != channels:
            raise FormatError("channels differ", "concatenate", expected=channels, found=part.channels)
    return TelemetryFrame(
        channels,
        np.concatenate([part.at_ms for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.flags for part in parts]),
    )
