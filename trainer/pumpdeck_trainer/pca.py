"""`pca`: Hotelling's T2 in the main plane of a healthy pump type and Q outside it, as one combined index.

index = T2 / t + Q / q = z' P z (Yue and Qin 2001); t and q are the 99 % quantiles of the two in training. score =
sqrt(index). A channel's contribution is its reconstruction: how far the score falls when this channel alone is put
right, |(P z)_i| / sqrt(P_ii) (Alcala and Qin 2009).
"""

from __future__ import annotations

import numpy as np

from pumpdeck_fleet.numeric.frame import Bools, Float64
from pumpdeck_trainer.scorer import ShapeScorer

EXPLAINED = 0.9
QUANTILE = 0.99
_SMALLEST = 1e-3
DECIMALS = 6


class PcaScorer(ShapeScorer):
    """matrix: P float64 [c, c], rounded so that another BLAS kernel gives the same; 0 for channels without a vote."""

    model_type = "pca"

    def __init__(self, matrix: Float64, votes: Bools) -> None:
        super().__init__(len(matrix))
        self.matrix = np.round(matrix, DECIMALS)
        self.factor = np.zeros_like(self.matrix)
        some = np.ix_(votes, votes)
        self.factor[some] = np.round(np.linalg.cholesky(self.matrix[some]), DECIMALS)
        diagonal = np.diag(self.matrix)
        self.per_channel = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)

    @classmethod
    def fit(cls, z: Float64, votes: Bools) -> PcaScorer:
        """From widths float64 [n, c]."""
        used = z[:, votes]
        values, vectors = np.linalg.eigh(used.T @ used / len(used))
        values, vectors = np.maximum(values[::-1], _SMALLEST), vectors[:, ::-1]
        kept = min(int(np.searchsorted(np.cumsum(values) / values.sum(), EXPLAINED)) + 1, max(len(values) - 1, 1))
        main, rest = vectors[:, :kept], vectors[:, kept:]
        inside, outside = (main / values[:kept]) @ main.T, rest @ rest.T
        t = max(float(np.quantile(((used @ inside) * used).sum(axis=1), QUANTILE)), _SMALLEST)
        q = max(float(np.quantile(((used @ outside) * used).sum(axis=1), QUANTILE)), _SMALLEST)
        matrix = np.zeros((z.shape[1], z.shape[1]))
        matrix[np.ix_(votes, votes)] = inside / t + outside / q + _SMALLEST**2 * np.eye(len(values))
        return cls((matrix + matrix.T) / 2, votes)

    def score_widths(self, z: Float64) -> Float64:
        return np.asarray(np.sqrt(((z @ self.factor) ** 2).sum(axis=1)))

    def blame_widths(self, z: Float64) -> Float64:
        return np.asarray(np.abs(z @ self.matrix) * self.per_channel)

    def graph(self) -> bytes:
        from onnx.helper import make_node as node  # deferred: scoring in the pipeline needs no onnx

        from pumpdeck_trainer import graph

        nodes, constants = graph.front()
        nodes += [
            node("MatMul", ["z", "factor"], ["y"]),
            node("Mul", ["y", "y"], ["y2"]),
            node("ReduceSum", ["y2", "across"], ["index"], keepdims=0),
            node("Sqrt", ["index"], ["score"]),
            *graph.chance(),
            node("MatMul", ["z", "matrix"], ["g"]),
            node("Abs", ["g"], ["a"]),
            node("Mul", ["a", "per_channel"], ["r"]),
            node("Mul", ["r", "votes"], ["contributions"]),
        ]
        constants += [
            graph.constant("factor", self.factor),
            graph.constant("matrix", self.matrix),
            graph.constant("per_channel", self.per_channel),
            graph.whole("across", [1]),
        ]
        return graph.build(self.model_type, self.channels, nodes, constants)
