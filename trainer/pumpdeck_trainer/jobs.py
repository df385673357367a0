"""The jobs of a training run that other processes can do: learning from some pumps, scoring them anew, judging them.

A pump's limit is its own where it has block maxima enough, and then it waits for no other pump: such a pump is judged in
the job that has its rows at hand, and only the others are read once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Bools, TelemetryFrame
from pumpdeck_trainer.champion import Champion, contest
from pumpdeck_trainer.judging import Judged, judge, judged_calm, judged_quiet
from pumpdeck_trainer.learning import Learned, PumpRows, learn, own_limit
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.shape import Shape, rescore
from pumpdeck_trainer.source import SPEED_UNIT, STOPPED_BELOW, Exclusion, TrainingSource, clean
from pumpdeck_trainer.spec import PipelineSpec

Limits = tuple[FittedLimit, FittedLimit | None]
"""A pump's limit, and the one of its early fit where there is ground for one."""
SourceMaker = Callable[[], AbstractContextManager[TrainingSource]]
"""Opens the rows in another process, for one job, so that labels and inventory are those of now; can be pickled."""


@dataclass(frozen=True)
class Rows:
    """How a job finds its rows: `start_ms <= t < end_ms`."""

    source: SourceMaker
    start_ms: int
    end_ms: int


def rows_of(source: TrainingSource, pump: str, spec: PipelineSpec, span: tuple[int, int]) -> PumpRows:
    """A pump's cleaned rows of that time."""
    chosen = source.frame(pump, *span).select(spec.features.channels)
    return PumpRows(clean(chosen, source.exclusions(pump), stopped_rows(chosen, spec)), spec)


def stopped_rows(frame: TelemetryFrame, spec: PipelineSpec) -> Bools:
    """Rows at which the pump stood still: a speed channel below 2 % of its range, as the device's own rule has it.

    A pump that stands most of the time is taken as it is: its speed channel may be dead.
    """
    still = np.zeros(len(frame), np.bool_)
    for place, channel in enumerate(spec.channels):
        if channel.unit == SPEED_UNIT and channel.high > channel.low:
            still |= np.abs(frame.values[:, place]) < STOPPED_BELOW * (channel.high - channel.low)
    return still if 2 * int(still.sum()) < len(frame) else np.zeros(len(frame), np.bool_)


@dataclass(frozen=True)
class LearnJob:
    """Learn from these pumps. shape: where it is known before any row is (`maxz`), pumps are judged at once.

    champion: what to judge beside it, if anything.
    """

    rows: Rows
    spec: PipelineSpec
    pumps: tuple[str, ...]
    shape: Shape | None = None
    champion: Champion | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.pumps


@dataclass(frozen=True, slots=True)
class Early:
    """What a job found of a pump, or why nothing; and its replay under its own limits, where these are known already.

    quiet: the verdict beside the champion, should the pool's limit turn out to be one under which the pump stays quiet.
    """

    learned: Learned | str
    limits: Limits | None = None
    judged: Judged | None = None
    quiet: Judged | None = None


def run_learn(job: LearnJob) -> list[Early]:
    """What was learned of each pump, or why nothing was."""
    span = (job.rows.start_ms, job.rows.end_ms)
    found: list[Early] = []
    with job.rows.source() as source:
        for pump in job.pumps:
            rows = rows_of(source, pump, job.spec, span)
            try:
                learned = learn(rows, job.spec)
            except GateRefusedError as error:
                found.append(Early(error.sentence()))
                continue
            found.append(_judged_early(source, rows, (pump, learned), job.shape, job.champion))
    return found


@dataclass(frozen=True)
class RescoreJob:
    """Score these pumps anew by the shape, and judge them."""

    rows: Rows
    shape: Shape
    pumps: tuple[tuple[str, Learned], ...]
    champion: Champion | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one[0] for one in self.pumps)


def run_rescore(job: RescoreJob) -> list[Early]:
    """Each pump with the block maxima of the shape's scores; what `slim` left out is left out."""
    span = (job.rows.start_ms, job.rows.end_ms)
    found: list[Early] = []
    with job.rows.source() as source:
        for pump, learned in job.pumps:
            rows = rows_of(source, pump, job.shape.spec, span)
            anew = (pump, rescore(rows, learned, job.shape))
            found.append(_judged_early(source, rows, anew, job.shape, job.champion))
    return found


def _judged_early(
    source: TrainingSource, rows: PumpRows, pump: tuple[str, Learned], shape: Shape | None, champion: Champion | None
) -> Early:
    name, learned = pump
    limits = own_limits(learned, shape) if shape else None
    if shape is None or limits is None:
        if shape is None or champion is None or learned.calm is None:
            return Early(learned)
        return Early(learned, quiet=contest(rows, judged_quiet(learned.calm), (), shape.spec, (name, champion)))
    faults = [item for item in source.exclusions(name) if item.is_fault]
    return Early(learned, limits, judge_beside(rows, (name, learned, limits), faults, shape, champion))


def own_limits(learned: Learned, shape: Shape) -> Limits | None:
    """The limits of a pump that has block maxima enough of its own; None where the pool of its type decides."""
    early = learned.early
    if not learned.fit.maxima.has_own or (early and not early.maxima.has_own):
        return None
    spec = shape.spec
    return (
        own_limit(learned.fit.maxima, None, spec, shape.scorer),
        own_limit(early.maxima, None, spec, shape.early) if early else None,
    )


def slim(learned: Learned) -> Learned:
    """Without what scoring and judging do not ask for: what travels to another process."""
    return replace(learned, sample=learned.sample[:0], edges=b"")


@dataclass(frozen=True)
class JudgeJob:
    """Judge these pumps: name, what was learned, its limits. champion: what to judge beside it, if anything."""

    rows: Rows
    shape: Shape
    pumps: tuple[tuple[str, Learned, Limits], ...]
    champion: Champion | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one[0] for one in self.pumps)


def run_judge(job: JudgeJob) -> list[Judged]:
    """The replay of each pump."""
    span = (job.rows.start_ms, job.rows.end_ms)
    found: list[Judged] = []
    with job.rows.source() as source:
        for pump, learned, limits in job.pumps:
            rows = rows_of(source, pump, job.shape.spec, span)
            faults = [item for item in source.exclusions(pump) if item.is_fault]
            found.append(judge_beside(rows, (pump, learned, limits), faults, job.shape, job.champion))
    return found


def judge_beside(
    rows: PumpRows,
    pump: tuple[str, Learned, Limits],
    faults: Sequence[Exclusion],
    shape: Shape,
    champion: Champion | None,
) -> Judged:
    """The replay of one pump and, where there is a champion, that of the champion on the same rows."""
    name, learned, limits = pump
    judged = judged_calm(learned, limits) or judge(rows, learned, limits, faults, shape.unseen(name))
    return judged if champion is None else contest(rows, judged, faults, shape.spec, (name, champion))
