from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.sketch import (
    SKETCH_MAX_BYTES,
    Sketch,
    decode_sketch,
    empty_sketch,
    encode_sketch,
    make_sketch,
    merge,
)
from support.sketch_rows import NAMES, awkward_edges, awkward_rows

EDGES = awkward_edges()
DAY_MS = 1_760_054_400_000


def sketch_of(values: np.ndarray, start_ms: int = DAY_MS) -> Sketch:
    return make_sketch(EDGES, start_ms + np.arange(len(values), dtype=np.int64) * 1000, values)


def same(left: Sketch, right: Sketch) -> bool:
    plain = ("rows", "first_ms", "last_ms", "complete")
    arrays = ("counts", "moments", "sums", "products")
    return all(getattr(left, name) == getattr(right, name) for name in plain) and all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in arrays
    )


def with_holes(seed: int, rows: int) -> np.ndarray:
    values = awkward_rows(seed, rows)
    values[np.random.default_rng(seed).random(values.shape) < 0.05] = np.nan
    return values


@given(st.integers(0, 1000), st.integers(0, 300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_sketch_comes_back_from_its_bytes(seed: int, rows: int, holes: bool) -> None:
    sketch = sketch_of(with_holes(seed, rows) if holes else awkward_rows(seed, rows))
    data = encode_sketch(sketch)
    assert same(decode_sketch(data, EDGES), sketch)


@given(st.integers(0, 1000), st.lists(st.integers(0, 80), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_merging_parts_in_any_order_and_grouping_is_the_sketch_of_all_rows(seed: int, sizes: list[int]) -> None:
    values, place, parts = with_holes(seed, sum(sizes)), 0, []
    whole = sketch_of(values)
    for size in sizes:
        parts.append(sketch_of(values[place : place + size], DAY_MS + 1000 * place))
        place += size
    forward = backward = empty_sketch(EDGES)
    for part in parts:
        forward = merge(forward, part)
    for part in reversed(parts):
        backward = merge(part, backward)
    assert same(forward, whole)
    assert same(backward, whole)


@pytest.mark.parametrize(("rows", "limit"), [(1440, 1024), (86_400, 2048)])
@pytest.mark.parametrize("holes", [False, True])
def test_a_sketch_of_ten_channels_keeps_its_size(rows: int, limit: int, holes: bool) -> None:
    values = with_holes(5, rows) if holes else awkward_rows(5, rows)
    assert len(encode_sketch(sketch_of(values))) <= limit


def test_bins_of_every_kind_are_counted_right_closed() -> None:
    values = awkward_rows(3, 500)
    sketch = sketch_of(values)
    for place, edge in enumerate(EDGES.edges):
        column = values[:, place].astype(np.float64)
        unit = 2.0**edge.cuts.exponent
        quantiles = np.unique(edge.cuts.quantiles) * unit
        assert (
            sketch.quantile_counts(place).tolist()
            == np.bincount(np.searchsorted(quantiles, column, side="left"), minlength=len(quantiles) + 1).tolist()
        )
        inside = (column > edge.cuts.low * unit) & (column <= edge.cuts.high * unit)
        assert (len(sketch.width_counts(place)), len(sketch.overflow_counts(place))) == (30, 10)
        assert int(sketch.width_counts(place).sum()) == int(inside.sum())
        assert int(sketch.overflow_counts(place).sum()) == int((~inside).sum())


def test_moments_and_covariance_are_those_of_the_rows() -> None:
    values = awkward_rows(4, 5000)
    values[:, 8] = values[:, 0] * 2 + values[:, 8]
    sketch = sketch_of(values)
    np.testing.assert_allclose(
        sketch.mean()[[0, 4, 8]], values.astype(np.float64).mean(axis=0)[[0, 4, 8]], rtol=1e-3, atol=2e-3
    )
    widths = np.array([edge.width for edge in EDGES.edges])
    direct = np.cov((values[:, [0, 8]] / widths[[0, 8]]).T, bias=True)
    np.testing.assert_allclose(sketch.covariance()[np.ix_([0, 8], [0, 8])], direct, rtol=0.01)


def test_a_missing_value_is_counted_nowhere() -> None:
    values = awkward_rows(6, 50)
    values[:, 0] = np.nan
    values[7, 1] = np.inf
    sketch = sketch_of(values)
    assert (sketch.rows, int(sketch.cells(0).sum()), int(sketch.cells(1).sum()), sketch.complete) == (50, 0, 49, 0)
    assert np.isnan(sketch.mean()[0])
    assert np.isnan(sketch.covariance()).all()


def test_sketches_on_other_edges_are_neither_merged_nor_read() -> None:
    other = awkward_edges(seed=2)
    theirs = make_sketch(other, np.array([1], np.int64), awkward_rows(1, 1))
    with pytest.raises(FormatError, match="other reference edges"):
        merge(sketch_of(awkward_rows(1, 5)), theirs)
    with pytest.raises(FormatError, match="other reference edges"):
        decode_sketch(encode_sketch(theirs), EDGES)


SOUND = encode_sketch(sketch_of(with_holes(9, 100)))


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_never_passes(place: int, change: int) -> None:
    data = bytearray(SOUND)
    data[place] ^= change
    try:
        found = decode_sketch(bytes(data), EDGES)
    except FormatError:
        return
    assert same(found, decode_sketch(SOUND, EDGES))  # zlib's own header has bits that mean nothing


def test_a_decompression_bomb_is_refused_without_growing() -> None:
    bomb = b"PDS1" + EDGES.digest + zlib.compress(bytes(40_000_000), 9)
    with pytest.raises(FormatError):
        decode_sketch(bomb, EDGES)
    with pytest.raises(TooLargeError):
        decode_sketch(b"PDS1" + EDGES.digest + bytes(SKETCH_MAX_BYTES), EDGES)


def test_counts_that_the_rows_cannot_give_are_refused() -> None:
    packed = zlib.decompress(SOUND[12:])
    assert packed[0] == 100
    lied = b"PDS1" + EDGES.digest + zlib.compress(struct.pack("B", 3) + packed[1:])
    with pytest.raises(FormatError, match="more values than rows"):
        decode_sketch(lied, EDGES)


def test_rows_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(FormatError, match="shape"):
        make_sketch(EDGES, np.array([1], np.int64), np.zeros((1, len(NAMES) - 1), np.float32))
