from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.features import FeatureSpec, WindowMean, has_full_window, window_means

SPEC = FeatureSpec(("a", "b"), 10.0)


def direct(at_ms: np.ndarray, values: np.ndarray, window_ms: int) -> np.ndarray:
    """The definition, row by row and slowly."""
    out = np.full(values.shape, np.nan)
    for row, moment in enumerate(at_ms):
        inside = (at_ms > moment - window_ms) & (at_ms <= moment)
        for channel in range(values.shape[1]):
            found = values[inside, channel].astype(np.float64)
            found = found[np.isfinite(found)]
            if len(found):
                out[row, channel] = found.mean()
    return out


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    steps = draw(st.lists(st.one_of(st.integers(1, 4000), st.integers(1, 60_000)), min_size=1, max_size=60))
    at_ms = np.cumsum(np.array(steps, np.int64)) + draw(st.integers(0, 2**41))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((len(steps), 2)) * 10.0 ** rng.integers(-3, 6)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(values.shape) < 0.02] = np.inf
    return at_ms, values


@given(rows())
@settings(max_examples=150, deadline=None)
def test_the_mean_is_that_of_the_values_inside_the_window(given_rows: tuple[np.ndarray, np.ndarray]) -> None:
    at_ms, values = given_rows
    means, counts = window_means(at_ms, values, 10_000)
    np.testing.assert_allclose(
        means, direct(at_ms, values, 10_000), rtol=2e-6, atol=1e-6 * np.nanmax(np.abs(means), initial=0)
    )
    assert ((counts > 0) == ~np.isnan(means)).all()


@given(rows(), st.lists(st.integers(0, 20), max_size=20), st.booleans())
@settings(max_examples=150, deadline=None)
def test_chunks_single_rows_and_restarts_agree_with_the_batch_bit_for_bit(
    given_rows: tuple[np.ndarray, np.ndarray], cuts: list[int], restart: bool
) -> None:
    at_ms, values = given_rows
    batch, _ = window_means(at_ms, values, SPEC.window_ms)
    stream, parts, place = WindowMean(SPEC), [], 0
    for size in [*cuts, len(at_ms)]:
        chunk = slice(place, place + size)
        if size == 1 and place < len(at_ms):
            parts.append(stream.push(int(at_ms[place]), values[place])[None])
        else:
            parts.append(stream.extend(at_ms[chunk], values[chunk]))
        place += size
        if restart:
            stream = WindowMean.from_bytes(SPEC, stream.to_bytes())
    assert np.concatenate(parts).tobytes() == batch.tobytes()


@given(rows())
@settings(max_examples=50, deadline=None)
def test_one_row_at_a_time_agrees_with_the_batch_bit_for_bit(given_rows: tuple[np.ndarray, np.ndarray]) -> None:
    at_ms, values = given_rows
    stream = WindowMean(SPEC)
    single = np.array([stream.push(int(moment), row) for moment, row in zip(at_ms, values, strict=True)])
    assert single.tobytes() == window_means(at_ms, values, SPEC.window_ms)[0].tobytes()


@given(rows(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_what_was_seen_before_the_window_changes_nothing(given_rows: tuple[np.ndarray, np.ndarray], skip: int) -> None:
    at_ms, values = given_rows
    whole, _ = window_means(at_ms, values, SPEC.window_ms)
    later, _ = window_means(at_ms[skip:], values[skip:], SPEC.window_ms)
    settled = at_ms[skip:] - SPEC.window_ms >= (at_ms[skip - 1] if skip <= len(at_ms) else 0)
    assert whole[skip:][settled].tobytes() == later[settled].tobytes()


def test_a_huge_value_is_gone_once_it_has_left_the_window() -> None:
    at_ms = np.arange(100, dtype=np.int64) * 1000
    values = np.ones((100, 1), np.float32)
    values[20] = 1e30
    means, _ = window_means(at_ms, values, 10_000)
    assert means[40:].tolist() == [[1.0]] * 60


def test_a_row_that_is_not_later_is_refused_and_nothing_changes() -> None:
    stream = WindowMean(SPEC)
    stream.push(1000, np.ones(2, np.float32))
    before = stream.to_bytes()
    for late in (999, 1000):
        assert not stream.is_newer(late)
        with pytest.raises(FormatError, match="not later"):
            stream.push(late, np.ones(2, np.float32))
        with pytest.raises(FormatError, match="not later"):
            stream.extend(np.array([late], np.int64), np.ones((1, 2), np.float32))
    assert stream.to_bytes() == before
    assert stream.is_newer(1001)


def test_a_state_of_other_channels_is_refused() -> None:
    stream = WindowMean(SPEC)
    stream.push(1000, np.ones(2, np.float32))
    with pytest.raises(FormatError):
        WindowMean.from_bytes(FeatureSpec(("a", "b", "c"), 10.0), stream.to_bytes())


def test_rows_on_a_window_that_is_still_filling_are_told_apart() -> None:
    at_ms = np.arange(100, dtype=np.int64) * 1000
    _, counts = window_means(at_ms, np.ones((100, 1), np.float32), 10_000)
    assert has_full_window(counts).tolist() == [False] * 8 + [True] * 92


@pytest.mark.parametrize("window_s", [0.0, -1.0])
def test_a_window_of_no_length_is_refused(window_s: float) -> None:
    with pytest.raises(ValueError, match="window"):
        FeatureSpec(("a",), window_s)
