"""Pumps of the sample fleet's simulator with labelled faults that were repaired."""

from __future__ import annotations

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.inventory import PumpType as Kind
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_sample.faults import Fault, FaultKind, Scenario
from pumpdeck_sample.fleet import FleetSize, build_fleet
from pumpdeck_sample.history import simulate_history
from pumpdeck_trainer.source import Exclusion
from support.pump_rows import START_MS, MemorySource

KINDS = (FaultKind.BEARING_WEAR, FaultKind.SEAL_LEAK, FaultKind.CAVITATION)
DAYS = 30
END_MS = START_MS + DAYS * DAY_MS


def simulated_source(severity: float, size: FleetSize, seed: int = 7) -> tuple[Kind, MemorySource]:
    """Thirty days of the sample fleet's ESPs; two of three had two faults of 18 hours, of three kinds in turn."""
    fleet = build_fleet(size, seed, architecture="x86_64", os_name="linux")
    pumps = [pump.id for pump in fleet.pumps if pump.type == "esp"]
    faults = []
    for place, pump in enumerate(pumps):
        for half in range(2 if place % 3 else 0):
            start = START_MS + (4 + 13 * half + place % 7) * DAY_MS
            kind = KINDS[(place + half) % len(KINDS)]
            faults.append(Fault(pump, kind, start, 3600.0, severity, end_ms=start + 18 * HOUR_MS))
    rows = next(one for one in simulate_history(fleet, Scenario(tuple(faults), ()), END_MS, seed, DAYS) if one.pump_type == "esp")
    flags = np.zeros(len(rows.at_ms), np.uint16)
    frames = {
        pump: TelemetryFrame(rows.channels, rows.at_ms, np.ascontiguousarray(rows.values[:, place].T), flags)
        for place, pump in enumerate(rows.pump_ids)
    }
    labels: dict[str, list[Exclusion]] = {}
    for one in faults:
        labels.setdefault(one.pump_id, []).append(Exclusion(one.onset_ms, one.end_ms or END_MS, f"fault:{one.kind.value}"))
    return fleet.pump_types["esp"], MemorySource(frames, labels)
