"""Every model type fitted to the same seeded rows, once a process."""

from __future__ import annotations

from functools import cache

import numpy as np

from pumpdeck_fleet.numeric.detectors import PumpBlock, to_float32
from pumpdeck_trainer.labelled import SUPERVISED, LabelledPump
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.scorer import Scorer
from pumpdeck_trainer.supervised import fit_supervised

CHANNELS = 6
VOTES = np.array([True, True, True, False, True, True])
GUILTY = 1


def healthy(rows: int, seed: int) -> np.ndarray:
    """Widths of a healthy pump: two hidden causes move six channels."""
    rng = np.random.default_rng(seed)
    mix = np.array([[1, 0.8, 0.6, 0.1, 0, 0.3], [0, 0.2, -0.5, 0.9, 1, 0.4]])
    raw = rng.standard_normal((rows, 2)) @ mix + 0.3 * rng.standard_normal((rows, CHANNELS))
    return np.asarray(raw / raw.std(axis=0))


def block_with(limit: float) -> PumpBlock:
    rng = np.random.default_rng(3)
    names = tuple(f"c{place}" for place in range(CHANNELS))
    centre = (100 * rng.standard_normal(CHANNELS)).astype(np.float32)
    scale = rng.uniform(0.1, 10, CHANNELS).astype(np.float32)
    return PumpBlock(names, centre, scale, 0 * scale, VOTES, to_float32(limit))


def features(block: PumpBlock, z: np.ndarray) -> np.ndarray:
    return (block.centre + block.width * z).astype(np.float32)


def labelled(number: int) -> LabelledPump:
    """A pump with two faults of the guilty channel and one of all the others."""
    ill = 0.7 * healthy(90, 60 + number)
    ill[:60, GUILTY] += np.repeat([9.0, -9.0], 30)
    ill[60:, 2] += 9.0
    ill[60:, 4:] += 9.0
    fault = np.repeat(np.arange(3), 30)
    kinds = ("one", "one", "many")
    return LabelledPump(f"p{number}", healthy(300, 40 + number) * VOTES, ill * VOTES, fault, kinds, 10.0, np.full(3, 2.0))


def fit(model_type: str) -> Scorer:
    if model_type in SUPERVISED:
        return fit_supervised(model_type, [labelled(number) for number in range(5)], (VOTES, 7)).scorer
    return fit_scorer(model_type, healthy(1500, 1) * VOTES, VOTES, seed=7)


@cache
def fitted(model_type: str) -> tuple[Scorer, PumpBlock]:
    scorer = fit(model_type)
    plain = block_with(1.0)
    scores = scorer.score(plain, features(plain, healthy(2000, 2)))
    return scorer, block_with(max(float(np.quantile(scores, 0.999)), scorer.least))
