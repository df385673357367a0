"""Any split, order and repetition of the same rows gives the same store, bit by bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.chunk_merge import merge_frames
from support.frames import T0, frames, same_frame, sensor_frame
from support.stores import open_store

PUMP = "gannet/P-1"
END = T0 + 100 * DAY_MS


def pieces(frame: TelemetryFrame, owners: list[int]) -> list[TelemetryFrame]:
    """The frame dealt out by row."""
    numbers = np.array(owners[: len(frame)] + [0] * (len(frame) - len(owners)), np.int64)
    return [frame.take(numbers == owner) for owner in range(4)]


def everything(store: Store) -> tuple[object, ...]:
    table = store.telemetry
    rollup = table.rollup(PUMP, T0, END)
    figures = tuple(getattr(rollup, name).tobytes() for name in ("hour_ms", "minimum", "mean", "maximum", "count"))
    return table.chunk_digests(PUMP, 0, END), table.span(PUMP), str(table.last()), rollup.channels, figures


def fill(folder: Path, parts: list[TelemetryFrame]) -> tuple[tuple[object, ...], TelemetryFrame]:
    with open_store(folder) as store:
        for part in parts:
            with store.atomic():
                store.telemetry.append(PUMP, part)
        return everything(store), store.telemetry.frame(PUMP, 0, END)


@given(frames(), st.lists(st.integers(0, 3), max_size=40), st.permutations(range(4)), st.data())
@settings(max_examples=60, deadline=None)
def test_pieces_in_any_order_and_twice_give_the_same(
    frame: TelemetryFrame, owners: list[int], order: list[int], data: st.DataObject
) -> None:
    # Rows of one time come from one row here, so no two sources contradict each other.
    parts = [pieces(frame, owners)[number] for number in order]
    parts += data.draw(st.lists(st.sampled_from(parts), max_size=3))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, read = fill(Path(one), [frame])
        assert fill(Path(other), parts)[0] == whole
    channels = tuple(sorted(frame.channels)) if len(frame) else ()
    expected = frame.select(channels)
    assert same_frame(read, TelemetryFrame(channels, frame.at_ms, expected.values, frame.flags))


@given(st.integers(0, 2**32), st.permutations(range(4)))
@settings(max_examples=8, deadline=None)
def test_days_that_outgrow_their_chunk_are_the_same_however_they_grew(seed: int, order: list[int]) -> None:
    frame = sensor_frame(4_000, step_ms=30_000)
    owners = np.random.default_rng(seed).integers(0, 4, len(frame)).tolist()
    parts = [pieces(frame, owners)[number] for number in order]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert fill(Path(one), [frame])[0] == fill(Path(other), parts)[0]


@given(frames(max_rows=15, hours=1), frames(max_rows=15, hours=1))
@settings(max_examples=200)
def test_merging_counts_every_row_once_and_laying_over_again_changes_nothing(one: TelemetryFrame, two: TelemetryFrame) -> None:
    merged, counts = merge_frames(one, two)
    assert sum(counts) == len(two)
    assert len(merged) == len(one) + counts.new
    again, second = merge_frames(merged, two)
    assert same_frame(again, merged)
    assert second == (0, 0, len(two))
    for index, name in enumerate(two.channels):
        laid = merged.select((name,)).values[np.searchsorted(merged.at_ms, two.at_ms), 0]
        says = ~np.isnan(two.values[:, index])
        np.testing.assert_array_equal(laid[says], two.values[says, index])


@given(frames(max_rows=15, hours=1), st.lists(st.integers(0, 1), min_size=15, max_size=15))
def test_merging_parts_that_agree_is_the_same_both_ways(frame: TelemetryFrame, owners: list[int]) -> None:
    first, second = pieces(frame, owners)[:2]
    assert same_frame(merge_frames(first, second)[0], merge_frames(second, first)[0])
