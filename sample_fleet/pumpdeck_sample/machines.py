"""The rated values of each simulated pump, drawn from the seed around its type's typical machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .channels import CHANNELS, PumpType
from .processes import F32
from .seeds import Chance

_VALUES = (
    "flow_m3_h",
    "lift_bar",
    "speed_rpm",
    "suction_bar",
    "vapour_bar",
    "current_a",
    "vibration_mm_s",
    "bearing_rise_c",
    "motor_rise_c",
    "seal",
    "static_share",
    "fluid_c",
)

# Low and high end of each value of _VALUES, in its order; a pump's own value lies between, uniformly.
_RANGES: dict[PumpType, tuple[tuple[float, float], ...]] = {
    PumpType.ESP: (
        *((60.0, 140.0), (90.0, 150.0), (3000.0, 3500.0), (38.0, 70.0), (9.0, 14.0), (70.0, 130.0)),
        *((1.2, 2.6), (12.0, 20.0), (26.0, 40.0), (0.15, 0.4), (0.25, 0.45), (70.0, 98.0)),
    ),
    PumpType.EXPORT: (
        *((260.0, 620.0), (55.0, 95.0), (2920.0, 3560.0), (9.0, 15.0), (2.0, 3.2), (110.0, 240.0)),
        *((1.3, 2.8), (26.0, 38.0), (35.0, 50.0), (0.5, 1.6), (0.2, 0.4), (35.0, 50.0)),
    ),
    PumpType.INJECTION: (
        *((160.0, 380.0), (140.0, 220.0), (4600.0, 5900.0), (10.0, 18.0), (0.03, 0.08), (150.0, 320.0)),
        *((1.5, 3.0), (28.0, 42.0), (38.0, 56.0), (0.2, 0.6), (0.5, 0.7), (12.0, 25.0)),
    ),
    PumpType.PCP: (
        *((3.0, 12.0), (45.0, 95.0), (140.0, 280.0), (8.0, 20.0), (1.0, 2.0), (18.0, 46.0)),
        *((0.8, 1.8), (18.0, 30.0), (30.0, 45.0), (0.1, 0.3), (0.65, 0.85), (30.0, 45.0)),
    ),
}


@dataclass(frozen=True)
class Machines:
    """Rated values of n pumps of one type, each float32[n]; `steps_per_unit` is float32[channels, n]."""

    flow_m3_h: F32
    lift_bar: F32
    speed_rpm: F32
    suction_bar: F32
    vapour_bar: F32
    current_a: F32
    vibration_mm_s: F32
    bearing_rise_c: F32
    motor_rise_c: F32
    seal: F32
    static_share: F32
    fluid_c: F32
    steps_per_unit: F32


def draw_machines(pump_type: PumpType, pumps: Sequence[tuple[str, int]], chance: Chance) -> Machines:
    """Rated values of the pumps `(id, coarseness)`; coarseness divides the resolution of the type's sensors."""
    low, high = np.array(_RANGES[pump_type]).T
    share = np.stack([chance.of_nature("machine", pump_id).random(len(_VALUES)) for pump_id, _ in pumps])
    drawn = (low + share * (high - low)).astype(np.float32)
    coarseness = np.array([coarse for _, coarse in pumps], dtype=np.float64)
    finest = np.array([spec.steps_per_unit for spec in CHANNELS[pump_type]], dtype=np.float64)
    steps = np.maximum(finest[:, None] / coarseness[None, :], 1.0).astype(np.float32)
    values = {name: np.ascontiguousarray(drawn[:, column]) for column, name in enumerate(_VALUES)}
    return Machines(**values, steps_per_unit=steps)
