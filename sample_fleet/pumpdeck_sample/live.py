"""New rows while the fleet runs: one a minute for every pump, dropped into the spool folders of its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

from .fleet import climates_of, pumps_to_simulate
from .physics import FleetSimulator, SimulatedRows
from .plan import SimulationPlan
from .seeds import Chance

STEP_MS = MINUTE_MS
CSV_DECIMALS = 3
# After a long pause the past day is made up for; what is older stays a gap, as on a device that was switched off.
BACKLOG_MAX_MS = DAY_MS


@dataclass(frozen=True)
class Pace:
    """How simulated time follows real time: `speed` simulated seconds pass in a second, from `start_ms` on."""

    start_ms: int
    speed: float = 1.0

    def simulated_ms(self, elapsed_s: float) -> int:
        """The simulated time after so many real seconds."""
        return self.start_ms + round(elapsed_s * 1000.0 * self.speed)


class LiveFeed:
    """Rows of the pumps of some devices from `since_ms` (exclusive) on; a pump continues its faults and drifts.

    `inboxes` gives each device's spool folder. Random disturbances begin anew, so a restart is no repetition.
    """

    def __init__(self, plan: SimulationPlan, inboxes: Mapping[str, Path], since_ms: int, fs: FileSystem) -> None:
        fleet, scenario, seed = plan.fleet(), plan.scenario(), plan.seed
        self._fs = fs
        self._inboxes = inboxes
        self._tags = {
            pump.id: (device, pump.tag) for device in inboxes for pump in fleet.pumps_by_device.get(device, ())
        }
        pumps = [fleet.pump(pump_id) for pump_id in self._tags]
        sites = sorted({pump.site for pump in pumps})
        # The episode must differ from the history's and from an earlier feed's, or the same noise would come again.
        chance = Chance(seed, episode=since_ms)
        self._simulator = FleetSimulator(pumps_to_simulate(pumps), climates_of(sites), scenario, chance)
        self._fed_ms = since_ms - since_ms % STEP_MS

    @property
    def fed_ms(self) -> int:
        """Time of the last row that was dropped."""
        return self._fed_ms

    def feed(self, until_ms: int) -> set[str]:
        """Drop all rows due up to `until_ms`; returns the devices that got some."""
        first = max(self._fed_ms + STEP_MS, until_ms - until_ms % STEP_MS - BACKLOG_MAX_MS + STEP_MS)
        at_ms = np.arange(first, until_ms + 1, STEP_MS, dtype=np.int64)
        if at_ms.size == 0:
            return set()
        for of_type in self._simulator.advance(at_ms):
            self._drop(of_type)
        self._fed_ms = int(at_ms[-1])
        return set(self._inboxes)

    def _drop(self, of_type: SimulatedRows) -> None:
        by_device: dict[str, list[int]] = {}
        for index, pump_id in enumerate(of_type.pump_ids):
            by_device.setdefault(self._tags[pump_id][0], []).append(index)
        for device, chosen in by_device.items():
            tags = [self._tags[of_type.pump_ids[index]][1] for index in chosen]
            data = spool_csv(of_type, chosen, tags)
            replace_file(self._fs, self._inboxes[device] / spool_name(int(of_type.at_ms[0]), of_type.pump_type), data)


def spool_name(first_ms: int, pump_type: str) -> str:
    """Name of a spool file: time of its first row, then the pump type, so that names sort as rows do."""
    return f"{first_ms}-{pump_type}.csv"


def spool_csv(of_type: SimulatedRows, chosen: Sequence[int], tags: Sequence[str]) -> bytes:
    """Rows of the chosen pumps as the spool CSV of docs/formats.md, in order of time."""
    # No sensor has a finer step than a thousandth: rounded there, the double of a float32 has a short decimal text.
    rounded = np.round(of_type.values[:, list(chosen), :].astype(np.float64), CSV_DECIMALS).transpose(2, 1, 0)
    lines = [",".join(("time", "pump", *of_type.channels))]
    for at_ms, of_pumps in zip(of_type.at_ms.tolist(), rounded.tolist(), strict=True):
        for tag, cells in zip(tags, of_pumps, strict=True):
            lines.append(f"{at_ms},{tag}," + ",".join(["" if cell != cell else repr(cell) for cell in cells]))
    return ("\n".join(lines) + "\n").encode("ascii")
