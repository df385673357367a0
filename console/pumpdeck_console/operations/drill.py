"""Run the fault drills on devices that are made for them and thrown away: what would a bad day do to ours?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.ports import Progress

_MODULE = "pumpdeck_sample.drills.run"
_OUTPUT_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill: the fault, and the figures that must be zero."""

    fault: str
    zero: tuple[str, ...]


_DEVICE = ("bricked", "wrong_model", "cannot_retry", "lost", "leaked")
DRILLS: Mapping[str, Drill] = {
    "D1": Drill("power cut at every storage step, three file systems, again while it recovers", _DEVICE),
    "D1m": Drill("each sync, order and hash check left out: do the drills notice?", ("missed", "false_alarms")),
    "D2": Drill("SIGKILL at every step and at random moments: three sizes, shadow hours, a downgrade", _DEVICE[:3]),
    "D4": Drill("no space, I/O error, read-only at every write", _DEVICE),
    "D5": Drill("bytes of store and state flipped in turn", ("bricked", "silent", "cannot_retry")),
    "D6": Drill("models that are broken, slow, big, hang or crash", ("committed", "stopped_scoring")),
    "D7": Drill("endless crash in the trial, power cut on each of 20 boots", ("bricked", "too_many", "not_given_up")),
    "D8": Drill("clocks ten years off, and jumping", ("other_decisions",)),
    "D9": Drill("commands repeated and in any order", ("other_effects", "words_taken_twice", "defects")),
    "D10": Drill("two deliverers at once", ("other_effects", "defects")),
    "D12": Drill(
        "updates in a row while scoring", ("not_committed", "rows_lost", "rows_refused", "descriptors_leaked", "files_leaked")
    ),
    "D13": Drill(
        "the agent changed over SSH and by stick: SIGKILL at its steps and on probation, broken agents",
        ("bricked", "wrong_agent", "cannot_retry", "broken_kept"),
    ),
}


@operation("drill", runs_in="worker")
def run_drills(names: Sequence[str] = (), *, quick: bool = False, on_progress: Progress = no_progress) -> dict[str, Any]:
    """The figures of each drill by its name; `ok` says that what must be zero is. No names: all of them.

    Raises:
        NotFoundError: there is no such drill.
        PumpdeckError: a drill did not come to its end.
    """
    wanted = list(names) or list(DRILLS)
    for name in wanted:
        if name not in DRILLS:
            raise NotFoundError("no such drill", name, expected=f"one of {', '.join(DRILLS)}")
    found = {}
    for place, name in enumerate(wanted):
        on_progress(name, place, len(wanted))
        found[name] = _run(name, quick)
    on_progress("drill", len(wanted), len(wanted))
    return found


def _run(name: str, quick: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", _MODULE, name, *(["--quick"] if quick else [])]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"}, check=False)
    if done.returncode != 0:
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise PumpdeckError("the drill did not come to its end", name, found=" ".join(tail))
    figures = dict(canonical.parse_json(done.stdout.strip(), name, max_bytes=_OUTPUT_MAX_BYTES))
    is_ok = not any(figures.get(key, 0) for key in DRILLS[name].zero)
    return {**figures, "ok": is_ok, "seconds": round(time.monotonic() - began, 1)}
