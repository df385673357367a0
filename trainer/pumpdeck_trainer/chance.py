"""Exact statements about few alarms: tails and intervals without a table, and when there is too little to tell."""

from __future__ import annotations

import math
from collections.abc import Callable

_Rising = Callable[[float], float]
_EXACT_MOST = 2000


def poisson_tail(count: int, mean: float) -> float:
    """The chance of `count` or more when `mean` are expected; by the normal law beyond 1,000."""
    if not count:
        return 1.0
    if mean <= 0:
        return 0.0
    if mean > 1000:
        return 0.5 * math.erfc((count - 0.5 - mean) / math.sqrt(2 * mean))
    fewer = sum(math.exp(number * math.log(mean) - mean - math.lgamma(number + 1)) for number in range(count))
    return max(0.0, 1.0 - fewer)


def binomial_tail(count: int, tries: int, chance: float) -> float:
    """The chance of `count` or more hits in `tries`; by the normal law beyond 2,000."""
    if count <= 0:
        return 1.0
    if count > tries or chance <= 0:
        return 0.0
    if chance >= 1:
        return 1.0
    if tries > _EXACT_MOST:
        spread = math.sqrt(tries * chance * (1 - chance))
        return 0.5 * math.erfc((count - 0.5 - tries * chance) / (spread * math.sqrt(2)))
    log_chance, log_miss = math.log(chance), math.log1p(-chance)
    terms = (
        math.lgamma(tries + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(tries - hits + 1)
        + hits * log_chance
        + (tries - hits) * log_miss
        for hits in range(count, tries + 1)
    )
    return min(1.0, sum(math.exp(term) for term in terms))


def rate_above(count: int, other: int, ratio: float) -> float:
    """The chance of `count` or more of the `count + other` alarms when this rate is just `ratio` times the other one."""
    return binomial_tail(count, count + other, ratio / (1 + ratio))


def fewest_to_tell(ratio: float, chance: float) -> int:
    """With fewer alarms on both sides together, not even all of them on one side would speak against `ratio`."""
    return math.ceil(math.log(chance) / math.log(ratio / (1 + ratio)))


def poisson_interval(count: int, outside: float = 0.05) -> tuple[float, float]:
    """The exact (Garwood) interval of a Poisson mean, given one count of it; `outside` is shared by both ends."""
    most = 2.0 * count + 20.0
    low = 0.0 if not count else _solve(lambda mean: poisson_tail(count, mean) - outside / 2, 0.0, most)
    high = _solve(lambda mean: poisson_tail(count + 1, mean) - (1 - outside / 2), 0.0, most)
    return low, high


def binomial_interval(count: int, tries: int, outside: float = 0.05) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a share."""
    if not tries:
        return 0.0, 1.0
    low = 0.0 if not count else _solve(lambda share: binomial_tail(count, tries, share) - outside / 2, 0.0, 1.0)
    high = 1.0
    if count < tries:
        high = _solve(lambda share: binomial_tail(count + 1, tries, share) - (1 - outside / 2), 0.0, 1.0)
    return low, high


def _solve(rising: _Rising, low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
