"""The model types by name, and how each is learned from rows of all pumps of a type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Bools, Float64
from pumpdeck_trainer.forest import ForestScorer
from pumpdeck_trainer.kernels import GmmScorer, OcsvmScorer
from pumpdeck_trainer.pca import PcaScorer
from pumpdeck_trainer.scorer import MaxZScorer, Scorer

MIN_ROWS = 100

_FITS: dict[str, Callable[[Float64, Bools, int], Scorer]] = {
    "pca": lambda z, votes, _seed: PcaScorer.fit(z, votes),
    "iforest": ForestScorer.fit,
    "ocsvm": OcsvmScorer.fit,
    "gmm": GmmScorer.fit,
}


def fit_scorer(model_type: str, z: Float64, votes: Bools, seed: int, *, least: int = MIN_ROWS) -> Scorer:
    """The scorer of a model type from widths float64 [n, c] (`scorer.widths`) of all its pumps, in a fixed order.

    Raises:
        GateRefusedError: fewer than `least` rows: too few to learn a shape from.
    """
    if model_type == MaxZScorer.model_type:
        return MaxZScorer(len(votes))
    if len(z) < least:
        raise GateRefusedError(
            "has too few rows to learn a shape from", model_type, expected=f"at least {least}", found=len(z)
        )
    return _FITS[model_type](np.ascontiguousarray(z), votes, seed)
