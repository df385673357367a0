"""The shipped model types as scikit-learn estimators, for notebooks, searches and everything else that speaks scikit-learn.

The pipeline itself calls the same arithmetic (`pumpdeck_fleet.numeric.detectors`) directly: importing scikit-learn
costs seconds.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock, contributions, score_rows, to_float32
from pumpdeck_fleet.numeric.frame import Float32
from pumpdeck_trainer.baseline import feature_moments
from pumpdeck_trainer.classifiers import EVEN, Classifier, chance_of, fit_classifier
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.scorer import widths


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


class _ShapeDetector(MaxZDetector):
    """A detector with a shape, learned from one set of rows in widths from their own centre.

    Parameters, input and the sense of scores are those of `MaxZDetector`; random_state: a whole number (None is 0, so
    that a fit is repeatable in any case).
    """

    _model_type = ""

    def __init__(
        self,
        *,
        resolution: ArrayLike = 0.0,
        votes: ArrayLike | None = None,
        limit: float = 3.0,
        random_state: int | None = None,
    ) -> None:
        super().__init__(resolution=resolution, votes=votes, limit=limit)
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn centre, scale and shape. Raises: ValueError - a single row has no shape."""
        super().fit(X, y)
        block = self.block_
        rows = widths(block, self._checked(X, reset=False))
        try:
            self.scorer_ = fit_scorer(self._model_type, rows, block.votes, self.random_state or 0, least=2)
        except GateRefusedError as error:
            raise ValueError(f"n_samples={len(rows)}: {error.sentence()}") from error
        return self

    def score_samples(self, X: ArrayLike) -> Float32:  # noqa: N803
        """The score of each row, float32 [n]; higher is worse."""
        check_is_fitted(self)
        return self.scorer_.score(self.block_, self._checked(X, reset=False))

    def contributions(self, X: ArrayLike) -> Float32:  # noqa: N803
        """How much each channel tells, float32 [n, c]."""
        check_is_fitted(self)
        return self.scorer_.contributions(self.block_, self._checked(X, reset=False))

    def to_onnx(self) -> bytes:
        """The graph with the shape in it; centre, scale, votes and limit are its inputs."""
        check_is_fitted(self)
        return self.scorer_.onnx


class PcaDetector(_ShapeDetector):
    """T2 and Q of a principal-component plane, as one index (`pca.py`)."""

    _model_type = "pca"


class ForestDetector(_ShapeDetector):
    """An isolation forest (`forest.py`)."""

    _model_type = "iforest"


class OcsvmDetector(_ShapeDetector):
    """A one-class support vector machine (`kernels.py`)."""

    _model_type = "ocsvm"


class GmmDetector(_ShapeDetector):
    """A Gaussian mixture (`kernels.py`)."""

    _model_type = "gmm"


class _LabelDetector(ClassifierMixin, MaxZDetector):  # type: ignore[misc]
    """A supervised type as a classifier of two classes, of which the later one in order is ill.

    Centre and scale come from the healthy rows. Probabilities are as calibrated as rows of one set can make them: the pipeline's
    own come from pumps left out (`supervised.py`). random_state: a whole number (None is 0).
    """

    _model_type = ""

    def __init__(self, *, resolution: ArrayLike = 0.0, votes: ArrayLike | None = None, random_state: int | None = None) -> None:
        super().__init__(resolution=resolution, votes=votes, limit=EVEN)
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn from rows and their verdicts. Raises: ValueError - not two classes."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        features, told = validate_data(self, X, y, dtype=np.float32, ensure_all_finite="allow-nan")
        features = np.asarray(features, np.float32)
        check_classification_targets(told)
        self.classes_, place = np.unique(told, return_inverse=True)
        if len(self.classes_) != 2:
            more = "class" if len(self.classes_) == 1 else "classes"
            raise ValueError(f"Only binary classification is supported: y holds {len(self.classes_)} {more}")
        is_ill = place == 1
        self.centre_, self.scale_ = feature_moments(features[~is_ill])
        rows, by = widths(self.block_, features), (self.block_.votes, self.random_state or 0)
        share = np.bincount(place, minlength=2) / len(place)
        self.scorer_: Classifier = fit_classifier(self._model_type, rows, is_ill, 0.5 / share[place], by)
        return self

    def score_samples(self, X: ArrayLike) -> Float32:  # noqa: N803
        """Log-odds + 10, float32 [n]."""
        check_is_fitted(self)
        return self.scorer_.score(self.block_, self._checked(X, reset=False))

    def contributions(self, X: ArrayLike) -> Float32:  # noqa: N803
        """Each channel's part of the log-odds, float32 [n, c], 0 where it speaks for health."""
        check_is_fitted(self)
        return self.scorer_.contributions(self.block_, self._checked(X, reset=False))

    def decision_function(self, X: ArrayLike) -> Float32:  # noqa: N803
        """Score above an even chance, float32 [n]."""
        return self.score_samples(X) - np.float32(EVEN)

    def predict_proba(self, X: ArrayLike) -> Float32:  # noqa: N803
        """Probability of each class, float32 [n, 2]."""
        ill = chance_of(self.score_samples(X))
        return np.column_stack([1 - ill, ill])

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The likelier class of each row."""
        is_ill = self.decision_function(X) > 0
        return np.asarray(self.classes_[is_ill.astype(np.int64)])

    def to_onnx(self) -> bytes:
        """The graph with the classifier in it; centre, scale, votes and limit are its inputs."""
        check_is_fitted(self)
        return self.scorer_.onnx

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.target_tags.required = True
        return tags


class LogisticDetector(_LabelDetector):
    """Log-odds linear in each channel's widths (`classifiers.py`)."""

    _model_type = "logistic"


class BoostDetector(_LabelDetector):
    """Boosted trees over widths (`classifiers.py`)."""

    _model_type = "gboost"
