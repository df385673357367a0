"""Two really trained versions beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_console import main
from pumpdeck_console.operations.comparing import compare_versions
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import PipelineSpec, default_pipeline
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame, with_values
from support.seeded_workspace import seeded_workspace

MODEL = "test-pump-health"
SPEC = replace(default_pipeline(PUMP_TYPE), budget=AlarmBudget(alarms=0.01))


def register(workspace: Workspace, spec: PipelineSpec, frames: dict[str, object], first_day: int = 0) -> int:
    start = START_MS + first_day * DAY_MS
    request = TrainingRequest(tuple(frames), start, start + 30 * DAY_MS)
    trained = train(spec, request, MemorySource(frames), RunContext("c" * 64, "l" * 64))  # type: ignore[arg-type]
    for data in trained.artifacts():
        workspace.artifacts.put(data)
    with workspace.store.atomic() as store:
        return store.registry.add(trained.version(0, 1))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = tmp_path / "workspace"
    seeded_workspace(root).close()
    with open_workspace(root) as opened:
        yield opened


def frames_of(workspace: Workspace) -> dict[str, object]:
    """Healthy rows, and on the first pump a spell that a low limit alarms at and a high one does not."""
    pumps = [pump.id for pump in workspace.fleet.pumps[:3]]
    frames: dict[str, object] = {pump: pump_frame(place, days=90) for place, pump in enumerate(pumps)}
    ill = pump_frame(0, days=90)
    values = ill.values.copy()
    values[1000:1060] += np.array([1.4, 5.6, 0.28, 0], np.float32)
    frames[pumps[0]] = with_values(ill, values)
    return frames


def test_a_lower_limit_shows_the_alarms_that_would_appear(workspace: Workspace) -> None:
    frames = frames_of(workspace)
    strict = register(workspace, replace(SPEC, budget=AlarmBudget(alarms=1e-9)), frames)
    usual = register(workspace, SPEC, frames)
    found = compare_versions(workspace, model=MODEL, before=str(strict), after=str(usual))
    assert (found.before, found.after, found.same_snapshot) == (strict, usual, True)
    first, *others = sorted(found.pumps, key=lambda one: one.pump != next(iter(frames)))
    assert first.limit_after < first.limit_before
    assert (first.alarms_before, first.alarms_after, first.appear, first.vanish) == (0, 1, 1, 0)
    (alarm,) = found.alarms
    assert (alarm.pump, alarm.change) == (first.pump, "appears") and START_MS < alarm.raised_ms < alarm.cleared_ms
    assert [(one.appear, one.vanish) for one in others] == [(0, 0), (0, 0)]
    back = compare_versions(workspace, model=MODEL, before=str(usual), after=str(strict))
    assert sum(one.vanish for one in back.pumps) == 1 and sum(one.appear for one in back.pumps) == 0
    sites = {one.slice: one for one in found.slices if one.slice.startswith("site ")}
    assert sum(one.pumps for one in sites.values()) == 3
    assert sum(one.pumps * one.after for one in sites.values()) == pytest.approx(1.0, abs=1e-5)
    names = {one.name: (one.before, one.after) for one in found.figures}
    assert names["replay_alarms"] == (0, 1)


def test_pumps_of_one_version_only_are_named_and_not_compared(workspace: Workspace) -> None:
    frames = frames_of(workspace)
    all_pumps = register(workspace, SPEC, frames)
    lone = list(frames)[-1]
    fewer = register(workspace, SPEC, {pump: frame for pump, frame in frames.items() if pump != lone}, first_day=5)
    found = compare_versions(workspace, model=MODEL, before=str(all_pumps), after=str(fewer))
    assert (found.only_before, found.only_after, len(found.pumps), found.same_snapshot) == ((lone,), (), 2, False)
    assert (found.start_ms, found.end_ms) == (START_MS + 5 * DAY_MS, START_MS + 30 * DAY_MS)


def test_versions_without_common_time_are_refused(workspace: Workspace) -> None:
    frames = frames_of(workspace)
    early, late = register(workspace, SPEC, frames), register(workspace, SPEC, frames, first_day=40)
    with pytest.raises(RefusedError, match="no time in common"):
        compare_versions(workspace, model=MODEL, before=str(early), after=str(late))


@pytest.mark.parametrize("by", ["figure", "slice", "pump", "alarm"])
def test_the_command_lists_what_was_asked(workspace: Workspace, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    frames = frames_of(workspace)
    strict = register(workspace, replace(SPEC, budget=AlarmBudget(alarms=1e-9)), frames)
    usual = register(workspace, SPEC, frames)
    words = ["-w", str(workspace.root), "models", "compare", MODEL, f"v{strict}", str(usual), "--by", by, "--json"]
    assert main.main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) and {"figure": "name", "alarm": "change"}.get(by, by) in json.loads(out)[0]
    assert "1 alarms appear, 0 vanish" in err
