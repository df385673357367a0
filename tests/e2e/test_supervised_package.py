"""From labels in the store to a device: a supervised type is trained, packaged, tried in a fresh process and scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.loaded import load_package
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.trial import FreshChildRunner, TrialRequest
from pumpdeck_console import wiring
from pumpdeck_console.operations.labels import add_label
from pumpdeck_console.operations.models import find_version
from pumpdeck_console.operations.packages import package_content
from pumpdeck_console.operations.selection import wanted_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, FixedClock
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_packaging.package import build_package
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_trainer.labelled import SUPERVISED
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, make_champion, trained_row, workspace_with_rows

START_MS = NOW_MS - 21 * DAY_MS
FLOW, VIBRATION = 2, 5


def faults_of(number: int) -> list[tuple[int, int]]:
    """Three pumps of four had three faults of 12 hours."""
    return [] if number == 3 else [(start, start + 12 * HOUR_MS) for start in (START_MS + day * DAY_MS for day in (3, 8, 13))]


def make_ill(number: int, at_ms: np.ndarray, values: np.ndarray) -> None:
    for start, end in faults_of(number):
        inside = (at_ms >= start) & (at_ms < end)
        spread = values[~inside][:100].std(axis=0)
        values[inside, VIBRATION] += 4 * spread[VIBRATION]
        values[inside, FLOW] -= 3 * spread[FLOW]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "workspace", make_ill)
    yield workspace
    workspace.close()


@pytest.mark.parametrize("model_type", SUPERVISED)
def test_labels_become_a_package_that_a_device_accepts_and_that_finds_the_fault(
    workspace: Workspace, tmp_path: Path, model_type: str
) -> None:
    pumps = [pump for pump in workspace.fleet.pumps if pump.type == kind_of(workspace)]
    with pytest.raises(GateRefusedError, match=r"more faults and \d more pumps with one are missing"):
        trained_row(workspace, f'model_type = "{model_type}"\n')
    for number, pump in enumerate(pumps):
        for start, end in faults_of(number):
            add_label(workspace, pump=pump.id, start_ms=start, end_ms=end, verdict="fault:bearing")
    row = trained_row(workspace, f'model_type = "{model_type}"\n')
    version = find_version(workspace, row.model, str(row.version))
    assert {gate.name: gate.verdict for gate in version.gates}["parity"] is GateVerdict.PASS
    assert version.metrics["unseen_faults_found"] == 9
    make_champion(workspace, row)

    wanted = next(one for one in wanted_devices(workspace, query="", models={}) if version.pump_type in one.versions)
    package = build_package(package_content(workspace, wanted))
    held = read_package(package.data, expected_sha256=package.sha256, max_unpacked_bytes=package.unpacked_bytes)
    folder = tmp_path / package.sha256
    for name, data in held.members().items():
        folder.joinpath(*name.split("/")).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(*name.split("/")).write_bytes(data)
    report = FreshChildRunner().run(TrialRequest(str(folder), held.manifest_digest, 60.0))
    assert report.passed, report.reason

    loaded = load_package(RealFileSystem(), folder, held.manifest_digest, ModelCache())
    model = loaded.models[version.pump_type]
    block = decode_block(workspace.artifacts.get(version.pumps[0].block_digest), channels_of(workspace))
    ill = block.centre.copy()
    ill[VIBRATION] += 9 * block.width[VIBRATION]
    ill[FLOW] -= 7 * block.width[FLOW]
    score_of = model.row_call(model.parameters(block))
    assert score_of(block.centre) < block.limit < score_of(ill)
    chance = model.answers(np.array([block.centre, ill]), model.parameters(block))["probability"]
    assert chance[0] < 0.1 and chance[1] > 0.5


def channels_of(workspace: Workspace) -> tuple[str, ...]:
    return tuple(one.name for one in workspace.fleet.pump_types[kind_of(workspace)].channels)
