"""The profile of a version, really measured, and the gate that holds device classes against the rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.profiles import latest_profile, parse_profile
from pumpdeck_console.operations.profiling import GraphSize, profile_gate, profile_version
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.registry import GateVerdict
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, trained_row, workspace_with_rows

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "workspace")
    yield workspace
    workspace.close()


def test_every_setting_is_measured_kept_and_named_in_the_audit_chain(workspace: Workspace) -> None:
    row = trained_row(workspace)
    report = profile_version(workspace, model=row.model, which=str(row.version))
    tried = [(one.threads, one.spinning, one.batch) for one in report.figures]
    assert tried == [(t, s, b) for t, s in ((1, False), (2, False), (2, True)) for b in (1, 60, 1440)]
    for one in report.figures:
        assert 0 < one.p50_us <= one.p99_us and one.rss_mb > 20 and one.cpu_us > 0 and one.load_ms > 0
        assert one.cpu_pct == pytest.approx(100 * one.cpu_us / 1e6 / (report.cadence_s * one.batch), abs=1e-4)
    by_batch = {one.batch: one.rows_per_s for one in report.figures if one.threads == 1}
    assert by_batch[1440] > 10 * by_batch[1]
    version = workspace.store.registry.version(row.model, row.version)
    assert latest_profile(workspace, version) == report


def test_a_kept_profile_of_this_format_is_read_by_every_later_program() -> None:
    data = (GOLDEN / "profile.json").read_bytes()
    report = parse_profile(data, canonical.digest(data))
    assert (report.figures[0].p99_us, report.classes[0].device_class, report.agrees) == (21.4, "edge-x86", True)
    assert canonical.encode(replace(report, profile_digest="")) == data
    with pytest.raises(FormatError, match="unknown format"):
        parse_profile(data.replace(b'"format":1', b'"format":9'), canonical.digest(data))


def test_the_profile_changes_neither_version_nor_package_settings(workspace: Workspace) -> None:
    row = trained_row(workspace)
    before = workspace.store.registry.version(row.model, row.version)
    profile_version(workspace, model=row.model)
    assert workspace.store.registry.version(row.model, row.version) == before


def test_a_class_that_is_too_small_or_too_old_refuses_the_model(workspace: Workspace) -> None:
    kind = kind_of(workspace)
    assert profile_gate(workspace, kind, GraphSize(500)).verdict is GateVerdict.PASS
    assert profile_gate(workspace, kind, GraphSize(60 * 1024 * 1024)).verdict is GateVerdict.REFUSE
    newer = profile_gate(workspace, kind, GraphSize(500, opset=21))
    assert newer.verdict is GateVerdict.REFUSE and "needs opset 21" in newer.reason
    classes = dict(workspace.fleet.device_classes)
    old = {name: replace(one, highest_opset=12) for name, one in classes.items()}
    workspace.fleet = replace(workspace.fleet, device_classes=old)  # type: ignore[misc]
    found = profile_gate(workspace, kind, GraphSize(500))
    assert found.verdict is GateVerdict.REFUSE and "needs opset 13, the class runs 12" in found.reason


def test_the_command_shows_figures_and_rule(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    row = trained_row(workspace)
    capsys.readouterr()
    words = ["-w", str(workspace.root), "models", "profile", row.model, "--by", "class", "--json"]
    assert main.main(words) == 0
    out, err = capsys.readouterr()
    (only,) = json.loads(out)
    assert (only["verdict"], only["threads"], only["spinning"]) == ("pass", 1, False)
    assert "the rule" in err
