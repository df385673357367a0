"""What happens to pumps: faults (kind, onset, ramp, severity) and slow process drift. They are the truth beside the rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from .channels import PumpType

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class FaultKind(StrEnum):
    """What goes wrong. The first seven are pump faults, the rest are sensor faults."""

    BEARING_WEAR = "bearing_wear"
    IMBALANCE = "imbalance"
    CAVITATION = "cavitation"
    IMPELLER_WEAR = "impeller_wear"
    SEAL_LEAK = "seal_leak"
    STATOR_WEAR = "stator_wear"
    MOTOR_OVERHEATING = "motor_overheating"
    SENSOR_STUCK = "sensor_stuck"
    SENSOR_DRIFT = "sensor_drift"
    SENSOR_SPIKES = "sensor_spikes"
    SENSOR_DROPOUT = "sensor_dropout"

    @property
    def is_sensor_fault(self) -> bool:
        """True when the pump is well and only a reading is wrong."""
        return self.value.startswith("sensor_")


FAULT_CODES: dict[FaultKind, int] = {kind: code for code, kind in enumerate(FaultKind, start=1)}
"""The number by which the truth array names a fault kind; 0 is "no fault"."""

_ROTATING = frozenset({FaultKind.BEARING_WEAR, FaultKind.IMBALANCE})
PUMP_FAULTS: dict[PumpType, frozenset[FaultKind]] = {
    PumpType.ESP: _ROTATING
    | {FaultKind.CAVITATION, FaultKind.IMPELLER_WEAR, FaultKind.SEAL_LEAK, FaultKind.MOTOR_OVERHEATING},
    PumpType.EXPORT: _ROTATING | {FaultKind.CAVITATION, FaultKind.IMPELLER_WEAR, FaultKind.SEAL_LEAK},
    PumpType.INJECTION: _ROTATING | {FaultKind.CAVITATION, FaultKind.IMPELLER_WEAR, FaultKind.MOTOR_OVERHEATING},
    PumpType.PCP: frozenset({FaultKind.BEARING_WEAR, FaultKind.STATOR_WEAR}),
}
"""Which pump faults the physics of a type can show."""


@dataclass(frozen=True)
class Fault:
    """One fault of one pump: from `onset_ms` it grows over `ramp_s` seconds to `severity` (0..1) and stays until `end_ms`.

    `channel` names the reading that a sensor fault spoils; pump faults have none.
    """

    pump_id: str
    kind: FaultKind
    onset_ms: int
    ramp_s: float
    severity: float
    channel: str | None = None
    end_ms: int | None = None

    def severity_at(self, at_ms: I64) -> F32:
        """Severity at each time, float32[T]."""
        age_s = (at_ms - self.onset_ms) / 1000.0
        grown = np.clip(age_s / max(self.ramp_s, 1e-3), 0.0, 1.0)
        grown[at_ms < self.onset_ms] = 0.0
        if self.end_ms is not None:
            grown[at_ms >= self.end_ms] = 0.0
        return np.asarray(self.severity * grown, dtype=np.float32)

    def is_active(self, at_ms: I64) -> npt.NDArray[np.bool_]:
        """Which times lie inside the fault, bool[T]."""
        active = at_ms >= self.onset_ms
        if self.end_ms is not None:
            active &= at_ms < self.end_ms
        return active


@dataclass(frozen=True)
class ProcessDrift:
    """A reservoir or separator that declines: from `onset_ms` the pump's inlet pressure falls by `share_per_day` of rated.

    The pump stays well; only what is normal for it moves.
    """

    pump_id: str
    onset_ms: int
    share_per_day: float

    def factor_at(self, at_ms: I64) -> F32:
        """Inlet pressure relative to normal at each time, float32[T], never under 0.5."""
        days = np.maximum(at_ms - self.onset_ms, 0) / 86_400_000.0
        return np.asarray(np.maximum(1.0 - self.share_per_day * days, 0.5), dtype=np.float32)


@dataclass(frozen=True)
class Scenario:
    """Everything out of the ordinary that happens to a fleet."""

    faults: tuple[Fault, ...] = ()
    drifts: tuple[ProcessDrift, ...] = ()

    def of_pumps(self, pump_ids: Collection[str]) -> Scenario:
        """The part of the scenario that concerns these pumps."""
        return Scenario(
            tuple(fault for fault in self.faults if fault.pump_id in pump_ids),
            tuple(drift for drift in self.drifts if drift.pump_id in pump_ids),
        )
