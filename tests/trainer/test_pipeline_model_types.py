"""Every model type through the same pipeline, with the blocks, graph and golden rows that a device gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.alarm import AlarmTracker
from pumpdeck_fleet.numeric.arrays import decode_arrays
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.numeric.features import window_means
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.parity import Session
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import MODEL_TYPES, default_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.pump_rows import CHANNELS, PUMP_TYPE, START_MS, MemorySource, pump_frame

FRAMES = {f"site/P-{number}": pump_frame(number) for number in range(1, 5)}
REQUEST = TrainingRequest(tuple(FRAMES), START_MS, START_MS + 30 * DAY_MS)
CONTEXT = RunContext("c" * 64, "l" * 64)
each = pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in ("maxz", *SUPERVISED)])


def trained(model_type: str, context: RunContext = CONTEXT) -> tuple[TrainedModel, MemorySource]:
    source = MemorySource(FRAMES)
    return train(replace(default_pipeline(PUMP_TYPE), model_type=model_type), REQUEST, source, context), source


@each
def test_a_run_passes_its_gates_and_repeats_to_the_byte_with_or_without_the_cache(
    model_type: str, tmp_path: Path
) -> None:
    context = replace(CONTEXT, cache=FolderCache(tmp_path, RealFileSystem()))
    first, _ = trained(model_type)
    second, _ = trained(model_type, context)
    third, source = trained(model_type, replace(CONTEXT, cache=FolderCache(tmp_path, RealFileSystem())))
    assert first.artifacts() == second.artifacts() == third.artifacts()
    assert source.reads == 0
    verdicts = {gate.name: gate.verdict for gate in first.gates}
    assert verdicts["parity"] is GateVerdict.PASS and not first.refusals
    assert f"Model type `{model_type}`" in first.card.decode()


@each
def test_the_shipped_graph_and_block_stay_quiet_and_then_find_a_fault(model_type: str) -> None:
    model, _ = trained(model_type)
    block, session = decode_block(model.pumps[0].block, CHANNELS), Session(model.onnx)
    rows = pump_frame(1, days=32).between(START_MS + 30 * DAY_MS - 2 * HOUR_MS, START_MS + 32 * DAY_MS)
    values = rows.values.copy()
    values[156:] += np.array([8.0, 32.0, 1.6, 0.0], np.float32)
    features, _ = window_means(rows.at_ms, values, default_pipeline(PUMP_TYPE).features.window_ms)
    tracker = AlarmTracker(block, model.spec.alarm)
    full = slice(12, None)
    trace = tracker.extend(rows.at_ms[full], features[full], lambda asked: session.run(block, asked)[0])
    assert not trace.alarmed[:144].any() and trace.alarmed[170:].all()


@each
def test_golden_rows_are_many_and_the_graph_repeats_them(model_type: str) -> None:
    model, _ = trained(model_type)
    golden = decode_arrays(model.golden, "golden", max_bytes=1_000_000)
    assert len(golden["x"]) >= 12
    block = decode_block(model.pumps[0].block, CHANNELS)
    plain = replace(block, centre=golden["centre"], scale=golden["scale"], floor=0 * golden["scale"])
    score, _, parts = Session(model.onnx).run(plain, golden["x"])
    np.testing.assert_allclose(score, golden["score"], rtol=1e-3)
    np.testing.assert_allclose(parts, golden["contributions"], rtol=1e-3, atol=1e-5)
