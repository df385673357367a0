"""The rows of chunks as frames: put together, cut into hours, named by the digest of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate, empty_frame


def by_hour(rows: TelemetryFrame) -> Iterator[tuple[int, TelemetryFrame]]:
    """The rows hour by hour since 1970."""
    hours = rows.at_ms // HOUR_MS
    cuts = [0, *(np.flatnonzero(np.diff(hours)) + 1).tolist(), len(rows)]
    for first, last in pairwise(cuts):
        yield int(hours[first]), rows.take(slice(first, last))


def joined(parts: Sequence[TelemetryFrame], channels: tuple[str, ...] | None) -> TelemetryFrame:
    """Frames of one pump one after the other, with these channels or all that any of them has."""
    if channels is None:
        channels = _all_channels(parts)
    return concatenate(part.select(channels) for part in parts) if parts else empty_frame(channels)


def _all_channels(parts: Iterable[TelemetryFrame]) -> tuple[str, ...]:
    return tuple(sorted({name for part in parts for name in part.channels}))


def content_digest(frame: TelemetryFrame) -> bytes:
    """SHA-256 over channels, times, values and flags: the same on every computer."""
    content = hashlib.sha256("\0".join(frame.channels).encode("utf-8") + b"\0\0")
    for column, dtype in ((frame.at_ms, "<i8"), (frame.values, "<f4"), (frame.flags, "<u2")):
        content.update(column.astype(dtype, copy=False).tobytes())
    return content.digest()


def frame_digest(frame: TelemetryFrame) -> str:
    """The digest of a chunk with these rows, in hex."""
    return content_digest(frame).hex()
