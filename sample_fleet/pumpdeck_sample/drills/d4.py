"""D4: no space, I/O error, read-only file system at every write, once or until somebody repairs it."""

from __future__ import annotations

import errno
import os

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_sample.drills.d1 import FULL, CrashDrill, Tally
from pumpdeck_sample.drills.disk import Fault, RecordingDisk, Step, StepKind
from pumpdeck_sample.drills.scenarios import Scenario, Stories, Word

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
# A full disk still renames, removes and syncs; one that fails or is read-only does nothing more.
_NEEDS_SPACE = (StepKind.LINK, StepKind.MKDIR, StepKind.WRITE)


def drill_disk_errors(stories: Stories, every: int = 1) -> Tally:
    """D4 over all scenarios; only every `every`-th step in the short form."""
    tally = Tally()
    for scenario in stories.scenarios:
        checks = CrashDrill(stories, FULL, tally)
        whole = RecordingDisk(scenario.start)
        for _ in scenario.run(stories.maker.agent(whole, stories.trials.on(whole))):
            pass
        count = len(whole.steps)
        tally.points += count
        for at in range(0, count, every):
            for number in ERRORS:
                for stays in (False, True):
                    where = f"{scenario.name}, {errno.errorcode[number]} at step {at}{' and on' if stays else ''}"
                    _fail(stories, scenario, checks, tally, (_fault(at, number, stays), where))
    return tally


def _fail(stories: Stories, scenario: Scenario, checks: CrashDrill, tally: Tally, how: tuple[Fault, str]) -> None:
    fault, where = how
    disk = RecordingDisk(scenario.start, fault=fault)
    said: list[Word] = []
    tally.tried += 1
    try:
        for word in scenario.run(stories.maker.agent(disk, stories.trials.on(disk))):
            said.append(word)
    except (PumpdeckError, OSError):
        pass
    except Exception as error:  # noqa: BLE001 - anything else is a defect, which is what is looked for
        tally.blame("bricked", f"{where}: {type(error).__name__}: {error}")
    found = checks.verdict(scenario, disk.image(), said)
    tally.distinct += 1
    if found is not None:
        tally.blame(found[0], f"{where}: {found[1]}")


def _fault(at: int, number: int, stays: bool) -> Fault:
    done = 0

    def fail(step: Step) -> None:
        nonlocal done
        done += 1
        is_due = done > at if stays else done == at + 1
        if is_due and (number != errno.ENOSPC or step.kind in _NEEDS_SPACE):
            raise OSError(number, os.strerror(number), step.path)

    return fail
