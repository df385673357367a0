from __future__ import annotations

import math

import numpy as np
import pytest

from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_trainer.chance import poisson_tail
from pumpdeck_trainer.gates import rate_gate
from pumpdeck_trainer.spec import GateThresholds


@pytest.mark.parametrize(("count", "mean"), [(0, 3.0), (1, 0.5), (5, 2.0), (40, 25.0)])
def test_the_poisson_tail_is_what_draws_show(count: int, mean: float) -> None:
    drawn = np.random.default_rng(1).poisson(mean, 200_000)
    assert poisson_tail(count, mean) == pytest.approx(float((drawn >= count).mean()), abs=0.004)


def test_beyond_a_thousand_the_normal_law_takes_over_without_a_jump() -> None:
    assert poisson_tail(1050, 1000.001) == pytest.approx(poisson_tail(1050, 999.999), abs=0.002)


def test_few_pumps_are_not_judged_by_one_alarm_and_many_are() -> None:
    thresholds = GateThresholds(replay_alarms_warn=2.0, replay_alarms_refuse=10.0)
    assert rate_gate("replay", 3, 30.0, thresholds).verdict is GateVerdict.PASS
    assert rate_gate("replay", 300, 3000.0, thresholds).verdict is GateVerdict.WARN
    assert rate_gate("replay", 2000, 3000.0, thresholds).verdict is GateVerdict.REFUSE
    assert rate_gate("holdout", 2000, 3000.0, thresholds).verdict is GateVerdict.WARN
    assert rate_gate("holdout", 0, 0.0, thresholds).verdict is GateVerdict.WARN
    assert math.isclose(rate_gate("replay", 3, 30.0, thresholds).figure or 0.0, 3.0)
