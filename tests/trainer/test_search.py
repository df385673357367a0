"""The grid search: what it prefers, what it never sees, and that it is recorded whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer import search
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.limits import AlarmBudget
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.search import PointResult, SearchRows, choose, judge_point, searched_pumps, with_point
from pumpdeck_trainer.search_spec import SearchPoint
from pumpdeck_trainer.source import Exclusion, TrainingRequest, clean
from pumpdeck_trainer.spec import PipelineSpec, parse_pipeline
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame, with_values

HEAD = 'format = 1\npump_type = "test-pump"\n'
CONTEXT = RunContext("c" * 64, "l" * 64)
FRAMES = {f"site/P-{number}": pump_frame(number) for number in range(1, 5)}
POINT = SearchPoint("maxz", 6000.0, 3000.0, 86400.0, 0.7)
RESULT = PointResult(POINT, 4, 28.0, 1, 0, 0, 12, 6, False)


def spec_of(lines: str) -> PipelineSpec:
    found = parse_pipeline(f"{HEAD}{lines}", PUMP_TYPE, "test.toml")
    return replace(found, budget=AlarmBudget(alarms=0.1))


WINDOWS = spec_of("[search]\nwindow_s = [6000.0, 43200.0]\npumps = 4\n")


def trained(spec: PipelineSpec = WINDOWS, frames=FRAMES, *, source=None, **more):
    request = TrainingRequest(tuple(frames), START_MS, START_MS + 30 * DAY_MS)
    return train(spec, request, source or MemorySource(frames), replace(CONTEXT, **more))


def test_the_grid_is_written_out_with_half_the_window_as_persistence() -> None:
    assert [(one.window_s, one.persistence_s) for one in WINDOWS.search.points] == [(6000.0, 3000.0), (43200.0, 21600.0)]
    both = spec_of('[search]\nmodel_type = ["maxz", "pca"]\ntau_s = [43200.0, 86400.0]\npersistence_s = [60.0]\n')
    assert [(one.model_type, one.tau_s) for one in both.search.points] == [
        ("maxz", 43200.0), ("maxz", 86400.0), ("pca", 43200.0), ("pca", 86400.0)
    ]  # fmt: skip
    assert spec_of("").search.points == ()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('[search]\nwindow_s = [600.0]\nsplit = "shuffled"\n', "neighbouring rows are nearly copies"),
        ('[validation]\nsplit = "shuffled"\n', "neighbouring rows are nearly copies"),
        (f"[search]\nwindow_s = {[float(600 + n) for n in range(33)]}\n", "too many points"),
        ("[search]\nwindow_s = [600.0, 600.0]\n", "a point twice"),
        ('[search]\nmodel_type = ["deep"]\n', "search.model_type"),
        ("[search]\nwindow_s = [600.0]\nfolds = 9\n", "search.folds"),
        ("[search]\ndeadband = [7.0]\n", "deadband"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_with_a_sentence(lines: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        spec_of(lines)


def test_the_whole_grid_stands_in_the_run_record_and_the_best_point_is_trained() -> None:
    found = trained()
    record = json.loads(found.run_record)["search"]
    assert [one["point"]["window_s"] for one in record["points"]] == [6000.0, 43200.0]
    assert sorted((record["chosen"], record["runner_up"])) == [0, 1]
    assert found.spec.window_s == record["points"][record["chosen"]]["point"]["window_s"]
    assert record["pumps"] == sorted(FRAMES) and record["points"][0]["steps"] > 0
    # A window of half a day sees smaller steps than one of 100 minutes.
    assert record["points"][1]["steps_met"] >= record["points"][0]["steps_met"] > 0
    assert found.lineage.pipeline_digest == found.spec.digest


def test_the_same_search_gives_the_same_bytes_and_comes_from_the_cache(tmp_path: Path, monkeypatch) -> None:
    first = trained(cache=FolderCache(tmp_path, RealFileSystem()))
    assert first.artifacts() == trained().artifacts()
    monkeypatch.setattr("pumpdeck_trainer.pipeline.judge_point", lambda *_: pytest.fail("it was judged again"))
    source = MemorySource(FRAMES)
    again = trained(source=source, cache=FolderCache(tmp_path, RealFileSystem()))
    assert again.artifacts() == first.artifacts() and source.reads == 0


def test_a_wider_grid_judges_only_its_new_points(tmp_path: Path, monkeypatch) -> None:
    judged: list[float] = []

    def watch(spec, point, pumps):
        judged.append(point.window_s)
        return judge_point(spec, point, pumps)

    monkeypatch.setattr("pumpdeck_trainer.pipeline.judge_point", watch)
    for windows in ("[6000.0, 43200.0]", "[3600.0, 6000.0, 43200.0]"):
        spec = spec_of(f"[search]\nwindow_s = {windows}\npumps = 4\n")
        trained(spec, cache=FolderCache(tmp_path, RealFileSystem()))
    assert judged == [6000.0, 43200.0, 3600.0]


def test_a_replay_of_the_trained_spec_chooses_the_same_again() -> None:
    found = trained()
    assert trained(found.spec).artifacts() == found.artifacts()


def rows_of(frame, exclusions=()) -> SearchRows:
    return SearchRows("site/P-1", clean(frame, exclusions), exclusions)


def test_nothing_is_learned_from_judged_rows_purge_or_embargo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that a fit is given lies before the cut, and away from labels by the horizon and a window."""
    label = Exclusion(START_MS + 3 * DAY_MS, START_MS + 4 * DAY_MS, "fault:seal")
    seen: list[np.ndarray] = []
    real = search.fit_baseline

    def watch(at_ms, *rest):
        seen.append(at_ms)
        return real(at_ms, *rest)

    judged: list[np.ndarray] = []
    monkeypatch.setattr(search, "fit_baseline", watch)
    monkeypatch.setattr(search, "_alarms", lambda by, block, at_ms, x: judged.append(at_ms) or [])
    judge_point(WINDOWS, POINT, [rows_of(pump_frame(1), (label,))])
    assert len(seen) == 2
    widest, horizon = 43_200_000, 6 * HOUR_MS
    for fold, fitted in enumerate(seen):
        near = (fitted >= label.start_ms - horizon - 6_000_000) & (fitted < label.end_ms + horizon + 6_000_000)
        assert not near.any()
        first = judged[fold * (1 + len(search.STEPS))][0]
        assert first - fitted[-1] >= widest + horizon
    assert judged[0][-1] < judged[-1][0]


def test_later_rows_change_nothing_that_an_earlier_fold_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leak test: rubbish in the judged rows must not reach the fit."""
    fits: list[object] = []
    real = search.fit_baseline
    monkeypatch.setattr(search, "fit_baseline", lambda *given: fits.append(real(*given)) or fits[-1])
    one_fold = replace(WINDOWS, search=replace(WINDOWS.search, folds=1))
    frame = pump_frame(1)
    values = frame.values.copy()
    values[int(len(values) * 0.51) :, :3] += 500 * np.array([0.1, 0.5, 0.01], np.float32)
    for given in (frame, with_values(frame, values)):
        judge_point(one_fold, POINT, [rows_of(given)])
    assert np.array_equal(fits[0].centre, fits[1].centre) and np.array_equal(fits[0].scale, fits[1].scale)


def test_a_shape_is_never_learned_from_the_pump_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = search.fit_scorer
    monkeypatch.setattr(search, "fit_scorer", lambda kind, z, *rest: sizes.append(len(z)) or real(kind, z, *rest))
    held = [rows_of(pump_frame(number)) for number in range(6)]
    judge_point(WINDOWS, replace(POINT, model_type="pca"), held)
    assert sizes == [4 * 400] * 6


@pytest.mark.parametrize(
    "worse",
    [
        replace(RESULT, over_budget=True, steps_met=12),
        replace(RESULT, steps_met=5),
        replace(RESULT, false_alarms=2),
        replace(RESULT, folds=0, steps=0, steps_met=0),
        RESULT,
    ],
)
def test_points_are_ranked_by_budget_faults_steps_alarms_and_order(worse: PointResult) -> None:
    if worse is not RESULT:
        assert (choose([worse, RESULT], ["a"]).chosen, choose([worse, RESULT], ["a"]).runner_up) == (1, 0)
    assert choose([RESULT, worse], ["a"]).chosen == 0
    more = replace(RESULT, faults=4, faults_met=3)
    assert choose([more, replace(more, faults_met=2, steps_met=12)], ["a"]).chosen == 0
    assert choose([RESULT], ["a"]).runner_up == -1


def test_searched_pumps_are_spread_and_do_not_depend_on_order() -> None:
    names = [f"p{number:03d}" for number in range(100)]
    found = searched_pumps(names, 5)
    assert found == searched_pumps(names[::-1], 5) == ("p000", "p024", "p049", "p074", "p099")


def test_a_point_changes_nothing_but_its_axes() -> None:
    point = SearchPoint("pca", 1.0, 2.0, 3.0, 0.5)
    found = with_point(WINDOWS, point)
    assert (found.model_type, found.window_s, found.alarm.tau_s, found.alarm.deadband) == ("pca", 1.0, 3.0, 0.5)
    assert replace(
        found, model_type=WINDOWS.model_type, window_s=WINDOWS.window_s, alarm=WINDOWS.alarm
    ) == WINDOWS
