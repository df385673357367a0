"""From which limit on a pump raises no alarm: told while its rows are at hand, so that nobody has to replay them for it.

The limit of a pump may be its type's, known only when all pumps have been learned from; most pumps then stay quiet, and a replay
would only say so. Let v be the scores under a limit that nothing passes, and A the highest level above which a streak of v lasts
as long as the persistence. Under a limit L the tracker leaves rows above L out of an hour's mean, so its baseline, and with it
every score, may differ from v by some q:

- Rows left out of hour h are among the k rows with v > L - q. That moves the mean of a channel's N values by at most k / N of
  the range of these values, and the baseline by alpha of it; what it was apart before fades by 1 - alpha an hour.
- So if L >= A + q, with q the largest sum of such terms over all hours for the rows with v > A, no streak above L lasts, there is
  no alarm, and by induction over hours the assumption holds. The larger L, the fewer rows above it: what holds for one limit
  holds for every larger one.
- The baseline never stands further than `follow` limits away, if L >= (drift + q) / follow.
- Rounding: deviations are counted in 1/4096 width, levels in single precision; `_doubt` bounds what this does to a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.numeric.adaptive import FURTHEST, STEPS, follow, hour_share
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock, has_votes, score_rows
from pumpdeck_fleet.numeric.frame import Bools, Float32, Int64, run_starts
from pumpdeck_trainer.baseline import Undisturbed
from pumpdeck_trainer.limits import Scores, lasting_scores

NEVER = math.inf
_SINGLE = 2.0**-21
"""Eight times the rounding of single precision: a level is rounded when it is made, taken from the centre and divided."""


@dataclass(frozen=True, slots=True)
class Calm:
    """limit, early: from which limits on the replay, and that of the held-out end, show no alarm.

    days, holdout_days: the lengths of the two.
    """

    limit: float
    early: float
    days: float
    holdout_days: float


def undisturbed(block: PumpBlock, at_ms: Int64, columns: Float32, settings: AlarmSettings) -> Undisturbed:
    """The scores of rows float32 [c, n] under a block whose limit nothing passes, from a fresh start."""
    followed = follow(block, at_ms, columns, settings.tau_s, settings.follow * SCORE_CAP)
    level = followed.level.T
    score = np.where(has_votes(block, level), score_rows(block, level), np.float32(np.nan))
    return Undisturbed(score, float(followed.furthest[block.votes].max()), 1.0)


def calm_limit(block: PumpBlock, rows: tuple[Int64, Float32], found: Undisturbed, settings: AlarmSettings) -> float:
    """The limit from which on a fresh tracker with this block raises no alarm on rows (times [n], float32 [c, n]).

    `NEVER` where this cannot be told, though the replay may show none. The block's own limit does not matter.
    """
    at_ms, columns = rows
    if not len(at_ms):
        return 0.0
    voting = columns[block.votes]
    doubt = _doubt(block, voting, found.steps)
    lasting = lasting_scores(Scores(at_ms, found.score), round(settings.persistence_s * 1000)).score
    lasting = lasting[np.isfinite(lasting)]
    if not len(lasting):
        return 0.0
    level = float(lasting.max())
    if settings.follow == 0:
        return level + doubt
    if settings.follow * SCORE_CAP < 2 * FURTHEST:
        return NEVER
    with np.errstate(invalid="ignore"):
        above = found.score > level
    apart = _apart(block, (at_ms, voting), above, (np.isfinite(found.score), settings.tau_s)) if above.any() else 0.0
    return max(level + apart + doubt, (found.drift + apart + doubt) / settings.follow)


def _doubt(block: PumpBlock, voting: Float32, steps: float) -> float:
    """By how many widths rounding may part a score from `Undisturbed`; `NEVER` where a deviation is so large that it is cut."""
    centre, width = block.centre[block.votes].astype(np.float64), block.width[block.votes].astype(np.float64)
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(voting, axis=1), np.fmax.reduce(voting, axis=1)
    seen = np.isfinite(low) & np.isfinite(high)
    if not seen.any():
        return NEVER
    low, high, centre, width = (column[seen].astype(np.float64) for column in (low, high, centre, width))
    furthest = np.maximum(high - centre, centre - low)
    # A margin of two, because the block it was followed with may be narrower (`Undisturbed.steps`).
    if (furthest >= FURTHEST / 2 * width).any():
        return NEVER
    largest = np.maximum(np.abs(low), np.abs(high)) + furthest
    return float((steps + 1.0) / (2 * STEPS) + _SINGLE * (float((largest / width).max()) + 2 * FURTHEST))


def _apart(block: PumpBlock, rows: tuple[Int64, Float32], above: Bools, by: tuple[Bools, float]) -> float:
    """How far the baselines with and without the rows above may come apart, in widths, over all hours and voting channels."""
    (at_ms, voting), (voted, tau_s) = rows, by
    starts = run_starts(at_ms // HOUR_MS)
    gone = np.add.reduceat(above, starts, dtype=np.int64)
    met = np.flatnonzero(gone)
    sizes = np.diff(starts, append=len(at_ms))
    chosen = np.repeat(gone > 0, sizes)
    inner = np.cumsum(sizes[met]) - sizes[met]
    some = voting[:, chosen].astype(np.float64)
    finite = np.isfinite(some) & voted[chosen]
    low = np.minimum.reduceat(np.where(finite, some, np.inf), inner, axis=1)
    high = np.maximum.reduceat(np.where(finite, some, -np.inf), inner, axis=1)
    counts = np.add.reduceat(finite, inner, axis=1, dtype=np.int64)
    seen = counts > 0
    if (gone[met] >= np.where(seen, counts, len(at_ms) + 1)).any():
        return NEVER
    width = block.width[block.votes].astype(np.float64)[:, None]
    spans = np.where(seen, high, 0.0) - np.where(seen, low, 0.0)
    moved = (gone[met] / np.maximum(counts, 1) * spans / width).max(axis=0)
    share, apart, furthest = hour_share(tau_s), 0.0, 0.0
    for fades, move in zip(_fading_hours(voting, starts, met).tolist(), moved.tolist(), strict=True):
        apart = apart * (1.0 - share) ** fades + share * move
        furthest = max(furthest, apart)
    return furthest


def _fading_hours(voting: Float32, starts: Int64, met: Int64) -> Int64:
    """Of each hour that was met, how many hours since the one before (itself among them) moved the baseline of every channel."""
    full: Bools = np.ones(len(starts), np.bool_)
    present = np.isfinite(voting)
    if not present.all():
        alive = present[present.any(axis=1)]
        full = np.asarray(np.logical_or.reduceat(alive, starts, axis=1).all(axis=0))
    upto = np.cumsum(full)[met]
    return np.diff(upto, prepend=upto[:1])
