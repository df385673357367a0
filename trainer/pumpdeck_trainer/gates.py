"""Quality gates of a training run: each a stored verdict with its reason, figure and threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_trainer.learning import Judged, Learned
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.spec import GateThresholds

MONTH_DAYS = 30.0
CHANCE = 0.05


def metrics_of(learned: Sequence[Learned], judged: Sequence[Judged], limits: Sequence[FittedLimit]) -> dict[str, float]:
    """The figures of a run, by name. Rates are alarms per pump and 30 days; a figure without any ground is left out."""
    found = {
        "pumps": float(len(learned)),
        "rows": float(sum(one.rows for one in learned)),
        "rows_used": float(sum(one.used for one in learned)),
        "limit_median": float(np.median([limit.limit for limit in limits])),
        "provisional_pumps": float(sum(limit.provisional for limit in limits)),
        "replay_alarms": float(sum(len(one.alarms) for one in judged)),
        "labelled_faults": float(sum(one.faults for one in judged)),
        "labelled_faults_found": float(sum(one.faults_found for one in judged)),
    }
    days = sum(one.days for one in judged)
    if days:
        found["replay_alarms_pump_month"] = found["replay_alarms"] * MONTH_DAYS / days
    held_days = sum(one.holdout_days for one in judged)
    if held_days:
        found["holdout_alarms_pump_month"] = sum(one.holdout_alarms for one in judged) * MONTH_DAYS / held_days
    return {name: round(figure, 6) for name, figure in found.items()}


def rate_gate(name: str, alarms: int, days: float, thresholds: GateThresholds, *, may_refuse: bool) -> QualityGate:
    """False alarms in so many pump days against the thresholds.

    A rate stands above a threshold when a pump fleet that is just at it would raise so many alarms less than once in
    twenty times: a handful of pumps is not judged by one alarm more or less.
    """
    if not days:
        return QualityGate(name, GateVerdict.WARN, "no rows to judge by")
    months = days / MONTH_DAYS
    verdict = GateVerdict.PASS
    if poisson_tail(alarms, thresholds.replay_alarms_warn * months) < CHANCE:
        verdict = GateVerdict.WARN
    if may_refuse and poisson_tail(alarms, thresholds.replay_alarms_refuse * months) < CHANCE:
        verdict = GateVerdict.REFUSE
    rate = alarms / months
    reason = f"{rate:.3g} alarms per pump and 30 days ({alarms} in {days:.0f} pump days)"
    return QualityGate(name, verdict, reason, round(rate, 6), thresholds.replay_alarms_warn)


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


def data_gate(learned: Sequence[Learned], left_out: int, thresholds: GateThresholds) -> QualityGate:
    """Training-data guard: how much was left out, and why."""
    rows, used = sum(one.rows for one in learned), sum(one.used for one in learned)
    reasons: dict[str, int] = {}
    for one in learned:
        for reason, count in one.excluded.items():
            reasons[reason] = reasons.get(reason, 0) + count
    share = 1.0 - used / rows if rows else 1.0
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "nothing"
    verdict = GateVerdict.WARN if share > thresholds.excluded_share_warn or left_out else GateVerdict.PASS
    reason = f"{rows - used} of {rows} rows left out ({told}); {left_out} pumps left out"
    return QualityGate("training_data", verdict, reason, share, thresholds.excluded_share_warn)
