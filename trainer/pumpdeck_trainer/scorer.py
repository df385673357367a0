"""What every model type is to the pipeline: scores and contributions of rows under a pump's block, and an ONNX graph.

A model type other than `maxz` adds a *shape*: how the channels of a healthy pump of this type move together, learned
from rows of all pumps in widths from each pump's own centre. The shape is the same for every pump and stands in the
graph; a pump's own part stays its block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.numeric.detectors import PumpBlock, contributions, score_rows
from pumpdeck_fleet.numeric.detectors import probability as chance
from pumpdeck_fleet.numeric.frame import Float32, Float64

Z_CAP = 1000.0


class Scorer(ABC):
    """One fitted model type. Scores are positive and grow with strangeness; equal scorers have equal graphs."""

    model_type: str
    # A score that no row can pass, times the margin below which a limit must stay to be of use; None: unbounded.
    ceiling: float | None = None
    # No limit stands below this score.
    least: float = 0.0

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._onnx = b""

    @abstractmethod
    def score(self, block: PumpBlock, features: Float32) -> Float32:
        """float32 [n] of features float32 [n, c]: the reference that the graph is compared with."""

    @abstractmethod
    def contributions(self, block: PumpBlock, features: Float32) -> Float32:
        """float32 [n, c], 0 or more: the largest names the guilty channel; 0 for channels without a vote."""

    def probability(self, score: Float32, limit: float) -> Float32:
        """float32 [n] of scores float32 [n]: 0.5 at the limit, unless the type has learned better from labels."""
        return chance(score, limit).astype(np.float32)

    @abstractmethod
    def graph(self) -> bytes:
        """The ONNX graph, built anew."""

    @property
    def onnx(self) -> bytes:
        """The ONNX graph."""
        if not self._onnx:
            self._onnx = self.graph()
        return self._onnx

    @property
    def digest(self) -> str:
        """Names the scorer in keys of the run cache."""
        return digest(self.onnx)


class MaxZScorer(Scorer):
    """The largest distance of a voting channel; nothing to learn beyond each pump's block."""

    model_type = "maxz"

    def score(self, block: PumpBlock, features: Float32) -> Float32:
        return score_rows(block, features)

    def contributions(self, block: PumpBlock, features: Float32) -> Float32:
        return contributions(block, features)

    def graph(self) -> bytes:
        from pumpdeck_trainer.export import maxz_onnx  # deferred: a run that is refused early needs no onnx

        return maxz_onnx(self.channels)


class ShapeScorer(Scorer):
    """A model type with a shape: works on widths z float64 [n, c]."""

    def score(self, block: PumpBlock, features: Float32) -> Float32:
        return self.score_widths(widths(block, features)).astype(np.float32)

    def contributions(self, block: PumpBlock, features: Float32) -> Float32:
        votes = block.votes.astype(np.float64)
        return (self.blame_widths(widths(block, features)) * votes).astype(np.float32)

    @abstractmethod
    def score_widths(self, z: Float64) -> Float64:
        """Score [n]."""

    @abstractmethod
    def blame_widths(self, z: Float64) -> Float64:
        """Contributions [n, c]."""


def widths(block: PumpBlock, features: Float32) -> Float64:
    """Signed distance from the pump's centre in widths, float64 [n, c]: 0 where missing or without a vote, cut at Z_CAP."""
    with np.errstate(over="ignore", invalid="ignore"):
        away = (features - block.centre) / block.width
    cut = np.clip(np.where(np.isnan(away), np.float32(0), away), np.float32(-Z_CAP), np.float32(Z_CAP))
    return np.asarray(cut * block.votes, np.float64)
