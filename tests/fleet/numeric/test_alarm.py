from __future__ import annotations

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTrace, AlarmTracker, alarm_spans, with_limit
from pumpdeck_fleet.numeric.detectors import score_rows
from support.pump_rows import START_MS, small_block

BLOCK = small_block(limit=4.0)
AT_ONCE = AlarmSettings(deadband=0.5, persistence_s=0.0)


def run(levels: list[float], settings: AlarmSettings = AT_ONCE, step_ms: int = MINUTE_MS) -> AlarmTrace:
    features = np.zeros((len(levels), 4), np.float32)
    features[:, 0] = levels
    features[np.isnan(features[:, 0])] = np.nan
    at_ms = START_MS + np.arange(len(levels), dtype=np.int64) * step_ms
    return AlarmTracker(BLOCK, settings).extend(at_ms, features, lambda rows: score_rows(BLOCK, rows))


def test_an_alarm_stands_until_the_score_falls_below_the_deadband() -> None:
    assert run([0, 5, 3, 2.1, 1.9, 3, 5]).alarmed.tolist() == [False, True, True, True, False, False, True]


def test_a_score_exactly_at_the_limit_raises_nothing_and_exactly_at_the_deadband_clears_nothing() -> None:
    assert run([4, 5, 2]).alarmed.tolist() == [False, True, True]


def test_a_short_peak_raises_nothing_when_persistence_is_asked() -> None:
    settings = AlarmSettings(deadband=0.5, persistence_s=120)
    assert run([5, 5, 0, 5, 5, 5, 0, 0, 0], settings).alarmed.tolist() == [False] * 5 + [True] * 3 + [False]


def test_a_row_without_any_voting_channel_neither_raises_nor_clears_nor_breaks_a_streak() -> None:
    settings = AlarmSettings(deadband=0.5, persistence_s=120)
    trace = run([5, np.nan, 5, np.nan, 0], settings)
    assert trace.alarmed.tolist() == [False, False, True, True, True]
    assert np.isnan(trace.score).tolist() == [False, True, False, True, False]


def test_the_baseline_follows_a_slow_change_so_that_the_score_falls_and_the_drift_index_rises() -> None:
    trace = run([2.0] * (24 * 10), step_ms=HOUR_MS)
    assert trace.score[0] == 2.0
    assert trace.score[-1] < 0.1
    assert 1.9 < trace.drift_index[-1] <= 2.0
    assert abs(float(trace.drift_index[24]) - 2.0 * (1 - np.exp(-1))) < 0.01


def test_the_baseline_stands_still_while_alarmed() -> None:
    trace = run([0.0] * 24 + [6.0] * 240, step_ms=HOUR_MS)
    assert trace.alarmed[24:].all()
    assert trace.drift_index[-1] == 0.0


def test_a_creeping_fault_cannot_take_the_baseline_further_than_it_may_follow() -> None:
    creep = np.linspace(0, 40, 24 * 200).tolist()
    trace = run(creep, AlarmSettings(deadband=0.5, follow=0.5), step_ms=HOUR_MS)
    assert trace.drift_index.max() == 2.0
    assert trace.alarmed[-1]
    raised = int(np.flatnonzero(trace.alarmed)[0])
    assert creep[raised] < 6.1


def test_a_channel_that_does_not_vote_raises_no_alarm_and_no_drift() -> None:
    features = np.zeros((48, 4), np.float32)
    features[:, 3] = 50
    at_ms = START_MS + np.arange(48, dtype=np.int64) * HOUR_MS
    tracker = AlarmTracker(BLOCK, AT_ONCE)
    assert not tracker.extend(at_ms, features, lambda rows: score_rows(BLOCK, rows)).alarmed.any()
    assert tracker.drift_index == 0.0
    assert tracker.offset[3] == 4.0


def test_a_row_that_is_not_later_is_refused_and_nothing_changes() -> None:
    tracker = AlarmTracker(BLOCK, AT_ONCE)
    tracker.push(START_MS, np.zeros(4, np.float32), 0.0)
    before = tracker.to_bytes()
    with pytest.raises(FormatError, match="not later"):
        tracker.push(START_MS, np.zeros(4, np.float32), 9.0)
    with pytest.raises(FormatError, match="not later"):
        tracker.extend(
            np.array([START_MS], np.int64), np.zeros((1, 4), np.float32), lambda rows: score_rows(BLOCK, rows)
        )
    assert tracker.to_bytes() == before


def test_a_state_of_another_block_is_refused() -> None:
    data = AlarmTracker(BLOCK, AT_ONCE).to_bytes()
    with pytest.raises(FormatError, match="another pump block"):
        AlarmTracker.from_bytes(with_limit(BLOCK, 5.0), AT_ONCE, data)
    with pytest.raises(FormatError):
        AlarmTracker.from_bytes(BLOCK, AT_ONCE, data[:-1])


def test_spans_tell_when_each_alarm_was_raised_and_cleared() -> None:
    at_ms = np.arange(6, dtype=np.int64) * DAY_MS
    alarmed = np.array([True, False, False, True, True, True])
    assert alarm_spans(at_ms, alarmed) == [(0, DAY_MS), (3 * DAY_MS, None)]
    assert alarm_spans(at_ms, np.zeros(6, np.bool_)) == []


@pytest.mark.parametrize(
    "wrong", [{"deadband": 0}, {"deadband": 1.1}, {"persistence_s": -1}, {"tau_s": 0}, {"follow": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AlarmSettings(**wrong)
