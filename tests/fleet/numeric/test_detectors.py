from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.detectors import (
    SCORE_CAP,
    LimitBranch,
    PumpBlock,
    contributions,
    decode_block,
    encode_block,
    has_votes,
    probability,
    score_rows,
    to_float32,
)
from support.pump_rows import small_block

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "pump_block.bin"
NUMBERS = st.floats(-1e6, 1e6, width=32)
SCALES = st.floats(0, 1e6, width=32)


@st.composite
def blocks(draw: st.DrawFn) -> PumpBlock:
    count = draw(st.integers(1, 32))

    def column(of: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(of, min_size=count, max_size=count)), np.float32)

    votes = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    votes[draw(st.integers(0, count - 1))] = True
    return PumpBlock(
        channels=tuple(f"c{place}" for place in range(count)),
        centre=column(NUMBERS),
        scale=column(SCALES),
        floor=column(SCALES),
        votes=votes,
        limit=draw(st.floats(0.0009765625, 1e6, width=32)),
        branch=draw(st.sampled_from(LimitBranch)),
        provisional=draw(st.booleans()),
    )


def same(left: PumpBlock, right: PumpBlock) -> bool:
    columns = ("centre", "scale", "floor", "votes", "width")
    plain = ("channels", "limit", "branch", "provisional")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in columns) and all(
        getattr(left, name) == getattr(right, name) for name in plain
    )


@given(blocks())
def test_a_block_comes_back_as_it_was(block: PumpBlock) -> None:
    data = encode_block(block)
    assert len(data) == 24 + 12 * len(block.channels)
    assert same(decode_block(data, block.channels), block)


@given(blocks(), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_the_block(block: PumpBlock, place: int, change: int) -> None:
    data = bytearray(encode_block(block))
    data[place % len(data)] ^= change
    try:
        found = decode_block(bytes(data), block.channels)
    except FormatError:
        return
    assert encode_block(found) == bytes(data)


def test_cut_padded_and_foreign_blocks_are_refused() -> None:
    block = small_block()
    data = encode_block(block)
    for wrong in (data[:-1], data + b"\0", b"", b"X" + data[1:]):
        with pytest.raises(FormatError):
            decode_block(wrong, block.channels)
    with pytest.raises(FormatError, match="other channels"):
        decode_block(data, ("c1", "c0", "c2", "c3"))


def test_a_block_of_eight_channels_is_small_and_its_bytes_are_fixed() -> None:
    steps = np.arange(8, dtype=np.float32)
    block = PumpBlock(
        channels=tuple(f"channel_{place}" for place in range(8)),
        centre=steps * 10,
        scale=steps / 4 + 1,
        floor=steps / 100,
        votes=steps < 6,
        limit=to_float32(4.25),
        branch=LimitBranch.WINDOWS,
        provisional=True,
    )
    assert encode_block(block) == GOLDEN.read_bytes()
    assert 64 <= len(encode_block(block)) <= 200


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 0.0},
        {"limit": float("nan")},
        {"limit": 0.1},
        {"votes": np.zeros(4, np.bool_)},
        {"scale": np.full(4, -1, np.float32)},
        {"centre": np.full(4, np.nan, np.float32)},
        {"floor": np.zeros(3, np.float32)},
        {"scale": np.ones(4)},
    ],
)
def test_a_block_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        replace(small_block(), **change)


def test_the_score_is_the_worst_voting_channel_and_names_it() -> None:
    block = small_block()
    rows = np.array([[1, -3, 2, 99]], np.float32)
    assert score_rows(block, rows).tolist() == [3.0]
    assert contributions(block, rows).tolist() == [[1.0, 3.0, 2.0, 0.0]]


def test_a_scale_below_the_sensors_resolution_does_not_count() -> None:
    block = replace(small_block(), scale=np.full(4, 0.001, np.float32), floor=np.full(4, 0.5, np.float32))
    assert score_rows(block, np.array([[0.5, 0, 0, 0]], np.float32)).tolist() == [1.0]


def test_a_missing_channel_adds_nothing_and_a_row_without_votes_is_told() -> None:
    block = small_block()
    rows = np.array([[np.nan, 2, np.nan, 0], [np.nan, np.nan, np.nan, 5]], np.float32)
    assert score_rows(block, rows).tolist() == [2.0, 0.0]
    assert has_votes(block, rows).tolist() == [True, False]


def test_no_value_gives_an_infinite_score() -> None:
    rows = np.array([[np.inf, 0, 0, 0], [-np.inf, 0, 0, 0], [3e38, 0, 0, 0]], np.float32)
    assert score_rows(small_block(), rows).tolist() == [SCORE_CAP] * 3


def test_probability_is_a_half_at_the_limit_and_rises_with_the_score() -> None:
    found = probability(np.array([0.0, 2.0, 4.0, 12.0, SCORE_CAP]), 4.0)
    assert found[[0, 2]].tolist() == [0.0, 0.5]
    assert (np.diff(found) > 0).all() and found[-1] < 1
