from __future__ import annotations

import numpy as np
import pytest

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.edges import ranked_columns
from pumpdeck_trainer.baseline import Baseline, Inputs, fit_baseline, sensor_floor, sensor_step, value_spread
from support.pump_rows import CHANNELS, pump_frame

INPUTS = Inputs(CHANNELS, np.zeros(4), np.array([True, True, True, False]))


def baseline_of(at_ms: np.ndarray, values: np.ndarray, inputs: Inputs) -> Baseline:
    return fit_baseline(at_ms, values, sensor_floor(ranked_columns(values), inputs), inputs, AlarmSettings())


def step_of(values: np.ndarray) -> float:
    return sensor_step(ranked_columns(values.astype(np.float32)[:, None])[0])


def test_a_coarse_sensors_step_is_found_and_a_fine_one_has_none() -> None:
    rng = np.random.default_rng(1)
    fine = rng.standard_normal(500).astype(np.float32)
    assert step_of(fine) == 0.0
    assert step_of(np.round(fine * 2) / 2) == pytest.approx(0.5)


def test_a_sensor_that_nearly_stands_still_has_the_step_at_which_it_moves() -> None:
    values = np.full(500, 32.0, np.float32)
    values[::100] = 32.3
    assert step_of(values) == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("values", [np.full(100, 5.0), np.full(100, np.nan), np.arange(10.0)])
def test_constant_missing_and_very_few_values_have_no_step(values: np.ndarray) -> None:
    assert step_of(values) == 0.0


def test_the_baseline_is_mean_and_spread_of_the_features() -> None:
    frame = pump_frame(1)
    found = baseline_of(frame.at_ms, frame.values, INPUTS)
    np.testing.assert_allclose(found.centre, frame.values.astype(np.float64).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.scale, frame.values.astype(np.float64).std(axis=0), rtol=0.1)
    assert np.nanmedian(found.scores.score) < 2


def test_the_inventorys_resolution_is_a_floor_when_it_is_larger() -> None:
    frame = pump_frame(1)
    inputs = Inputs(CHANNELS, np.array([5.0, 0.0, 0.0, 0.0]), INPUTS.votes)
    found = baseline_of(frame.at_ms, frame.values, inputs)
    assert found.floor[0] == 5.0
    assert found.block(inputs, 3.0).width[0] == 5.0


def test_slow_drift_widens_neither_scale_nor_score_and_the_end_centre_stands_where_it_has_come_to() -> None:
    frame = pump_frame(2)
    still = baseline_of(frame.at_ms, frame.values, INPUTS)
    drifting = frame.values.copy()
    drifting[:, 0] += np.linspace(-3, 3, len(frame))
    found = baseline_of(frame.at_ms, drifting, INPUTS)
    assert found.scale[0] < 1.3 * still.scale[0]
    assert drifting[:, 0].std() > 1.8 * still.scale[0]
    assert found.end_centre[0] - found.centre[0] == pytest.approx(3.0, abs=0.6)
    assert still.end_centre[0] == pytest.approx(still.centre[0], abs=0.5)


def test_a_row_without_voting_channels_has_no_score() -> None:
    frame = pump_frame(3, days=2)
    values = frame.values.copy()
    values[100, :3] = np.nan
    found = baseline_of(frame.at_ms, values, INPUTS)
    # The first tenth of the window belongs to the adaptive baseline, which has yet to arrive.
    assert np.flatnonzero(np.isnan(found.scores.score)).tolist() == [*range(29), 100]


def test_a_window_too_short_to_follow_ends_at_the_mean_of_its_last_half() -> None:
    frame = pump_frame(3, days=0.5)
    values = frame.values + np.linspace(0, 10, len(frame), dtype=np.float32)[:, None]
    found = baseline_of(frame.at_ms, values, INPUTS)
    assert np.allclose(found.end_centre, values[len(values) // 2 :].mean(axis=0), rtol=1e-6)
    assert not np.isnan(found.scores.score).any()


def test_too_few_rows_and_channels_without_a_vote_are_refused() -> None:
    frame = pump_frame(1, days=0.2)
    with pytest.raises(GateRefusedError, match="too few rows"):
        baseline_of(frame.at_ms[:29], frame.values[:29], INPUTS)
    frame = pump_frame(1, days=2)
    values = frame.values.copy()
    values[:, :3] = np.nan
    with pytest.raises(GateRefusedError, match="no voting channel"):
        baseline_of(frame.at_ms, values, INPUTS)


def test_an_infinite_value_counts_as_missing_in_the_spread_of_raw_values() -> None:
    values = np.array([[1.0], [3.0], [np.inf], [np.nan], [5.0]], np.float32)
    assert value_spread(values) == pytest.approx(np.std([1.0, 3.0, 5.0]))
    assert value_spread(np.array([[np.inf], [np.nan]], np.float32)).tolist() == [0.0]
