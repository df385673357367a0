"""The alarm logic gives one answer, however its rows arrive: singly, in chunks, all at once, or over restarts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.clock import HOUR_MS, MINUTE_MS
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTrace, AlarmTracker
from pumpdeck_fleet.numeric.detectors import score_rows
from pumpdeck_fleet.numeric.frame import Float32, Int64
from support.pump_rows import START_MS, small_block

BLOCK = small_block(limit=3.0)
SETTINGS = st.builds(
    AlarmSettings,
    deadband=st.sampled_from([0.3, 0.7, 1.0]),
    persistence_s=st.sampled_from([0.0, 60.0, 1800.0, 7200.0]),
    tau_s=st.sampled_from([3600.0, 86_400.0]),
    follow=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
)


def score(rows: Float32) -> Float32:
    return score_rows(BLOCK, rows)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Int64, Float32]:
    """Quiet stretches, faults that come and stay, creeping ones, gaps of days and missing values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces, level = [], np.zeros(4)
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["quiet", "fault", "creep", "missing", "back"]))
        rows = draw(st.integers(1, 60))
        piece = level + rng.standard_normal((rows, 4)) * draw(st.sampled_from([0.2, 1.0]))
        if kind == "fault":
            level = level + rng.choice([-6, 6], 4) * (rng.random(4) < 0.4)
        elif kind == "creep":
            piece[:, 0] += np.linspace(0, 8, rows)
            level = level + np.array([8, 0, 0, 0])
        elif kind == "missing":
            piece[rng.random(piece.shape) < 0.6] = np.nan
        elif kind == "back":
            level = np.zeros(4)
        pieces.append(piece)
    features = np.concatenate(pieces).astype(np.float32)
    steps = rng.choice(
        [1000, MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 50 * HOUR_MS], len(features), p=[0.2, 0.3, 0.35, 0.13, 0.02]
    )
    return START_MS + np.cumsum(steps).astype(np.int64), features


def row_by_row(tracker: AlarmTracker, at_ms: Int64, features: Float32) -> AlarmTrace:
    scores, alarmed, drift = [], [], []
    for moment, row in zip(at_ms.tolist(), features, strict=True):
        found = float(score(tracker.correct(moment, row)[None])[0])
        alarmed.append(tracker.push(moment, row, found))
        scores.append(found if np.isfinite(row[BLOCK.votes]).any() else np.nan)
        drift.append(tracker.drift_index)
    return AlarmTrace(at_ms, np.array(scores, np.float32), np.array(alarmed), np.array(drift, np.float32))


def assert_same(left: AlarmTrace, right: AlarmTrace) -> None:
    assert np.array_equal(left.score, right.score, equal_nan=True)
    assert np.array_equal(left.alarmed, right.alarmed)
    assert np.array_equal(left.drift_index, right.drift_index)


@given(histories(), SETTINGS)
@settings(max_examples=120, deadline=None)
def test_rows_one_by_one_and_all_at_once_agree_to_the_last_bit(
    history: tuple[Int64, Float32], chosen: AlarmSettings
) -> None:
    at_ms, features = history
    one, many = AlarmTracker(BLOCK, chosen), AlarmTracker(BLOCK, chosen)
    assert_same(row_by_row(one, at_ms, features), many.extend(at_ms, features, score))
    assert one.to_bytes() == many.to_bytes()


@given(histories(), SETTINGS, st.lists(st.integers(1, 50), max_size=8))
@settings(max_examples=80, deadline=None)
def test_chunks_and_restarts_change_nothing(
    history: tuple[Int64, Float32], chosen: AlarmSettings, cuts: list[int]
) -> None:
    at_ms, features = history
    whole = AlarmTracker(BLOCK, chosen)
    expected = whole.extend(at_ms, features, score)
    tracker, place, parts = AlarmTracker(BLOCK, chosen), 0, []
    for size in [*cuts, len(at_ms)]:
        chunk = slice(place, place + size)
        parts.append(tracker.extend(at_ms[chunk], features[chunk], score))
        tracker = AlarmTracker.from_bytes(BLOCK, chosen, tracker.to_bytes())
        place += size
    joined = [
        np.concatenate([getattr(part, name) for part in parts]) for name in ("at_ms", "score", "alarmed", "drift_index")
    ]
    assert_same(AlarmTrace(*joined), expected)
    assert tracker.to_bytes() == whole.to_bytes()


@given(histories(), SETTINGS)
@settings(max_examples=60, deadline=None)
def test_the_baseline_never_leaves_its_reach(history: tuple[Int64, Float32], chosen: AlarmSettings) -> None:
    trace = AlarmTracker(BLOCK, chosen).extend(*history, score)
    assert (trace.drift_index <= np.float32(chosen.follow * BLOCK.limit)).all()
