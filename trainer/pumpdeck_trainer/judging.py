"""How a pump is judged: the replay of its reference window, the false alarms in it and the labelled faults that it met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.numeric.alarm import AlarmTracker, alarm_spans
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.frame import Float32, Int64
from pumpdeck_trainer.calm import Calm
from pumpdeck_trainer.learning import Learned, PumpRows, inputs_of, split_ms
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.scorer import Scorer
from pumpdeck_trainer.shape import Shape
from pumpdeck_trainer.source import Exclusion
from pumpdeck_trainer.spec import PipelineSpec

Span = tuple[int, int | None]
"""An alarm: raised and cleared in ms; None while it stands."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the limit would have done to one pump.

    alarms: [raised, cleared] in ms over the replay (cleared null: still standing). days: length of the replay.
    holdout_*: the same for the fit that never saw the held-out end. faults, faults_found: labelled ones, and those
    met by an alarm; kinds, hits: the same one by one. contest: the champion on the same rows, where there is one.
    """

    alarms: tuple[tuple[int, int | None], ...]
    days: float
    holdout_alarms: int
    holdout_days: float
    faults: int
    faults_found: int
    kinds: tuple[str, ...] = ()
    hits: tuple[bool, ...] = ()
    contest: Contest | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """The champion on rows that the candidate is judged by as well.

    candidate_alarms, champion_alarms: false ones in the same `days`; seen_days: how many of these the champion has learned
    from. hits: of `Judged.kinds`, which the champion met.
    """

    candidate_alarms: int
    champion_alarms: int
    days: float
    seen_days: float
    hits: tuple[bool, ...]


def judge(
    pump: PumpRows,
    learned: Learned,
    limits: tuple[FittedLimit, FittedLimit | None],
    faults: Sequence[Exclusion],
    shape: Shape,
) -> Judged:
    """Replay the reference window under the limit, and the held-out end under limit and shape of what came before it."""
    spec = shape.spec
    inputs = inputs_of(spec)
    at_ms, features = pump.judged
    spans = replay(learned.fit.block(inputs, limits[0], shipped=False), at_ms, features, (spec, shape.scorer))
    sought = sought_faults(faults, at_ms)
    met = hits_of(spans, sought)
    false = false_alarms(spans, sought)
    holdout_alarms, holdout_days = 0, 0.0
    if learned.early is not None and limits[1] is not None:
        # One window lies between fit and judgement: a window mean never holds rows from both sides.
        later = int(np.searchsorted(at_ms, split_ms(pump.learned[0], spec) + spec.features.window_ms))
        block = learned.early.block(inputs, limits[1], shipped=True)
        early = replay(block, at_ms[later:], features[later:], (spec, shape.early))
        holdout_alarms = len(false_alarms(early, sought))
        holdout_days = float(at_ms[-1] - at_ms[later]) / DAY_MS if later < len(at_ms) else 0.0
    return Judged(
        alarms=false,
        days=(int(at_ms[-1]) - int(at_ms[0])) / DAY_MS,
        holdout_alarms=holdout_alarms,
        holdout_days=holdout_days,
        faults=len(sought),
        faults_found=sum(met),
        kinds=tuple(one.kind for one in sought),
        hits=met,
    )


def judged_calm(learned: Learned, limits: tuple[FittedLimit, FittedLimit | None]) -> Judged | None:
    """What `judge` would say of a pump that is known to stay quiet under these limits; None where that must be looked at."""
    calm = learned.calm
    if calm is None or limits[0].limit < calm.limit:
        return None
    if learned.early is None or limits[1] is None:
        return judged_quiet(replace(calm, holdout_days=0.0))
    return None if limits[1].limit < calm.early else judged_quiet(calm)


def judged_quiet(calm: Calm) -> Judged:
    """The verdict on a pump that raises no alarm and has no labelled fault."""
    return Judged((), calm.days, 0, calm.holdout_days, 0, 0)


def replay(block: PumpBlock, at_ms: Int64, features: Float32, by: tuple[PipelineSpec, Scorer]) -> list[Span]:
    """The alarms that a fresh device with this block would have raised."""
    spec, scorer = by
    trace = AlarmTracker(block, spec.alarm).extend(at_ms, features, lambda rows: scorer.score(block, rows))
    return alarm_spans(trace.at_ms, trace.alarmed)


def sought_faults(faults: Sequence[Exclusion], at_ms: Int64) -> list[Exclusion]:
    """The labelled faults of which these rows hold any: what was never recorded, or was maintenance, nobody can have met."""
    return [one for one in faults if one.touches(at_ms)]


def hits_of(spans: Sequence[Span], faults: Sequence[Exclusion]) -> tuple[bool, ...]:
    """For each fault whether an alarm met it."""
    return tuple(any(_meets(span, fault) for span in spans) for fault in faults)


def false_alarms(spans: Sequence[Span], faults: Sequence[Exclusion]) -> tuple[Span, ...]:
    """The alarms that met no fault."""
    return tuple(span for span in spans if not any(_meets(span, fault) for fault in faults))


def _meets(span: Span, fault: Exclusion) -> bool:
    raised, cleared = span
    return raised < fault.end_ms and (cleared is None or cleared >= fault.start_ms)
