"""What happens to the sample fleet: which pumps fail how and when, and which processes drift, chosen from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.inventory import Fleet, Pump

from .channels import PumpType
from .faults import PUMP_FAULTS, Fault, FaultKind, ProcessDrift, Scenario
from .seeds import rng_for

PUMPS_A_FAULT = 30
PUMPS_A_DRIFT = 80
DRIFT_DAYS = 5
DRIFT_SHARE_PER_DAY = 0.003


@dataclass(frozen=True)
class _Recipe:
    kind: FaultKind
    before_end_h: float
    ramp_h: float
    severity: float
    channel: str | None = None
    lasts_h: float | None = None


# The first six and the stuck sensor show on the last day; the imbalance was found and balanced away days before.
_RECIPES = (
    _Recipe(FaultKind.BEARING_WEAR, 14.0, 4.0, 0.8),
    _Recipe(FaultKind.SEAL_LEAK, 9.0, 2.0, 0.7),
    _Recipe(FaultKind.CAVITATION, 6.0, 1.0, 0.7),
    _Recipe(FaultKind.STATOR_WEAR, 12.0, 6.0, 0.9),
    _Recipe(FaultKind.MOTOR_OVERHEATING, 16.0, 5.0, 0.9),
    _Recipe(FaultKind.SENSOR_DRIFT, 18.0, 8.0, 0.8, channel="discharge_pressure_bar"),
    _Recipe(FaultKind.IMBALANCE, 12 * 24.0, 6.0, 0.8, lasts_h=24.0),
    _Recipe(FaultKind.SENSOR_STUCK, 20.0, 0.0, 1.0, channel="flow_m3_h"),
)


def demo_scenario(fleet: Fleet, end_ms: int, seed: int) -> Scenario:
    """One fault for every 30 pumps (at least one) and one drifting process for every 80, relative to `end_ms`.

    A fault falls on a pump whose type can show it, spread over the sites, never on two pumps of one redundancy group.
    """
    order = rng_for(seed, "scenario").permutation(len(fleet.pumps))
    free = [fleet.pumps[int(index)] for index in order]
    faults: list[Fault] = []
    for number in range(max(1, len(fleet.pumps) // PUMPS_A_FAULT)):
        recipe = _RECIPES[number % len(_RECIPES)]
        pump = _pick(free, _types_of(recipe.kind), {fault.pump_id.partition("/")[0] for fault in faults})
        if pump is None:
            continue
        faults.append(_fault(recipe, pump, end_ms))
        free = [other for other in free if not _same_group(other, pump)]
    drifting = [pump for pump in free if pump.type in (PumpType.ESP, PumpType.PCP)]
    drifts = [
        ProcessDrift(pump.id, end_ms - DRIFT_DAYS * DAY_MS, DRIFT_SHARE_PER_DAY)
        for pump in drifting[: len(fleet.pumps) // PUMPS_A_DRIFT]
    ]
    return Scenario(tuple(faults), tuple(drifts))


def is_alarm_expected(fault: Fault, start_ms: int, end_ms: int) -> bool:
    """True when scoring the rows of [start_ms, end_ms] should alarm: the fault lies inside and moves its channels far.

    A stuck sensor holds a normal value: quality checks find it, no score does.
    """
    if fault.kind in (FaultKind.SENSOR_STUCK, FaultKind.SENSOR_DROPOUT):
        return False
    return fault.onset_ms < end_ms and (fault.end_ms is None or fault.end_ms > start_ms)


def _types_of(kind: FaultKind) -> frozenset[PumpType]:
    if kind.is_sensor_fault:
        return frozenset(PumpType)
    return frozenset(pump_type for pump_type, kinds in PUMP_FAULTS.items() if kind in kinds)


def _pick(free: Sequence[Pump], types: frozenset[PumpType], used_sites: set[str]) -> Pump | None:
    eligible = [pump for pump in free if PumpType(pump.type) in types]
    return next((pump for pump in eligible if pump.site not in used_sites), eligible[0] if eligible else None)


def _same_group(pump: Pump, other: Pump) -> bool:
    return pump.id == other.id or (
        pump.site == other.site and pump.redundancy_group != "" and pump.redundancy_group == other.redundancy_group
    )


def _fault(recipe: _Recipe, pump: Pump, end_ms: int) -> Fault:
    onset_ms = end_ms - round(recipe.before_end_h * HOUR_MS)
    lasts = recipe.lasts_h
    return Fault(
        pump.id,
        recipe.kind,
        onset_ms,
        recipe.ramp_h * 3600.0,
        recipe.severity,
        channel=recipe.channel,
        end_ms=None if lasts is None else onset_ms + round(lasts * HOUR_MS),
    )
