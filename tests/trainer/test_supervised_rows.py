"""How many healthy rows a fit learns from: all, but of boosted trees a stated share, which changes no honest figure by much."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from pumpdeck_trainer import supervised
from pumpdeck_trainer.labelled import LabelledPump
from pumpdeck_trainer.supervised import MOST_HEALTHY, HeldOut, fit_supervised, rows_of_a_fit

CHANNELS = 4
VOTES = np.ones(CHANNELS, np.bool_)


def pump(number: int) -> LabelledPump:
    """300 healthy rows; every other pump had two faults of changing strength in one channel."""
    rng = np.random.default_rng([number, 9])
    count = 2 if number % 2 else 0
    ill = rng.standard_normal((40 * count, CHANNELS))
    ill[:, 1] += np.repeat(rng.uniform(2.0, 5.0, count), 40)
    fault = np.repeat(np.arange(count), 40)
    healthy = rng.standard_normal((300, CHANNELS))
    return LabelledPump(f"p{number}", healthy, ill, fault, ("seal",) * count, 10.0, np.full(count, 2.0))


def figures(model_type: str) -> HeldOut:
    pumps = [pump(number) for number in range(8)]
    # The first parameters are the same in every form of it; the rest say votes and seed.
    takes_both = "by" in inspect.signature(fit_supervised).parameters
    given = ((VOTES, 3),) if takes_both else (VOTES, 3)
    return fit_supervised(model_type, pumps, *given).held_out  # type: ignore[arg-type]


def test_all_healthy_rows_teach_a_logistic_type_and_a_stated_number_boosted_trees() -> None:
    is_ill = np.zeros(10_000, np.bool_)
    is_ill[::100] = True
    seen = np.ones(10_000, np.bool_)
    seen[:1000] = False
    assert np.array_equal(rows_of_a_fit("logistic", is_ill, seen), seen)
    chosen = rows_of_a_fit("gboost", is_ill, seen)
    assert (chosen & ~is_ill).sum() == MOST_HEALTHY == 4000 and (chosen & is_ill).sum() == (seen & is_ill).sum()
    # Spread evenly: every tenth of the rows gives its tenth.
    tenths = np.add.reduceat((chosen & ~is_ill)[1000:].astype(int), np.arange(0, 9000, 900))
    assert tenths.min() > 390 and not chosen[:1000].any()
    few = np.zeros(50, np.bool_)
    assert rows_of_a_fit("gboost", few, ~few).all()


def test_a_third_of_the_healthy_rows_tells_the_same_of_pumps_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures("gboost")
    monkeypatch.setattr(supervised, "MOST_HEALTHY", 800)
    thinned = figures("gboost")
    assert (whole.healthy_rows, whole.healthy_rows_a_fit) == (2400, 2400)
    assert (thinned.healthy_rows, thinned.healthy_rows_a_fit) == (2400, 800)
    assert abs(thinned.auc - whole.auc) < 0.01 and whole.auc > 0.9
    assert abs(thinned.found - whole.found) <= 1 and whole.found >= 2
    assert abs(thinned.brier - whole.brier) < 0.1 * whole.brier_constant
    assert thinned.reliability_error < 0.02 and whole.reliability_error < 0.02
