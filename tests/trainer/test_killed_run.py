"""A console that is killed in mid-run: the next run takes up what was kept, and gives what an untroubled run gives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer.cache import PART_ENTRIES, FolderCache
from pumpdeck_trainer.pipeline import RunContext, train
from support.killed_run import REQUEST, SOURCE, SPEC

RUNNING = [sys.executable, "-m", "support.killed_run"]


def index(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((folder / "runs" / "index.json").read_text())
    return found


def stop_in_the_middle(folder: Path, workers: int, how: signal.Signals) -> None:
    """Start a run, and end it by that signal when more than one part of the run cache has been written."""
    running = subprocess.Popen(
        [*RUNNING, str(folder), str(workers)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        assert running.stdout
        for line in running.stdout:
            step, done, _ = line.split()
            if step == "fit" and int(done) >= PART_ENTRIES + 20:
                break
        else:
            raise AssertionError("it ended before it could be stopped")
        running.send_signal(how)
        # Not read to its end: workers that outlive a killed console for a while hold the pipe as well.
        running.wait(timeout=120)
    finally:
        running.kill()
        running.wait()
        if running.stdout:
            running.stdout.close()
    assert running.returncode != 0


@pytest.mark.parametrize(("workers", "how"), [(0, "killed"), (2, "killed"), (0, "ctrl-c")])
def test_a_second_run_goes_on_where_one_was_stopped(tmp_path: Path, workers: int, how: str) -> None:
    context = RunContext("c" * 64, "l" * 64)
    whole = train(SPEC, REQUEST, replace(SOURCE), context)
    stop_in_the_middle(tmp_path, workers, signal.SIGKILL if how == "killed" else signal.SIGINT)
    kept = index(tmp_path)
    # Who may still say goodbye gathers the parts; who may not leaves them to the next run.
    assert (kept["packs"] == [] and kept["parts"]) if how == "killed" else kept["packs"]

    source = replace(SOURCE)
    again = train(SPEC, REQUEST, source, replace(context, cache=FolderCache(tmp_path, RealFileSystem())))
    assert again.artifacts() == whole.artifacts()
    # Without the cache every pump is read once to learn, and those beyond what a run holds once more for the replay.
    untroubled = replace(SOURCE)
    train(SPEC, REQUEST, untroubled, context)
    assert source.reads <= untroubled.reads - PART_ENTRIES / 2
    ended = index(tmp_path)
    assert len(ended["packs"]) == (1 if how == "killed" else 2) and "parts" not in ended
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"index.json", *ended["packs"]}
    assert digest((tmp_path / "runs" / ended["packs"][0]).read_bytes()) == ended["packs"][0]
