"""`gmm` and `ocsvm`: how far a row stands from a cloud of centres. One arithmetic, one graph, two ways to find the cloud.

A cloud has k centres m with weights and a whitening each: e_k = |(z - m_k) W_k|^2. distance = -2 log sum_k v_k
exp(-e_k / 2), with v summing to 1 and therefore never below 0; score = sqrt(1 + distance): 1 at a lone centre, about
the number of widths far out. It ranks rows as the mixture's density (`gmm`) or the kernel machine's decision function
(`ocsvm`) does, and unlike these it never saturates, so that a limit above every score seen still means something.
Contribution: |(W W' (z - m))_i| averaged over centres by how near they are, in the channel's own widths.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pumpdeck_fleet.numeric.frame import Bools, Float64
from pumpdeck_trainer.scorer import ShapeScorer

COMPONENTS = 3
SMALLEST_VARIANCE = 0.05
NU = 0.05
MOST_ROWS = 1000
DECIMALS = 5


class CloudScorer(ShapeScorer):
    """centres float64 [k, c], whitening float64 [k, c, c] or [1, c, c] (shared), logs float64 [k]: log v."""

    def __init__(self, centres: Float64, whitening: Float64, logs: Float64) -> None:
        super().__init__(centres.shape[1])
        self.centres, self.whitening = np.round(centres, DECIMALS), np.round(whitening, DECIMALS)
        self.logs = np.round(logs, DECIMALS)
        precision = np.einsum("kij,klj->kil", self.whitening, self.whitening)
        self.precision = precision
        typical = np.einsum("kii->ki", precision).mean(axis=0)
        self.per_channel = np.where(typical > 0, 1 / np.sqrt(np.where(typical > 0, typical, 1.0)), 0.0)

    def _parts(self, z: Float64) -> tuple[Float64, Float64]:
        """away [n, k, c] and the logarithms [n, k] under the sum."""
        away = z[:, None, :] - self.centres
        white = np.einsum("nkc,kcd->nkd", away, np.broadcast_to(self.whitening, (len(self.centres), *z.shape[1:] * 2)))
        return away, self.logs - (white**2).sum(axis=2) / 2

    def score_widths(self, z: Float64) -> Float64:
        _, parts = self._parts(z)
        top = parts.max(axis=1)
        together = top + np.log(np.exp(parts - top[:, None]).sum(axis=1))
        return np.asarray(np.sqrt(1 + np.maximum(-2 * together, 0)))

    def blame_widths(self, z: Float64) -> Float64:
        away, parts = self._parts(z)
        near = np.exp(parts - parts.max(axis=1)[:, None])
        near /= near.sum(axis=1)[:, None]
        pull = np.einsum(
            "nkc,kcd->nkd", away, np.broadcast_to(self.precision, (len(self.centres), *z.shape[1:] * 2))
        )
        return np.asarray(np.abs((near[:, :, None] * pull).sum(axis=1)) * self.per_channel)

    def graph(self) -> bytes:
        from onnx.helper import make_node as node  # deferred: scoring in the pipeline needs no onnx

        from pumpdeck_trainer import graph

        nodes, constants = graph.front()
        nodes += [
            # [N, C] -> [N, 1, C] - [k, C] -> [N, k, C] -> [k, N, C], a matrix product for each centre
            node("Unsqueeze", ["z", "middle"], ["z3"]),
            node("Sub", ["z3", "centres"], ["away"]),
            node("Transpose", ["away"], ["byk"], perm=[1, 0, 2]),
            node("MatMul", ["byk", "whitening"], ["white"]),
            node("Mul", ["white", "white"], ["white2"]),
            node("ReduceSum", ["white2", "last"], ["e"], keepdims=0),
            node("Transpose", ["e"], ["en"], perm=[1, 0]),
            node("Mul", ["en", "minus_half"], ["eh"]),
            node("Add", ["eh", "logs"], ["parts"]),
            node("ReduceMax", ["parts"], ["top"], axes=[1], keepdims=1),
            node("Sub", ["parts", "top"], ["under"]),
            node("Exp", ["under"], ["near"]),
            node("ReduceSum", ["near", "middle"], ["sum"], keepdims=1),
            node("Log", ["sum"], ["logsum"]),
            node("Add", ["logsum", "top"], ["together"]),
            node("Mul", ["together", "minus_two"], ["distance"]),
            node("Max", ["distance", "zero"], ["positive"]),
            node("Add", ["positive", "unit"], ["square"]),
            node("Squeeze", ["square", "middle"], ["flat"]),
            node("Sqrt", ["flat"], ["score"]),
            *graph.chance(),
            node("Div", ["near", "sum"], ["share"]),
            node("Unsqueeze", ["share", "last"], ["share3"]),
            node("MatMul", ["byk", "precision"], ["pullk"]),
            node("Transpose", ["pullk"], ["pull"], perm=[1, 0, 2]),
            node("Mul", ["pull", "share3"], ["shared"]),
            node("ReduceSum", ["shared", "middle"], ["g"], keepdims=0),
            node("Abs", ["g"], ["a"]),
            node("Mul", ["a", "per_channel"], ["r"]),
            node("Mul", ["r", "votes"], ["contributions"]),
        ]
        arrays = {
            "centres": self.centres,
            "whitening": self.whitening,
            "precision": self.precision,
            "logs": self.logs,
            "per_channel": self.per_channel,
        }
        scalars = {"minus_half": -0.5, "minus_two": -2.0, "unit": 1.0}
        constants += [graph.constant(name, array) for name, array in arrays.items()]
        constants += [graph.constant(name, value) for name, value in scalars.items()]
        constants += [graph.whole("middle", [1]), graph.whole("last", [2])]
        return graph.build(self.model_type, self.channels, nodes, constants)


class GmmScorer(CloudScorer):
    """A Gaussian mixture of up to three components, their number by the Bayesian information criterion."""

    model_type = "gmm"

    @classmethod
    def fit(cls, z: Float64, votes: Bools, seed: int) -> GmmScorer:
        """From widths float64 [n, c]."""
        from sklearn.mixture import GaussianMixture  # deferred: scikit-learn costs seconds

        used = z[:, votes]
        most = max(1, min(COMPONENTS, len(used) // 50))
        models: list[Any] = [
            GaussianMixture(count, reg_covar=SMALLEST_VARIANCE, random_state=seed).fit(used)
            for count in range(1, most + 1)
        ]
        best = min(models, key=lambda model: float(model.bic(used)))
        order = np.lexsort((*best.means_.T[::-1], -best.weights_))
        count, channels = len(order), z.shape[1]
        centres, whitening = np.zeros((count, channels)), np.zeros((count, channels, channels))
        centres[:, votes] = best.means_[order]
        for place, which in enumerate(order):
            whitening[place][np.ix_(votes, votes)] = np.linalg.cholesky(np.linalg.inv(best.covariances_[which]))
        widest = np.linalg.slogdet(best.covariances_[order])[1]
        heights = np.log(best.weights_[order]) - widest / 2
        return cls(centres, whitening, heights - np.logaddexp.reduce(heights))


class OcsvmScorer(CloudScorer):
    """A one-class support vector machine with a Gaussian kernel over at most 1,000 rows."""

    model_type = "ocsvm"

    @classmethod
    def fit(cls, z: Float64, votes: Bools, seed: int) -> OcsvmScorer:
        """From widths float64 [n, c]."""
        from sklearn.svm import OneClassSVM  # deferred: scikit-learn costs seconds

        chosen = np.sort(np.random.default_rng(seed).permutation(len(z))[:MOST_ROWS])
        used = z[np.ix_(chosen, votes)]
        gamma = 1 / max(used.shape[1] * float(used.var()), SMALLEST_VARIANCE)
        model = OneClassSVM(kernel="rbf", gamma=gamma, nu=NU).fit(used)
        weights = model.dual_coef_[0] / model.dual_coef_.sum()
        centres = np.zeros((len(weights), z.shape[1]))
        centres[:, votes] = model.support_vectors_
        whitening = np.diag(np.where(votes, np.sqrt(2 * gamma), 0.0))[None]
        return cls(centres, whitening, np.log(weights))
