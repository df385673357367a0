"""`python -m pumpdeck_console.demo.keeper`: keeps a demo alive beside the console.

The console's process stays light: this one makes the demo, runs its devices, lets rollouts go on and collects. It says
what it does in lines of JSON on standard output (`progress`, then once `open`, or `error`) and ends when its standard
input ends.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import argparse
import contextlib
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pumpdeck_console.demo.delivering import start_rollout
from pumpdeck_console.demo.home import DemoHome, DemoSize
from pumpdeck_console.demo.learning import ingest, package, train
from pumpdeck_console.demo.making import start_devices
from pumpdeck_console.demo.run import DemoOptions, made_demo, settle_endpoints
from pumpdeck_console.demo.steps import Stage, Step
from pumpdeck_console.operations.delivering import collect, tick
from pumpdeck_console.operations.rollouts import list_rollouts
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import EXIT_DEFECT, PumpdeckError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rollout_states import RolloutState

COLLECT_EVERY_S = 20.0
PAUSE_S = 1.0


class Keeper:
    """One demo being kept alive."""

    def __init__(self, home: DemoHome, options: DemoOptions) -> None:
        self._home = home
        self._options = options
        self._fs = RealFileSystem()
        self._clock = SystemClock()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Make the demo if need be, say `open`, and keep it going until told to stop."""
        mark = made_demo(self._home, self._options, self._fs, self._clock, self._progress)
        with (
            start_devices(self._home, mark, is_live=True) as devices,
            open_workspace(self._home.workspace, fs=self._fs) as workspace,
        ):
            stage = Stage(workspace, self._home, mark, self._progress)
            settle_endpoints(self._home, workspace, devices.wait_ready())
            if not mark.is_ready:
                for step in (ingest, train, package):
                    self._do(step, stage)
                start_rollout(stage)
                self._home.write_mark(self._fs, replace(mark, is_ready=True))
            say("open", devices=len(workspace.fleet.devices), processes=len(mark.processes))
            self._keep(workspace)

    def _do(self, step: Step, stage: Stage) -> None:
        found = step(stage)
        if found.problems:
            more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
            raise RefusedError("the demo could not be made", step.__name__, found=found.problems[0] + more)

    def _keep(self, workspace: Workspace) -> None:
        collected_s = -COLLECT_EVERY_S
        while not self.stopping.is_set():
            # A device that fails is shown by the console; the demo goes on with the others.
            with contextlib.suppress(PumpdeckError):
                tick(workspace)
                is_running = any(one.state is RolloutState.RUNNING for one in list_rollouts(workspace))
                if not is_running and time.monotonic() - collected_s > COLLECT_EVERY_S:
                    collect(workspace)
                    collected_s = time.monotonic()
            self.stopping.wait(PAUSE_S)

    def _progress(self, step: str, done: int, total: int) -> None:
        if self.stopping.is_set():
            raise KeyboardInterrupt
        say("progress", step=step, done=done, total=total)


def say(event: str, **words: Any) -> None:
    """One line of JSON for the console's process."""
    sys.stdout.buffer.write(canonical.encode({"event": event, **words}) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Keep the demo that the arguments name; the exit code of what went wrong, if anything did."""
    parser = argparse.ArgumentParser(prog="pumpdeck_console.demo.keeper", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=4, required=True, metavar=("SITES", "DEVICES", "PUMPS", "SEED"))
    parser.add_argument("--end-ms", type=int, default=0)
    given = parser.parse_args()
    keeper = Keeper(DemoHome(given.workspace), DemoOptions(DemoSize(*given.size), given.end_ms))
    threading.Thread(target=_watch_input, args=(keeper.stopping,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            keeper.run()
    except PumpdeckError as error:
        say("error", **error.as_dict())
        return error.exit_code
    except Exception as error:
        say("error", what=f"a defect: {type(error).__name__}: {error}", exit_code=EXIT_DEFECT)
        raise
    return 0


def _watch_input(stopping: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin.buffer.read(1):
            pass
    stopping.set()


if __name__ == "__main__":
    sys.exit(main())
