"""Seeded pumps with labelled faults: most vibrate and lose flow, some lose pressure; half of the pumps never had one."""

from __future__ import annotations

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_trainer.source import Exclusion
from support.pump_rows import START_MS, MemorySource, pump_frame, with_values

SIGNS = {"bearing": np.array([0.0, -6.0, 0.5, 0.0]), "leak": np.array([-2.5, 0.0, 0.1, 0.0])}
"""What a fault of full strength does to the channels; each fault has between half and all of it."""


def labelled_pump(number: int, faults: int, *, strength: float = 1.0, days: float = 30) -> tuple[TelemetryFrame, list[Exclusion]]:
    """Rows of a pump with so many faults of 12 hours, evenly over the reference window, and their labels."""
    frame = pump_frame(number, days=days)
    rng, values = np.random.default_rng([number, 5]), frame.values.copy()
    found = []
    for place in range(faults):
        kind = ("bearing", "leak")[(number + place) % 2]
        start = START_MS + round((place + 0.5) * 30 / faults) * DAY_MS + int(rng.integers(12)) * HOUR_MS
        inside = (frame.at_ms >= start) & (frame.at_ms < start + 12 * HOUR_MS)
        values[inside] += strength * rng.uniform(0.5, 1.0) * SIGNS[kind]
        found.append(Exclusion(start, start + 12 * HOUR_MS, f"fault:{kind}"))
    return with_values(frame, values), found


def labelled_source(pumps: int = 8, faults: int = 3, *, strength: float = 1.0, days: float = 30) -> MemorySource:
    """Pumps `site/P-1`..; the first half has faults."""
    frames, labels = {}, {}
    for number in range(1, pumps + 1):
        name = f"site/P-{number}"
        count = faults if number <= pumps // 2 else 0
        frames[name], labels[name] = labelled_pump(number, count, strength=strength, days=days)
    return MemorySource(frames, labels)
