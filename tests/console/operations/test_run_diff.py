"""Two real runs told apart: by part, and by step with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.run_diff import diff_runs
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.telemetry import Label, Verdict
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, trained_row, workspace_with_rows


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "workspace")
    yield workspace
    workspace.close()


def pumps_of(workspace: Workspace) -> int:
    return sum(pump.type == kind_of(workspace) for pump in workspace.fleet.pumps)


def test_a_run_does_not_differ_from_itself(workspace: Workspace) -> None:
    row = trained_row(workspace)
    found = diff_runs(workspace, before=row.run, after=row.run[:12])
    assert (found.parts, found.same_content) == ((), True)
    assert [(one.step, one.same, one.pumps) for one in found.steps] == [
        ("fit", True, 0), ("evaluate", True, 0), ("export", True, 0)
    ]  # fmt: skip


def test_a_changed_threshold_runs_no_step_of_learning_again(workspace: Workspace) -> None:
    first, second = trained_row(workspace), trained_row(workspace, "[gates]\nslice_margin = 0.1\n")
    found = diff_runs(workspace, before=first.run, after=second.run)
    assert [(one.part, one.name, one.before, one.after) for one in found.parts] == [
        ("spec", "gates.slice_margin", "0.5", "0.1")
    ]
    assert {one.step: (one.same, one.why) for one in found.steps} == {
        "fit": (True, ""), "evaluate": (True, ""), "export": (False, "spec gates.slice_margin")
    }  # fmt: skip


def test_another_window_and_a_new_label_are_named_with_the_steps_they_reach(workspace: Workspace) -> None:
    first = trained_row(workspace)
    pump = workspace.fleet.pumps[0]
    with workspace.store.atomic() as store:
        store.labels.add(
            Label(pump.id, NOW_MS - 5 * DAY_MS, NOW_MS - 4 * DAY_MS, Verdict.FAULT, "seal", workspace.actor, NOW_MS)
        )
    labelled = trained_row(workspace)
    found = diff_runs(workspace, before=first.run, after=labelled.run)
    assert [one.name for one in found.parts if one.part == "data"] == [pump.id]
    (fit, evaluate, export) = found.steps
    assert (fit.same, fit.pumps, fit.why) == (False, 1, "rows of 1 pumps")
    assert evaluate.pumps >= 1 and export.pumps == pumps_of(workspace)
    assert not found.same_content
    wider = trained_row(workspace, "[features]\nwindow_s = 7200.0\n")
    found = diff_runs(workspace, before=labelled.run, after=wider.run)
    assert "window_s" in {one.name for one in found.parts if one.part == "spec"}
    assert found.steps[0].pumps == pumps_of(workspace) and "spec window_s" in found.steps[0].why


def test_an_unknown_run_is_said(workspace: Workspace) -> None:
    row = trained_row(workspace)
    with pytest.raises(NotFoundError):
        diff_runs(workspace, before=row.run, after="ffffffffffff")


def test_the_command_lists_parts_and_steps(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trained_row(workspace), trained_row(workspace, "[gates]\nslice_margin = 0.1\n")
    words = ["-w", str(workspace.root), "runs", "diff", first.run[:12], second.run[:12], "--json"]
    capsys.readouterr()
    assert main.main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["name"] == "gates.slice_margin" and "other bytes reach devices" in err
    assert main.main([*words, "--by", "step"]) == 0
    assert [row["step"] for row in json.loads(capsys.readouterr().out)] == ["fit", "evaluate", "export"]
