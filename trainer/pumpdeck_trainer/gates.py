"""Quality gates of a training run: each a stored verdict with its reason, figure and threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_fleet.numeric.frame import Bools, Float64, Int64
from pumpdeck_trainer.chance import poisson_tail
from pumpdeck_trainer.judging import Judged
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.learning import Learned
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.spec import GateThresholds, PipelineSpec
from pumpdeck_trainer.supervised import HeldOut
from pumpdeck_trainer.trained import TrainedPump

MONTH_DAYS = 30.0
NAMED = 5


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


def rate_gate(name: str, alarms: int, days: float, thresholds: GateThresholds) -> QualityGate:
    """False alarms in so many pump days against the thresholds of `name`: replay or holdout.

    A rate stands above a threshold when a pump fleet that is just at it would raise so many alarms less often than
    `chance`: a handful of pumps is not judged by one alarm more or less.
    """
    if not days:
        return QualityGate(name, GateVerdict.WARN, "no rows to judge by")
    held = thresholds.of("chance", f"{name}_alarms_")
    warn, refuse = held[f"{name}_alarms_warn"], held[f"{name}_alarms_refuse"]
    months = days / MONTH_DAYS
    verdict = GateVerdict.PASS
    if poisson_tail(alarms, warn * months) < thresholds.chance:
        verdict = GateVerdict.WARN
    if poisson_tail(alarms, refuse * months) < thresholds.chance:
        verdict = GateVerdict.REFUSE
    rate = alarms / months
    reason = f"{rate:.3g} alarms per pump and 30 days ({alarms} in {days:.0f} pump days)"
    return QualityGate(name, verdict, reason, round(rate, 6), warn, held)


def backtest_gate(pumps: Sequence[TrainedPump], spec: PipelineSpec) -> QualityGate:
    """Which pumps would have gone beyond their own alarm budget in the last 30 days of the replay.

    A pump goes beyond it with so many alarms as chance gives a pump just at its budget less often than `chance`; fewer such pumps
    than `backtest_fewest_pumps` are never refused.
    """
    thresholds = spec.gates
    counts, days = backtest_of(pumps)
    over = _is_over(counts, days, spec)
    share = float(over.mean()) if len(over) else 0.0
    verdict = GateVerdict.PASS
    if share > thresholds.backtest_over_warn:
        verdict = GateVerdict.WARN
    if share > thresholds.backtest_over_refuse and over.sum() >= thresholds.backtest_fewest_pumps:
        verdict = GateVerdict.REFUSE
    worst = sorted(np.flatnonzero(over).tolist(), key=lambda place: (-counts[place], pumps[place].pump))
    named = ", ".join(f"{pumps[place].pump} ({int(counts[place])})" for place in worst[:NAMED])
    more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
    reason = (
        f"{int(over.sum())} of {len(pumps)} pumps beyond their budget in the last {float(days.max(initial=0)):.0f} days"
        f"{f': {named}{more}' if named else ''}"
    )
    held = thresholds.of("chance", "backtest_")
    return QualityGate("backtest", verdict, reason, round(share, 6), thresholds.backtest_over_warn, held)


def beyond_budget(pumps: Sequence[TrainedPump], spec: PipelineSpec) -> list[tuple[str, int]]:
    """The pumps that `backtest_gate` counts as beyond their budget, with their false alarms."""
    counts, days = backtest_of(pumps)
    return [(pumps[place].pump, int(counts[place])) for place in np.flatnonzero(_is_over(counts, days, spec)).tolist()]


def _is_over(counts: Int64, days: Float64, spec: PipelineSpec) -> Bools:
    expected = days * spec.budget.alarms / (spec.budget.period_s / 86_400)
    over = [poisson_tail(int(count), mean) < spec.gates.chance for count, mean in zip(counts, expected, strict=True)]
    return np.array(over, np.bool_)


def backtest_of(pumps: Sequence[TrainedPump]) -> tuple[Int64, Float64]:
    """Of each pump: false alarms in the last 30 days of its replay, and how many of these days there were."""
    since = [one.last_ms - MONTH_DAYS * DAY_MS for one in pumps]
    counts = [sum(raised >= first for raised, _ in one.judged.alarms) for one, first in zip(pumps, since, strict=True)]
    days = [min(one.judged.days, MONTH_DAYS) for one in pumps]
    return np.array(counts, np.int64), np.array(days, np.float64)


def data_gate(learned: Sequence[Learned], left_out: int, spec: PipelineSpec) -> QualityGate:
    """Training-data guard: how much was left out, and why: flagged by sensor checks, stopped pumps, labels, dated changes."""
    thresholds = spec.gates
    rows, used = sum(one.rows for one in learned), sum(one.used for one in learned)
    reasons: dict[str, int] = {}
    flags: dict[str, int] = {}
    for one in learned:
        for found, kept in ((reasons, one.excluded), (flags, one.flags)):
            for reason, count in kept.items():
                found[reason] = found.get(reason, 0) + count
    share = 1.0 - used / rows if rows else 1.0
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    checks = ", ".join(f"{name} {count}" for name, count in sorted(flags.items()))
    verdict = GateVerdict.WARN if share > thresholds.excluded_share_warn or left_out else GateVerdict.PASS
    if share > thresholds.excluded_share_refuse:
        verdict = GateVerdict.REFUSE
    details = "; ".join([*([told] if told else []), *([f"sensor checks: {checks}"] if checks else [])])
    words = "rows no ground for health" if spec.model_type in SUPERVISED else "rows left out"
    reason = f"{rows - used} of {rows} {words}{f' ({details})' if details else ''}; {left_out} pumps left out"
    return QualityGate("training_data", verdict, reason, share, thresholds.excluded_share_warn, thresholds.of("excluded_"))


def unseen_gate(found: HeldOut, thresholds: GateThresholds) -> QualityGate:
    """A supervised type on pumps it has not seen: refused where ill rows hardly stand above healthy ones."""
    verdict = GateVerdict.PASS
    worse = found.brier >= found.brier_constant
    if worse or found.auc < thresholds.unseen_auc_warn or found.found < thresholds.unseen_found_warn * found.faults:
        verdict = GateVerdict.WARN
    if found.auc < thresholds.unseen_auc_refuse:
        verdict = GateVerdict.REFUSE
    reason = (
        f"left out in turn: {found.found} of {found.faults} faults told on {found.fault_pumps} pumps, AUC {found.auc:.3f}, "
        f"Brier {found.brier:.3g} (constant {found.brier_constant:.3g}), reliability off by {found.reliability_error:.3g}"
    )
    held = thresholds.of("unseen_")
    return QualityGate("unseen_pumps", verdict, reason, round(found.auc, 6), thresholds.unseen_auc_refuse, held)
