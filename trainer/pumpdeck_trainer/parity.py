"""Parity gate: what the trainer computes and what ONNX Runtime computes must be the same, before anything is packaged.

Rows: the training features, the same perturbed, and extreme ones (missing, infinite, zero, huge, exactly at the
limit).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import below: the runtime's Linux wheels phone home by default

import numpy as np
import onnxruntime

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.frame import Float32
from pumpdeck_trainer.baseline import spread_rows
from pumpdeck_trainer.gate_thresholds import GateThresholds

Reference = Callable[[PumpBlock, Float32], Float32]
"""Scores float32 [n] of features under a block: the estimator's own arithmetic."""


def open_session(model: bytes) -> Any:
    """A graph in ONNX Runtime, one thread.

    Raises:
        PumpdeckError: the runtime does not load it (a defect: what comes here was checked).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exception classes derive from Exception directly
        raise PumpdeckError(f"ONNX Runtime does not load the graph ({error})", "model.onnx") from error


class Session:
    """A graph loaded into ONNX Runtime, one thread, called with a pump's block."""

    def __init__(self, model: bytes) -> None:
        self._session = open_session(model)

    def run(self, block: PumpBlock, features: Float32) -> tuple[Float32, Float32, Float32]:
        """Score [n], probability [n], contributions [n, c]."""
        score, probability, contributions = self._session.run(
            ["score", "probability", "contributions"], {"x": features, **block_inputs(block)}
        )
        return score, probability, contributions


def block_inputs(block: PumpBlock) -> dict[str, Float32]:
    """The graph inputs that a pump's block stands for."""
    return {
        "centre": block.centre,
        "scale": block.width,
        "votes": block.votes.astype(np.float32),
        "limit": np.array([block.limit], np.float32),
    }


@dataclass(frozen=True, slots=True)
class ParityResult:
    """Rows compared, the share of equal alarm flags and the largest relative difference of scores."""

    rows: int
    equal_flags: float
    relative: float


def compare(
    session: Session, reference: Reference, pumps: Sequence[tuple[PumpBlock, Float32]], seed: int
) -> ParityResult:
    """Both sides over every pump's training features (at most 100 rows each), perturbed and extreme rows."""
    rng = np.random.default_rng(seed)
    rows = equal = 0
    worst = 0.0
    for block, features in pumps:
        tried = parity_rows(block, features, rng)
        ours, theirs = reference(block, tried), session.run(block, tried)[0]
        rows += len(tried)
        equal += int(((ours > block.limit) == (theirs > block.limit)).sum())
        apart = np.abs(ours.astype(np.float64) - theirs) / np.maximum(np.abs(ours), 1e-6)
        worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0)))
    return ParityResult(rows, equal / rows if rows else 0.0, worst)


def parity_rows(block: PumpBlock, features: Float32, rng: np.random.Generator) -> Float32:
    """Training rows spread over the window, the same perturbed by 0.1, 1 and 10 widths, and extreme rows; float32 [n, c]."""
    some = spread_rows(features)
    noise = rng.standard_normal((3, *some.shape)) * np.array([0.1, 1.0, 10.0])[:, None, None] * block.width
    return np.concatenate([some, *(some + noise).astype(np.float32), extreme_rows(block)]).astype(np.float32)


def extreme_rows(block: PumpBlock) -> Float32:
    """Rows at the edges of what a device may meet."""
    one = np.ones(len(block.channels), np.float32)
    flat = [one * value for value in (0.0, 1.0, -1.0, 1e-30, 1e9, -1e9, 3e38, -3e38, np.inf, -np.inf, np.nan)]
    near = [
        block.centre + block.width * np.float32(block.limit * way) for way in (-1.001, -1, -0.999, 0, 0.999, 1, 1.001)
    ]
    holes = []
    for place in range(len(block.channels)):
        row = block.centre.copy()
        row[place] = np.nan
        holes.append(row)
    with np.errstate(over="ignore"):
        return np.array([*flat, *near, *holes], np.float32)


def parity_gate(result: ParityResult, thresholds: GateThresholds) -> QualityGate:
    """The stored verdict; no rows compared is a refusal, too."""
    good = result.equal_flags >= thresholds.parity_flags and result.relative <= thresholds.parity_relative
    return QualityGate(
        name="parity",
        verdict=GateVerdict.PASS if good and result.rows else GateVerdict.REFUSE,
        reason=f"{result.rows} rows: {100 * result.equal_flags:.4f} % equal alarm flags, scores differ by {result.relative:.2g}",
        figure=result.relative,
        threshold=thresholds.parity_relative,
        thresholds=thresholds.of("parity_"),
    )
