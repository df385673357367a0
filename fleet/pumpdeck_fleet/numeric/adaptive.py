"""The adaptive baseline: how far it has followed each channel, hour by hour of row time (`alarm.py` says when it moves).

`AlarmTracker` keeps it row by row; `follow` gives in one pass what a fresh tracker would do whose limit no score passes. Hour
sums are whole numbers, so the two are equal to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64, run_starts

STEPS = 4096
FURTHEST = 64.0
"""Deviations are counted in 1/4096 width and cut at 64 widths."""


def deviations(columns: Float32, block: PumpBlock) -> tuple[Int64, Bools]:
    """Distance from the reference centre in 1/4096 width, int64 [c, n], 0 where missing; where it is not, bool [c, n].

    columns: float32 [c, n]. By channel: numpy runs along the last axis, and rows are far more than channels.
    """
    finite = np.isfinite(columns)
    return np.where(finite, _steps(columns, block), 0).astype(np.int64), finite


def _steps(columns: Float32, block: PumpBlock) -> Float64:
    """Whole numbers float64 [c, n]; anything where a value is missing."""
    away = columns - block.centre.astype(np.float64)[:, None]
    with np.errstate(invalid="ignore"):
        away /= block.width.astype(np.float64)[:, None]
        np.clip(away, -FURTHEST, FURTHEST, out=away)
        away *= STEPS
        return np.asarray(np.rint(away, out=away), np.float64)


@dataclass(frozen=True, eq=False)
class Followed:
    """level: rows less what the baseline had followed by their hour, float32 [c, n]. offset: how far it stands in the last hour.

    furthest: how far it ever stood. Both float64 [c], in widths.
    """

    level: Float32
    offset: Float64
    furthest: Float64


def follow(block: PumpBlock, at_ms: Int64, columns: Float32, tau_s: float, reach: float) -> Followed:
    """What a fresh tracker makes of rows float32 [c, n] that it counts all: no score passes its limit.

    reach: how many widths the baseline may move.
    """
    starts = run_starts(at_ms // HOUR_MS)
    sizes = np.diff(starts, append=len(at_ms))
    counted = np.isfinite(columns)
    steps = _steps(columns, block)
    if counted.all():
        counts = np.broadcast_to(sizes, (len(columns), len(sizes)))
    else:
        counted &= counted[block.votes].any(axis=0)
        steps = np.where(counted, steps, 0.0)
        counts = np.add.reduceat(counted, starts, axis=1, dtype=np.int64)
    sums = np.add.reduceat(steps, starts, axis=1).astype(np.int64)
    held = (sums.T[:-1], counts.T[:-1])
    offsets = hour_offsets(np.zeros(len(columns)), held, hour_share(tau_s), reach)
    shifts = np.repeat((offsets * block.width.astype(np.float64)).T, sizes, axis=1)
    level = np.subtract(columns, shifts, out=shifts).astype(np.float32)
    return Followed(level, offsets[-1], np.abs(offsets).max(axis=0))


def hour_share(tau_s: float) -> float:
    """The share of the way to an hour's mean that the adaptive baseline goes."""
    return 1.0 - math.exp(-HOUR_MS / 1000 / tau_s)


def hour_offsets(offset: Float64, held: tuple[Int64, Int64], alpha: float, reach: float) -> Float64:
    """Offsets float64 [hours + 1, c]: `offset` [c], then what each hour's sums and numbers of values [hours, c] make of it.

    An hour's offset = keep * offset + pull; an hour without values changes nothing.
    """
    sums, counts = held
    some = counts > 0
    mean = sums / (STEPS * np.maximum(counts, 1))
    keep, pull = np.where(some, 1.0 - alpha, 1.0), np.where(some, alpha * mean, 0.0)
    columns = []
    # Plain floats in a plain loop: an hour depends on the one before, and numpy calls on 8 numbers cost ten times as much.
    for start, rates, aims in zip(offset.tolist(), keep.T.tolist(), pull.T.tolist(), strict=True):
        column = [start]
        if reach > FURTHEST:
            # A mean of deviations that are cut at `FURTHEST` cannot carry it so far.
            columns.append(column + [start := rate * start + aim for rate, aim in zip(rates, aims, strict=True)])
            continue
        for rate, aim in zip(rates, aims, strict=True):
            start = rate * start + aim
            if start > reach:
                start = reach
            elif start < -reach:
                start = -reach
            column.append(start)
        columns.append(column)
    return np.array(columns).T.copy()
