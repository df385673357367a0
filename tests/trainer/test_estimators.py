from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from pumpdeck_fleet.numeric.detectors import score_rows
from pumpdeck_trainer.estimators import (
    BoostDetector,
    ForestDetector,
    GmmDetector,
    LogisticDetector,
    MaxZDetector,
    OcsvmDetector,
    PcaDetector,
)
from pumpdeck_trainer.parity import Session

ROWS = np.random.default_rng(0).normal([10, 200, -3], [1, 5, 0.1], (500, 3))


UNSUPERVISED = (MaxZDetector, PcaDetector, ForestDetector, OcsvmDetector, GmmDetector)
SUPERVISED = (LogisticDetector, BoostDetector)


@pytest.mark.filterwarnings("ignore:Skipping check check_array_api_input")
@parametrize_with_checks([kind() for kind in (*UNSUPERVISED, *SUPERVISED)])
def test_scikit_learns_own_checks_pass(estimator: MaxZDetector, check: Callable[[MaxZDetector], None]) -> None:
    """All that apply to an estimator with these tags, none left out."""
    check(estimator)


@pytest.mark.parametrize("kind", SUPERVISED)
def test_a_supervised_types_probabilities_and_contributions_are_those_of_its_graph(kind: type[LogisticDetector]) -> None:
    ill = ROWS[:200] + np.array([0.0, 20.0, 0.0])
    rows, told = np.concatenate([ROWS, ill]), np.repeat(["well", "zill"], [len(ROWS), len(ill)])
    detector = kind(votes=[True, True, False]).fit(rows, told)
    score, chance, parts = Session(detector.to_onnx()).run(detector.block_, rows[450:550].astype(np.float32))
    np.testing.assert_allclose(score, detector.score_samples(rows[450:550]), rtol=1e-5)
    np.testing.assert_allclose(chance, detector.predict_proba(rows[450:550])[:, 1], rtol=1e-4)
    np.testing.assert_allclose(parts, detector.contributions(rows[450:550]), rtol=1e-4, atol=1e-5)
    assert (detector.predict(rows) == told).mean() > 0.97
    with pytest.raises(ValueError, match="holds 3 classes"):
        kind().fit(ROWS[:9], np.repeat([0, 1, 2], 3))


@pytest.mark.parametrize("kind", [PcaDetector, ForestDetector, OcsvmDetector, GmmDetector])
def test_a_shapes_scores_and_contributions_are_those_of_its_graph(kind: type[MaxZDetector]) -> None:
    detector = kind(votes=[True, True, False], limit=3.5).fit(ROWS)
    score, _, parts = Session(detector.to_onnx()).run(detector.block_, ROWS[:50].astype(np.float32))
    np.testing.assert_allclose(score, detector.score_samples(ROWS[:50]), rtol=1e-4)
    np.testing.assert_allclose(parts, detector.contributions(ROWS[:50]), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="too few rows"):
        kind().fit(ROWS[:1])


def test_scores_are_those_of_the_device_and_of_the_exported_graph() -> None:
    detector = MaxZDetector(resolution=[0.1, 0.1, 0.5], votes=[True, True, False], limit=3.5).fit(ROWS)
    tried = ROWS[:50].astype(np.float32) * np.float32(1.1)
    scores = detector.score_samples(tried)
    assert np.array_equal(scores, score_rows(detector.block_, tried))
    assert np.array_equal(scores, Session(detector.to_onnx()).run(detector.block_, tried)[0])
    assert np.array_equal(detector.contributions(tried).max(axis=1), scores)


def test_predict_says_what_is_above_the_limit() -> None:
    detector = MaxZDetector(limit=4.0).fit(ROWS)
    assert detector.predict([[10, 200, -3], [20, 200, -3]]).tolist() == [0, 1]


def test_a_clone_learns_the_same_and_a_fresh_one_says_it_is_not_fitted() -> None:
    detector = MaxZDetector(limit=4.0)
    with pytest.raises(NotFittedError):
        detector.score_samples(ROWS)
    assert np.array_equal(clone(detector).fit(ROWS).scale_, detector.fit(ROWS).scale_)


def test_missing_values_are_left_out() -> None:
    holes = ROWS.copy()
    holes[::7, 0] = np.nan
    detector = MaxZDetector().fit(holes)
    assert detector.centre_[0] == pytest.approx(np.nanmean(holes[:, 0]), rel=1e-6)
    assert detector.score_samples([[np.nan, 200, -3]])[0] < 1
