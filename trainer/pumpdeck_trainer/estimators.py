"""The shipped model types as scikit-learn estimators, for notebooks, searches and everything else that speaks scikit-learn.

The pipeline itself calls the same arithmetic (`pumpdeck_fleet.numeric.detectors`) directly: importing scikit-learn
costs seconds.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock, contributions, score_rows, to_float32
from pumpdeck_fleet.numeric.frame import Float32
from pumpdeck_trainer.baseline import feature_moments


class MaxZDetector(BaseEstimator):  # type: ignore[misc]
    """Score = the largest distance of a voting channel from its mean, in standard deviations, never below its resolution.

    resolution: the smallest step of each channel's sensor, one number or one a channel. votes: None (all) or a
    boolean a channel. limit: what `predict` compares with (1: above the limit, 0: not). X: features [n, c]; NaN is
    missing. Higher scores are worse, unlike scikit-learn's own outlier detectors.

    >>> detector = MaxZDetector().fit([[0.0], [1.0], [2.0]])
    >>> detector.score_samples([[1.0], [3.0]]).round(2).tolist()
    [0.0, 2.45]
    """

    def __init__(self, *, resolution: ArrayLike = 0.0, votes: ArrayLike | None = None, limit: float = 3.0) -> None:
        self.resolution = resolution
        self.votes = votes
        self.limit = limit

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: N803, ARG002 - scikit-learn's names
        """Learn centre and scale of each channel."""
        features = self._checked(X, reset=True)
        self.centre_, self.scale_ = feature_moments(features)
        return self

    @property
    def block_(self) -> PumpBlock:
        """The fitted parameters as the pump block that devices get."""
        check_is_fitted(self)
        count = len(self.centre_)
        votes = np.ones(count, np.bool_) if self.votes is None else np.asarray(self.votes, np.bool_)
        floor = np.broadcast_to(np.asarray(self.resolution, np.float32), (count,)).copy()
        channels = tuple(getattr(self, "feature_names_in_", [f"x{place}" for place in range(count)]))
        limit = to_float32(min(float(self.limit), SCORE_CAP))
        return PumpBlock(channels, self.centre_, self.scale_, floor, votes, limit)

    def score_samples(self, X: ArrayLike) -> Float32:  # noqa: N803
        """The score of each row, float32 [n]; higher is worse."""
        return score_rows(self.block_, self._checked(X, reset=False))

    def contributions(self, X: ArrayLike) -> Float32:  # noqa: N803
        """Each channel's distance, float32 [n, c]; the largest is the score."""
        return contributions(self.block_, self._checked(X, reset=False))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:  # noqa: N803
        """1 above the limit, else 0."""
        return (self.score_samples(X) > self.limit).astype(np.int64)

    def to_onnx(self) -> bytes:
        """The graph (see `export.py`); the fitted parameters are its inputs, not part of it."""
        from pumpdeck_trainer.export import maxz_onnx  # deferred: scoring needs no onnx

        check_is_fitted(self)
        return maxz_onnx(len(self.centre_))

    def _checked(self, X: ArrayLike, *, reset: bool) -> Float32:  # noqa: N803
        checked = validate_data(self, X, reset=reset, dtype=np.float32, ensure_all_finite="allow-nan")
        return np.asarray(checked, np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
