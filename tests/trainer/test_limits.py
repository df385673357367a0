from __future__ import annotations

import math

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import LimitBranch
from pumpdeck_trainer.limits import (
    AlarmBudget,
    BlockRule,
    Scores,
    block_maxima,
    extremal_index,
    fit_limit,
    gumbel,
    lasting_scores,
    maxima_of,
    pool_limit,
    small_sample_factor,
)
from support.pump_rows import START_MS

RULE = BlockRule(window_s=3600.0)
BUDGET = AlarmBudget()


def scores(days: float, seed: int = 1, cadence_ms: int = 10 * MINUTE_MS) -> Scores:
    rows = int(days * DAY_MS / cadence_ms)
    rng = np.random.default_rng(seed)
    at_ms = START_MS + np.arange(rows, dtype=np.int64) * cadence_ms
    return Scores(at_ms, np.abs(rng.standard_normal(rows)).astype(np.float32))


def test_a_month_of_scores_gives_a_limit_from_daily_maxima() -> None:
    found = fit_limit(scores(30), RULE, BUDGET)
    assert (found.branch, found.provisional, found.blocks, found.block_s) == (LimitBranch.DAILY, False, 30, 86_400.0)
    assert found.extremal_index == 1.0


def test_ten_days_give_a_limit_from_blocks_of_ten_windows() -> None:
    found = fit_limit(scores(10), RULE, BUDGET)
    assert (found.branch, found.provisional, found.blocks, found.block_s) == (LimitBranch.WINDOWS, False, 24, 36_000.0)


def test_twenty_days_are_enough_for_daily_blocks_and_nineteen_are_not() -> None:
    assert fit_limit(scores(20), RULE, BUDGET).branch is LimitBranch.DAILY
    assert fit_limit(scores(19), RULE, BUDGET).branch is LimitBranch.WINDOWS


def test_a_pump_with_few_rows_takes_the_limit_of_its_type_and_it_is_provisional() -> None:
    pooled = pool_limit([maxima_of(scores(2, seed), RULE) for seed in range(20)], RULE, BUDGET)
    assert pooled is not None
    found = fit_limit(scores(2), RULE, BUDGET, pooled=pooled)
    assert found == pooled
    assert (found.branch, found.provisional) == (LimitBranch.POOLED, True)


def test_a_pump_with_few_rows_and_no_type_to_lean_on_is_refused() -> None:
    with pytest.raises(GateRefusedError, match="too few scores"):
        fit_limit(scores(2), RULE, BUDGET)
    assert pool_limit([], RULE, BUDGET) is None
    assert pool_limit([maxima_of(scores(0.3), RULE)], RULE, BUDGET) is None


def test_a_smaller_budget_gives_a_higher_limit_by_the_gumbel_law() -> None:
    one = fit_limit(scores(30), RULE, BUDGET)
    tenth = fit_limit(scores(30), RULE, AlarmBudget(alarms=0.1))
    assert tenth.limit - one.limit == pytest.approx(one.spread * math.log(10) * one.small_sample, rel=1e-4)


def test_the_limit_keeps_the_budget_on_rows_it_never_saw() -> None:
    """200 pumps, a month to learn and a month to judge: days with a score over the limit come about once a month."""
    over = days = 0
    for seed in range(200):
        limit = fit_limit(scores(30, seed), RULE, BUDGET).limit
        later = block_maxima(scores(30, 1000 + seed), DAY_MS)
        over, days = over + int((later > limit).sum()), days + len(later)
    assert 0.4 < 30 * over / days < 1.6


def test_gumbel_recovers_location_and_spread() -> None:
    maxima = np.random.default_rng(3).gumbel(4.0, 0.5, 20_000)
    assert gumbel(maxima) == pytest.approx((4.0, 0.5), abs=0.02)


def test_faults_nobody_labelled_hardly_raise_the_limit() -> None:
    clean, spoilt = scores(30), scores(30)
    spoilt.score[:: len(spoilt.score) // 3] = 50
    assert fit_limit(spoilt, RULE, BUDGET).limit < 1.3 * fit_limit(clean, RULE, BUDGET).limit


def test_blocks_that_are_cut_or_hardly_filled_do_not_count() -> None:
    month = scores(5)
    keep = np.ones(len(month.at_ms), np.bool_)
    keep[:100] = False  # the first day keeps 44 of 144 rows
    keep[144 * 2 : 144 * 3 : 1] = np.arange(144) % 4 == 0  # the third day a quarter of its rows
    found = block_maxima(Scores(month.at_ms[keep], month.score[keep]), DAY_MS)
    assert len(found) == 3


def test_rows_without_a_score_are_passed_over() -> None:
    month = scores(30)
    month.score[5] = np.nan
    assert math.isfinite(fit_limit(month, RULE, BUDGET).limit)
    assert len(block_maxima(Scores(month.at_ms, np.full(len(month.at_ms), np.nan, np.float32)), DAY_MS)) == 0


def test_the_extremal_index_is_one_for_independent_blocks_and_small_for_clusters() -> None:
    rng = np.random.default_rng(4)
    single = rng.gumbel(size=4000)
    assert extremal_index(single) > 0.9
    assert extremal_index(np.repeat(single, 4)) < 0.4


def test_the_small_sample_factor_shrinks_with_windows_and_ignores_gaps() -> None:
    assert small_sample_factor(scores(1), RULE) == pytest.approx(math.sqrt(25 / 23), rel=0.01)
    assert small_sample_factor(scores(30), RULE) < 1.002
    day = scores(1)
    gap = Scores(np.where(np.arange(144) < 72, day.at_ms, day.at_ms + 100 * DAY_MS), day.score)
    assert small_sample_factor(gap, RULE) == pytest.approx(small_sample_factor(day, RULE), rel=0.01)


def test_short_blocks_depend_on_time_and_not_on_the_hour_they_begin() -> None:
    first = scores(10)
    moved = Scores(first.at_ms + 7 * HOUR_MS // 3, first.score)
    assert np.array_equal(block_maxima(first, RULE.short_ms), block_maxima(moved, RULE.short_ms))


@pytest.mark.parametrize("wrong", [{"alarms": 0}, {"period_s": -1}])
def test_a_budget_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="budget"):
        AlarmBudget(**wrong)


@pytest.mark.parametrize("wait_s", [0.0, 60.0, 1800.0, 7200.0])
def test_a_lasting_score_passes_a_level_exactly_when_the_alarm_logic_raises_an_alarm_there(wait_s: float) -> None:
    rng = np.random.default_rng(int(wait_s))
    at_ms = START_MS + np.cumsum(rng.integers(1, 900_000, 600)).astype(np.int64)
    raw = np.abs(np.convolve(rng.standard_normal(620), np.ones(21), "valid")).astype(np.float32)
    raw[rng.integers(0, 600, 20)] = np.nan
    lasting = lasting_scores(Scores(at_ms, raw), round(wait_s * 1000))
    assert np.array_equal(lasting.at_ms, at_ms[np.isfinite(raw)])
    for level in np.quantile(raw[np.isfinite(raw)], [0.1, 0.5, 0.9, 0.99]).tolist():
        since, expected = None, []
        for moment, score in zip(at_ms.tolist(), raw.tolist(), strict=True):
            if math.isnan(score):
                continue
            since = (moment if since is None else since) if score > level else None
            expected.append(since is not None and moment - since >= wait_s * 1000)
        with np.errstate(invalid="ignore"):
            assert (lasting.score > np.float32(level)).tolist() == expected


def test_persistence_lowers_the_limit_because_short_peaks_never_alarm() -> None:
    plain = fit_limit(scores(30), RULE, BUDGET)
    patient = fit_limit(scores(30), BlockRule(RULE.window_s, persistence_s=3600.0), BUDGET)
    assert patient.limit < 0.6 * plain.limit
