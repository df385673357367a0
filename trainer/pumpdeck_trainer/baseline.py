"""A pump's baseline from its reference window: centre and scale of each channel's features, and the sensor's smallest step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import PumpBlock, to_float32
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64

ATOM_SHARE = 0.02
MIN_ROWS = 30


@dataclass(frozen=True, eq=False)
class Baseline:
    """centre, scale, floor: float32 [c] in the channel's unit."""

    centre: Float32
    scale: Float32
    floor: Float32

    def block(self, channels: tuple[str, ...], votes: Bools, limit: float) -> PumpBlock:
        """The pump block with this baseline."""
        return PumpBlock(channels, self.centre, self.scale, self.floor, votes, to_float32(limit))


def sensor_step(values: Float32) -> float:
    """The step of a coarse sensor, from its values [n] (NaN = missing); 0 when it is fine-grained.

    Coarse means: at least half of the rows lie on values that each hold 2 % of them. The step is the smallest
    distance of two such values; where only one is that frequent, the smallest distance from it at which at least 1
    % of the rows lie or fewer.
    """
    found = np.sort(values[np.isfinite(values)])
    if len(found) < MIN_ROWS:
        return 0.0
    starts = np.flatnonzero(np.diff(found, prepend=np.float32(np.nan)) != 0)
    shares = np.diff(starts, append=len(found)) / len(found)
    frequent = shares >= ATOM_SHARE
    if shares[frequent].sum() < 0.5:
        return 0.0
    atoms = found[starts[frequent]].astype(np.float64)
    if len(atoms) > 1:
        return float(np.diff(atoms).min())
    away = np.sort(np.abs(found.astype(np.float64) - atoms[0]))
    off = away[away > 0]
    return float(off[min(len(off) - 1, len(found) // 100)]) if len(off) else 0.0


def fit_baseline(features: Float32, values: Float32, resolution: Float64) -> Baseline:
    """Centre and scale (mean and standard deviation) of features float32 [n, c] that stand on full windows.

    values: the raw rows float32 [m, c] they came from; resolution: float64 [c], what the inventory says of each
    sensor (0: unknown). The floor is the larger of that and the step seen in the values. A channel that is never
    present gets centre 0 and no say.

    Raises:
        GateRefusedError: fewer than 30 rows.
    """
    if len(features) < MIN_ROWS:
        raise GateRefusedError(
            "has too few rows to learn from", "reference window", expected=MIN_ROWS, found=len(features)
        )
    present = np.isfinite(features)
    counts = np.maximum(present.sum(axis=0), 1)
    wide = np.where(present, features, 0.0).astype(np.float64)
    centre = wide.sum(axis=0) / counts
    away = np.where(present, features - centre, 0.0)
    scale = np.sqrt((away * away).sum(axis=0) / counts)
    steps = np.array([sensor_step(values[:, place]) for place in range(values.shape[1])])
    floor = np.maximum(steps, resolution)
    return Baseline(centre.astype(np.float32), scale.astype(np.float32), floor.astype(np.float32))
