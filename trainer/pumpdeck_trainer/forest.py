"""`iforest`: an isolation forest as one tree-ensemble node, with the blame of each channel in the same pass.

score = c / mean path length, c being the path length that a random row is expected to have (Liu, Ting and Zhou 2008);
about 1 for ordinary rows. A leaf that is nearer than c has that much to tell; its split channels share it by how often
they stand on the path. A forest saturates: `ceiling` keeps limits where a row can still pass them.

What it is not for: a fault that shows in one channel alone. Few of a tree's splits ask for that channel, so most paths
stay as long as ever; it takes most channels out together to isolate a row at once. The model card says so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.numeric.frame import Bools, Float64
from pumpdeck_trainer.scorer import Z_CAP, ShapeScorer

TREES = 50
ROWS_A_TREE = 128
CEILING_MARGIN = 0.98

Ints = NDArray[np.int64]


class ForestScorer(ShapeScorer):
    """Nodes of all trees in one table, int64 / float [nodes]: `left < 0` marks a leaf. told: float32 [nodes, 1 + c]."""

    model_type = "iforest"

    def __init__(self, roots: Ints, nodes: dict[str, Any], told: NDArray[np.float32]) -> None:
        super().__init__(told.shape[1] - 1)
        self.roots, self.nodes, self.told = roots, nodes, told
        signs = np.array([[sign] * self.channels for sign in (-Z_CAP, Z_CAP)])
        self.ceiling = CEILING_MARGIN * float(self.score_widths(signs).max())

    @classmethod
    def fit(cls, z: Float64, votes: Bools, seed: int) -> ForestScorer:
        """From widths float64 [n, c]. Same rows and seed, same forest: no BLAS, no threads."""
        from sklearn.ensemble import IsolationForest  # deferred: scikit-learn costs seconds

        masked = np.where(votes, z, 0.0).astype(np.float32)
        rows = min(ROWS_A_TREE, len(z))
        model = IsolationForest(n_estimators=TREES, max_samples=rows, random_state=seed).fit(masked)
        return cls.of([tree.tree_ for tree in model.estimators_], model.estimators_features_, rows, z.shape[1])

    @classmethod
    def of(cls, trees: list[Any], features: Any, rows: int, channels: int) -> ForestScorer:
        """From scikit-learn's trees, grown on `rows` rows each."""
        usual = max(expected_path(rows), 1e-9)
        roots, nodes = table_of(trees, features)
        pairs = zip(trees, features, strict=True)
        told = np.concatenate([_leaves(tree, names, channels, usual) for tree, names in pairs])
        return cls(roots, nodes, (told / (len(trees) * usual)).astype(np.float32))

    def _sums(self, z: Float64) -> Float64:
        """Mean path and blame [n, 1 + c]."""
        left, right, channel = self.nodes["left"], self.nodes["right"], self.nodes["channel"]
        values, rows = z.astype(np.float32), np.arange(len(z))[:, None]
        at = np.broadcast_to(self.roots, (len(z), len(self.roots))).copy()
        while (inner := left[at] >= 0).any():
            lower = values[rows, channel[at]] <= self.nodes["threshold"][at]
            at = np.where(inner, np.where(lower, left[at], right[at]), at)
        return np.asarray(self.told[at].astype(np.float64).sum(axis=1))

    def score_widths(self, z: Float64) -> Float64:
        return np.asarray(1 / self._sums(z)[:, 0])

    def blame_widths(self, z: Float64) -> Float64:
        return self._sums(z)[:, 1:]

    def graph(self) -> bytes:
        from onnx.helper import make_node as node  # deferred: scoring in the pipeline needs no onnx

        from pumpdeck_trainer import graph

        # No `graph.front`: trees take what is missing where 0 would go (below), and ask only on which side of a threshold
        # a width lies. Thresholds lie between widths that were cut at Z_CAP, so a cut changes no answer. Each node less
        # is 5 % of what a row costs.
        nodes = [
            node("Sub", ["x", "centre"], ["d"]),
            node("Div", ["d", "scale"], ["w"]),
            node("Mul", ["w", "votes"], ["z"]),
            node("TreeEnsembleRegressor", ["z"], ["sums"], domain="ai.onnx.ml", **self._attributes()),
            node("Gather", ["sums", "path_at"], ["path"], axis=1),
            node("Reciprocal", ["path"], ["score"]),
            *graph.chance(),
            node("Gather", ["sums", "blame_at"], ["blame"], axis=1),
            node("Mul", ["blame", "votes"], ["contributions"]),
        ]
        constants = [graph.whole("path_at", 0), graph.whole("blame_at", range(1, 1 + self.channels))]
        return graph.build(self.model_type, self.channels, nodes, constants, ml=True)

    def _attributes(self) -> dict[str, Any]:
        left, total = self.nodes["left"], len(self.nodes["left"])
        tree = np.searchsorted(self.roots, np.arange(total), side="right") - 1
        start = self.roots[tree]
        inner = left >= 0
        where, target = np.nonzero((self.told != 0) & ~inner[:, None])
        return {
            "n_targets": 1 + self.channels,
            "nodes_treeids": tree.tolist(),
            "nodes_nodeids": (np.arange(total) - start).tolist(),
            "nodes_featureids": self.nodes["channel"].tolist(),
            "nodes_modes": np.where(inner, "BRANCH_LEQ", "LEAF").tolist(),
            "nodes_values": self.nodes["threshold"].astype(float).tolist(),
            "nodes_missing_value_tracks_true": (inner & (self.nodes["threshold"] >= 0)).astype(int).tolist(),
            "nodes_truenodeids": np.where(inner, left - start, 0).tolist(),
            "nodes_falsenodeids": np.where(inner, self.nodes["right"] - start, 0).tolist(),
            "target_treeids": tree[where].tolist(),
            "target_nodeids": (where - start[where]).tolist(),
            "target_ids": target.tolist(),
            "target_weights": self.told[where, target].astype(float).tolist(),
        }


def table_of(trees: list[Any], features: Any) -> tuple[Ints, dict[str, Any]]:
    """Roots int64 [trees] and the nodes of all of scikit-learn's trees in one table, as `ForestScorer` takes them."""
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    columns: dict[str, list[Any]] = {"left": [], "right": [], "channel": [], "threshold": []}
    for tree, start, names in zip(trees, starts[:-1], features, strict=True):
        leaf = tree.children_left < 0
        columns["left"].append(np.where(leaf, -1, tree.children_left + start))
        columns["right"].append(np.where(leaf, -1, tree.children_right + start))
        columns["channel"].append(np.where(leaf, 0, np.asarray(names)[np.maximum(tree.feature, 0)]))
        columns["threshold"].append(np.where(leaf, 0.0, _floor32(tree.threshold)))
    return starts[:-1].astype(np.int64), {name: np.concatenate(parts) for name, parts in columns.items()}


def expected_path(rows: int) -> float:
    """The mean path length of an unsuccessful search in a binary tree of so many rows."""
    if rows <= 1:
        return 0.0
    if rows == 2:
        return 1.0
    return 2 * (math.log(rows - 1) + float(np.euler_gamma)) - 2 * (rows - 1) / rows


def _leaves(tree: Any, names: Any, channels: int, usual: float) -> Float64:
    """For each leaf its path length and its channels' share of what it is nearer than usual, float64 [nodes, 1 + c]."""
    told = np.zeros((tree.node_count, 1 + channels))
    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        place, path = stack.pop()
        if tree.children_left[place] >= 0:
            longer = [*path, int(names[tree.feature[place]])]
            stack += [(int(tree.children_left[place]), longer), (int(tree.children_right[place]), longer)]
            continue
        length = len(path) + expected_path(int(tree.n_node_samples[place]))
        told[place, 0] = max(length, 1e-3)
        for channel in path:
            told[place, 1 + channel] += max(usual - length, 0.0) / len(path)
    return told


def _floor32(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each threshold: then a float32 row compares with it as with the float64."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
