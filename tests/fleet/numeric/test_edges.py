from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.edges import (
    EDGES_MAX_BYTES,
    ChannelEdges,
    decode_edges,
    encode_edges,
    fit_edges,
    ranked_columns,
)
from support.sketch_rows import NAMES, awkward_edges, awkward_rows

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "reference_edges.bin"
EDGES = awkward_edges()
ENCODED = encode_edges(EDGES)


def counted(edge: ChannelEdges, cuts: tuple[int, ...], values: np.ndarray) -> list[int]:
    """Rows per right-closed bin, by comparing one by one."""
    lines = [-np.inf, *(cut * 2.0**edge.cuts.exponent for cut in sorted(set(cuts))), np.inf]
    return [int(((values > low) & (values <= high)).sum()) for low, high in pairwise(lines)]


@pytest.mark.parametrize("place", range(10))
def test_reference_counts_fold_to_what_counting_one_by_one_gives(place: int) -> None:
    edge, values = EDGES.edges[place], awkward_rows(1, 4176)[:, place].astype(np.float64)
    for cuts in (
        edge.cuts.quantiles,
        edge.cuts.width_cuts,
        edge.cuts.overflow_cuts,
        edge.cuts.decile_cuts,
        edge.cuts.all_cuts,
    ):
        assert edge.cuts.fold(edge.reference, cuts).tolist() == counted(edge, cuts, values)


def test_deciles_of_a_smooth_channel_hold_a_tenth_each() -> None:
    edge = EDGES.edges[0]
    shares = edge.cuts.fold(edge.reference, edge.cuts.decile_cuts) / edge.reference.sum()
    assert len(shares) == 10
    assert np.abs(shares - 0.1).max() < 0.005


def test_a_value_that_holds_many_rows_gets_a_cell_of_its_own() -> None:
    edge = EDGES.edges[NAMES.index("stopped")]
    values = awkward_rows(1, 4176)[:, 3]
    assert int((values == 0).sum()) in edge.reference.tolist()
    assert 0 in edge.cuts.atoms


def test_equal_width_and_overflow_bins_have_the_stated_numbers() -> None:
    for edge in EDGES.edges:
        assert (len(edge.cuts.quantiles), len(set(edge.cuts.width_cuts)), len(set(edge.cuts.overflow_cuts))) == (
            29,
            31,
            10,
        )


def test_edges_come_back_from_their_bytes_and_the_bytes_are_small() -> None:
    again = decode_edges(ENCODED, NAMES)
    assert encode_edges(again) == ENCODED
    assert again.digest == EDGES.digest
    assert all(left.cuts == right.cuts for left, right in zip(again.edges, EDGES.edges, strict=True))
    assert len(ENCODED) <= 200 * len(NAMES)


def test_the_bytes_of_the_format_are_fixed() -> None:
    values = (np.arange(3000, dtype=np.int64)[:, None] * np.array([7, 13]) % 1009 / 16).astype(np.float32)
    made = fit_edges(("a", "b"), values, np.array([20.0, 20.0]))
    assert encode_edges(made) == GOLDEN.read_bytes()


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_is_refused_or_changes_the_digest(place: int, change: int) -> None:
    data = bytearray(ENCODED)
    data[place] ^= change
    try:
        found = decode_edges(bytes(data), NAMES)
    except FormatError:
        return
    assert found.digest != EDGES.digest


def test_cut_padded_foreign_and_huge_edges_are_refused() -> None:
    for wrong in (ENCODED[:-1], ENCODED + b"\0", b"", b"PDE2" + ENCODED[4:]):
        with pytest.raises(FormatError):
            decode_edges(wrong, NAMES)
    with pytest.raises(FormatError):
        decode_edges(ENCODED, tuple(reversed(NAMES)))
    with pytest.raises(TooLargeError):
        decode_edges(ENCODED + bytes(EDGES_MAX_BYTES), NAMES)


def test_a_channel_without_any_value_is_refused_by_name() -> None:
    values = awkward_rows(1, 100)
    values[:, 2] = np.nan
    with pytest.raises(FormatError, match="skewed"):
        fit_edges(NAMES, values, np.ones(10))


@pytest.mark.parametrize("values", [[1e30, -1e30, 0.0], [3.4e38] * 5, [0.0] * 5, [1e-38, 2e-38], [5.0]])
def test_no_values_are_too_strange_for_edges(values: list[float]) -> None:
    column = np.array(values, np.float32)[:, None]
    made = fit_edges(("a",), column, np.array([1e-6]))
    assert int(made.edges[0].reference.sum()) == len(values)
    assert encode_edges(decode_edges(encode_edges(made), ("a",))) == encode_edges(made)


def test_reference_counts_that_do_not_fit_their_cells_are_refused() -> None:
    with pytest.raises(FormatError):
        replace(EDGES.edges[0], reference=EDGES.edges[0].reference[:-1])


@pytest.mark.parametrize("seed", range(40))
def test_values_on_decimal_steps_are_ranked_as_sorting_ranks_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale, decimals = 10.0 ** int(rng.integers(-2, 6)), int(rng.integers(0, 5))
    values = np.round((rng.standard_normal(1500) + rng.standard_normal()) * scale, decimals).astype(np.float32)
    if seed % 4 == 0:
        # Off its grid, and so far late that the first values do not tell.
        values[700:] *= np.float32(1.0001)
    values[3::97] = np.nan
    (ranked,) = ranked_columns(values[:, None])
    # Adding 0 makes one zero of the two that floats have.
    assert (ranked + 0).tobytes() == (np.sort(values[np.isfinite(values)]) + 0).tobytes()
