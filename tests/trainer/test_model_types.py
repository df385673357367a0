"""One list of checks that every model type must pass."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest

from pumpdeck_agent.runtime import Model
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_trainer.classifiers import EVEN
from pumpdeck_trainer.export import INPUTS, IR_VERSION, OPSET, OUTPUTS
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.parity import Session, compare, parity_gate, parity_rows
from pumpdeck_trainer.scorer import ShapeScorer, widths
from pumpdeck_trainer.spec import MODEL_TYPES, GateThresholds
from support.fitted_types import CHANNELS, GUILTY, VOTES, block_with, features, fit, fitted, healthy

each = pytest.mark.parametrize("model_type", MODEL_TYPES)


@each
def test_scores_are_positive_finite_float32_and_grow_with_distance(model_type: str) -> None:
    scorer, block = fitted(model_type)
    away = np.outer([0, 2, 5, 10, 40], VOTES / np.sqrt(VOTES.sum()))
    scores = scorer.score(block, features(block, away))
    assert scores.dtype == np.float32 and scores.shape == (5,)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    # Trees and classifiers saturate: beyond what they learned from, further is not worse.
    assert (np.diff(scores) >= (0 if scorer.ceiling else 1e-3)).all() and scores[-1] > scores[0]
    assert scores.max() <= (scorer.ceiling or np.inf) / 0.98 * 1.0001


@each
def test_a_fault_passes_the_limit_that_hardly_any_healthy_row_passes_and_names_its_channel(model_type: str) -> None:
    scorer, block = fitted(model_type)
    ill = healthy(300, 5)
    assert (scorer.score(block, features(block, ill)) > block.limit).mean() < 0.02
    ill[:, GUILTY] += 12
    rows = features(block, ill)
    assert (scorer.contributions(block, rows).argmax(axis=1) == GUILTY).mean() > 0.85
    if model_type == "iforest":
        # What forest.py says of itself: one channel alone is not isolated, all together are.
        assert (scorer.score(block, rows) > block.limit).mean() < 0.1
        rows = features(block, ill + 8)
    assert (scorer.score(block, rows) > block.limit).mean() > 0.9


@each
def test_contributions_are_none_for_channels_without_a_vote_and_never_negative(model_type: str) -> None:
    scorer, block = fitted(model_type)
    parts = scorer.contributions(block, features(block, 5 * healthy(100, 8)))
    assert parts.shape == (100, CHANNELS) and parts.dtype == np.float32
    assert (parts[:, ~VOTES] == 0).all() and (parts >= 0).all() and np.isfinite(parts).all()


@each
def test_a_channel_without_a_vote_or_a_missing_value_changes_nothing_but_itself(model_type: str) -> None:
    scorer, block = fitted(model_type)
    rows = features(block, healthy(50, 9))
    other = rows.copy()
    other[:, ~VOTES] = np.nan
    assert np.array_equal(scorer.score(block, rows), scorer.score(block, other))
    centred, holes = rows.copy(), rows.copy()
    centred[:, 0], holes[:, 0] = block.centre[0], np.nan
    assert np.array_equal(scorer.score(block, centred), scorer.score(block, holes))


@each
def test_onnx_runtime_says_the_same_on_ten_thousand_training_perturbed_and_extreme_rows(model_type: str) -> None:
    scorer, _ = fitted(model_type)
    pumps = []
    for number in range(25):
        block = block_with(1.0 + 0.2 * number)
        pumps.append((block, features(block, healthy(400, 20 + number))))
    session = Session(scorer.onnx)
    result = compare(session, scorer.score, pumps, seed=1)
    assert result.rows >= 10_000
    assert result.equal_flags >= 0.9999 and result.relative <= 1e-3
    assert parity_gate(result, GateThresholds()).verdict.value == "pass"
    block, some = pumps[0]
    tried = parity_rows(block, some, np.random.default_rng(2))
    _, _, theirs = session.run(block, tried)
    np.testing.assert_allclose(theirs, scorer.contributions(block, tried), rtol=2e-3, atol=2e-3)


@each
def test_the_graph_has_the_common_face_and_the_same_bytes_after_another_fit(model_type: str) -> None:
    scorer, _ = fitted(model_type)
    again = fit(model_type)
    assert again.onnx == scorer.onnx and again.digest == scorer.digest
    model = onnx.load_from_string(scorer.onnx)
    assert model.ir_version == IR_VERSION and model.graph.name == model_type
    assert {one.domain: one.version for one in model.opset_import}[""] == OPSET
    assert tuple(one.name for one in model.graph.input) == INPUTS
    assert tuple(one.name for one in model.graph.output) == OUTPUTS


@each
def test_one_row_alone_and_inside_a_batch_gets_the_same_score(model_type: str) -> None:
    scorer, block = fitted(model_type)
    rows, session = features(block, healthy(40, 4)), Session(scorer.onnx)
    single = np.concatenate([session.run(block, row[None])[0] for row in rows])
    np.testing.assert_allclose(single, session.run(block, rows)[0], rtol=1e-5)


@each
def test_the_probability_is_that_of_the_scorer_and_one_half_at_the_limit_or_at_an_even_chance(model_type: str) -> None:
    scorer, block = fitted(model_type)
    rows = features(block, np.concatenate([healthy(20, 6), 12 + healthy(20, 7)]))
    score, chance, _ = Session(scorer.onnx).run(block, rows)
    np.testing.assert_allclose(chance, scorer.probability(score, block.limit), rtol=1e-6)
    even = np.array([EVEN if model_type in SUPERVISED else block.limit], np.float32)
    assert scorer.probability(even, block.limit)[0] == 0.5
    order = np.argsort(score)
    assert ((chance >= 0) & (chance <= 1)).all() and (np.diff(chance[order]) >= 0).all()


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in ("maxz", *SUPERVISED)])
def test_a_shape_sees_what_no_single_channel_shows(model_type: str) -> None:
    """Two channels that always move together part: each stays within its own usual range."""
    scorer, block = fitted(model_type)
    ill = healthy(400, 11)
    ill[:, 0], ill[:, 1] = 2.2, -2.2
    maxz, _ = fitted("maxz")
    assert (maxz.score(block, features(block, ill)) > 4).mean() < 0.05
    usual = scorer.score(block, features(block, healthy(400, 12)))
    assert np.median(scorer.score(block, features(block, ill))) > np.quantile(usual, 0.9)


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in ("maxz", *SUPERVISED)])
def test_too_few_rows_for_a_shape_are_refused_and_one_voting_channel_is_enough(model_type: str) -> None:
    with pytest.raises(GateRefusedError, match="too few rows"):
        fit_scorer(model_type, healthy(99, 1), VOTES, seed=1)
    lone = np.arange(CHANNELS) == 2
    scorer = fit_scorer(model_type, healthy(300, 1) * lone, lone, seed=1)
    assert isinstance(scorer, ShapeScorer)
    far = scorer.score_widths(np.outer([0.0, 8.0], lone))
    assert far[1] > far[0]


def test_widths_are_cut_and_missing_ones_are_none() -> None:
    block = block_with(1.0)
    rows = np.array([[np.nan] * CHANNELS, [np.inf] * CHANNELS, [-3e38] * CHANNELS], np.float32)
    assert widths(block, rows).tolist() == [[0.0] * 6, [1000.0 * vote for vote in VOTES], [-1000.0 * v for v in VOTES]]


@each
def test_the_device_scores_a_row_in_place_without_keeping_memory(model_type: str) -> None:
    scorer, block = fitted(model_type)
    model, rows = Model(scorer.onnx, model_type), features(block, healthy(200, 13))
    parameters = model.parameters(block)
    call = model.row_call(parameters)
    np.testing.assert_allclose([call(row) for row in rows], model.score(rows, parameters), rtol=1e-5)
    tracemalloc.start()
    for row in rows:
        call(row)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One float and one view of a row at a time, far less than an array of answers a call.
    assert held < 1024 and peak < 2048
