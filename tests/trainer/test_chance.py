from __future__ import annotations

import numpy as np
import pytest

from pumpdeck_trainer.chance import (
    binomial_interval,
    binomial_tail,
    fewest_to_tell,
    poisson_interval,
    poisson_tail,
    rate_above,
)


@pytest.mark.parametrize(("count", "tries", "share"), [(3, 10, 0.2), (0, 5, 0.5), (10, 10, 0.9), (30, 100, 0.25)])
def test_the_binomial_tail_is_what_draws_show(count: int, tries: int, share: float) -> None:
    drawn = np.random.default_rng(1).binomial(tries, share, 200_000)
    assert binomial_tail(count, tries, share) == pytest.approx(float((drawn >= count).mean()), abs=0.004)


def test_many_tries_are_judged_by_the_normal_law_without_a_jump() -> None:
    assert binomial_tail(1050, 2001, 0.5) == pytest.approx(binomial_tail(1050, 2000, 0.5), abs=0.005)


def test_the_published_garwood_interval_comes_out() -> None:
    """Garwood (1936), as printed in every table: 0 -> 0 to 3.69, 5 -> 1.62 to 11.67, 10 -> 4.80 to 18.39."""
    for count, low, high in ((0, 0.0, 3.689), (5, 1.623, 11.668), (10, 4.795, 18.390)):
        assert poisson_interval(count) == pytest.approx((low, high), abs=0.002)


def test_the_published_clopper_pearson_interval_comes_out() -> None:
    assert binomial_interval(2, 10) == pytest.approx((0.0252, 0.5561), abs=0.0005)
    assert binomial_interval(0, 10) == pytest.approx((0.0, 0.3085), abs=0.0005)
    assert binomial_interval(10, 10) == pytest.approx((0.6915, 1.0), abs=0.0005)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    counts = np.random.default_rng(2).poisson(4.0, 2000)
    known = {int(count): poisson_interval(int(count)) for count in np.unique(counts)}
    held = np.mean([known[int(count)][0] <= 4.0 <= known[int(count)][1] for count in counts])
    assert held >= 0.95


def test_below_the_fewest_not_even_all_alarms_on_one_side_speak_against_a_ratio() -> None:
    for ratio in (1.0, 1.25, 2.0):
        fewest = fewest_to_tell(ratio, 0.05)
        assert rate_above(fewest, 0, ratio) < 0.05 <= rate_above(fewest - 1, 0, ratio)
    assert poisson_tail(0, 3.0) == 1.0
