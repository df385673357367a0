"""A run done again from its record: the same bytes, or a refusal that says what changed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations import replaying, run_export
from pumpdeck_console.operations.replaying import replay_run
from pumpdeck_console.operations.run_export import export_run, replay_file
from pumpdeck_console.operations.runs import list_runs
from pumpdeck_console.operations.training import train_models
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.detectors import decode_block, encode_block
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


def _spec(trained: Workspace, text: str) -> str:
    """Train again with this in the spec; the run's digest."""
    kind = trained.fleet.pumps[0].type
    trained.pipelines_path.mkdir(exist_ok=True)
    (trained.pipelines_path / f"{kind}.toml").write_text(f'format = 1\npump_type = "{kind}"\n{text}', encoding="utf-8")
    (row,) = train_models(trained, pump_type=kind).models
    return row.run


def test_a_replay_does_the_search_again_and_gives_the_same_record(trained: Workspace) -> None:
    run = _spec(trained, "[search]\nwindow_s = [3600.0, 7200.0]\ndeadband = [0.6, 0.8]\npumps = 2\n")
    record = json.loads(trained.artifacts.get(run))
    assert len(record["search"]["points"]) == 4
    report = replay_run(trained, run=run)
    assert report.same and report.same_answers and report.differing == () and report.rows_compared == 0


def test_a_search_whose_record_says_something_else_is_named(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _spec(trained, "[search]\nwindow_s = [3600.0, 7200.0]\npumps = 2\n")
    record = json.loads(trained.artifacts.get(run))
    record["search"]["points"][0]["steps_met"] += 1
    monkeypatch.setattr(replaying, "read_run", lambda *_a, **_k: record)
    report = replay_run(trained, run=run)
    assert report.same and report.differing == ("search",)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names kernels of x86 processors")
def test_on_another_kernel_of_the_algebra_library_the_answers_are_the_same(trained: Workspace) -> None:
    run = _spec(trained, 'model_type = "pca"\n')
    command = [sys.executable, "-m", "pumpdeck_console.main", "-w", str(trained.root), "runs", "replay", run, "--json"]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["same_code"] and report["same_answers"]
    assert report["same"] or (report["rows_compared"] >= 10_000 and report["flags_equal"] >= 0.9999)


def test_a_replay_that_answers_otherwise_ends_with_5(
    trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _spec(trained, 'model_type = "pca"\n')
    file = tmp_path / "run.tar"
    export_run(trained, run=run, to=str(file))
    real = run_export.train

    def worse(*given: Any) -> Any:
        found = real(*given)
        blocks = [decode_block(one.block, tuple(c.name for c in found.spec.channels)) for one in found.pumps]
        moved = [replace(one, limit=np.float32(one.limit * 1.5)) for one in blocks]
        pumps = [replace(one, block=encode_block(block)) for one, block in zip(found.pumps, moved, strict=True)]
        return replace(found, pumps=tuple(pumps))

    monkeypatch.setattr(run_export, "train", worse)
    assert main.main(["-w", str(trained.root), "runs", "replay", "--from", str(file), "--json"]) == 5
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["flags_equal"] < 0.9999 and not report["same_answers"]
    assert "answers otherwise than it did" in err
