"""Golden inputs and answers of a graph: what a device must compute before it trusts a package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pumpdeck_fleet.numeric.arrays import encode_arrays
from pumpdeck_fleet.numeric.detectors import PumpBlock, to_float32
from pumpdeck_fleet.numeric.frame import Bools, Float32
from pumpdeck_trainer.scorer import Scorer

ORDINARY_ROWS = 12
STABLE = 1e-4
_SMALLEST = 1e-3
Run = Callable[[PumpBlock, Float32], tuple[Float32, Float32, Float32]]
"""Score, probability and contributions of rows by the exported graph."""
_FAR = (0.3, 1.0, 3.0, 10.0)


def typical_block(blocks: Sequence[PumpBlock]) -> PumpBlock:
    """The median pump of a type: one block to try the shared graph with."""
    return PumpBlock(
        channels=blocks[0].channels,
        centre=np.median([block.centre for block in blocks], axis=0).astype(np.float32),
        scale=np.median([block.scale for block in blocks], axis=0).astype(np.float32),
        floor=np.median([block.floor for block in blocks], axis=0).astype(np.float32),
        votes=blocks[0].votes,
        limit=to_float32(float(np.median([block.limit for block in blocks]))),
    )


def golden_rows(block: PumpBlock, seed: int) -> Float32:
    """Rows near and far from the baseline, with half of the channels missing, empty, and huge; float32 [k, c]."""
    rng = np.random.default_rng(seed)
    away = rng.standard_normal((ORDINARY_ROWS, len(block.channels))) * np.resize(_FAR, ORDINARY_ROWS)[:, None]
    ordinary = (block.centre + away * block.width).astype(np.float32)
    holes = ordinary[:2].copy()
    holes[0, ::2] = np.nan
    holes[1, 1::2] = np.nan
    flat = np.array([0.0, np.nan, 1e9, -1e9], np.float32)[:, None] * np.ones(len(block.channels), np.float32)
    return np.concatenate([ordinary, holes, flat])


def _is_stable(block: PumpBlock, rows: Float32, scorer: Scorer, run: Run) -> Bools:
    score, _, parts = run(block, rows)
    found = np.column_stack([score, parts]).astype(np.float64)
    wanted = np.column_stack([scorer.score(block, rows), scorer.contributions(block, rows)]).astype(np.float64)
    apart = np.abs(found - wanted) / np.maximum(np.abs(wanted), _SMALLEST)
    return np.asarray((apart <= STABLE).all(axis=1))


def make_golden(block: PumpBlock, seed: int, scorer: Scorer, run: Run) -> bytes:
    """The golden container: the graph's inputs (`x centre scale votes limit`) and answers (`score probability contributions`).

    The answers come from the scorer's own arithmetic; the parity gate has compared the two before. Rows on which the
    runtime's single precision differs by more than a tenth of what a device tolerates are left out: there large numbers
    cancel, and another processor would round them otherwise.
    """
    rows = golden_rows(block, seed)
    rows = rows[_is_stable(block, rows, scorer, run)]
    score = scorer.score(block, rows)
    return encode_arrays(
        {
            "x": rows,
            "centre": block.centre,
            "scale": block.width,
            "votes": block.votes.astype(np.float32),
            "limit": np.array([block.limit], np.float32),
            "score": score,
            "probability": scorer.probability(score, block.limit),
            "contributions": scorer.contributions(block, rows),
        }
    )
