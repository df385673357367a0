"""Training in other processes: the same bytes as here, and a killed worker changes nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import LokyWorkers
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource
from support.worker_rows import FRAMES, die, open_frames

REQUEST = TrainingRequest(tuple(FRAMES), START_MS, START_MS + 30 * DAY_MS)


def context(source: object) -> RunContext:
    return RunContext("c" * 64, "l" * 64, fleetwide=Fleetwide(LokyWorkers(2), source, fewest=2))  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", ["maxz", "pca"])
def test_other_processes_give_the_same_bytes_and_leave_the_same_pumps_out(model_type: str) -> None:
    spec = replace(default_pipeline(PUMP_TYPE), model_type=model_type)
    here = train(spec, REQUEST, MemorySource(FRAMES), RunContext("c" * 64, "l" * 64))
    there = train(spec, REQUEST, MemorySource(FRAMES), context(open_frames))
    assert there.artifacts() == here.artifacts()
    assert list(there.left_out) == list(here.left_out) == ["site/X"]


@pytest.mark.parametrize("model_type", ["maxz", "pca"])
def test_other_processes_judge_the_champion_alike(model_type: str) -> None:
    spec = default_pipeline(PUMP_TYPE)
    old = train(
        replace(spec, model_type=model_type, budget=AlarmBudget(alarms=100)), REQUEST, MemorySource(FRAMES), context(open_frames)
    )
    blocks = {one.pump: one.block for one in old.pumps[:20]}
    champion = Champion(old.content_digest, 1, old.spec, old.onnx, blocks, old.data_end_ms, old.lineage)
    here = train(spec, REQUEST, MemorySource(FRAMES), RunContext("c" * 64, "l" * 64, champion=champion))
    there = train(spec, REQUEST, MemorySource(FRAMES), replace(context(open_frames), champion=champion))
    contests = [one.judged.contest for one in there.pumps]
    assert contests == [one.judged.contest for one in here.pumps]
    assert sum(one is None for one in contests) == 4 and sum(one.champion_alarms for one in contests if one) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    flag = tmp_path / "kill one"
    flag.touch()
    here = train(default_pipeline(PUMP_TYPE), REQUEST, MemorySource(FRAMES), RunContext("c" * 64, "l" * 64))
    there = train(default_pipeline(PUMP_TYPE), REQUEST, MemorySource(FRAMES), context(partial(open_frames, str(flag))))
    assert not flag.exists()
    assert there.artifacts() == here.artifacts()


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_workers_that_always_die_are_our_own_error() -> None:
    with pytest.raises(PumpdeckError, match="worker processes"):
        list(LokyWorkers(1).submit(die, [1, 2]))
