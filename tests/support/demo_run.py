"""A demo run as a user runs it: a process of its own, its JSON, and copies of its folders to be spoiled."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END = "2026-03-01T06:00:00Z"
END_MS = 1_772_344_800_000
DAY_MS = 86_400_000
SIZE = ("--sites", "2", "--devices", "2", "--pumps", "4")
TIMEOUT_S = 240.0


@dataclass(frozen=True)
class DemoRun:
    """One finished run: exit code, summary, what it said, and where its things are."""

    workspace: Path
    code: int
    summary: Mapping[str, Any]
    talk: str

    @property
    def beside(self) -> Path:
        """The folder of what would stand elsewhere: keys, devices, history."""
        return self.workspace.with_name(self.workspace.name + "-demo")

    @property
    def history(self) -> Path:
        return self.beside / "history"

    @property
    def devices(self) -> list[Path]:
        """Root folders of all devices."""
        return sorted((self.beside / "simulation" / "devices").iterdir())

    @property
    def database(self) -> Path:
        return self.workspace / "pumpdeck.db"

    def evidence(self, step: str) -> Mapping[str, Any]:
        """What a step found."""
        return self.summary["steps"][step]["evidence"]

    def steps_not_ok(self) -> set[str]:
        """Names of the steps that are not ok."""
        return {name for name, step in self.summary["steps"].items() if not step["ok"]}

    def problems(self, step: str) -> str:
        """The problems of a step, as one text."""
        return "\n".join(self.evidence(step)["problems"])


def run_demo(workspace: Path, *, on_line: Callable[[str], None] | None = None) -> DemoRun:
    """`pumpdeck demo --no-tui --json` on a new or an existing demo; `on_line` hears its standard error while it runs."""
    command = [sys.executable, "-m", "pumpdeck_console.main", "-w", str(workspace)]
    command += ["demo", "--no-tui", "--json", *SIZE, "--end", END]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if on_line is not None:
            on_line(line)
    out, _ = process.communicate(timeout=TIMEOUT_S)
    talk = "".join(said)
    assert out, f"no summary; exit code {process.returncode}; {talk}"
    return DemoRun(workspace, process.returncode, json.loads(out), talk)


def copy_demo(run: DemoRun, workspace: Path) -> Path:
    """The same demo in other folders: what is done to the copy leaves the original alone."""
    shutil.copytree(run.workspace, workspace)
    beside = workspace.with_name(workspace.name + "-demo")
    shutil.copytree(run.beside, beside)
    for path in (workspace / "settings.toml", beside / "demo.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace(json.dumps(str(run.beside))[1:-1], json.dumps(str(beside))[1:-1]).replace(
                json.dumps(str(run.workspace)), json.dumps(str(workspace))
            ),
            encoding="utf-8",
        )
    return workspace


def process_of_simulator(line: str) -> int | None:
    """The process id in `.. devices run in process N`, if the line says it."""
    match = re.search(r"devices? runs? in process (\d+)", line)
    return int(match.group(1)) if match else None
