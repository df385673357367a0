"""Run one drill and print its figures: `python -m pumpdeck_sample.drills.run D1 [--quick]`. Each has a process of its own."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_agent.trial import TrialRunner
from pumpdeck_fleet.core import canonical
from pumpdeck_sample.drills.bench import TrialBench, warm_pool
from pumpdeck_sample.drills.d1 import FULL, QUICK, Tally, drill_crashes
from pumpdeck_sample.drills.d2 import drill_kills
from pumpdeck_sample.drills.d4 import drill_disk_errors
from pumpdeck_sample.drills.d5 import Extent, Flips, drill_flips
from pumpdeck_sample.drills.d6 import drill_bad_models
from pumpdeck_sample.drills.d7 import drill_clocks, drill_endless_crash, drill_worn_out
from pumpdeck_sample.drills.d9 import drill_orders, drill_two_at_once
from pumpdeck_sample.drills.d12 import drill_updates
from pumpdeck_sample.drills.d13 import drill_agent_upgrades
from pumpdeck_sample.drills.scenarios import Stories, make_stories
from pumpdeck_sample.drills.seeded_bugs import drill_seeded_bugs

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Room:
    """Where a drill works: an empty folder, a warm trial process, and how long it may take."""

    folder: Path
    pool: TrialRunner
    quick: bool

    @property
    def trials(self) -> TrialBench:
        """Real trials for disks in memory."""
        return TrialBench(self.folder / "trials", self.pool)

    def stories(self) -> Stories:
        """The scenarios, from new."""
        return make_stories(self.folder / "site", self.trials)

    def pick(self, quick: int, full: int) -> int:
        """A count for the short form and for the long one."""
        return quick if self.quick else full


def _counted(found: Tally | Flips) -> Figures:
    return {**found.figures(), "evidence": found.evidence}


def _crashes(room: Room) -> Figures:
    stories, began = room.stories(), time.monotonic()
    found = _counted(drill_crashes(stories, QUICK if room.quick else FULL))
    return {**found, "states_per_s": round(found["distinct"] / (time.monotonic() - began), 1)}


def _kills(room: Room) -> Figures:
    if os.name == "nt":
        return {"tried": 0, "not_run": "killing a fork needs a POSIX system"}
    from pumpdeck_agent.runtime import warm_up  # deferred: only this drill forks, and its forks need it loaded

    warm_up()
    return drill_kills(room.folder, room.pool, room.pick(20, 1000))


def _agent_upgrades(room: Room) -> Figures:
    if os.name == "nt":
        return {"tried": 0, "not_run": "the launcher of a device needs a POSIX system"}
    return drill_agent_upgrades(room.folder, room.pool, room.pick(2, 120))


DRILLS: Mapping[str, Callable[[Room], Figures]] = {
    "D1": _crashes,
    "D1m": lambda room: drill_seeded_bugs(room.stories(), room.pick(8, 1)),
    "D2": _kills,
    "D4": lambda room: _counted(drill_disk_errors(room.stories(), room.pick(11, 1))),
    "D5": lambda room: _counted(drill_flips(room.stories(), Extent(room.pick(41, 1)))),
    "D6": lambda room: drill_bad_models(room.folder, room.pool, fresh_too=not room.quick),
    "D7": lambda room: {**drill_endless_crash(stories := room.stories(), room.pick(9, 1)), **drill_worn_out(stories)},
    "D8": lambda room: drill_clocks(room.stories()),
    "D9": lambda room: drill_orders(room.folder, room.trials, room.pick(60, 2000)),
    "D10": lambda room: drill_two_at_once(room.folder, room.pool, room.pick(12, 200)),
    "D12": lambda room: drill_updates(room.folder, room.pool, room.pick(30, 1000)),
    "D13": _agent_upgrades,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one drill; one line of JSON on standard output."""
    parser = argparse.ArgumentParser(prog="pumpdeck_sample.drills.run", description=__doc__)
    parser.add_argument("drill", choices=DRILLS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pumpdeck-drill-") as folder, warm_pool() as pool:
        figures = DRILLS[options.drill](Room(Path(folder), pool, options.quick))
    sys.stdout.buffer.write(canonical.encode(figures) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
