"""The champion's replay on the candidate's rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame, with_values

SPEC = replace(default_pipeline(PUMP_TYPE), budget=AlarmBudget(alarms=0.01))
CONTEXT = RunContext("c" * 64, "l" * 64)
FRAMES = {f"site/P-{number}": pump_frame(number, days=60) for number in range(1, 4)}


def spell(rows: int = 60) -> dict:
    """The frames with a spell of trouble on the first pump, three days before the end."""
    frame = FRAMES["site/P-1"]
    values = frame.values.copy()
    values[-432 : -432 + rows, 2] += 0.35
    return {**FRAMES, "site/P-1": with_values(frame, values)}


def trained(spec=SPEC, frames=FRAMES, *, first_day=0, champion=None, left_out=None) -> TrainedModel:
    start = START_MS + first_day * DAY_MS
    request = TrainingRequest(tuple(frames), start, start + 30 * DAY_MS)
    return train(spec, request, MemorySource(frames, left_out or {}), replace(CONTEXT, champion=champion))


def champion_of(model: TrainedModel) -> Champion:
    blocks = {one.pump: one.block for one in model.pumps}
    return Champion(model.content_digest, 1, model.spec, model.onnx, blocks, model.data_end_ms, model.lineage)


@pytest.mark.parametrize("model_type", ["maxz", "pca"])
def test_a_champion_with_a_low_limit_alarms_where_the_candidate_does_not(model_type: str) -> None:
    loud = trained(replace(SPEC, model_type=model_type, budget=AlarmBudget(alarms=300)))
    found = trained(frames=spell(), first_day=30, champion=champion_of(loud))
    contests = {one.pump: one.judged.contest for one in found.pumps}
    assert sum(one.champion_alarms for one in contests.values()) > 8
    assert sum(one.candidate_alarms for one in contests.values()) <= 2
    assert all(7.0 < one.days < 7.6 and one.seen_days == 0 for one in contests.values())


def test_a_champion_that_has_seen_the_held_out_days_is_known_by_it() -> None:
    late = champion_of(trained(first_day=27))
    found = trained(first_day=25, champion=late)
    assert all(one.judged.contest.seen_days == pytest.approx(one.judged.contest.days, abs=0.1) for one in found.pumps)


def test_the_same_run_is_not_compared_with_itself() -> None:
    held = champion_of(trained())
    assert all(one.judged.contest is None for one in trained(champion=held).pumps)


def test_the_champion_changes_no_byte_of_the_result() -> None:
    held = champion_of(trained(replace(SPEC, budget=AlarmBudget(alarms=30))))
    assert trained(first_day=30, champion=held).artifacts() == trained(first_day=30).artifacts()


def test_labelled_faults_are_sought_in_the_whole_window_by_both() -> None:
    frame = FRAMES["site/P-2"]
    values = frame.values.copy()
    values[4320 + 600 : 4320 + 900, 2] += 3
    start, end = int(frame.at_ms[4320 + 600]), int(frame.at_ms[4320 + 900])
    frames = {**FRAMES, "site/P-2": with_values(frame, values)}
    label = {"site/P-2": [Exclusion(start, end, "fault:bearing")]}
    deaf = champion_of(trained())
    deaf = replace(deaf, spec=replace(deaf.spec, alarm=replace(deaf.spec.alarm, persistence_s=40 * 86400.0)))
    for held, hit in ((champion_of(trained()), True), (deaf, False)):
        found = trained(frames=frames, first_day=30, champion=held, left_out=label)
        judged = found.pumps[1].judged
        assert (judged.kinds, judged.hits, judged.contest.hits) == (("bearing",), (True,), (hit,))
        assert found.pumps[0].judged.contest.hits == ()


def test_a_champion_with_another_window_and_fewer_channels_is_replayed_in_its_own_way() -> None:
    fewer = replace(SPEC, channels=SPEC.channels[:2], window_s=2 * SPEC.window_s)
    held = champion_of(trained(fewer))
    contests = [one.judged.contest for one in trained(first_day=30, champion=held).pumps]
    assert all(one is not None and one.days > 7 for one in contests)


def test_a_champion_that_reads_a_channel_the_candidate_lacks_cannot_be_compared() -> None:
    held = champion_of(trained())
    fewer = replace(SPEC, channels=SPEC.channels[:2])
    assert all(one.judged.contest is None for one in trained(fewer, first_day=30, champion=held).pumps)


def test_a_stopped_pump_teaches_nothing_and_is_counted() -> None:
    frame = FRAMES["site/P-1"]
    values = frame.values.copy()
    values[1000:1100] *= np.array([0, 0, 0, 0], np.float32)
    found = trained(frames={**FRAMES, "site/P-1": with_values(frame, values)})
    assert (found.pumps[0].excluded, found.pumps[1].excluded) == ({"stopped": 100}, {})
    gate = next(gate for gate in found.gates if gate.name == "training_data")
    assert "stopped 100" in gate.reason
