"""Run `pumpdeck` as a user does: a process with arguments, an exit code, JSON on standard output."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END = "2026-01-31T00:00:00Z"
SMALL = ("--sites", "2", "--devices", "3", "--pumps", "4", "--end", END)
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


def command(*words: str) -> list[str]:
    """The command line of `pumpdeck` in this very installation."""
    return [sys.executable, "-m", "pumpdeck_console.main", *words]


def environment(**more: str) -> dict[str, str]:
    """This process' environment without what would lead the command elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PUMPDECK_")}
    return {**kept, "NO_COLOR": "1", **more}


def run(*words: str, timeout_s: float = TIMEOUT_S, env: Mapping[str, str] | None = None) -> Ran:
    """Run one command to its end."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        timeout=timeout_s,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


@dataclass(frozen=True)
class Demo:
    """The folders of one demo, and what its last run said."""

    workspace: Path
    summary: dict[str, Any]

    @property
    def beside(self) -> Path:
        return self.workspace.with_name(self.workspace.name + "-demo")

    @property
    def devices(self) -> Path:
        return self.beside / "simulation" / "devices"

    @property
    def history(self) -> Path:
        return self.beside / "history"

    def evidence(self, step: str) -> dict[str, Any]:
        """What one step put forward."""
        found = self.summary["steps"][step]["evidence"]
        assert isinstance(found, dict)
        return found

    def mark(self) -> dict[str, Any]:
        """What the demo folder says of itself."""
        found = json.loads((self.beside / "demo.json").read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def copy_to(self, folder: Path) -> Demo:
        """The same demo in other folders, with nothing of the old ones in it."""
        for one in (self.workspace, self.beside):
            shutil.copytree(one, folder / one.name)
        return Demo(folder / self.workspace.name, self.summary)

    def again(self) -> Ran:
        """Run the loop over the same demo."""
        return run("-w", str(self.workspace), "demo", "--no-tui", "--json")

    def watched(self, *options: str) -> Watched:
        """Start the loop over this demo; the caller looks after the process."""
        return Watched(command("-w", str(self.workspace), "demo", "--no-tui", "--json", *options))


class Watched:
    """A demo that runs: tells which process is which device as soon as the demo says so."""

    _DEVICE = re.compile(r"Device (\S+) runs as process (\d+)")
    _SIMULATOR = re.compile(r"\d+ devices run in process (\d+)")

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def device_pid(self, device: str, timeout_s: float = 60.0) -> int:
        """The process of a device's agent, once the demo has said it."""
        return int(self._wait(self._DEVICE, device, timeout_s)[1])

    def simulator_pid(self, timeout_s: float = 60.0) -> int:
        """The process that is all other devices, once the demo has said it."""
        return int(self._wait(self._SIMULATOR, None, timeout_s)[0])

    def end(self, timeout_s: float = TIMEOUT_S) -> Ran:
        """Wait for its end. A demo that hangs is killed and fails the test."""
        try:
            # The thread reads standard error, so only standard output is read here.
            assert self._process.stdout is not None
            out: list[bytes] = []
            reader = threading.Thread(target=lambda: out.append(self._process.stdout.read()), daemon=True)  # type: ignore[union-attr]
            reader.start()
            code = self._process.wait(timeout_s)
            reader.join(timeout_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
        return Ran(code, out[0].decode("utf-8"), "".join(self._lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._said:
                self._lines.append(line.decode("utf-8", "replace"))
                self._said.notify_all()

    def _wait(self, pattern: re.Pattern[str], first: str | None, timeout_s: float) -> tuple[str, ...]:
        def found() -> tuple[str, ...] | None:
            matches = [match.groups() for line in self._lines for match in pattern.finditer(line)]
            return next((groups for groups in matches if first is None or groups[0] == first), None)

        with self._said:
            if not self._said.wait_for(found, timeout_s):
                raise AssertionError(f"the demo did not say which process it is: {''.join(self._lines)}")
            groups = found()
        assert groups is not None
        return groups
