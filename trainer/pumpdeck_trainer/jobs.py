"""The two jobs of a training run that other processes can do: learning from some pumps, and judging some pumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Bools, TelemetryFrame
from pumpdeck_trainer.champion import Champion, contest
from pumpdeck_trainer.learning import Judged, Learned, PumpRows, Shape, judge, learn
from pumpdeck_trainer.limits import FittedLimit
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
    """Learn from these pumps."""

    rows: Rows
    spec: PipelineSpec
    pumps: tuple[str, ...]


def run_learn(job: LearnJob) -> list[Learned | str]:
    """What was learned of each pump, or why nothing was."""
    span = (job.rows.start_ms, job.rows.end_ms)
    found: list[Learned | str] = []
    with job.rows.source() as source:
        for pump in job.pumps:
            try:
                found.append(learn(rows_of(source, pump, job.spec, span), job.spec))
            except GateRefusedError as error:
                found.append(error.sentence())
    return found


@dataclass(frozen=True)
class JudgeJob:
    """Judge these pumps: name, what was learned, its limits. champion: what to judge beside it, if anything."""

    rows: Rows
    shape: Shape
    pumps: tuple[tuple[str, Learned, Limits], ...]
    champion: Champion | None = None


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
    judged = judge(rows, learned, limits, faults, shape.unseen(name))
    return judged if champion is None else contest(rows, judged, faults, shape.spec, (name, champion))
