"""What contributions add up to, for every model type, as docs/models.md states it: asked of the graph that runs on devices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_trainer.card import HOW_BLAMED
from pumpdeck_trainer.classifiers import EVEN, BoostScorer, LogisticScorer
from pumpdeck_trainer.forest import ForestScorer
from pumpdeck_trainer.kernels import CloudScorer
from pumpdeck_trainer.parity import Session
from pumpdeck_trainer.pca import PcaScorer
from pumpdeck_trainer.scorer import Scorer, widths
from pumpdeck_trainer.spec import MODEL_TYPES
from support.fitted_types import CHANNELS, GUILTY, VOTES, features, fitted, healthy

Told = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Widths [n, c] as the scorer sees them, score [n], contributions [n, c]: the last two from ONNX Runtime."""


def told(model_type: str) -> tuple[Scorer, PumpBlock, Told]:
    """300 healthy rows, 300 with a fault of one channel, 300 with one of all."""
    scorer, block = fitted(model_type)
    z = np.concatenate([healthy(300, 31), healthy(300, 32), healthy(300, 33)])
    z[300:600, GUILTY] += 9
    z[600:] += 6
    rows = features(block, z)
    score, _, parts = Session(scorer.onnx).run(block, rows)
    return scorer, block, (widths(block, rows), score.astype(np.float64), parts.astype(np.float64))


def largest_is_the_score(_scorer: Scorer, said: Told) -> None:
    _, score, parts = said
    assert np.array_equal(parts.max(axis=1), score)


def putting_a_channel_right_takes_its_square_from_the_squared_score(scorer: Scorer, said: Told) -> None:
    assert isinstance(scorer, PcaScorer)
    z, score, parts = said
    for channel in np.flatnonzero(VOTES):
        right = z.copy()
        right[:, channel] -= (z @ scorer.matrix)[:, channel] / scorer.matrix[channel, channel]
        left = score**2 - scorer.score_widths(right) ** 2
        np.testing.assert_allclose(parts[:, channel] ** 2, left, rtol=1e-3, atol=1e-3)


def they_are_the_slope_of_half_the_squared_score(scorer: Scorer, said: Told) -> None:
    assert isinstance(scorer, CloudScorer)
    z, score, parts = said
    away = score > 1.01
    for channel in np.flatnonzero(VOTES):
        step = np.zeros(CHANNELS)
        step[channel] = 1e-5
        slope = (scorer.score_widths(z + step) ** 2 - scorer.score_widths(z - step) ** 2) / 4e-5
        expected = np.abs(slope) * scorer.per_channel[channel]
        np.testing.assert_allclose(parts[away, channel], expected[away], rtol=2e-3, atol=2e-3)


def they_sum_to_how_much_shorter_than_usual_the_paths_are(scorer: Scorer, said: Told) -> None:
    assert isinstance(scorer, ForestScorer)
    z, score, parts = said
    trees = len(scorer.roots)
    leaf = scorer.nodes["left"] < 0
    shorter = np.maximum(1 / trees - scorer.told[:, 0].astype(np.float64), 0)
    np.testing.assert_allclose(scorer.told[leaf, 1:].sum(axis=1), shorter[leaf], atol=1e-7)
    # Trees in which the path is longer than usual take nothing back, so the sum is no less than what the score says.
    assert (parts.sum(axis=1) >= 1 - 1 / score - 1e-4).all()
    assert (parts.sum(axis=1) <= 1).all()
    assert np.ptp(parts.sum(axis=1)) > 0.05 and len(z) == len(score)


def positive_parts_of_the_log_odds(scorer: Scorer, said: Told) -> None:
    z, score, parts = said
    if isinstance(scorer, LogisticScorer):
        signed = scorer._parts(z)
    else:
        assert isinstance(scorer, BoostScorer)
        signed = scorer._sums(z)[:, 1:]
    np.testing.assert_allclose(parts, np.maximum(signed, 0) * VOTES, rtol=1e-3, atol=1e-3)
    above = score > 1.01
    # What is left when all parts are taken away is the same for every row: a row without any evidence.
    left = score - EVEN - signed.sum(axis=1)
    assert above.sum() > 600 and np.ptp(left[above]) < 2e-3
    assert (parts.sum(axis=1)[above] >= (score - EVEN - left[above].mean())[above] - 2e-3).all()


STATED: dict[str, Callable[[Scorer, Told], None]] = {
    "maxz": largest_is_the_score,
    "pca": putting_a_channel_right_takes_its_square_from_the_squared_score,
    "gmm": they_are_the_slope_of_half_the_squared_score,
    "ocsvm": they_are_the_slope_of_half_the_squared_score,
    "iforest": they_sum_to_how_much_shorter_than_usual_the_paths_are,
    "logistic": positive_parts_of_the_log_odds,
    "gboost": positive_parts_of_the_log_odds,
}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_contributions_add_up_to_what_is_stated(model_type: str) -> None:
    scorer, _, said = told(model_type)
    STATED[model_type](scorer, said)
    assert HOW_BLAMED[model_type]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_documents_state_it_for_every_type(model_type: str, pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"| `{model_type}` | {HOW_BLAMED[model_type]} |" in text
