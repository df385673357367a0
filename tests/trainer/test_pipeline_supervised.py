"""A spec with a supervised model type, from labelled rows to what a device gets."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import GateRefusedError, InputError
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.alarm import AlarmTracker
from pumpdeck_fleet.numeric.arrays import decode_arrays
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.numeric.features import window_means
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.parity import Session
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import PipelineSpec, parse_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.labelled_pumps import SIGNS, labelled_source
from support.pump_rows import CHANNELS, PUMP_TYPE, START_MS, MemorySource, pump_frame

CONTEXT = RunContext("c" * 64, "l" * 64)
each = pytest.mark.parametrize("model_type", SUPERVISED)


def spec_of(model_type: str, more: str = "") -> PipelineSpec:
    return parse_pipeline(f'format = 1\npump_type = "test-pump"\nmodel_type = "{model_type}"\n{more}', PUMP_TYPE, "t.toml")


def train_on(model_type: str, source: MemorySource) -> TrainedModel:
    request = TrainingRequest(tuple(source.frames), START_MS, START_MS + 30 * DAY_MS)
    return train(spec_of(model_type), request, source, CONTEXT)


@cache
def trained(model_type: str) -> TrainedModel:
    return train_on(model_type, labelled_source())


@each
def test_a_run_passes_its_gates_and_tells_figures_of_pumps_it_never_saw(model_type: str) -> None:
    model = trained(model_type)
    verdicts = {gate.name: gate.verdict for gate in model.gates}
    assert verdicts["parity"] is GateVerdict.PASS and verdicts["unseen_pumps"] is GateVerdict.PASS and not model.refusals
    figures = model.metrics
    assert figures["unseen_faults"] == 12 and figures["unseen_fault_pumps"] == 4
    assert figures["unseen_faults_found"] >= 9 and figures["unseen_auc"] > 0.9
    assert figures["unseen_brier"] < 0.5 * figures["unseen_brier_constant"]
    assert figures["unseen_reliability_error"] < 0.05
    held_out = json.loads(model.run_record)["held_out"]
    assert {kind: one["faults"] for kind, one in held_out["kinds"].items()} == {"bearing": 6, "leak": 6}
    assert sum(one["share"] for one in held_out["bins"]) == pytest.approx(1, abs=1e-4)
    assert "calibrated on pumps left out" in model.card.decode()


@each
def test_the_same_rows_give_the_same_bytes(model_type: str) -> None:
    assert train_on(model_type, labelled_source()).artifacts() == trained(model_type).artifacts()


@each
def test_the_shipped_graph_is_quiet_on_a_pump_without_faults_and_finds_a_later_one(model_type: str) -> None:
    model = trained(model_type)
    block, session = decode_block(model.pumps[7].block, CHANNELS), Session(model.onnx)
    rows = pump_frame(8, days=32).between(START_MS + 30 * DAY_MS - 2 * HOUR_MS, START_MS + 32 * DAY_MS)
    values = rows.values.copy()
    values[156:] += SIGNS["bearing"].astype(np.float32)
    features, _ = window_means(rows.at_ms, values, model.spec.features.window_ms)
    tracker = AlarmTracker(block, model.spec.alarm)
    trace = tracker.extend(rows.at_ms[12:], features[12:], lambda asked: session.run(block, asked)[0])
    assert not trace.alarmed[:144].any() and trace.alarmed[170:].all()
    _, chance, parts = session.run(block, features[12:])
    assert chance[:144].max() < 0.5 and chance[-50:].min() > 0.5
    assert set(parts[-50:].argmax(axis=1)) <= {1, 2}


@each
def test_the_limit_never_stands_below_an_even_chance_and_golden_rows_hold_the_calibrated_probability(model_type: str) -> None:
    model = trained(model_type)
    assert all(decode_block(one.block, CHANNELS).limit >= 10 for one in model.pumps)
    golden = decode_arrays(model.golden, "golden", max_bytes=1_000_000)
    assert len(golden["x"]) >= 12
    np.testing.assert_allclose(golden["probability"], 1 / (1 + np.exp(10 - golden["score"])), rtol=1e-4)


@each
def test_too_few_labels_are_refused_with_how_many_are_missing(model_type: str) -> None:
    with pytest.raises(GateRefusedError, match="2 more faults and 1 more pumps with one are missing"):
        train_on(model_type, labelled_source(pumps=4, faults=2))
    with pytest.raises(GateRefusedError, match="6 more faults and 3 more pumps"):
        train_on(model_type, labelled_source(pumps=4, faults=0))


@each
def test_labels_that_say_nothing_are_refused_or_warned_of(model_type: str) -> None:
    """Faults without any sign in the rows: no honest figure may look good."""
    try:
        model = train_on(model_type, labelled_source(strength=0.0))
    except GateRefusedError as error:
        assert "pumps it has not seen" in error.sentence()
        return
    verdict = next(gate for gate in model.gates if gate.name == "unseen_pumps").verdict
    assert verdict in (GateVerdict.REFUSE, GateVerdict.WARN)
    assert model.metrics["unseen_auc"] < 0.7


def test_rows_somebody_called_a_false_alarm_are_learned_as_healthy_and_left_in_everything_else() -> None:
    plain, told = labelled_source(), labelled_source()
    span = (START_MS + 3 * DAY_MS, START_MS + 4 * DAY_MS)
    told.left_out = {**told.left_out, "site/P-7": [Exclusion(*span, "healthy:false_alarm")]}
    first, second = train_on("logistic", plain), train_on("logistic", told)
    assert first.metrics["rows_used"] == second.metrics["rows_used"]
    assert first.onnx != second.onnx


def test_faults_of_a_pump_are_judged_by_a_scorer_that_never_saw_it() -> None:
    """One pump's faults look like nothing else: learned from they would be found, honestly they are not."""
    source = labelled_source(pumps=8, faults=3)
    odd = source.frames["site/P-4"]
    values = odd.values.copy()
    for one in source.left_out["site/P-4"]:
        inside = (odd.at_ms >= one.start_ms) & (odd.at_ms < one.end_ms)
        values[inside] = pump_frame(4).values[inside] + np.array([3.0, 0, 0, 0], np.float32)
    source.frames = {**source.frames, "site/P-4": replace(odd, values=values)}
    found = {one.pump: one.judged for one in train_on("logistic", source).pumps}
    assert found["site/P-4"].faults_found < found["site/P-4"].faults
    assert found["site/P-1"].faults_found >= 2


def test_a_search_over_a_supervised_type_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="cannot be searched over"):
        spec_of("maxz", '[search]\nmodel_type = ["maxz", "logistic"]\n')
    with pytest.raises(InputError, match="cannot be searched over"):
        spec_of("gboost", "[search]\nwindow_s = [3600.0, 7200.0]\n")
