"""Frames of telemetry for tests: seeded ones, and a hypothesis strategy for odd ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import strategies as st

from pumpdeck_fleet.numeric.frame import TelemetryFrame

T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
CHANNELS = ("a_bar", "b_c", "c_rpm")


def frame_of(rows: Mapping[int, tuple[float, ...]], channels: tuple[str, ...] = CHANNELS, flags: int = 0) -> TelemetryFrame:
    """A frame from values by time."""
    times = sorted(rows)
    return TelemetryFrame(
        channels,
        np.array(times, np.int64),
        np.array([rows[at] for at in times], np.float32).reshape(len(times), len(channels)),
        np.full(len(times), flags, np.uint16),
    )


def sensor_frame(rows: int, *, seed: int = 0, start_ms: int = T0, step_ms: int = 60_000) -> TelemetryFrame:
    """Rows as sensors give them: decimal steps of 0.1, a slow walk."""
    walk = np.cumsum(np.random.default_rng(seed).normal(size=(rows, len(CHANNELS))), axis=0) + 50
    values = (np.round(walk * 10) / 10).astype(np.float32)
    at_ms = start_ms + np.arange(rows, dtype=np.int64) * step_ms
    return TelemetryFrame(CHANNELS, at_ms, values, np.zeros(rows, np.uint16))


def same_frame(one: TelemetryFrame, other: TelemetryFrame) -> bool:
    """Equal in every bit, missing equal to missing."""
    return (
        one.channels == other.channels
        and np.array_equal(one.at_ms, other.at_ms)
        and np.array_equal(one.values, other.values, equal_nan=True)
        and np.array_equal(one.flags, other.flags)
    )


floats = st.one_of(
    st.floats(width=32),
    st.integers(-40_000, 40_000).map(lambda number: float(np.float32(number / 10))),
    st.sampled_from([0.0, float("nan"), 1e-30, 3.4e38]),
)


@st.composite
def frames(draw: st.DrawFn, max_rows: int = 40, hours: int = 60) -> TelemetryFrame:
    """Any frame within some days: any gaps, any values, any flags."""
    channels = tuple(draw(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True)))
    offsets = draw(st.lists(st.integers(0, hours * 3_600), max_size=max_rows, unique=True))
    rows = {T0 + offset * 1000: tuple(draw(floats) for _ in channels) for offset in offsets}
    frame = frame_of(rows, channels)
    flags = np.array(draw(st.lists(st.integers(0, 255), min_size=len(rows), max_size=len(rows))), np.uint16)
    return TelemetryFrame(channels, frame.at_ms, frame.values, flags)
