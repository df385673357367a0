"""Logs of runs: followed while they work, told apart when they were killed, kept with the run that ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_console.operations import run_logs
from pumpdeck_console.operations.experiments import run_experiment, start_experiment
from pumpdeck_console.operations.run_logs import follow, list_live, read_log, recording, show_run
from pumpdeck_console.operations.runs import list_runs, read_run
from pumpdeck_console.operations.training import train_models
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_console.worker_process import CancelledError
from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.errors import GateRefusedError, NotFoundError
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_trainer.run_log import LogLine, no_listener
from support.trained_workspace import kind_of, trained_row, workspace_with_rows, write_spec

EXTRA = """
import sys, time
from pathlib import Path
from pumpdeck_console.operations.run_logs import recording
from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_trainer.run_log import no_listener
with open_workspace(Path(sys.argv[1])) as workspace, recording(workspace, "esp", "train", no_listener) as recorder:
    recorder.log.progress("fit", 3, 10)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs") / "workspace"
    workspace = workspace_with_rows(root)
    trained_row(workspace)
    workspace.close()
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return workspace_with_rows(tmp_path / "workspace")


def test_the_log_of_a_run_names_its_steps_and_verdicts_and_is_kept_with_it(trained: Path) -> None:
    with open_workspace(trained) as workspace:
        (run,) = list_runs(workspace)
        record = show_run(workspace, run=run.run[:10])
        (live,) = list_live(workspace)
        kept, newest = read_log(workspace, run=run.run[:10]), read_log(workspace)
        # The record itself stays what its digest says.
        assert digest(workspace.artifacts.get(run.run)) == run.run
        assert "log" not in read_run(workspace, run=run.run)
    steps = [line["step"] for line in record["log"] if line["event"] == "done"]
    assert steps == ["snapshot", "fit", "evaluate", "export"]
    assert all(line["seconds"] >= 0 for line in record["log"] if line["event"] == "done")
    told = [line["text"].split()[0] for line in record["log"] if line["event"] == "gate"]
    assert told[0] == "parity" and told[-4:] == ["champion", "slices", "coverage", "profile"]
    assert live.state == "registered" and live.seconds is not None and live.left_s is None
    assert [one.plain() for one in kept.lines] == record["log"]
    assert newest.lines[0].event == "begin" and newest.lines[-1].event == "end"


def test_a_second_run_says_what_came_from_the_cache_and_the_newest_log_is_shown(trained: Path) -> None:
    with open_workspace(trained) as workspace:
        first = list_runs(workspace)[-1]
        row = trained_row(workspace)
        assert row.run == first.run and not row.is_new
        lines = show_run(workspace, run=row.run)["log"]
        assert list_live(workspace)[0].state == "known"
    cached = {line["step"]: line["cached"] for line in lines if line["event"] == "done"}
    # A pump that is known to stay quiet is judged without a replay, and then there is nothing to keep of it.
    assert cached["snapshot"] == cached["export"] == 0 and cached["fit"] == row.pumps and cached["evaluate"] <= row.pumps


def test_a_pump_whose_rows_are_mostly_left_out_is_in_the_log_while_the_run_works(workspace: Workspace) -> None:
    lone = next(pump.id for pump in workspace.fleet.pumps if pump.type == kind_of(workspace))
    span = workspace.store.telemetry.span(lone)
    assert span is not None
    middle = (span[0] + span[1]) // 2
    with workspace.store.atomic() as store:
        store.labels.add(Label(lone, span[0], middle, Verdict.FAULT, "seal", "crew", middle))
    heard: list[LogLine] = []
    write_spec(workspace, "")
    train_models(workspace, pump_type=kind_of(workspace), on_log=heard.append)
    workspace.close()
    trouble = next(place for place, line in enumerate(heard) if line.event == "pump")
    assert heard[trouble].pump == lone and heard[trouble].text.startswith("many rows left out: 5")
    assert "evaluate" in {line.step for line in heard[trouble:] if line.event == "step"}


def test_a_run_that_is_cancelled_or_refused_says_so_and_stays_readable(workspace: Workspace) -> None:
    def stop(step: str, _done: int, _total: int) -> None:
        if step.endswith("evaluate"):
            raise CancelledError("stopped as asked")

    with pytest.raises(CancelledError):
        train_models(workspace, pump_type=kind_of(workspace), on_progress=stop)
    write_spec(workspace, "[gates]\nreplay_alarms_refuse = 0.0\nreplay_alarms_warn = 0.0\n[alarm]\nbudget_alarms = 5000\n")
    with pytest.raises(GateRefusedError):
        train_models(workspace, pump_type=kind_of(workspace))
    refused, cancelled = list_live(workspace)
    view = read_log(workspace, run=cancelled.name)
    workspace.close()
    assert (cancelled.state, refused.state) == ("cancelled", "refused")
    assert [line.step for line in view.lines if line.event == "done"] == ["snapshot", "fit", "evaluate"]


def test_a_run_that_works_is_followed_and_one_that_was_killed_is_told_apart(trained: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", EXTRA, str(trained)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        with open_workspace(trained) as workspace:
            live = list_live(workspace)[0]
            assert (live.state, live.step, live.done, live.total) == ("running", "fit", 3, 10)
            view = read_log(workspace)
            assert view.state == "running" and view.lines[-1].event == "progress"
            assert read_log(workspace, run=view.name, after_bytes=view.next_bytes).lines == ()
            child.kill()
            child.wait()
            assert list_live(workspace)[0].state == "cut"
            seen = list(follow(lambda after: read_log(workspace, run=view.name, after_bytes=after), lambda: None))
            assert [line.event for lines in seen for line in lines] == ["begin", "step", "progress"]
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_only_the_newest_logs_stay(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_logs, "KEEP_LOGS", 3)
    for number in range(5):
        with recording(workspace, "esp", f"run {number}", no_listener):
            pass
    found = list_live(workspace)
    workspace.close()
    assert [one.text for one in found] == ["done"] * 3
    assert len({one.name for one in found}) == 3


def test_an_experiment_has_a_log_too_and_an_unknown_run_is_not_found(workspace: Workspace) -> None:
    start_experiment(workspace, name="wide", pump_type=kind_of(workspace), changes=["features.window_s=7200.0"])
    run_experiment(workspace, name="wide")
    assert list_live(workspace)[0].name.startswith("wide-")
    assert any(line.event == "gate" for line in read_log(workspace).lines)
    with pytest.raises(NotFoundError, match="no such training run"):
        read_log(workspace, run="beef")
    workspace.close()
