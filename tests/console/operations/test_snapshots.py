"""Snapshots as people see them: shown, compared, exported, kept by retention, and read from a notebook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pumpdeck_console import api, main, wiring
from pumpdeck_console.operations.replaying import replay_run
from pumpdeck_console.operations.runs import list_runs
from pumpdeck_console.operations.snapshots import diff_snapshots, list_snapshots
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, FixedClock
from pumpdeck_fleet.core.errors import ConflictError, UsageError
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, trained_row, workspace_with_rows

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "w")
    trained_row(workspace)
    yield workspace
    workspace.close()


def held(workspace: Workspace) -> list[str]:
    return [row.snapshot_digest for row in list_snapshots(workspace) if row.held]


def call(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.main(["-w", str(workspace.root), *words])
    out, err = capsys.readouterr()
    return code, out, err


def change(workspace: Workspace) -> str:
    """Another value in one row, a row flagged, three rows more and a labelled fault, of one pump."""
    pump = next(pump.id for pump in workspace.fleet.pumps if pump.type == kind_of(workspace))
    start = NOW_MS - 5 * DAY_MS
    rows = workspace.store.telemetry.frame(pump, start, start + HOUR_MS)
    values, flags = rows.values[:2].copy(), rows.flags[:2].copy()
    values[0] *= 1.5
    flags[1] = 1
    more = rows.at_ms[:3] + 1_000
    with workspace.store.atomic() as store:
        store.telemetry.append(pump, TelemetryFrame(rows.channels, rows.at_ms[:2], values, flags))
        store.telemetry.append(pump, TelemetryFrame(rows.channels, more, rows.values[:3], np.zeros(3, np.uint16)))
        store.labels.add(Label(pump, start, start + HOUR_MS, Verdict.FAULT, "seal", workspace.actor, NOW_MS))
    return pump


def test_a_diff_tells_rows_flags_labels_and_distributions(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (before,) = held(trained)
    pump = change(trained)
    trained_row(trained)
    (after,) = set(held(trained)) - {before}
    found = diff_snapshots(trained, before=before[:10], after=after[:10])
    (row,) = found.pumps
    assert (row.pump, row.change, row.added, row.removed, row.changed, row.flags) == (pump, "changed", 3, 0, 1, 1)
    assert len(row.left_out_added) == 1 and not row.left_out_removed
    assert {one.pump for one in found.channels} == {pump}
    assert all(one.psi is not None and 0 <= one.psi < 0.01 for one in found.channels)
    code, out, _ = call(trained, capsys, "snapshots", "diff", before, after, "--by", "channel", "--json")
    assert code == 0 and len(json.loads(out)) == len(found.channels)
    assert diff_snapshots(trained, before=before, after=before).pumps == ()


def test_an_export_holds_the_rows_of_the_snapshot_and_not_those_of_now(
    trained: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (digest,) = held(trained)
    _, out, _ = call(trained, capsys, "snapshots", "show", digest[:8], "--json")
    rows = sum(part["rows"] for part in json.loads(out))
    change(trained)
    code, out, _ = call(trained, capsys, "snapshots", "export", digest, "--to", str(tmp_path / "out"), "--json")
    report = json.loads(out)
    assert (code, report["rows"], report["snapshot_digest"]) == (0, rows, digest)
    files = sorted((tmp_path / "out").glob("site=*/date=*/rows.parquet"))
    assert len(files) == report["files"] > 10
    assert sum(len(pd.read_parquet(file)) for file in files) == rows
    assert json.loads((tmp_path / "out" / "snapshot.json").read_bytes())["snapshot"] == digest
    code, _, err = call(trained, capsys, "snapshots", "export", digest, "--to", str(tmp_path / "out"))
    assert code == ConflictError.exit_code and "not empty" in err


def test_retention_keeps_what_a_live_version_needs_and_says_so(
    trained: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (digest,) = held(trained)
    rows = trained.store.telemetry.total_rows()
    assert call(trained, capsys, "retention", "--yes")[0] == 0
    (trained.root / "policies.toml").write_text("format = 1\n[retention]\ntelemetry_days = 5\n", encoding="utf-8")
    code, _, err = call(trained, capsys, "retention", "--yes")
    assert code == 3 and "candidate" in err and "Kept" in err
    assert trained.store.telemetry.total_rows() == rows and held(trained) == [digest]
    assert replay_run(trained, run=list_runs(trained)[0].run).same
    assert call(trained, capsys, "retention", "--yes", "--force")[0] == UsageError.exit_code
    assert call(trained, capsys, "retention", "--yes", "--force", "--reason", "disk full")[0] == 0
    assert trained.store.telemetry.total_rows() < rows and held(trained) == []
    code, out, _ = call(trained, capsys, "audit", "list", "--json")
    (told,) = [entry["reason"] for entry in json.loads(out) if entry["action"] == "retention"]
    assert "no longer replayable" in told and "(candidate)" in told and "disk full" in told


def test_the_example_for_notebooks_runs(trained: Workspace) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"FOLDER": trained.root}
    exec(example, names)
    pumps, rows, day = names["pumps"], names["rows"], names["day"]
    assert isinstance(pumps, pd.DataFrame) and isinstance(rows, pd.DataFrame) and isinstance(day, pd.DataFrame)
    assert len(pumps) and len(rows) and len(day) and str(day.index.tz) == "UTC"
    assert isinstance(names["at"], pd.Timestamp)


def test_a_notebook_reads_while_others_write_and_never_writes(trained: Workspace) -> None:
    with api.open_workspace(trained.root) as notebook, trained.store.atomic() as store:
        before = len(notebook.runs())
        store.audit.append("tester", "test", "nothing")
        assert len(notebook.runs()) == before == 1
        with pytest.raises(Exception, match=r"(?i)read-?only|readonly"):
            notebook._workspace.store.labels._sql._sql.execute("DELETE FROM label")
        with pytest.raises(UsageError):
            notebook.telemetry(trained.fleet.pumps[0].id, since="yesterday")
