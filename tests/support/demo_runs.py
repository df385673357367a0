"""Run `pumpdeck` as a user does: a process with arguments, an exit code, JSON on standard output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
