"""The two jobs of a training run that other processes can do: learning from some pumps, and judging some pumps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_trainer.learning import Judged, Learned, PumpRows, Shape, judge, learn
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.source import TrainingSource, clean
from pumpdeck_trainer.spec import PipelineSpec

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
    return PumpRows(clean(chosen, source.exclusions(pump)), spec)


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
    """Judge these pumps: name, what was learned, its limits."""

    rows: Rows
    shape: Shape
    pumps: tuple[tuple[str, Learned, tuple[FittedLimit, FittedLimit | None]], ...]


def run_judge(job: JudgeJob) -> list[Judged]:
    """The replay of each pump."""
    span = (job.rows.start_ms, job.rows.end_ms)
    found: list[Judged] = []
    with job.rows.source() as source:
        for pump, learned, limits in job.pumps:
            faults = [item for item in source.exclusions(pump) if item.is_fault]
            found.append(judge(rows_of(source, pump, job.shape.spec, span), learned, limits, faults, job.shape))
    return found
