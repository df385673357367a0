"""Do two trainings of the same rows answer alike? Asked when their bytes differ, as across linear-algebra kernels.

Rows are those of the run's own pumps, spread over the reference window, and the same perturbed by 0.1, 1 and 10 widths; each
side scores them with its own graph and blocks and raises its own limit. The tolerance is the parity gate's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.numeric.detectors import PumpBlock, decode_block
from pumpdeck_trainer.baseline import spread_places
from pumpdeck_trainer.jobs import rows_of
from pumpdeck_trainer.parity import Session
from pumpdeck_trainer.source import TrainingRequest, TrainingSource
from pumpdeck_trainer.spec import GateThresholds, PipelineSpec

LEAST_ROWS = 10_000
EXACT_TYPES = ("maxz", "iforest")
"""Types that give the same bytes on every kernel: other bytes are another answer."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The bytes of one training that answer: the graph, and each pump's block."""

    onnx: bytes
    blocks: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows compared, the share of equal alarm flags, the largest relative difference of scores."""

    rows: int
    equal_flags: float
    relative: float

    def agree(self, thresholds: GateThresholds) -> bool:
        """True within the tolerance of the parity gate."""
        return bool(self.rows) and self.equal_flags >= thresholds.parity_flags and self.relative <= thresholds.parity_relative


def compare_answers(
    before: Trained, after: Trained, spec: PipelineSpec, request: TrainingRequest, source: TrainingSource
) -> Answers:
    """Both on at least 10,000 rows. A pump that only one of them holds agrees on no row."""
    common = sorted(before.blocks.keys() & after.blocks.keys())
    channels = tuple(one.name for one in spec.channels)
    sides = [(Session(one.onnx), one.blocks) for one in (before, after)]
    rng = np.random.default_rng(spec.seed)
    rows = equal = 0
    worst = 0.0 if before.blocks.keys() == after.blocks.keys() else float("inf")
    for pump in common:
        features = rows_of(source, pump, spec, (request.start_ms, request.end_ms)).judged[1]
        blocks = [decode_block(held[pump], channels, f"block of {pump}") for _, held in sides]
        tried = _perturbed(blocks[0], features, LEAST_ROWS // (4 * len(common)) + 1, rng)
        old, new = (session.run(block, tried)[0] for (session, _), block in zip(sides, blocks, strict=True))
        rows += len(tried)
        equal += int(((old > blocks[0].limit) == (new > blocks[1].limit)).sum())
        apart = np.abs(old.astype(np.float64) - new) / np.maximum(np.abs(old), 1e-6)
        worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0)))
    return Answers(rows, equal / rows if rows else 0.0, worst)


def _perturbed(block: PumpBlock, features: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    some = features[spread_places(len(features), max(most, 100))]
    noise = rng.standard_normal((3, *some.shape)) * np.array([0.1, 1.0, 10.0])[:, None, None] * block.width
    return np.concatenate([some, *(some + noise)]).astype(np.float32)
