"""One row through Pumpdeck's isolation-forest graph against skl2onnx's of the same forest, in ONNX Runtime, one thread.

    python tests/bench/forest.py [--json] [--quick]

Two ways of asking: `bound` is how a device scores a row, input and score staying where the runtime knows them, the score
alone asked for, of both graphs alike; `plain` hands everything over at each call and asks for all outputs, score,
probability and contributions of ours, label and score of skl2onnx's. Handing over costs more than our trees do. The
graphs take turns, so that what else the machine does meets both; `us` is the best of all rounds, the comparison is given
for the best and for the median round. Two sizes: `default` is scikit-learn's own (100 trees of 256 rows), `shipped` is
what the pipeline trains.
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
Call = Callable[[], object]


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """The graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def microseconds(call: Call, calls: int) -> float:
    """The mean time of a call."""
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / calls / 1000


def taking_turns(first: Call, second: Call, rounds: int) -> tuple[list[float], list[float]]:
    """The mean times of either call, round by round; about 5 ms for each and round, `second` being the slower one."""
    first(), second()
    found: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        found[0].append(microseconds(first, 300))
        found[1].append(microseconds(second, 6))
    return found


def bound(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray], score: str, shape: tuple[int, ...]) -> Call:
    """A call for one row as a device makes it; the answer is proven to be the plain call's."""
    row, found = np.zeros((1, CHANNELS), np.float32), np.zeros(shape, np.float32)
    target = onnxruntime.OrtValue.ortvalue_from_numpy(found)
    binding = session.io_binding()
    name, rows = next(iter(feeds.items()))
    for other, value in feeds.items():
        binding.bind_cpu_input(other, row if other == name else value)
    binding.bind_ortvalue_output(score, target)

    def call() -> float:
        row[0] = rows[0]
        session.run_with_iobinding(binding)
        return float(found.item())

    (plain,) = session.run([score], feeds)
    if call() != float(plain.item()):
        raise SystemExit(f"the bound call of {score} answers otherwise")
    return call


def figures_of(ours_us: list[float], theirs_us: list[float], way: str) -> dict[str, float]:
    """Best times, and the comparison of the best and of the median round."""
    return {
        f"iforest_own_us_{way}": round(min(ours_us), 2),
        f"iforest_skl2onnx_us_{way}": round(min(theirs_us), 2),
        f"iforest_own_vs_skl2onnx_{way}": round(min(theirs_us) / min(ours_us), 1),
        f"iforest_own_vs_skl2onnx_median_{way}": round(statistics.median(np.divide(theirs_us, ours_us)), 1),
    }


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
    as_device = taking_turns(bound(own, feeds, "score", (1,)), bound(peer, {"X": rows[:1]}, "scores", (1, 1)), rounds)
    plain = taking_turns(lambda: own.run(None, feeds), lambda: peer.run(None, {"X": rows[:1]}), rounds)
    # Both tell the same forest: -log2(score_samples) is mean path over the usual one, ours is its inverse.
    said = ours.score_widths(rows.astype(np.float64))
    apart = float(np.abs(said * -np.log2(-forest.score_samples(rows)) - 1).max())
    return {
        **figures_of(*as_device, "bound"),
        **figures_of(*plain, "plain"),
        "iforest_own_bytes": len(ours.onnx),
        "iforest_skl2onnx_bytes": len(theirs),
        "iforest_largest_difference": float(f"{apart:.2g}"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="own isolation-forest graph against skl2onnx's of the same forest")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args(argv)
    rounds = 40 if arguments.quick else 300
    figures: dict[str, float] = {}
    for size, trees, rows_a_tree in (("default", 100, 256), ("shipped", TREES, ROWS_A_TREE)):
        figures.update({f"{name}_{size}": value for name, value in compare(trees, rows_a_tree, rounds).items()})
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:36} {one}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
