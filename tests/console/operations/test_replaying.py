"""A run done again from its record: the same bytes, or a refusal that says what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.replaying import replay_run
from pumpdeck_console.operations.run_export import export_run, replay_file
from pumpdeck_console.operations.runs import list_runs
from pumpdeck_console.operations.training import train_models
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from support.seeded_workspace import seeded_workspace
from support.small_fleet import NOW_MS


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with a week of rows of one pump type and one training run over them."""
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    seeded_workspace(tmp_path / "workspace").close()
    with open_workspace(tmp_path / "workspace") as workspace:
        kind = workspace.fleet.pumps[0].type
        channels = workspace.fleet.pump_types[kind].channels
        at_ms = np.arange(NOW_MS - 8 * DAY_MS, NOW_MS - DAY_MS, 10 * MINUTE_MS, dtype=np.int64)
        middle = np.array([(one.low + one.high) / 2 for one in channels])
        width = np.array([(one.high - one.low) / 100 for one in channels])
        with workspace.store.atomic() as store:
            for number, pump in enumerate(pump for pump in workspace.fleet.pumps if pump.type == kind):
                noise = np.random.default_rng(number).standard_normal((len(at_ms), len(channels)))
                values = (middle + width * noise).astype(np.float32)
                names = tuple(one.name for one in channels)
                store.telemetry.append(pump.id, TelemetryFrame(names, at_ms, values, np.zeros(len(at_ms), np.uint16)))
        train_models(workspace, pump_type=kind)
        yield workspace


def test_a_replay_gives_the_same_digest_and_registers_nothing(trained: Workspace) -> None:
    (run,) = list_runs(trained)
    versions = len(trained.store.registry.versions(run.model))
    report = replay_run(trained, run=run.run[:10])
    assert (report.same, report.same_code, report.same_lock) == (True, True, True)
    assert report.replayed_digest == report.content_digest == run.content_digest
    assert len(trained.store.registry.versions(run.model)) == versions and len(list_runs(trained)) == 1


def test_the_command_says_so(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run = list_runs(trained)[0].run
    assert main.main(["-w", str(trained.root), "runs", "replay", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True


def _relabel(trained: Workspace) -> None:
    pump = trained.fleet.pumps[0].id
    label = Label(pump, NOW_MS - 3 * DAY_MS, NOW_MS - 3 * DAY_MS + HOUR_MS, Verdict.FAULT, "seal", trained.actor, NOW_MS)
    with trained.store.atomic() as store:
        store.labels.add(label)


def test_a_run_gives_the_same_bytes_after_late_rows_and_new_labels(trained: Workspace) -> None:
    (run,) = list_runs(trained)
    _relabel(trained)
    pump = trained.fleet.pumps[0].id
    before = trained.store.telemetry.chunk_digests(pump, 0, NOW_MS)
    late = trained.store.telemetry.frame(pump, NOW_MS - 4 * DAY_MS, NOW_MS - 4 * DAY_MS + HOUR_MS)
    with trained.store.atomic() as store:
        store.telemetry.append(pump, TelemetryFrame(late.channels, late.at_ms, late.values * 2, late.flags))
    changed = set(before) - set(trained.store.telemetry.chunk_digests(pump, 0, NOW_MS))
    assert len(changed) == 1 and trained.store.snapshots.aside()[0] == 1
    assert replay_run(trained, run=run.run).replayed_digest == run.content_digest


def test_a_run_whose_snapshot_was_let_go_is_refused_when_labels_changed_and_one_that_is_not_there_not_found(
    trained: Workspace,
) -> None:
    (run,) = list_runs(trained)
    with trained.store.atomic() as store:
        store.snapshots.release([run.snapshot_digest])
    assert replay_run(trained, run=run.run).same
    _relabel(trained)
    with pytest.raises(RefusedError, match="have changed since"):
        replay_run(trained, run=run.run)
    with pytest.raises(NotFoundError):
        replay_run(trained, run="feed")


def test_an_exported_run_gives_the_same_digest_in_another_workspace(
    trained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = list_runs(trained)
    file = tmp_path / "run.tar"
    assert main.main(["-w", str(trained.root), "runs", "export", run.run, "--to", str(file), "--json"]) == 0
    seeded_workspace(tmp_path / "other").close()
    capsys.readouterr()
    assert main.main(["-w", str(tmp_path / "other"), "runs", "replay", "--from", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["same"] and report["replayed_digest"] == run.content_digest
    assert main.main(["-w", str(trained.root), "runs", "replay"]) == 2


def test_an_exported_run_that_was_altered_is_refused(trained: Workspace, tmp_path: Path) -> None:
    (run,) = list_runs(trained)
    file = tmp_path / "run.tar"
    export_run(trained, run=run.run, to=str(file))
    data = bytearray(file.read_bytes())
    for place in (data.index(b"chunks/") + 600, data.index(b'"lineage"')):
        bad = bytearray(data)
        bad[place] ^= 1
        file.write_bytes(bytes(bad))
        with pytest.raises(DamagedError):
            replay_file(trained, path=str(file))
    file.write_bytes(b"no archive")
    with pytest.raises(DamagedError):
        replay_file(trained, path=str(file))
