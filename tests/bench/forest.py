"""One row through Pumpdeck's isolation-forest graph against skl2onnx's of the same forest, in ONNX Runtime, one thread.

    python tests/bench/forest.py [--json] [--quick]

Ours gives score, probability and contributions; skl2onnx's gives label and score. Best and median of several rounds, at
two sizes: `default` is scikit-learn's own (100 trees of 256 rows), `shipped` is what the pipeline trains.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import IsolationForest

from pumpdeck_trainer.forest import ROWS_A_TREE, TREES, ForestScorer

CHANNELS = 8


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """The graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def microseconds(call: Callable[[], object], rounds: int, calls: int) -> tuple[float, float]:
    """Best and median over rounds of the mean time of a call."""
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        found.append((time.perf_counter_ns() - start) / calls / 1000)
    return min(found), statistics.median(found)


def compare(trees: int, rows_a_tree: int, rounds: int) -> dict[str, float]:
    """Both graphs of one forest."""
    rows = np.random.default_rng(0).standard_normal((2000, CHANNELS)).astype(np.float32)
    forest = IsolationForest(n_estimators=trees, max_samples=rows_a_tree, random_state=1).fit(rows)
    grown = [one.tree_ for one in forest.estimators_]
    ours = ForestScorer.of(grown, forest.estimators_features_, rows_a_tree, CHANNELS)
    theirs = to_onnx(forest, rows[:1], target_opset={"": 13, "ai.onnx.ml": 3}).SerializeToString()
    own, peer = session_of(ours.onnx), session_of(theirs)
    one = np.ones(CHANNELS, np.float32)
    feeds = {"x": rows[:1], "centre": 0 * one, "scale": one, "votes": one, "limit": one[:1]}
    own_us, own_median = microseconds(lambda: own.run(None, feeds), rounds, 500)
    peer_us, peer_median = microseconds(lambda: peer.run(None, {"X": rows[:1]}), rounds, 20)
    # Both tell the same forest: -log2(score_samples) is mean path over the usual one, ours is its inverse.
    said = ours.score_widths(rows.astype(np.float64))
    apart = float(np.abs(said * -np.log2(-forest.score_samples(rows)) - 1).max())
    return {
        "iforest_own_us": round(own_us, 2),
        "iforest_own_median_us": round(own_median, 2),
        "iforest_skl2onnx_us": round(peer_us, 2),
        "iforest_skl2onnx_median_us": round(peer_median, 2),
        "iforest_own_vs_skl2onnx": round(peer_us / own_us, 1),
        "iforest_own_bytes": len(ours.onnx),
        "iforest_skl2onnx_bytes": len(theirs),
        "iforest_largest_difference": float(f"{apart:.2g}"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="own isolation-forest graph against skl2onnx's of the same forest")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args(argv)
    rounds = 3 if arguments.quick else 9
    figures: dict[str, float] = {}
    for size, trees, rows_a_tree in (("default", 100, 256), ("shipped", TREES, ROWS_A_TREE)):
        figures.update({f"{name}_{size}": value for name, value in compare(trees, rows_a_tree, rounds).items()})
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:36} {one}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
