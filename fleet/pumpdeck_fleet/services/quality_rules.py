"""When a telemetry row is flagged: the figures behind the quality checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QualityRules:
    """What an operator may tune.

    stuck: a value has not moved for `stuck_rows` rows and `stuck_s` seconds, and for `stuck_ratio` times as long as it used to
    stand still; judged only after `stuck_history` rows.
    gap: a step longer than `gap_ratio` times both the cadence and the step before.
    unit swap: a jump (by more than the share `swap_jump`) to what the level before would be in another unit, within the share
    `swap_tolerance`; levels are taken over `swap_rows` rows.
    """

    stuck_rows: int = 30
    stuck_s: float = 7_200.0
    stuck_ratio: float = 20.0
    stuck_history: int = 100
    gap_ratio: float = 10.0
    swap_rows: int = 5
    swap_tolerance: float = 0.05
    swap_jump: float = 0.4


OTHER_UNITS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "bar": ((14.5038, 0.0), (100.0, 0.0), (0.1, 0.0), (1e5, 0.0)),
    "psi": ((0.0689476, 0.0), (6.89476, 0.0)),
    "kPa": ((0.01, 0.0), (0.145038, 0.0)),
    "degC": ((1.8, 32.0), (1.0, 273.15)),
    "degF": ((5 / 9, -160 / 9),),
    "mm/s": ((1 / 25.4, 0.0), (1e-3, 0.0)),
    "in/s": ((25.4, 0.0),),
    "m3/h": ((24.0, 0.0), (1 / 3.6, 0.0), (4.40287, 0.0), (150.955, 0.0)),
    "rpm": ((1 / 60, 0.0),),
    "A": ((1e3, 0.0),),
    "mA": ((1e-3, 0.0),),
}
"""Unit -> (factor, offset) of what a logger set to another unit shows: shown = value * factor + offset."""
