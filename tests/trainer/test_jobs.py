"""Jobs for other processes: a pump with limits of its own is judged where its rows are at hand, with the same result."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.jobs import JudgeJob, LearnJob, RescoreJob, Rows, run_judge, run_learn, run_rescore, slim
from pumpdeck_trainer.learning import Learned
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.shape import fit_shape, rescore, shape_ahead
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame

SPEC = default_pipeline(PUMP_TYPE)
LONG = {f"site/P-{number}": pump_frame(number) for number in range(3)}
SHORT = {"site/S": pump_frame(7, days=2)}
SOURCE = MemorySource({**LONG, **SHORT})
ROWS = Rows(lambda: nullcontext(SOURCE), START_MS, START_MS + 30 * DAY_MS)
CONTEXT = RunContext("c" * 64, "l" * 64)


class InThisProcess:
    """Workers without other processes."""

    def submit(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        return map(work, jobs)


def learned_of(pumps: tuple[str, ...]) -> list[Learned]:
    found = [one.learned for one in run_learn(LearnJob(ROWS, SPEC, pumps))]
    assert all(isinstance(one, Learned) for one in found)
    return [one for one in found if isinstance(one, Learned)]


def test_a_pump_with_limits_of_its_own_is_judged_at_once_as_it_would_be_later() -> None:
    shape = shape_ahead(SPEC)
    assert shape
    before = SOURCE.reads
    early = run_learn(LearnJob(ROWS, SPEC, tuple(LONG), shape))
    assert SOURCE.reads - before == len(LONG)
    wanted = [(pump, one.learned, one.limits) for pump, one in zip(LONG, early, strict=True)]
    later = run_judge(JudgeJob(ROWS, shape, tuple((pump, slim(one), pair) for pump, one, pair in wanted if pair)))  # type: ignore[arg-type]
    assert len(later) == len(LONG) and [one.judged for one in early] == later


def test_a_pump_that_needs_its_types_pool_waits_for_it() -> None:
    (early,) = run_learn(LearnJob(ROWS, SPEC, tuple(SHORT), shape_ahead(SPEC)))
    assert isinstance(early.learned, Learned) and not early.learned.fit.maxima.has_own
    assert early.limits is None and early.judged is None


def test_only_a_type_that_learns_from_no_other_pump_has_its_shape_ahead() -> None:
    learned = learned_of(tuple(LONG))
    shape = shape_ahead(SPEC)
    assert shape and shape.digest == fit_shape({str(place): one for place, one in enumerate(learned)}, SPEC).digest
    assert shape_ahead(replace(SPEC, model_type="pca")) is None


def test_scoring_anew_elsewhere_gives_the_same_maxima_and_sends_no_sample() -> None:
    spec = replace(SPEC, model_type="pca")
    pumps = tuple(LONG)
    learned = [one.learned for one in run_learn(LearnJob(ROWS, spec, pumps)) if isinstance(one.learned, Learned)]
    shape = fit_shape({str(place): one for place, one in enumerate(learned)}, spec)
    job = RescoreJob(ROWS, shape, tuple((pump, slim(one)) for pump, one in zip(pumps, learned, strict=True)))
    assert len(pickle.dumps(job.pumps)) < 4000 * len(pumps)
    from pumpdeck_trainer.jobs import rows_of

    for pump, one, early in zip(pumps, learned, run_rescore(job), strict=True):
        here = rescore(rows_of(SOURCE, pump, spec, (ROWS.start_ms, ROWS.end_ms)), one, shape)
        assert isinstance(early.learned, Learned)
        assert replace(early.learned, sample=one.sample, edges=one.edges).to_bytes() == here.to_bytes()
        assert early.judged is not None


def test_a_quiet_pump_meets_the_champion_where_its_rows_are_at_hand(tmp_path: Path) -> None:
    pumps = {f"site/P-{number}": pump_frame(number, days=7) for number in range(12)}
    request = TrainingRequest(tuple(pumps), START_MS, START_MS + 30 * DAY_MS)
    loud = train(replace(SPEC, budget=AlarmBudget(alarms=300)), request, MemorySource(pumps), CONTEXT)
    blocks = {one.pump: one.block for one in loud.pumps}
    champion = Champion(loud.content_digest, 1, loud.spec, loud.onnx, blocks, loud.data_end_ms, loud.lineage)
    cache = FolderCache(tmp_path, RealFileSystem())

    def trained(rows: MemorySource, **more: Any) -> TrainedModel:
        return train(SPEC, request, rows, replace(CONTEXT, champion=champion, **more))

    here, elsewhere = MemorySource(pumps), MemorySource(pumps)
    alone = trained(here)
    fleetwide = Fleetwide(InThisProcess(), lambda: nullcontext(elsewhere), fewest=1)
    together = trained(elsewhere, fleetwide=fleetwide, cache=cache)
    assert [one.judged for one in together.pumps] == [one.judged for one in alone.pumps]
    assert sum(one.judged.contest.champion_alarms for one in together.pumps if one.judged.contest) > 0
    # One look to learn, and a second only at the pumps that may alarm.
    assert len(pumps) <= elsewhere.reads <= len(pumps) + 4
    before = elsewhere.reads
    again = trained(elsewhere, fleetwide=fleetwide, cache=cache)
    assert elsewhere.reads == before and [one.judged for one in again.pumps] == [one.judged for one in alone.pumps]
