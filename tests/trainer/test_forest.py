"""The isolation-forest graph sends a missing, an infinite and an unvoted value where the trainer's own forest sends them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pumpdeck_fleet.numeric.detectors import PumpBlock, to_float32
from pumpdeck_trainer.forest import ForestScorer
from pumpdeck_trainer.parity import Session
from pumpdeck_trainer.scorer import Z_CAP

CHANNELS = 6


@pytest.fixture(scope="module")
def forest() -> ForestScorer:
    widths = np.clip(np.random.default_rng(0).standard_t(1, (2000, CHANNELS)) * 20, -Z_CAP, Z_CAP)
    return ForestScorer.fit(widths, np.ones(CHANNELS, np.bool_), 1)


def block_of(scale: float, votes: int) -> PumpBlock:
    one = np.ones(CHANNELS, np.float32)
    names = tuple(f"c{place}" for place in range(CHANNELS))
    return PumpBlock(names, 3 * one, one * np.float32(scale), 0 * one, np.arange(CHANNELS) < votes, to_float32(2.0))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("votes", [1, 4, CHANNELS])
def test_the_graph_answers_as_the_trainer_does_on_the_strangest_rows(forest: ForestScorer, scale: float, votes: int) -> None:
    rng = np.random.default_rng(votes)
    rows = (rng.standard_t(1, (5000, CHANNELS)) * 30).astype(np.float32)
    for odd in (np.nan, np.inf, -np.inf, 3e38, -3e38, 3.0):
        rows[rng.random(rows.shape) < 0.05] = odd
    block = block_of(scale, votes)
    with np.errstate(over="ignore", invalid="ignore"):
        scores, contributions = forest.score(block, rows), forest.contributions(block, rows)
    found, _, blamed = Session(forest.onnx).run(block, rows)
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    np.testing.assert_allclose(blamed, contributions, rtol=1e-4, atol=1e-6)
    assert len(np.unique(found)) >= 3


def test_thresholds_lie_where_no_cut_changes_an_answer(forest: ForestScorer) -> None:
    thresholds = forest.nodes["threshold"]
    assert thresholds.min() >= -Z_CAP and thresholds.max() < Z_CAP


def test_the_graph_is_no_longer_than_it_must_be(forest: ForestScorer) -> None:
    nodes = [one.op_type for one in onnx.load_from_string(forest.onnx).graph.node]
    assert nodes == ["Sub", "Div", "Mul", "TreeEnsembleRegressor", "Gather", "Reciprocal", "Add", "Div", "Gather", "Mul"]
