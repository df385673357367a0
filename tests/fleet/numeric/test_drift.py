from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.drift import psi, psi_of_rows, psi_of_sketch
from pumpdeck_fleet.numeric.sketch import decode_sketch, encode_sketch, make_sketch
from support.sketch_rows import NAMES, awkward_edges, awkward_rows

EDGES = awkward_edges()

# Worked by hand from the definition: sum of (p - q) ln(p / q), shares below 1e-4 taken as 1e-4.
GOLDEN = [
    ([1] * 10, [1] * 10, 0.0),
    ([50, 50], [75, 25], 0.25 * math.log(1.5) - 0.25 * math.log(0.5)),
    (
        [100, 100, 100, 100],
        [10, 20, 30, 40],
        -0.15 * math.log(0.4) - 0.05 * math.log(0.8) + 0.05 * math.log(1.2) + 0.15 * math.log(1.6),
    ),
    ([50, 50], [100, 0], 0.5 * math.log(2) + (1e-4 - 0.5) * math.log(1e-4 / 0.5)),
    ([999_999, 1], [1, 1], (0.5 - 0.999999) * math.log(0.5 / 0.999999) + (0.5 - 1e-4) * math.log(0.5 / 1e-4)),
]


@pytest.mark.parametrize(("reference", "current", "expected"), GOLDEN)
def test_psi_is_the_published_sum(reference: list[int], current: list[int], expected: float) -> None:
    assert psi(np.array(reference), np.array(current)) == pytest.approx(expected, rel=1e-12, abs=1e-15)


COUNTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=12)


@given(COUNTS)
def test_psi_is_never_negative_symmetric_and_free_of_scale(pairs: list[tuple[int, int]]) -> None:
    left, right = np.array(pairs).T
    if not left.sum() or not right.sum():
        assert math.isnan(psi(left, right))
        return
    assert psi(left, right) >= 0
    assert psi(left, right) == pytest.approx(psi(right, left))
    assert psi(left * 7, right * 3) == pytest.approx(psi(left, right))


def test_other_bins_than_the_references_are_refused() -> None:
    with pytest.raises(FormatError):
        psi(np.array([1, 2]), np.array([1, 2, 3]))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_a_devices_sketch_gives_exactly_the_psi_of_its_raw_rows(shift: float) -> None:
    values = awkward_rows(11, 1440, shift)
    values[np.random.default_rng(0).random(values.shape) < 0.02] = np.nan
    sketch = make_sketch(EDGES, np.arange(1440, dtype=np.int64), values)
    sent = decode_sketch(encode_sketch(sketch), EDGES)
    direct = [psi_of_rows(edge, values[:, place]) for place, edge in enumerate(EDGES.edges)]
    assert psi_of_sketch(sent).tolist() == direct


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 1.0])
def test_edges_on_the_grid_move_psi_of_a_smooth_channel_very_little(shift: float) -> None:
    """Against the textbook way: deciles of the raw reference rows, both windows binned from raw rows."""
    reference, current = awkward_rows(1, 4176)[:, 0], awkward_rows(12, 1440, shift)[:, 0]
    deciles = np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf")
    before = np.bincount(np.searchsorted(deciles, reference, side="left"), minlength=10)
    now = np.bincount(np.searchsorted(deciles, current, side="left"), minlength=10)
    assert psi_of_rows(EDGES.edges[0], current) == pytest.approx(psi(before, now), rel=0.05, abs=0.002)


def test_a_pump_that_stops_more_often_is_seen_in_its_atom() -> None:
    values = awkward_rows(13, 1440)
    place = NAMES.index("stopped")
    before = psi_of_rows(EDGES.edges[place], values[:, place])
    values[:700, place] = 0.0
    assert before < 0.05
    assert psi_of_rows(EDGES.edges[place], values[:, place]) > 0.25


def test_a_constant_channel_that_stays_has_no_drift_and_one_that_moves_has() -> None:
    edge = EDGES.edges[NAMES.index("constant")]
    assert psi_of_rows(edge, np.full(100, 7, np.float32)) == 0.0
    assert psi_of_rows(edge, np.full(100, 7.5, np.float32)) > 5
