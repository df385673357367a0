"""A training that is killed or interrupted at any step registers nothing; the next one ends with the same digest."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_console.operations.runs import list_runs
from pumpdeck_console.operations.snapshots import list_snapshots
from pumpdeck_console.wiring import open_workspace
from support.trained_workspace import kind_of, trained_row, workspace_with_rows

# Trains in the folder argv[1] and sends itself the signal argv[3] in the middle of the step argv[2], pump type argv[4].
CUT = """
import os, signal, sys
from pathlib import Path
from pumpdeck_console import main
# Tests that run in the background inherit an interrupt that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pumpdeck_console.cli import training
from pumpdeck_console.cli.session import ProgressLine

class Cut(ProgressLine):
    def __call__(self, step, done, total):
        if step.endswith(": " + sys.argv[2]) and done == total // 2:
            os.kill(os.getpid(), int(sys.argv[3]))
        super().__call__(step, done, total)

training.ProgressLine = Cut
sys.exit(main.main(["-w", sys.argv[1], "train", sys.argv[4]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by POSIX signals")
def test_a_training_cut_at_any_step_leaves_nothing_half_and_the_next_ends_the_same(tmp_path: Path) -> None:
    with workspace_with_rows(tmp_path / "whole") as whole:
        wanted = trained_row(whole)
    with workspace_with_rows(tmp_path / "cut") as workspace:
        kind = kind_of(workspace)
        model = f"{kind}-health"
        before = (workspace.store.registry.versions(model), workspace.store.registry.aliases(model), list_runs(workspace))
    cuts = [(step, signal.SIGKILL) for step in ("snapshot", "fit", "evaluate", "export")] + [("evaluate", signal.SIGINT)]
    for step, how in cuts:
        command = [sys.executable, "-c", CUT, str(tmp_path / "cut"), step, str(int(how)), kind]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), (step, done.stderr)
        with open_workspace(tmp_path / "cut") as workspace:
            registry = workspace.store.registry
            assert (registry.versions(model), registry.aliases(model), list_runs(workspace)) == before, step
            (held,) = [row for row in list_snapshots(workspace) if row.held]
            assert held.snapshot_digest == wanted.snapshot_digest, step
    with open_workspace(tmp_path / "cut") as workspace:
        found = trained_row(workspace)
    assert (found.content_digest, found.snapshot_digest) == (wanted.content_digest, wanted.snapshot_digest)
