"""Quality checks flag what is wrong with rows and leave healthy rows alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame, UInt16
from pumpdeck_fleet.services.quality import PumpQuality
from pumpdeck_fleet.services.quality_rules import QualityRules

CHANNELS = (
    Channel("pressure_bar", "bar", 0, 300, 0.1),
    Channel("temperature_c", "degC", -40, 200, 0.1),
    Channel("flow_m3_h", "m3/h", 0, 1000, 0.1),
)
MINUTE_MS = 60_000
FAULTS = ("RANGE", "FLAT_LINE", "STUCK", "UNIT_SWAP", "GAP", "MISSING")


def healthy(rows: int, seed: int = 1, step_ms: int = MINUTE_MS) -> tuple[Int64, Float32]:
    """A pump at work: noise on all three channels, in sensor steps."""
    chance = np.random.default_rng(seed)
    levels = np.array([20.0, 60.0, 100.0]) + chance.normal(0, [0.3, 1.0, 2.0], (rows, 3))
    return np.arange(rows, dtype=np.int64) * step_ms, np.round(levels, 1).astype(np.float32)


def check(at_ms: Int64, values: Float32, block: int = 10**9) -> UInt16:
    """Flags of all rows, checked in blocks of that many."""
    quality = PumpQuality(CHANNELS, 60.0, QualityRules())
    parts = [quality.check(at_ms[first : first + block], values[first : first + block]) for first in range(0, len(at_ms), block)]
    return np.concatenate(parts)


def rows_with(flags: UInt16, flag: QualityFlag) -> list[int]:
    return np.flatnonzero(flags & np.uint16(flag)).tolist()


def test_a_healthy_pump_has_no_flag() -> None:
    for seed in range(5):
        assert not check(*healthy(3_000, seed)).any()


def test_a_pump_that_stops_and_starts_has_no_flag() -> None:
    at_ms, values = healthy(3_000)
    values[1000:2000] = [4.0, 20.0, 0.0]
    values[1000:2000, 1] += np.round(np.random.default_rng(3).normal(0, 0.3, 1000), 1).astype(np.float32)
    values[1000:2000, 0] += np.round(np.random.default_rng(4).normal(0, 0.1, 1000), 1).astype(np.float32)
    flags = check(at_ms, values)
    # Zero flow on one channel alone is what a dead sensor shows too; nothing else may be flagged.
    assert not (flags & ~np.uint16(QualityFlag.STUCK)).any()
    values[1000:2000, 0] = 0.0
    assert not check(at_ms, values).any()


def test_values_out_of_range() -> None:
    at_ms, values = healthy(10)
    values[3, 0], values[7, 1] = 300.5, -41
    assert rows_with(check(at_ms, values), QualityFlag.RANGE) == [3, 7]


def test_missing_values() -> None:
    at_ms, values = healthy(10)
    values[[2, 5], [0, 2]] = np.nan
    assert rows_with(check(at_ms, values), QualityFlag.MISSING) == [2, 5]


def test_a_channel_that_stands_still_is_stuck_once_it_has_lasted() -> None:
    at_ms, values = healthy(1_000)
    values[300:600, 1] = 61.3
    found = rows_with(check(at_ms, values), QualityFlag.STUCK)
    # Two hours at a row a minute: the row at which it has lasted that long, and all that follow.
    assert found == list(range(420, 600))


def test_a_channel_that_always_stands_still_for_long_is_not_stuck() -> None:
    at_ms, values = healthy(5_000)
    values[:, 2] = np.repeat(np.random.default_rng(5).permutation(100)[:25], 200)
    assert not check(at_ms, values).any()


def test_a_single_channel_at_zero_is_stuck_and_several_are_a_pump_at_rest() -> None:
    at_ms, values = healthy(1_000)
    values[300:, 2] = 0.0
    assert rows_with(check(at_ms, values), QualityFlag.STUCK) == list(range(420, 1000))
    values[300:, 0] = 0.0
    assert not check(at_ms, values).any()


def test_a_row_that_repeats_whole_is_a_flat_line() -> None:
    at_ms, values = healthy(1_000)
    values[300:600] = values[299]
    flags = check(at_ms, values)
    assert rows_with(flags, QualityFlag.FLAT_LINE) == list(range(419, 600))
    assert rows_with(flags, QualityFlag.STUCK) == []


def test_a_gap_is_flagged_on_the_row_behind_it() -> None:
    at_ms, values = healthy(100)
    at_ms[40:] += 3_600_000
    assert rows_with(check(at_ms, values), QualityFlag.GAP) == [40]


def test_a_slower_logger_is_no_gap() -> None:
    slow = np.cumsum(np.array([0] + [60_000] * 50 + [600_000] * 50, np.int64))
    values = healthy(len(slow))[1]
    assert not check(slow, values).any()


@pytest.mark.parametrize(
    ("channel", "factor", "offset"), [(0, 14.5038, 0.0), (0, 0.1, 0.0), (1, 1.8, 32.0), (2, 4.40287, 0.0), (2, 1 / 3.6, 0.0)]
)
def test_a_channel_in_another_unit_is_flagged_until_it_comes_back(channel: int, factor: float, offset: float) -> None:
    at_ms, values = healthy(1_000)
    values[300:500, channel] = values[300:500, channel] * factor + offset
    assert rows_with(check(at_ms, values), QualityFlag.UNIT_SWAP) == list(range(300, 500))


def test_channels_that_jump_together_are_a_pump_that_trips_not_a_unit() -> None:
    at_ms, values = healthy(1_000)
    values[300:500, 0] *= 0.1
    values[300:500, 2] *= 1 / 3.6
    assert rows_with(check(at_ms, values), QualityFlag.UNIT_SWAP) == []


def test_a_short_spike_is_not_another_unit() -> None:
    at_ms, values = healthy(1_000)
    values[300:303, 0] *= 14.5
    assert rows_with(check(at_ms, values), QualityFlag.UNIT_SWAP) == []


@given(st.integers(0, 10**6), st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_blocks_do_not_change_what_stands_still_or_is_missing_or_behind_a_gap(seed: int, block: int) -> None:
    chance = np.random.default_rng(seed)
    at_ms, values = healthy(1_500, seed)
    start = int(chance.integers(150, 1200))
    values[start : start + 300, int(chance.integers(0, 3))] = 50.0
    values[chance.integers(0, 1500, 5), 0] = np.nan
    values[chance.integers(0, 1500, 5), 1] = 999.0
    at_ms[int(chance.integers(1, 1500)) :] += 7_200_000
    whole, cut = check(at_ms, values), check(at_ms, values, block)
    swap = np.uint16(QualityFlag.UNIT_SWAP)
    np.testing.assert_array_equal(whole & ~swap, cut & ~swap)


def test_rows_that_are_remembered_count_as_what_came_before() -> None:
    at_ms, values = healthy(400)
    values[200:, 1] = 61.3
    quality = PumpQuality(CHANNELS, 60.0, QualityRules())
    names = tuple(channel.name for channel in CHANNELS)
    quality.remember(TelemetryFrame(names, at_ms[:300], values[:300], np.zeros(300, np.uint16)))
    assert rows_with(quality.check(at_ms[300:], values[300:]), QualityFlag.STUCK) == list(range(20, 100))


def test_no_rows_no_flags() -> None:
    at_ms, values = healthy(0)
    assert PumpQuality(CHANNELS, 60.0, QualityRules()).check(at_ms, values).size == 0
