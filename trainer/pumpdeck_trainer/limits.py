"""The alarm limit of a pump from its own scores and a stated budget of false alarms; never a number out of the air.

Block maxima of scores follow a Gumbel law for the light tails that |z| of window means has. With n blocks per
budget period, the score that the maximum of a period passes `alarms` times on average is mu + beta * ln(n /
alarms).

| branch | when | blocks |
|---|---|---|
| daily | 20 daily blocks or more | one UTC day of row time |
| windows | else, 20 such blocks or more | 10 windows of row time |
| pooled | else | 10 windows, those of all pumps of the type together; the limit is provisional |

What is cut into blocks is not the score but the highest limit under which the alarm logic would stand in alarm at that
row: the score's minimum over the persistence. A score that peaks for less never alarms, so it must not raise the limit.

Extremal correction, stated in `FittedLimit.extremal_index`: maxima of neighbouring short blocks come in clusters,
and one cluster is one alarm, so n counts clusters: n * theta, theta = P(next block <= u | block > u) / P(block <=
u) at u = the upper quartile, within 0.2..1. Days count as independent (theta = 1), and so do the blocks of a pool
(theta = 1, the cautious side).

Small-sample correction, for reference windows scored against the baseline they made: a new row spreads sqrt((m + 1)
/ (m - 1)) times as far from a baseline learned from m windows as those windows do themselves; the limit grows by
that factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import LimitBranch, to_float32
from pumpdeck_fleet.numeric.features import last_before
from pumpdeck_fleet.numeric.frame import Float32, Float64, Int64, run_starts

MIN_BLOCKS = 20
WINDOWS_A_BLOCK = 10
_MIN_POOL = 3
_THETA_RANGE = (0.2, 1.0)


@dataclass(frozen=True, slots=True)
class AlarmBudget:
    """How many false alarms a pump may raise: `alarms` in `period_s` of row time on average. Default: one a month."""

    alarms: float = 1.0
    period_s: float = 30 * 86_400.0

    def __post_init__(self) -> None:
        if not (self.alarms > 0 and self.period_s > 0):
            raise ValueError("an alarm budget needs more than 0 alarms in more than 0 s")


@dataclass(frozen=True, slots=True)
class BlockRule:
    """How scores are cut into blocks: the window of the features, from which the short blocks follow, and the persistence
    that the alarm logic will ask for."""

    window_s: float
    persistence_s: float = 0.0

    @property
    def short_ms(self) -> int:
        """The length of a block of 10 windows."""
        return round(WINDOWS_A_BLOCK * self.window_s * 1000)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one pump's reference window: at_ms int64 [n], strictly rising, score float32 [n], NaN = none."""

    at_ms: Int64
    score: Float32


@dataclass(frozen=True, slots=True)
class FittedLimit:
    """A limit and how it came about. location, spread: of the Gumbel law of block maxima; block_s: their length."""

    limit: float
    branch: LimitBranch
    provisional: bool
    blocks: int
    block_s: float
    location: float
    spread: float
    extremal_index: float
    small_sample: float


@dataclass(frozen=True, eq=False)
class BlockMaxima:
    """All that a limit needs of one pump's scores: block maxima float64 of days and of short blocks, small-sample factor."""

    daily: Float64
    short: Float64
    small_sample: float

    @property
    def has_own(self) -> bool:
        """Enough blocks for a limit that needs no pool."""
        return max(len(self.daily), len(self.short)) >= MIN_BLOCKS


def fit_limit(
    scores: Scores, block: BlockRule, budget: AlarmBudget, *, pooled: FittedLimit | None = None
) -> FittedLimit:
    """The limit of one pump; `pooled` is its type's (`pool_limit`), taken when the pump has too few blocks of its own.

    Raises:
        GateRefusedError: too few blocks and no pooled limit.
    """
    return limit_of_maxima(maxima_of(scores, block), block, budget, pooled=pooled)


def maxima_of(scores: Scores, block: BlockRule) -> BlockMaxima:
    """What `limit_of_maxima` and `pool_limit` work on: some hundred bytes instead of all scores."""
    lasting = lasting_scores(scores, round(block.persistence_s * 1000))
    short = block_maxima(lasting, block.short_ms)
    return BlockMaxima(block_maxima(lasting, DAY_MS), short, small_sample_factor(scores, block))


def limit_of_maxima(
    maxima: BlockMaxima, block: BlockRule, budget: AlarmBudget, *, pooled: FittedLimit | None = None
) -> FittedLimit:
    """`fit_limit` from block maxima.

    Raises:
        GateRefusedError: as `fit_limit`.
    """
    if len(maxima.daily) >= MIN_BLOCKS:
        return _limit(maxima.daily, DAY_MS, LimitBranch.DAILY, budget, (1.0, maxima.small_sample))
    if len(maxima.short) >= MIN_BLOCKS:
        corrections = (extremal_index(maxima.short), maxima.small_sample)
        return _limit(maxima.short, block.short_ms, LimitBranch.WINDOWS, budget, corrections)
    if pooled is None:
        raise GateRefusedError(
            "has too few scores for a limit of its own, and its type has no pooled limit",
            "limit",
            expected=f"{MIN_BLOCKS} blocks of {block.short_ms / 1000:g} s",
            found=len(maxima.short),
            hint="collect more rows, or train more pumps of this type together",
        )
    return pooled


def pool_limit(pumps: Sequence[BlockMaxima], block: BlockRule, budget: AlarmBudget) -> FittedLimit | None:
    """The provisional limit of a pump type from the short blocks of all its pumps; None when there are hardly any."""
    together = np.concatenate([maxima.short for maxima in pumps]) if pumps else np.zeros(0)
    if len(together) < _MIN_POOL:
        return None
    factor = float(np.median([maxima.small_sample for maxima in pumps]))
    return _limit(together, block.short_ms, LimitBranch.POOLED, budget, (1.0, factor))


def block_maxima(scores: Scores, block_ms: int) -> Float64:
    """The largest score of each block that spans 80 % of its time and holds half the usual number of scores, in order.

    A day is a UTC day; shorter blocks are counted from the first row, so a short series is not cut at its ends.
    """
    held = np.isfinite(scores.score)
    at_ms, values = scores.at_ms[held], scores.score[held].astype(np.float64)
    if not len(at_ms):
        return np.zeros(0)
    origin = 0 if block_ms == DAY_MS else int(at_ms[0])
    starts = run_starts((at_ms - origin) // block_ms)
    sizes = np.diff(starts, append=len(at_ms))
    # A block must also span its time: the first and last one of a series are usually cut.
    ends = np.append(starts[1:], len(at_ms)) - 1
    whole = (at_ms[ends] - at_ms[starts] >= 0.8 * block_ms) & (sizes >= np.median(sizes) / 2)
    return np.asarray(np.maximum.reduceat(values, starts)[whole], np.float64)


def lasting_scores(scores: Scores, wait_ms: int) -> Scores:
    """For each row the highest limit that a streak of `wait_ms` ending there stayed above; NaN where none can have lasted.

    Exactly the alarm logic's own rule: an alarm is raised at the first row whose lasting score passes the limit.
    """
    held = np.isfinite(scores.score)
    at_ms, values = (scores.at_ms, scores.score) if held.all() else (scores.at_ms[held], scores.score[held])
    first = last_before(at_ms, wait_ms)
    place = np.arange(len(at_ms))
    lasts = first >= 0
    result = np.full(len(at_ms), np.nan, np.float32)
    lengths = np.where(lasts, place - first + 1, 0)
    longest = int(lengths.max(initial=0))
    is_steady = bool((lengths[lasts] == longest).all())
    lowest, size = values, 1
    # Minima over 1, 2, 4 .. rows; two that overlap cover any length, so a long persistence costs only a few passes.
    while size <= longest:
        if not is_steady:
            chosen = place[(lengths >= size) & (lengths < 2 * size)]
            result[chosen] = np.minimum(lowest[first[chosen]], lowest[chosen - size + 1])
        elif 2 * size > longest:
            result[lasts] = np.minimum(lowest[: len(values) - longest + 1], lowest[longest - size :])[-int(lasts.sum()) :]
        lowest, size = np.minimum(lowest[:-size], lowest[size:]), 2 * size
    return Scores(at_ms, result)


def extremal_index(maxima: Float64) -> float:
    """The share of block maxima above their upper quartile that end a cluster, against independence; within 0.2..1."""
    high = maxima > np.quantile(maxima, 0.75)
    before = int(high[:-1].sum())
    if not before:
        return 1.0
    ends = int((high[:-1] & ~high[1:]).sum())
    independent = 1.0 - float(high.mean())
    return float(np.clip(ends / before / independent, *_THETA_RANGE))


def small_sample_factor(scores: Scores, block: BlockRule) -> float:
    """sqrt((m + 1) / (m - 1)) for the m windows that the scores cover, gaps left out."""
    if len(scores.at_ms) < 2:
        return 1.0
    steps = np.diff(scores.at_ms)
    covered_ms = float(np.minimum(steps, block.window_s * 1000).sum())
    windows = max(covered_ms / (block.window_s * 1000), 2.0)
    return math.sqrt((windows + 1) / (windows - 1))


def gumbel(maxima: Float64) -> tuple[float, float]:
    """Location and spread by least squares on a Gumbel plot (Gringorten positions) of the central 80 % of block maxima.

    The outer tenths are left out: a fault nobody labelled must not raise the limit that is there to find it.
    """
    ranked = np.sort(maxima)
    share = (np.arange(1, len(ranked) + 1) - 0.44) / (len(ranked) + 0.12)
    inner = (share > 0.1) & (share < 0.9)
    reduced = -np.log(-np.log(share[inner]))
    away = reduced - reduced.mean()
    spread = float((away * ranked[inner]).sum() / (away * away).sum())
    return float(ranked[inner].mean() - spread * reduced.mean()), spread


def _limit(
    maxima: Float64, block_ms: int, branch: LimitBranch, budget: AlarmBudget, corrections: tuple[float, float]
) -> FittedLimit:
    location, spread = gumbel(maxima)
    theta, factor = corrections
    blocks = budget.period_s * 1000 / block_ms
    level = location + spread * math.log(max(blocks * theta / budget.alarms, 1.0))
    return FittedLimit(
        limit=to_float32(max(level, 1e-3) * factor),
        branch=branch,
        provisional=branch is LimitBranch.POOLED,
        blocks=len(maxima),
        block_s=block_ms / 1000,
        location=location,
        spread=spread,
        extremal_index=theta,
        small_sample=factor,
    )
