"""Runs of many pumps: what a training run is about to need is found by other processes first, some pumps a job.

Results come one by one while jobs are still at work, so that the run can keep them and tell how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pumpdeck_fleet.core.ports import Progress
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.jobs import (
    Early,
    JudgeJob,
    LearnJob,
    Limits,
    RescoreJob,
    Rows,
    SourceMaker,
    run_judge,
    run_learn,
    run_rescore,
    slim,
)
from pumpdeck_trainer.judging import Judged
from pumpdeck_trainer.learning import Learned
from pumpdeck_trainer.shape import Shape
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import PipelineSpec
from pumpdeck_trainer.workers import Workers

FEWEST_PUMPS = 200
PUMPS_A_JOB = 50
_Item = TypeVar("_Item")
_Job = TypeVar("_Job", LearnJob, RescoreJob, JudgeJob)
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Fleetwide:
    """Other processes for runs of many pumps, and how they open the rows; below `fewest` pumps to do they are not asked."""

    workers: Workers
    source: SourceMaker
    fewest: int = FEWEST_PUMPS


@dataclass(frozen=True)
class Ahead:
    """Asks other processes, where they are worth their start; gives nothing where they are not."""

    fleetwide: Fleetwide | None
    request: TrainingRequest
    champion: Champion | None
    on_progress: Progress

    def learn(self, pumps: Sequence[str], spec: PipelineSpec, shape: Shape | None) -> Iterator[tuple[str, Early]]:
        """What was learned of each, with its replay where `shape` is known and the pump's limits are its own."""
        rows = self._rows(len(pumps))
        if rows:
            jobs = [LearnJob(rows, spec, tuple(some), shape, self._champion_of(some)) for some in _chunks(pumps)]
            yield from self._asked("fit", run_learn, jobs)

    def rescore(self, pumps: Mapping[str, Learned], shape: Shape) -> Iterator[tuple[str, Early]]:
        """Each scored anew by the shape; samples and edges do not travel and are not in what comes back."""
        rows = self._rows(len(pumps))
        if rows:
            jobs = [
                RescoreJob(rows, shape, tuple((pump, slim(pumps[pump])) for pump in some), self._champion_of(some))
                for some in _chunks(list(pumps))
            ]
            yield from self._asked("shape", run_rescore, jobs)

    def judge(self, pumps: Mapping[str, tuple[Learned, Limits]], shape: Shape) -> Iterator[tuple[str, Judged]]:
        """The replay of each."""
        rows = self._rows(len(pumps))
        if rows:
            slimmed = [(pump, slim(learned), limits) for pump, (learned, limits) in pumps.items()]
            jobs = [
                JudgeJob(rows, shape, tuple(some), self._champion_of([one[0] for one in some])) for some in _chunks(slimmed)
            ]
            yield from self._asked("evaluate", run_judge, jobs)

    def _rows(self, count: int) -> Rows | None:
        """How jobs find their rows."""
        if self.fleetwide is None or count < self.fleetwide.fewest:
            return None
        return Rows(self.fleetwide.source, self.request.start_ms, self.request.end_ms)

    def _champion_of(self, pumps: Sequence[str]) -> Champion | None:
        return self.champion and self.champion.only(pumps)

    def _asked(self, step: str, work: Callable[[_Job], list[_Found]], jobs: Sequence[_Job]) -> Iterator[tuple[str, _Found]]:
        assert self.fleetwide is not None
        done, total = 0, sum(len(job.pumps) for job in jobs)
        self.on_progress(step, 0, total)
        for job, found in zip(jobs, self.fleetwide.workers.submit(work, jobs), strict=True):
            yield from zip(job.names, found, strict=True)
            done += len(job.pumps)
            self.on_progress(step, done, total)


def _chunks(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    return [items[start : start + PUMPS_A_JOB] for start in range(0, len(items), PUMPS_A_JOB)]
