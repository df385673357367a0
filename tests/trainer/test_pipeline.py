from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.alarm import AlarmTracker
from pumpdeck_fleet.numeric.detectors import LimitBranch, decode_block, score_rows
from pumpdeck_fleet.numeric.edges import decode_edges
from pumpdeck_fleet.numeric.features import window_means
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import GateThresholds, default_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.pump_rows import CHANNELS, PUMP_TYPE, MemorySource, pump_frame, with_values

SPEC = default_pipeline(PUMP_TYPE)
FRAMES = {f"site/P-{number}": pump_frame(number) for number in range(1, 5)}
START_MS = int(FRAMES["site/P-1"].at_ms[0])
REQUEST = TrainingRequest(tuple(FRAMES), START_MS, START_MS + 30 * DAY_MS)
CONTEXT = RunContext("c" * 64, "l" * 64)


def trained_with(frames: dict[str, TelemetryFrame] | None = None, **more: object) -> TrainedModel:
    return train(SPEC, REQUEST, MemorySource(frames or FRAMES, **more), CONTEXT)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return trained_with()


def test_every_pump_gets_a_block_and_edges_that_decode(trained: TrainedModel) -> None:
    assert [pump.pump for pump in trained.pumps] == list(FRAMES)
    for pump in trained.pumps:
        block, edges = decode_block(pump.block, CHANNELS), decode_edges(pump.edges, CHANNELS)
        assert block.limit == pump.limit.limit
        assert block.votes.tolist() == [True, True, True, False]
        assert int(edges.edges[0].reference.sum()) == pump.used == 4320
        assert (pump.limit.branch, pump.limit.provisional) == (LimitBranch.DAILY, False)


def test_a_healthy_fleet_passes_every_gate(trained: TrainedModel) -> None:
    assert {gate.name: gate.verdict for gate in trained.gates} == dict.fromkeys(
        ("parity", "replay", "holdout", "backtest", "training_data"), GateVerdict.PASS
    )
    trained.require_gates()


def test_the_same_rows_give_the_same_bytes_again(trained: TrainedModel) -> None:
    again = trained_with()
    assert again.artifacts() == trained.artifacts()
    assert again.content_digest == trained.content_digest


def test_the_cache_changes_nothing_and_an_unchanged_run_reads_no_row(trained: TrainedModel, tmp_path: Path) -> None:
    first, second = MemorySource(FRAMES), MemorySource(FRAMES)
    for source in (first, second):
        context = replace(CONTEXT, cache=FolderCache(tmp_path, RealFileSystem()))
        assert train(SPEC, REQUEST, source, context).artifacts() == trained.artifacts()
    assert (first.reads, second.reads) == (4, 0)


def test_only_the_pump_whose_rows_changed_is_read_again(tmp_path: Path) -> None:
    context = replace(CONTEXT, cache=FolderCache(tmp_path, RealFileSystem()))
    train(SPEC, REQUEST, MemorySource(FRAMES), context)
    changed = MemorySource({**FRAMES, "site/P-2": pump_frame(22)})
    found = train(SPEC, REQUEST, changed, replace(CONTEXT, cache=FolderCache(tmp_path, RealFileSystem())))
    assert changed.reads == 1
    assert found.artifacts() == trained_with({**FRAMES, "site/P-2": pump_frame(22)}).artifacts()


def test_other_code_packages_or_seed_do_not_meet_old_results(tmp_path: Path) -> None:
    def reads(spec_seed: int, context: RunContext) -> int:
        source = MemorySource(FRAMES)
        cached = replace(context, cache=FolderCache(tmp_path, RealFileSystem()))
        train(replace(SPEC, seed=spec_seed), REQUEST, source, cached)
        return source.reads

    assert reads(1, CONTEXT) == 4
    assert reads(1, replace(CONTEXT, code_digest="d" * 64)) == 4
    assert reads(1, replace(CONTEXT, lock_digest="d" * 64)) == 4
    assert reads(2, CONTEXT) == 4
    assert reads(1, CONTEXT) == 0


def test_a_run_that_was_cut_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    def cancel(step: str, done: int, _total: int) -> None:
        if (step, done) == ("fit", 3):
            raise CancelledError

    cache = FolderCache(tmp_path, RealFileSystem())
    with pytest.raises(CancelledError):
        train(SPEC, REQUEST, MemorySource(FRAMES), replace(CONTEXT, cache=cache, on_progress=cancel))
    fitted = MemorySource(FRAMES)
    learned: list[int] = []

    def watch(step: str, done: int, _total: int) -> None:
        if (step, done) == ("fit", 3):
            learned.append(fitted.reads)

    again = FolderCache(tmp_path, RealFileSystem())
    train(SPEC, REQUEST, fitted, replace(CONTEXT, cache=again, on_progress=watch))
    assert learned == [0]


def test_progress_tells_every_step_in_order() -> None:
    told: list[tuple[str, int, int]] = []
    context = replace(CONTEXT, on_progress=lambda *step: told.append(step))
    train(SPEC, REQUEST, MemorySource(FRAMES), context)
    assert list(dict.fromkeys(step for step, _, _ in told)) == ["snapshot", "fit", "evaluate", "export"]
    assert ("fit", 4, 4) in told and ("evaluate", 4, 4) in told


def faulty(pump: str, start_row: int, rows: int) -> tuple[dict[str, TelemetryFrame], int, int]:
    frame = FRAMES[pump]
    values = frame.values.copy()
    values[start_row : start_row + rows, 2] += 3
    frames = {**FRAMES, pump: with_values(frame, values)}
    return frames, int(frame.at_ms[start_row]), int(frame.at_ms[start_row + rows])


def test_a_labelled_fault_teaches_nothing_and_is_found_in_the_replay() -> None:
    frames, start, end = faulty("site/P-3", 2000, 300)
    # A budget so small that chance raises no alarm: what is left is the fault.
    rare = replace(SPEC, budget=AlarmBudget(alarms=0.01))
    label = {"site/P-3": [Exclusion(start, end, "fault:bearing_wear")]}
    found = train(rare, REQUEST, MemorySource(frames, left_out=label), CONTEXT)
    spoilt = train(rare, REQUEST, MemorySource(frames), CONTEXT)
    third, spoilt_third = found.pumps[2], spoilt.pumps[2]
    assert third.excluded == {"fault": 300}
    assert (found.metrics["labelled_faults"], found.metrics["labelled_faults_found"]) == (1, 1)
    assert third.replay_alarms == 0
    assert decode_block(third.block, CHANNELS).scale[2] < 0.8 * decode_block(spoilt_third.block, CHANNELS).scale[2]
    assert [pump.block for pump in found.pumps[:2]] == [pump.block for pump in spoilt.pumps[:2]]


def test_a_fault_after_training_alarms_with_the_shipped_block_and_a_healthy_day_does_not(trained: TrainedModel) -> None:
    block = decode_block(trained.pumps[0].block, CHANNELS)
    healthy = pump_frame(1, days=31).between(START_MS + 30 * DAY_MS - 2 * HOUR_MS, START_MS + 31 * DAY_MS)
    ill = healthy.values.copy()
    ill[72:, 0] += 10
    for values, expected in ((healthy.values, False), (ill, True)):
        features, _ = window_means(healthy.at_ms, values, SPEC.features.window_ms)
        tracker = AlarmTracker(block, SPEC.alarm)
        trace = tracker.extend(healthy.at_ms, features, lambda rows: score_rows(block, rows))
        assert trace.alarmed.any() == expected
        assert not trace.alarmed[:72].any()


def test_a_pump_without_enough_rows_is_left_out_by_name_and_the_rest_is_trained() -> None:
    frames = {**FRAMES, "site/P-2": FRAMES["site/P-2"].take(slice(0, 20))}
    found = trained_with(frames)
    assert [pump.pump for pump in found.pumps] == ["site/P-1", "site/P-3", "site/P-4"]
    assert "too few rows" in found.left_out["site/P-2"]
    assert {gate.name: gate.verdict for gate in found.gates}["training_data"] is GateVerdict.WARN


def test_a_channel_that_never_came_is_named() -> None:
    values = FRAMES["site/P-1"].values.copy()
    values[:, 1] = np.nan
    found = trained_with({**FRAMES, "site/P-1": with_values(FRAMES["site/P-1"], values)})
    assert "flow_m3_h" in found.left_out["site/P-1"]


def test_no_pump_with_enough_rows_is_refused() -> None:
    few = {pump: frame.take(slice(0, 20)) for pump, frame in FRAMES.items()}
    with pytest.raises(GateRefusedError, match="no pump to learn from"):
        trained_with(few)


def test_a_new_pump_of_a_known_type_gets_the_types_provisional_limit() -> None:
    found = trained_with({**FRAMES, "site/P-4": FRAMES["site/P-4"].take(slice(0, 300))})
    last = found.pumps[-1]
    assert (last.limit.branch, last.limit.provisional) == (LimitBranch.POOLED, True)
    assert decode_block(last.block, CHANNELS).provisional
    assert found.metrics["provisional_pumps"] == 1


def test_a_model_that_would_alarm_all_the_time_is_refused() -> None:
    strict = replace(SPEC, gates=GateThresholds(replay_alarms_warn=0.0, replay_alarms_refuse=0.0))
    wild = {}
    for pump, frame in FRAMES.items():
        values = frame.values.copy()
        values[1000:1040, 0] += 30
        wild[pump] = with_values(frame, values)
    found = train(strict, REQUEST, MemorySource(wild), CONTEXT)
    assert [gate.name for gate in found.refusals] == ["replay"]
    with pytest.raises(GateRefusedError, match="replay"):
        found.require_gates()


def test_the_registry_entry_names_every_artifact_by_its_digest(trained: TrainedModel) -> None:
    version = trained.version(3, created_ms=5, note="first")
    named = {version.onnx_digest, version.golden_digest, version.card_digest, version.run_record_digest}
    named |= {one for pump in version.pumps for one in (pump.block_digest, pump.edges_digest)}
    assert named == {digest(data) for data in trained.artifacts()}
    assert (version.model, version.number, version.created_ms) == ("test-pump-health", 3, 5)
    assert version.content_digest == trained.content_digest
    assert version.data_end_ms == int(FRAMES["site/P-1"].at_ms[-1])


def test_neither_time_nor_lineage_of_the_workspace_is_in_the_content_digest(trained: TrainedModel) -> None:
    elsewhere = train(SPEC, REQUEST, MemorySource(FRAMES), RunContext("c" * 64, "l" * 64, "abc", True))
    assert elsewhere.content_digest == trained.content_digest
    assert elsewhere.run_record != trained.run_record
    assert elsewhere.lineage.git_commit == "abc"


def test_the_run_record_holds_spec_lineage_metrics_gates_and_each_pump(trained: TrainedModel) -> None:
    record = json.loads(trained.run_record)
    assert record["lineage"]["snapshot_digest"] == trained.lineage.snapshot_digest
    assert record["spec"]["window_s"] == SPEC.window_s
    assert record["metrics"] == dict(trained.metrics)
    assert [gate["name"] for gate in record["gates"]] == [gate.name for gate in trained.gates]
    assert set(record["pumps"]) == set(FRAMES)
    assert record["pumps"]["site/P-1"]["limit"]["branch"] == "daily"


def test_the_card_names_channels_dates_limits_and_gates(trained: TrainedModel) -> None:
    card = trained.card.decode("utf-8")
    for told in ("# test-pump-health", "flow_m3_h", "2025-10-10T00:00:00Z", "4 pumps: own daily", "parity: pass"):
        assert told in card
