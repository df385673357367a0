"""A pump's baseline from its reference window: centre and scale of each channel's features, and the sensor's smallest step.

The scale is that of what is left after the adaptive baseline (numeric/alarm.py) has followed slow change, because
that is what the device will judge; the centre is where that baseline stands at the end of the reference window,
because there the device begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.adaptive import Followed, follow
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock, has_votes, score_rows, to_float32
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64, run_starts
from pumpdeck_trainer.limits import Scores

ATOM_SHARE = 0.02
MIN_ROWS = 30
PARITY_ROWS = 100
_LANES = 64


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the detector is told about its channels: names, resolution float64 [c] (0: unknown), votes bool [c]."""

    channels: tuple[str, ...]
    resolution: Float64
    votes: Bools


@dataclass(frozen=True, eq=False)
class Undisturbed:
    """Scores float32 [n] under a block whose limit nothing passes; NaN where no channel votes.

    drift: how far a voting channel's baseline ever stood from its centre, in widths of the block. steps: by how many widths
    of the block the wider one was wide that the rows were followed with; infinite where one was less than half as wide.
    """

    score: Float32
    drift: float
    steps: float


@dataclass(frozen=True, eq=False)
class Baseline:
    """centre, scale, floor: float32 [c] in the channel's unit; `end_centre`: the centre at the end of the reference window.

    `scores` are those of the reference window, as a device with no limit would have given them; NaN until the adaptive
    baseline has settled. `replayed`: the same from the first row on.
    """

    centre: Float32
    scale: Float32
    floor: Float32
    end_centre: Float32
    scores: Scores
    replayed: Undisturbed

    def block(self, inputs: Inputs, limit: float) -> PumpBlock:
        """The pump block as at the start of the reference window: for the replay."""
        return PumpBlock(inputs.channels, self.centre, self.scale, self.floor, inputs.votes, to_float32(limit))


def sensor_floor(ranked: Sequence[Float32], inputs: Inputs) -> Float32:
    """The larger of each sensor's stated resolution and the step seen in its values, float32 [c].

    ranked: of each channel the raw values in rising order (`edges.ranked_columns`).
    """
    steps = np.array([sensor_step(found) for found in ranked])
    return np.asarray(np.maximum(steps, inputs.resolution), np.float32)


def fit_baseline(at_ms: Int64, features: Float32, floor: Float32, inputs: Inputs, settings: AlarmSettings) -> Baseline:
    """The baseline of features float32 [n, c] that stand on full windows, with their times int64 [n].

    floor: as `sensor_floor` gives it. A channel that is never present gets centre 0 and no say.

    Raises:
        GateRefusedError: fewer than 30 rows, or no voting channel is ever present.
    """
    if len(features) < MIN_ROWS:
        raise GateRefusedError(
            "has too few rows to learn from", "reference window", expected=f"at least {MIN_ROWS}", found=len(features)
        )
    columns = np.ascontiguousarray(features.T)
    centre, spread = _moments(columns)
    first = PumpBlock(inputs.channels, centre, spread, floor, inputs.votes, to_float32(SCORE_CAP))
    if not has_votes(first, features).any():
        raise GateRefusedError("has no voting channel with a value", "reference window")
    followed = _followed(first, at_ms, columns, settings)
    settled_ms = int(at_ms[0]) + _settling_ms(int(at_ms[-1] - at_ms[0]), settings)
    settled = int(np.searchsorted(at_ms, settled_ms))
    scale = _spread(followed.level[:, settled:] - centre[:, None])
    block = PumpBlock(inputs.channels, centre, scale, floor, inputs.votes, first.limit)
    level = followed.level.T
    bare = np.where(has_votes(block, level), score_rows(block, level), np.float32(np.nan))
    score = bare.copy()
    score[:settled] = np.nan
    end_centre = (centre + followed.offset * first.width).astype(np.float32)
    if at_ms[-1] - at_ms[0] < settings.tau_s * 1000:
        end_centre = _late_centre(features, centre)
    ratio = (first.width.astype(np.float64) / block.width)[inputs.votes]
    steps = float(ratio.max()) if ratio.min() > 0.5 else np.inf
    replayed = Undisturbed(bare, float((followed.furthest[inputs.votes] * ratio).max()), steps)
    return Baseline(centre, scale, floor, end_centre, Scores(at_ms, score), replayed)


def feature_moments(features: Float32) -> tuple[Float32, Float32]:
    """Mean and standard deviation of each channel, float32 [c], NaN left out; 0 where a channel is never present."""
    return _moments(np.ascontiguousarray(features.T))


def _moments(columns: Float32) -> tuple[Float32, Float32]:
    present = np.isfinite(columns)
    if present.all():
        centre = _sums(columns.astype(np.float64)) / max(columns.shape[1], 1)
    else:
        counts = np.maximum(np.count_nonzero(present, axis=1), 1)
        centre = _sums(np.where(present, columns, np.float32(0)).astype(np.float64)) / counts
    return centre.astype(np.float32), _spread(columns - centre[:, None])


def _followed(block: PumpBlock, at_ms: Int64, columns: Float32, settings: AlarmSettings) -> Followed:
    """What the baseline of a fresh tracker leaves of columns float32 [c, n] when no score passes the block's limit."""
    return follow(block, at_ms, columns, settings.tau_s, settings.follow * block.limit)


def scores_of(
    block: PumpBlock,
    at_ms: Int64,
    features: Float32,
    by: tuple[AlarmSettings, Callable[[PumpBlock, Float32], Float32]],
) -> Scores:
    """Scores of a reference window by a scorer, NaN until the adaptive baseline has settled. `block` has no limit to pass."""
    settings, score = by
    level = _followed(block, at_ms, np.ascontiguousarray(features.T), settings).level.T
    settled = at_ms >= at_ms[0] + _settling_ms(int(at_ms[-1] - at_ms[0]), settings)
    return Scores(at_ms, np.where(has_votes(block, level) & settled, score(block, level), np.float32(np.nan)))


def _settling_ms(span_ms: int, settings: AlarmSettings) -> int:
    """How long the adaptive baseline, which begins at the window's mean, needs to arrive at a drifting window's start.

    What it has not yet followed would widen scale and limit of every pump whose process drifts. At most a tenth of the
    window; nothing in a window too short to follow anything.
    """
    tau_ms = settings.tau_s * 1000
    return 0 if span_ms < tau_ms else round(min(3 * tau_ms, span_ms / 10))


def _late_centre(features: Float32, centre: Float32) -> Float32:
    """The mean of the last half of the rows, and the whole window's where a channel is missing there."""
    half = features[len(features) // 2 :]
    late, _ = feature_moments(half)
    return np.where(np.isfinite(half).any(axis=0), late, centre).astype(np.float32)


def _spread(away: NDArray[np.floating]) -> Float32:
    """Standard deviation of each channel, float32 [c], from distances [c, n], NaN left out."""
    present = np.isfinite(away)
    if present.all():
        held, counts = away.astype(np.float64, copy=False), np.full(len(away), max(away.shape[1], 1))
    else:
        held = np.where(present, away, 0.0).astype(np.float64)
        counts = np.maximum(np.count_nonzero(present, axis=1), 1)
    mean = _sums(held) / counts
    variance = _sums(held * held) / counts - mean**2
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)), np.float32)


def value_spread(values: Float32) -> Float64:
    """Standard deviation of each channel, float64 [c], from rows float32 [n, c], NaN left out; 0 where there is no value."""
    columns = np.ascontiguousarray(values.T).astype(np.float64)
    present = np.isfinite(columns)
    if present.all():
        counts = np.full(len(columns), max(columns.shape[1], 1))
        columns -= (_sums(columns) / counts)[:, None]
    else:
        counts = np.maximum(np.count_nonzero(present, axis=1), 1)
        mean = _sums(np.where(present, columns, 0.0)) / counts
        columns = np.where(present, columns, mean[:, None]) - mean[:, None]
    return np.asarray(np.sqrt(_sums(columns * columns) / counts))


def _sums(columns: Float64) -> Float64:
    """The sum of each channel [c] of [c, n], in an order of our own: the same bits on every processor and numpy.

    64 lanes, each added row after row, then the lanes one after the other.
    """
    count, rows = columns.shape
    whole = rows - rows % _LANES
    lanes = np.add.reduce(columns[:, :whole].reshape(count, -1, _LANES), axis=1)
    parts = np.concatenate([lanes, columns[:, whole:]], axis=1)
    return np.asarray(np.cumsum(parts, axis=1)[:, -1])


def sensor_step(found: Float32) -> float:
    """The step of a coarse sensor, from its values [n] in rising order, none missing; 0 when it is fine-grained.

    Coarse means: at least half of the rows lie on values that each hold 2 % of them. The step is the smallest
    distance of two such values; where only one is that frequent, the distance from it that 1 % of the other rows do
    not reach.
    """
    if len(found) < MIN_ROWS:
        return 0.0
    starts = run_starts(found)
    shares = np.diff(starts, append=len(found)) / len(found)
    frequent = shares >= ATOM_SHARE
    if shares[frequent].sum() < 0.5:
        return 0.0
    atoms = found[starts[frequent]].astype(np.float64)
    if len(atoms) > 1:
        return float(np.diff(atoms).min())
    away = np.sort(np.abs(found.astype(np.float64) - atoms[0]))
    off = away[away > 0]
    return float(off[len(off) // 100]) if len(off) else 0.0


def spread_rows(features: Float32) -> Float32:
    """At most 100 feature rows, spread evenly over the window."""
    return features[spread_places(len(features), PARITY_ROWS)]


def spread_places(rows: int, most: int) -> Int64:
    """At most that many places, spread evenly over the rows."""
    return np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)
