"""A pump that is known to stay quiet needs no replay: whatever is said without one, the replay says as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.numeric.adaptive import follow
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTracker
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, LimitBranch, PumpBlock, score_rows, to_float32
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_trainer.calm import NEVER, calm_limit, undisturbed
from pumpdeck_trainer.jobs import rows_of
from pumpdeck_trainer.judging import judge, judged_calm
from pumpdeck_trainer.learning import Learned, PumpRows, learn
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.shape import shape_ahead
from pumpdeck_trainer.source import Exclusion
from pumpdeck_trainer.spec import PipelineSpec, default_pipeline
from support.pump_rows import CHANNELS, PUMP_TYPE, START_MS, MemorySource, pump_frame, with_values

SPEC = default_pipeline(PUMP_TYPE)
SHAPE = shape_ahead(SPEC)
END_MS = START_MS + 10 * DAY_MS


def limit(value: float) -> FittedLimit:
    """The nearest limit that is not below."""
    found = to_float32(value)
    if found < value:
        found = float(np.nextafter(np.float32(found), np.float32(np.inf)))
    return FittedLimit(found, LimitBranch.POOLED, True, 30, 36_000.0, 2.0, 0.3, 1.0, 1.0)


def learned_of(frame: TelemetryFrame, spec: PipelineSpec, faults: list[Exclusion] | None = None) -> tuple[PumpRows, Learned]:
    rows = rows_of(MemorySource({"P": frame}, {"P": faults or []}), "P", spec, (START_MS, END_MS))
    return rows, learn(rows, spec)


def troubled(seed: int, kind: str) -> TelemetryFrame:
    """Ten days of a pump with some trouble that a baseline, a limit or a mean must cope with."""
    frame = pump_frame(seed, days=10)
    rng, values = np.random.default_rng([seed, 3]), frame.values.copy()
    rows = len(values)
    starts = rng.integers(0, rows - 40, 12)
    if kind == "spells":
        for start in starts:
            values[start : start + int(rng.integers(1, 8)), int(rng.integers(0, 3))] *= rng.uniform(0.9, 1.1)
    elif kind == "drift":
        values[:, 0] += np.linspace(0, float(rng.uniform(0.5, 8)), rows)
    elif kind == "holes":
        values[rng.random(values.shape) < 0.1] = np.nan
        values[starts[0] : starts[0] + 300, 1] = np.nan
    elif kind == "dead channel":
        values[rows // 2 :, 2] = np.nan
    elif kind == "far":
        values[starts[0], 0] = 1e7
    frame = with_values(frame, values)
    return frame.take(rng.random(rows) > 0.2) if kind == "gaps" else frame


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["healthy", "spells", "drift", "holes", "gaps", "dead channel", "far"]),
    persistence_s=st.sampled_from([0.0, 3000.0, 10_800.0]),
    tau_s=st.sampled_from([20_000.0, 86_400.0]),
    follow_limits=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_what_is_said_without_a_replay_is_what_the_replay_says(
    seed: int, kind: str, persistence_s: float, tau_s: float, follow_limits: float
) -> None:
    alarm = AlarmSettings(persistence_s=persistence_s, tau_s=tau_s, follow=follow_limits)
    spec = replace(SPEC, alarm=alarm)
    shape = shape_ahead(spec)
    rows, learned = learned_of(troubled(seed, kind), spec)
    calm = learned.calm
    assert shape and calm
    for way in (1.0, 1.05, 1.5):
        if max(calm.limit, calm.early) < NEVER:
            pair = (limit(calm.limit * way), limit(max(calm.early * way, 0.01)))
            assert judged_calm(learned, pair) == judge(rows, learned, pair, [], shape)


def test_most_healthy_pumps_are_known_to_stay_quiet_and_one_that_alarms_never_is() -> None:
    quiet = 0
    for seed in range(20):
        rows, learned = learned_of(pump_frame(seed, days=10), SPEC)
        assert learned.calm and SHAPE
        highest = max(learned.fit.maxima.short)
        pair = (limit(highest * 1.15), limit(highest * 1.15))
        quiet += judged_calm(learned, pair) is not None
        low = (limit(highest * 0.99), limit(highest * 0.99))
        assert judge(rows, learned, low, [], SHAPE).alarms and judged_calm(learned, low) is None
    assert quiet >= 14


def test_standstill_is_replayed_as_a_device_would_see_it_and_labelled_faults_are_always_sought() -> None:
    values = pump_frame(3, days=10).values.copy()
    values[500:560, 3] = 0
    rows, learned = learned_of(with_values(pump_frame(3, days=10), values), SPEC)
    assert rows.rows.judged is not rows.rows.learned
    assert learned.calm and SHAPE
    pair = (limit(learned.calm.limit), limit(learned.calm.early))
    assert judged_calm(learned, pair) == judge(rows, learned, pair, [], SHAPE)
    fault = Exclusion(START_MS + DAY_MS, START_MS + DAY_MS + HOUR_MS, "fault:bearing")
    _, learned = learned_of(pump_frame(3, days=10), SPEC, [fault])
    assert learned.calm is None and judged_calm(learned, pair) is None


def test_where_a_deviation_would_be_cut_or_nothing_can_follow_nothing_is_said() -> None:
    frame, one = pump_frame(5, days=10), np.ones(4, np.float32)
    rows = (frame.at_ms, np.ascontiguousarray(frame.values.T))
    alarm = AlarmSettings()
    wide = PumpBlock(CHANNELS, frame.values.mean(axis=0), 10 * one, 0 * one, np.array([True] * 4), 3.0)
    assert calm_limit(wide, rows, undisturbed(wide, *rows, alarm), alarm) < NEVER
    narrow = replace(wide, scale=0.05 * one)
    assert calm_limit(narrow, rows, undisturbed(narrow, *rows, alarm), alarm) == NEVER
    short = replace(alarm, follow=1e-5)
    assert calm_limit(wide, rows, undisturbed(wide, *rows, short), short) == NEVER


def test_what_was_learned_keeps_it_through_the_run_cache() -> None:
    _, learned = learned_of(pump_frame(4, days=10), SPEC)
    assert Learned.from_bytes(learned.to_bytes()).calm == learned.calm
    without = replace(learned, calm=None)
    assert Learned.from_bytes(without.to_bytes()).calm is None


@pytest.mark.parametrize("kind", ["healthy", "spells", "drift", "holes", "gaps", "dead channel"])
@pytest.mark.parametrize("reach", [1.0, 1e-6])
def test_following_in_one_pass_is_what_a_tracker_does_row_by_row(kind: str, reach: float) -> None:
    frame, one = troubled(11, kind), np.ones(4, np.float32)
    centre = np.nanmean(frame.values, axis=0).astype(np.float32)
    block = PumpBlock(CHANNELS, centre, 0.5 * one, 0 * one, np.array([True, True, True, False]), to_float32(SCORE_CAP))
    settings_ = AlarmSettings(follow=reach)
    tracker, seen = AlarmTracker(block, settings_), []

    def look(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return score_rows(block, rows)

    trace = tracker.extend(frame.at_ms, frame.values, look)
    found = follow(block, frame.at_ms, np.ascontiguousarray(frame.values.T), settings_.tau_s, reach * block.limit)
    assert found.level.T.tobytes() == seen[0].tobytes() and len(seen) == 1
    assert found.offset.tobytes() == tracker.offset.tobytes()
    assert to_float32(float(found.furthest[:3].max())) == float(trace.drift_index.max())
