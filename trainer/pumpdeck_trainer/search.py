"""Search: every point of a small grid judged on the same later rows of the same pumps, and all of it kept in the run record.

Splits are by time and by pump. By time: the later half of the reference window is cut into folds; a fold is judged by what was
learned from the rows before it, with a purge of one window and the label horizon between; rows within the horizon of a
labelled fault teach nothing (embargo). By pump: what a model type learns from all pumps together is learned from two thirds of
them and judged on the rest; each pump keeps its own baseline, as it does on a device.

A detector without labels cannot be judged by its silence, so a step of half, one and two standard deviations of the raw
channel is added to copies of the judged rows, in one voting channel of each pump in turn. Points are ranked by: not beyond
twice the alarm budget; share of labelled faults met; share of steps alarmed within a day; false alarms; order in the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.edges import ranked_columns
from pumpdeck_fleet.numeric.frame import Bools, Float32, Int64
from pumpdeck_trainer.baseline import fit_baseline, sensor_floor, spread_places
from pumpdeck_trainer.chance import poisson_tail
from pumpdeck_trainer.judging import Span, false_alarms, hits_of, replay, sought_faults
from pumpdeck_trainer.learning import SHAPE_ROWS, Fit, PumpRows, inputs_of, own_limit
from pumpdeck_trainer.limits import pool_limit
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.scorer import MaxZScorer, Scorer
from pumpdeck_trainer.search_spec import SearchPoint
from pumpdeck_trainer.shape import rescored, sample_widths
from pumpdeck_trainer.source import CleanRows, Exclusion
from pumpdeck_trainer.spec import PipelineSpec

_Run = Callable[[Int64, Float32], Sequence[Span]]
"""Alarms on rows: times and features."""
STEPS = (0.5, 1.0, 2.0)
GROUPS = 3
OVER_BUDGET = 2.0


@dataclass(frozen=True, slots=True)
class PointResult:
    """What became of one point, summed over folds and pumps. folds: pairs of pump and fold that were judged."""

    point: SearchPoint
    folds: int
    days: float
    false_alarms: int
    faults: int
    faults_met: int
    steps: int
    steps_met: int
    over_budget: bool


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The whole search, for the run record: places of the chosen point and of the runner-up (-1: none) in `results`."""

    results: tuple[PointResult, ...]
    chosen: int
    runner_up: int
    pumps: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SearchRows:
    """Cleaned rows of one pump and the exclusions they were cleaned by."""

    pump: str
    rows: CleanRows
    exclusions: Sequence[Exclusion]


@dataclass(frozen=True, eq=False)
class _Learned:
    """One pump before a fold: its fit, and feature rows for the shape."""

    fit: Fit
    sample: Float32


def searched_pumps(pumps: Sequence[str], most: int) -> tuple[str, ...]:
    """At most that many, spread evenly over the sorted names."""
    ordered = sorted(pumps)
    return tuple(ordered[place] for place in spread_places(len(ordered), most).tolist())


def with_point(spec: PipelineSpec, point: SearchPoint) -> PipelineSpec:
    """The spec with that point's choices."""
    alarm = replace(spec.alarm, persistence_s=point.persistence_s, tau_s=point.tau_s, deadband=point.deadband)
    return replace(spec, model_type=point.model_type, window_s=point.window_s, alarm=alarm)


def choose(results: Sequence[PointResult], pumps: Sequence[str]) -> SearchOutcome:
    """The best point and the next one."""
    order = sorted(range(len(results)), key=lambda place: (_rank(results[place]), place))
    return SearchOutcome(tuple(results), order[0], order[1] if len(order) > 1 else -1, tuple(pumps))


def _rank(one: PointResult) -> tuple[bool, bool, float, float, float]:
    rate = one.false_alarms / one.days if one.days else 0.0
    return (
        not one.folds,
        one.over_budget,
        -one.faults_met / max(one.faults, 1),
        -one.steps_met / max(one.steps, 1),
        rate,
    )


def judge_point(spec: PipelineSpec, point: SearchPoint, pumps: Sequence[SearchRows]) -> PointResult:
    """One point over all folds."""
    tried = with_point(spec, point)
    held = [(one, PumpRows(one.rows, tried)) for one in pumps]
    total = np.zeros(7)
    for fold in range(spec.search.folds):
        total += _judge_fold(tried, held, fold)
    folds, days, false, faults, met, steps, seen = total.tolist()
    allowed = OVER_BUDGET * days * DAY_MS / 1000 / spec.budget.period_s * spec.budget.alarms
    over = bool(days) and poisson_tail(int(false), allowed) < spec.gates.chance
    return PointResult(point, int(folds), round(days, 6), int(false), int(faults), int(met), int(steps), int(seen), over)


def _judge_fold(spec: PipelineSpec, held: Sequence[tuple[SearchRows, PumpRows]], fold: int) -> np.ndarray:
    """folds, days, false alarms, faults, faults met, steps, steps met of one fold."""
    cuts = [_cuts(rows.learned[0], spec, fold) for _, rows in held]
    learned = [_learn(spec, one, rows, cut[0]) for (one, rows), cut in zip(held, cuts, strict=True)]
    scorers = _scorers(spec, learned)
    fits: dict[int, Fit] = {}
    for place, ((one, rows), cut, found) in enumerate(zip(held, cuts, learned, strict=True)):
        if found is None:
            continue
        fits[place] = found.fit
        if spec.model_type != MaxZScorer.model_type:
            at_ms, features = _before(spec, one, rows, cut[0])
            fits[place] = rescored(found.fit, at_ms, features, (spec, scorers[place % len(scorers)]))
    pooled = pool_limit([fit.maxima for fit in fits.values()], spec.blocks, spec.budget)
    total = np.zeros(7)
    for place, fit in fits.items():
        scorer = scorers[place % len(scorers)]
        try:
            limit = own_limit(fit.maxima, pooled, spec, scorer)
        except GateRefusedError:
            continue
        block = fit.block(inputs_of(spec), limit, shipped=True)
        total += _judge_rows(spec, (*held[place], place), cuts[place], partial(_alarms, (spec, scorer), block))
    return total


def _alarms(by: tuple[PipelineSpec, Scorer], block: PumpBlock, at_ms: Int64, features: Float32) -> Sequence[Span]:
    return replay(block, at_ms, features, by)


def _cuts(at_ms: Int64, spec: PipelineSpec, fold: int) -> tuple[int, int, int]:
    """Where a fold's learning ends, where its judging begins after the purge, and where it ends."""
    if not len(at_ms):
        return (0, 0, 0)
    first, span = int(at_ms[0]), int(at_ms[-1] - at_ms[0])
    share = 0.5 / spec.search.folds
    cut, end = (first + round(span * (0.5 + share * step)) for step in (fold, fold + 1))
    # The widest window of the grid, so that every point is judged on the same rows.
    widest_s = max(one.window_s for one in spec.search.points)
    purge = round((widest_s + spec.search.label_horizon_s) * 1000)
    return cut, cut + purge, end + 1


def _before(spec: PipelineSpec, one: SearchRows, rows: PumpRows, cut: int) -> tuple[Int64, Float32]:
    at_ms, features = rows.learned
    kept = (at_ms < cut) & ~_embargoed(at_ms, one.exclusions, spec)
    return at_ms[kept], features[kept]


def _embargoed(at_ms: Int64, exclusions: Sequence[Exclusion], spec: PipelineSpec) -> Bools:
    """Rows so near a labelled fault that it may already, or still, show in them."""
    near = np.zeros(len(at_ms), np.bool_)
    margin = round(spec.search.label_horizon_s * 1000) + spec.features.window_ms
    for one in exclusions:
        if one.is_fault:
            near |= (at_ms >= one.start_ms - margin) & (at_ms < one.end_ms + margin)
    return near


def _learn(spec: PipelineSpec, one: SearchRows, rows: PumpRows, cut: int) -> _Learned | None:
    at_ms, features = _before(spec, one, rows, cut)
    frame = rows.rows.learned
    try:
        floor = sensor_floor(ranked_columns(frame.values), inputs_of(spec))
        fit = Fit.of(fit_baseline(at_ms, features, floor, inputs_of(spec), spec.alarm), spec.blocks)
    except GateRefusedError:
        return None
    return _Learned(fit, features[spread_places(len(features), SHAPE_ROWS)])


def _scorers(spec: PipelineSpec, learned: Sequence[_Learned | None]) -> list[Scorer]:
    """For each group of pumps the scorer learned from the others; one for all where that is no matter or pumps are few."""
    inputs = inputs_of(spec)
    groups = 1 if spec.model_type == MaxZScorer.model_type or len(learned) < GROUPS else GROUPS
    found = []
    for group in range(groups):
        others = [one for place, one in enumerate(learned) if one is not None and (groups == 1 or place % groups != group)]
        if not others:
            others = [one for one in learned if one is not None]
        samples = [sample_widths(one.sample, one.fit, inputs) for one in others]
        rows = np.concatenate(samples) if samples else np.zeros((0, len(inputs.channels)))
        found.append(fit_scorer(spec.model_type, rows, inputs.votes, spec.seed))
    return found


def _judge_rows(spec: PipelineSpec, pump: tuple[SearchRows, PumpRows, int], cut: tuple[int, int, int], run: _Run) -> np.ndarray:
    one, rows, place = pump
    at_ms, features = rows.judged
    chosen = (at_ms >= cut[1]) & (at_ms < cut[2])
    if chosen.sum() < 2:
        return np.zeros(7)
    at_ms, features = at_ms[chosen], features[chosen]
    sought = sought_faults([item for item in one.exclusions if item.is_fault], at_ms)
    spans = run(at_ms, features)
    steps, met = _steps(spec, (rows, place), (at_ms, features, spans), run)
    days = float(at_ms[-1] - at_ms[0]) / DAY_MS
    return np.array(
        [1, days, len(false_alarms(spans, sought)), len(sought), sum(hits_of(spans, sought)), steps, met], np.float64
    )


def _steps(
    spec: PipelineSpec, pump: tuple[PumpRows, int], clean: tuple[Int64, Float32, Sequence[Span]], run: _Run
) -> tuple[int, int]:
    """Steps added in the middle of the rows, and how many of them raised an alarm within a day.

    Where the clean rows alarm in that day, nothing can be told and nothing is counted.
    """
    (rows, place), (at_ms, features, spans) = pump, clean
    start = int(at_ms[len(at_ms) // 2])
    until = start + DAY_MS
    if any(raised < until and (cleared is None or cleared >= start) for raised, cleared in spans):
        return 0, 0
    voting = np.flatnonzero(inputs_of(spec).votes)
    channel = int(voting[place % len(voting)])
    spread = float(np.nanstd(rows.rows.learned.values[:, channel], dtype=np.float64))
    if spread <= 0:
        return 0, 0
    # A window mean takes a window to arrive at a step.
    ramp = np.clip((at_ms - start) / spec.features.window_ms, 0, 1)
    met = 0
    for size in STEPS:
        stepped = features.copy()
        stepped[:, channel] += (size * spread * ramp).astype(np.float32)
        met += any(start <= raised < until for raised, _ in run(at_ms, stepped))
    return len(STEPS), met


def search_text(outcome: SearchOutcome) -> str:
    """One sentence for the model card and the log."""
    best = outcome.results[outcome.chosen]
    return (
        f"{len(outcome.results)} points on {len(outcome.pumps)} pumps: {best.point.model_type}, "
        f"window {best.point.window_s:g} s, "
        f"persistence {best.point.persistence_s:g} s, tau {best.point.tau_s:g} s, deadband {best.point.deadband:g}; "
        f"{best.steps_met} of {best.steps} steps and {best.faults_met} of {best.faults} faults met, "
        f"{best.false_alarms} false alarms in {best.days:.0f} days"
    )


def outcome_plain(outcome: SearchOutcome | None) -> Mapping[str, object] | None:
    """For the run record."""
    if outcome is None:
        return None
    return {
        "points": outcome.results,
        "chosen": outcome.chosen,
        "runner_up": outcome.runner_up,
        "pumps": outcome.pumps,
        "steps": STEPS,
    }
