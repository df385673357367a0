"""Experiments: a branch is trained and compared, never registered; merging changes the spec file and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.experiments import (
    compare_experiments,
    list_experiments,
    merge_experiment,
    run_experiment,
    start_experiment,
)
from pumpdeck_console.operations.training import load_pipeline
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import ConflictError, InputError, NotFoundError, UsageError
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, trained_row, workspace_with_rows, write_spec

SPEC = "# ours\nseed = 3\n[alarm]\ndeadband = 0.6  # agreed in May\n"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "w")
    trained_row(workspace, SPEC)
    yield workspace
    workspace.close()


def test_a_branch_is_run_compared_and_merged(trained: Workspace) -> None:
    kind = kind_of(trained)
    model = f"{kind}-health"
    versions, aliases = trained.store.registry.versions(model), trained.store.registry.aliases(model)
    start_experiment(trained, name="wide", pump_type=kind, changes=["alarm.deadband=0.5", "features.window_s=7200.0"])
    with pytest.raises(NotFoundError):
        merge_experiment(trained, name="wide", reason="better")
    row = run_experiment(trained, name="wide")
    assert row.runs == 1 and row.snapshot_digest == versions[-1].lineage.snapshot_digest
    assert row.content_digest != versions[-1].content_digest
    found = {(one.part, one.name): (one.before, one.after) for one in compare_experiments(trained, before="wide")}
    assert found["spec", "alarm.deadband"] == ("0.6", "0.5")
    assert trained.store.registry.versions(model) == versions and trained.store.registry.aliases(model) == aliases
    assert merge_experiment(trained, name="wide", reason="better").merged
    text = (trained.pipelines_path / f"{kind}.toml").read_text(encoding="utf-8")
    assert "# ours" in text and "deadband = 0.5  # agreed in May" in text
    spec = load_pipeline(trained, trained.fleet.pump_types[kind])
    assert (spec.alarm.deadband, spec.window_s, spec.seed) == (0.5, 7200.0, 3)


def test_a_merge_waits_for_two_people_and_is_refused_when_the_pipeline_moved(trained: Workspace) -> None:
    kind = kind_of(trained)
    (trained.root / "policies.toml").write_text("format = 1\n[experiments]\nmerge_approvals = 2\n", encoding="utf-8")
    start_experiment(trained, name="wide", pump_type=kind, changes=["alarm.deadband=0.5"])
    run_experiment(trained, name="wide")
    with pytest.raises(UsageError):
        merge_experiment(trained, name="wide", reason=" ")
    path = trained.pipelines_path / f"{kind}.toml"
    before = path.read_bytes()
    for _ in range(2):
        report = merge_experiment(trained, name="wide", reason="better")
        assert (report.merged, report.missing_people) == (False, 1) and path.read_bytes() == before
    trained.__dict__["person"] = "somebody else"
    assert merge_experiment(trained, name="wide", reason="I looked").merged and path.read_bytes() != before
    start_experiment(trained, name="again", pump_type=kind, changes=["alarm.deadband=0.4"])
    run_experiment(trained, name="again")
    write_spec(trained, SPEC.replace("0.6", "0.65"))
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        merge_experiment(trained, name="again", reason="better")
    assert path.read_bytes() == before


def test_what_is_no_change_of_a_spec_is_refused_and_nothing_is_left(trained: Workspace) -> None:
    kind = kind_of(trained)
    for changes, error in ((["alarm.dead=1"], InputError), ([], UsageError), (["pump_type=x"], UsageError)):
        with pytest.raises(error):
            start_experiment(trained, name="bad", pump_type=kind, changes=changes)
    with pytest.raises(NotFoundError):
        start_experiment(trained, name="bad", pump_type="no-such", changes=["seed=2"])
    assert list_experiments(trained) == ()


def test_the_command_line_starts_lists_and_drops(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["-w", str(trained.root), "experiments"]
    assert main.main([*call, "start", "seeds", "--pipeline", kind_of(trained), "--set", "seed=9", "--json"]) == 0
    capsys.readouterr()
    assert main.main([*call, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["set"], row["runs"]) == ("seeds", {"seed": 9}, 0)
    assert main.main([*call, "compare", "seeds"]) == 6
    assert main.main([*call, "drop", "seeds"]) == 0
    assert main.main([*call, "drop", "seeds"]) == 6
