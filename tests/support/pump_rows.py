"""Seeded synthetic rows of pumps, and a training source over them held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.core.inventory import Channel, PumpType
from pumpdeck_fleet.numeric.detectors import LimitBranch, PumpBlock, to_float32
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_trainer.source import Exclusion

START_MS = 1_760_054_400_000  # 2025-10-10T00:00:00Z
CHANNELS = ("pressure_bar", "flow_m3_h", "vibration_mm_s", "speed_rpm")
PUMP_TYPE = PumpType(
    "test-pump",
    "Test pump",
    (
        Channel("pressure_bar", "bar", 0, 250, 0.1),
        Channel("flow_m3_h", "m3/h", 0, 500, 0.5),
        Channel("vibration_mm_s", "mm/s", 0, 50, 0.01),
        Channel("speed_rpm", "rpm", 0, 4000, 1.0, votes=False),
    ),
    cadence_s=600.0,
)
_CENTRE = np.array([80.0, 120.0, 2.5, 2950.0])
_SPREAD = np.array([1.0, 4.0, 0.2, 20.0])
_STEP = np.array([0.1, 0.5, 0.01, 1.0])


def pump_frame(seed: int, *, days: float = 30, cadence_ms: int = 10 * MINUTE_MS) -> TelemetryFrame:
    """A healthy pump: noise round its own baseline, read by sensors with steps; rows at a steady cadence from START_MS."""
    rng = np.random.default_rng(seed)
    rows = int(days * DAY_MS / cadence_ms)
    centre = _CENTRE * rng.uniform(0.8, 1.2, 4)
    values = np.round((centre + _SPREAD * rng.standard_normal((rows, 4))) / _STEP) * _STEP
    at_ms = START_MS + np.arange(rows, dtype=np.int64) * cadence_ms
    return TelemetryFrame(CHANNELS, at_ms, values.astype(np.float32), np.zeros(rows, np.uint16))


def with_values(frame: TelemetryFrame, values: np.ndarray) -> TelemetryFrame:
    """The frame with other values."""
    return replace(frame, values=values.astype(np.float32))


def with_flags(frame: TelemetryFrame, flags: np.ndarray) -> TelemetryFrame:
    """The frame with other flags."""
    return replace(frame, flags=flags.astype(np.uint16))


def small_block(limit: float = 4.0, channels: int = 4) -> PumpBlock:
    """A block round 0 with width 1; the last channel does not vote."""
    one = np.ones(channels, np.float32)
    votes = np.arange(channels) < channels - 1
    names = tuple(f"c{place}" for place in range(channels))
    return PumpBlock(names, 0 * one, one, 0 * one, votes, to_float32(limit), LimitBranch.DAILY)


@dataclass
class MemorySource:
    """A training source over frames; counts how often rows were read."""

    frames: Mapping[str, TelemetryFrame]
    left_out: Mapping[str, Sequence[Exclusion]] = field(default_factory=dict)
    reads: int = 0

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        self.reads += 1
        return self.frames[pump].between(start_ms, end_ms)

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        frame = self.frames[pump].between(start_ms, end_ms)
        told = frame.at_ms.tobytes() + frame.values.tobytes() + frame.flags.tobytes()
        return [(start_ms, digest(told))]

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return self.left_out.get(pump, ())
