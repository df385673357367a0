"""`logistic` and `gboost`: how likely a row belongs to a labelled fault, as log-odds and as a calibrated probability.

score = 10 + log-odds, never below 1: 10 is a probability of one half, 12.2 nine tenths. The score is linear in the log-odds, so
that limit and deadband work on it as on the other types; probability = 1 / (1 + exp(10 - score)), out of the same graph.
A limit never stands below 10: an alarm says that a fault is more likely than not. The log-odds are a sum over channels; a
channel's contribution is its part of that sum, 0 where it speaks for health.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64
from pumpdeck_trainer.forest import CEILING_MARGIN, ForestScorer, table_of
from pumpdeck_trainer.scorer import ShapeScorer

EVEN = 10.0
LEAST = 1.0
REACH = 20.0
"""Widths beyond which a channel says no more: no label was ever seen out there."""
DECIMALS = 4
STRENGTH = 0.1
TREES = 60
DEPTH = 3
RATE = 0.1
LEAF_ROWS = 10


def chance_of(score: Float32) -> Float32:
    """Probability float32 [n] of a score."""
    return np.asarray(1 / (1 + np.exp(EVEN - score.astype(np.float64))), np.float32)


class LogisticScorer(ShapeScorer):
    """log-odds = bias + sum over channels of signed * z + absolute * |z|, z cut at 20 widths. signed, absolute: float64 [c]."""

    model_type = "logistic"
    least = EVEN

    def __init__(self, signed: Float64, absolute: Float64, bias: float) -> None:
        super().__init__(len(signed))
        self.signed, self.absolute, self.bias = np.round(signed, DECIMALS), np.round(absolute, DECIMALS), round(bias, DECIMALS)
        far = np.maximum(self.absolute + np.abs(self.signed), 0.0) * REACH
        self.ceiling = CEILING_MARGIN * max(EVEN + self.bias + float(far.sum()), LEAST)

    @classmethod
    def fit(cls, z: Float64, is_ill: Bools, weight: Float64, votes: Bools, seed: int) -> LogisticScorer:
        """From widths float64 [n, c], uncalibrated."""
        from sklearn.linear_model import LogisticRegression  # deferred: scikit-learn costs seconds

        cut = np.clip(z[:, votes], -REACH, REACH)
        model = LogisticRegression(C=STRENGTH, tol=1e-8, max_iter=2000, random_state=seed)
        model.fit(np.hstack([cut, np.abs(cut)]), is_ill, sample_weight=weight)
        signed, absolute = np.zeros(z.shape[1]), np.zeros(z.shape[1])
        signed[votes], absolute[votes] = np.split(model.coef_[0], 2)
        return cls(signed, absolute, float(model.intercept_[0]))

    def calibrated(self, slope: float, offset: float) -> LogisticScorer:
        """The same with log-odds slope * log-odds + offset."""
        return LogisticScorer(self.signed * slope, self.absolute * slope, self.bias * slope + offset)

    def _parts(self, z: Float64) -> Float64:
        cut = np.clip(z, -REACH, REACH)
        return np.asarray(cut * self.signed + np.abs(cut) * self.absolute)

    def log_odds(self, z: Float64) -> Float64:
        """float64 [n]."""
        return np.asarray(self._parts(z).sum(axis=1) + self.bias)

    def score_widths(self, z: Float64) -> Float64:
        return np.maximum(self.log_odds(z) + EVEN, LEAST)

    def blame_widths(self, z: Float64) -> Float64:
        return np.maximum(self._parts(z), 0.0)

    def probability(self, score: Float32, limit: float) -> Float32:  # noqa: ARG002 - calibrated: the limit is no part of it
        return chance_of(score)

    def graph(self) -> bytes:
        from onnx.helper import make_node as node  # deferred: scoring in the pipeline needs no onnx

        from pumpdeck_trainer import graph

        nodes, constants = graph.front()
        nodes += [
            node("Clip", ["z", "near_low", "near_high"], ["cut"]),
            node("Abs", ["cut"], ["size"]),
            node("Mul", ["cut", "signed"], ["s"]),
            node("Mul", ["size", "absolute"], ["a"]),
            node("Add", ["s", "a"], ["parts"]),
            node("ReduceSum", ["parts", "across"], ["sum"], keepdims=0),
            node("Add", ["sum", "offset"], ["raised"]),
            *graph.odds(),
            node("Relu", ["parts"], ["blame"]),
            node("Mul", ["blame", "votes"], ["contributions"]),
        ]
        constants += [graph.constant("signed", self.signed), graph.constant("absolute", self.absolute)]
        scalars = {"near_low": -REACH, "near_high": REACH, "offset": self.bias + EVEN, "least": LEAST, "even": EVEN, "unit": 1.0}
        constants += [graph.constant(name, value) for name, value in scalars.items()]
        constants.append(graph.whole("across", [1]))
        return graph.build(self.model_type, self.channels, nodes, constants)


class BoostScorer(ForestScorer):
    """Boosted trees in one tree-ensemble node. told float32 [nodes, 1 + c]: of each leaf, log-odds and its channels' parts.

    A split's part of the log-odds is what it moves the expected value of the leaves below it by (Saabas 2014); the parts of a
    path and the value at the tree's root add up to the leaf.
    """

    model_type = "gboost"
    least = EVEN

    def __init__(self, roots: Any, nodes: dict[str, Any], told: Float64, bias: float, best: float) -> None:
        self.bias, self.exact, self.best = round(bias, DECIMALS), told, best
        super().__init__(roots, nodes, told.astype(np.float32))
        self.ceiling = CEILING_MARGIN * max(EVEN + best, LEAST)

    @classmethod
    def fit_labelled(cls, z: Float64, is_ill: Bools, weight: Float64, votes: Bools, seed: int) -> BoostScorer:
        """From widths float64 [n, c], uncalibrated. Same rows and seed, same trees: no BLAS, no threads."""
        from sklearn.ensemble import GradientBoostingClassifier  # deferred: scikit-learn costs seconds

        masked = np.where(votes, z, 0.0).astype(np.float32)
        model = GradientBoostingClassifier(
            n_estimators=TREES, max_depth=DEPTH, learning_rate=RATE, min_samples_leaf=LEAF_ROWS, random_state=seed
        ).fit(masked, is_ill, sample_weight=weight)
        trees = [tree.tree_ for tree in model.estimators_[:, 0]]
        names = [np.arange(z.shape[1])] * len(trees)
        roots, nodes = table_of(trees, names)
        told = np.concatenate([RATE * _parts_of(tree, z.shape[1]) for tree in trees])
        sums = model.decision_function(masked)
        bare = cls(roots, nodes, told, 0.0, 0.0)
        bias = float(sums[0] - bare.log_odds(masked[:1].astype(np.float64))[0])
        return cls(roots, nodes, told, bias, float(sums.max()))

    def calibrated(self, slope: float, offset: float) -> BoostScorer:
        """The same with log-odds slope * log-odds + offset."""
        bias, best = self.bias * slope + offset, self.best * slope + offset
        return BoostScorer(self.roots, self.nodes, self.exact * slope, bias, best)

    def log_odds(self, z: Float64) -> Float64:
        """float64 [n]."""
        return np.asarray(self._sums(z)[:, 0] + self.bias)

    def score_widths(self, z: Float64) -> Float64:
        return np.maximum(self.log_odds(z) + EVEN, LEAST)

    def blame_widths(self, z: Float64) -> Float64:
        return np.maximum(self._sums(z)[:, 1:], 0.0)

    def probability(self, score: Float32, limit: float) -> Float32:  # noqa: ARG002 - calibrated: the limit is no part of it
        return chance_of(score)

    def graph(self) -> bytes:
        from onnx.helper import make_node as node  # deferred: scoring in the pipeline needs no onnx

        from pumpdeck_trainer import graph

        nodes, constants = graph.front()
        nodes += [
            node("TreeEnsembleRegressor", ["z"], ["sums"], domain="ai.onnx.ml", **self._attributes()),
            node("Slice", ["sums", "from_0", "to_1", "second"], ["sum2"]),
            node("Squeeze", ["sum2", "second"], ["sum"]),
            node("Add", ["sum", "offset"], ["raised"]),
            *graph.odds(),
            node("Slice", ["sums", "to_1", "to_end", "second"], ["parts"]),
            node("Relu", ["parts"], ["blame"]),
            node("Mul", ["blame", "votes"], ["contributions"]),
        ]
        ends = {"from_0": [0], "to_1": [1], "to_end": [1 + self.channels], "second": [1]}
        constants += [graph.whole(name, values) for name, values in ends.items()]
        scalars = {"offset": self.bias + EVEN, "least": LEAST, "even": EVEN, "unit": 1.0}
        constants += [graph.constant(name, value) for name, value in scalars.items()]
        return graph.build(self.model_type, self.channels, nodes, constants, ml=True)


def _parts_of(tree: Any, channels: int) -> Float64:
    """Of each leaf its value and its channels' parts of it, float64 [nodes, 1 + c]; 0 for inner nodes."""
    left, right, rows = tree.children_left, tree.children_right, tree.weighted_n_node_samples
    expected = tree.value[:, 0, 0].astype(np.float64).copy()
    # Children always stand behind their parent: from the end to the front every child is done before it.
    for place in range(tree.node_count - 1, -1, -1):
        if left[place] >= 0:
            ends = (left[place], right[place])
            expected[place] = sum(expected[one] * rows[one] for one in ends) / sum(rows[one] for one in ends)
    parts = np.zeros((tree.node_count, 1 + channels))
    for place in range(tree.node_count):
        if left[place] < 0:
            continue
        for child in (left[place], right[place]):
            parts[child] = parts[place]
            parts[child, 1 + tree.feature[place]] += expected[child] - expected[place]
    parts[:, 0] = expected
    parts[left >= 0] = 0.0
    return parts


Classifier = LogisticScorer | BoostScorer


def fit_classifier(model_type: str, z: Float64, is_ill: Bools, weight: Float64, by: tuple[Bools, int]) -> Classifier:
    """An uncalibrated classifier of that type from widths float64 [n, c]; by: votes and seed."""
    fit = LogisticScorer.fit if model_type == LogisticScorer.model_type else BoostScorer.fit_labelled
    return fit(z, is_ill, weight, *by)
