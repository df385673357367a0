"""Rows go in by pieces and come out whole; hourly figures, last rows and digests follow from the rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store.chunks import DAY_CHUNK_ROWS, ROLLUP_ROWS, ChunkTable
from pumpdeck_fleet.store.connection import OutsideTransactionError
from support.frames import CHANNELS, T0, frame_of, same_frame, sensor_frame
from support.stores import open_store

PUMP = "gannet/P-1"
END = T0 + 400 * DAY_MS
NAN = float("nan")


def naive_hours(frame: TelemetryFrame, channel: int) -> dict[int, tuple[float, float, float, int]]:
    """hour -> (min, mean, max, count), the slow way."""
    found: dict[int, list[float]] = {}
    for at, value in zip(frame.at_ms.tolist(), frame.values[:, channel].tolist(), strict=True):
        if value == value:
            found.setdefault(at // HOUR_MS * HOUR_MS, []).append(value)
    return {hour: (min(v), sum(v) / len(v), max(v), len(v)) for hour, v in found.items()}


@pytest.mark.parametrize("rows", [1, 24, ROLLUP_ROWS, ROLLUP_ROWS + 1, DAY_CHUNK_ROWS, DAY_CHUNK_ROWS + 1, 7_000])
def test_what_was_appended_is_read(tmp_path: Path, rows: int) -> None:
    frame = sensor_frame(rows, step_ms=2 * DAY_MS // rows)
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.telemetry.append(PUMP, frame) == (rows, 0, 0)
        table = store.telemetry
        assert same_frame(table.frame(PUMP, T0, END), frame)
        assert table.span(PUMP) == (T0, int(frame.at_ms[-1]), rows)
        assert same_frame(table.tail(PUMP, 10), frame.take(slice(max(0, rows - 10), rows)))
        part = table.frame(PUMP, T0 + 7 * HOUR_MS, T0 + 30 * HOUR_MS, ("c_rpm", "zz"))
        assert part.channels == ("c_rpm", "zz")
        expected = frame.between(T0 + 7 * HOUR_MS, T0 + 30 * HOUR_MS).select(("c_rpm", "zz"))
        assert same_frame(part, expected)


@pytest.mark.parametrize("step_ms", [HOUR_MS // 2, 10 * MINUTE_MS, MINUTE_MS, 10_000])
def test_hourly_figures_are_those_of_the_rows(tmp_path: Path, step_ms: int) -> None:
    frame = sensor_frame(2 * DAY_MS // step_ms, step_ms=step_ms)
    frame.values[3:40, 1] = NAN
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame)
        rollup = store.telemetry.rollup(PUMP, T0, END)
        for channel in range(3):
            for index, hour in enumerate(rollup.hour_ms.tolist()):
                expected = naive_hours(frame, channel).get(hour, (NAN, NAN, NAN, 0))
                found = [getattr(rollup, name)[index, channel] for name in ("minimum", "mean", "maximum", "count")]
                np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert len(rollup.hour_ms) == 48
        part = store.telemetry.rollup(PUMP, T0 + 5 * HOUR_MS, T0 + 7 * HOUR_MS)
        assert part.hour_ms.tolist() == [T0 + 5 * HOUR_MS, T0 + 6 * HOUR_MS]


def test_the_largest_of_each_hour_over_pumps(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append("a/dense", sensor_frame(2_880, seed=1))
            store.telemetry.append("a/sparse", sensor_frame(96, seed=2, step_ms=HOUR_MS // 2))
        pumps = ["a/dense", "a/none", "a/sparse"]
        matrix = store.telemetry.hourly(pumps, T0 + 20 * HOUR_MS + 1, T0 + 29 * HOUR_MS - 1, "b_c")
        assert matrix.shape == (3, 9)
        assert np.isnan(matrix[1]).all()
        for row, (pump, seed) in {0: ("a/dense", 1), 2: ("a/sparse", 2)}.items():
            frame = store.telemetry.frame(pump, T0, END)
            hours = naive_hours(frame, 1)
            np.testing.assert_array_equal(matrix[row], [np.float32(hours[T0 + (20 + hour) * HOUR_MS][2]) for hour in range(9)])
            assert seed
        assert np.isnan(store.telemetry.hourly(pumps, T0, T0 + HOUR_MS, "unknown")).all()


def test_late_rows_correct_hourly_figures(tmp_path: Path) -> None:
    frame = sensor_frame(DAY_MS // 10_000, step_ms=10_000)
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame.take(frame.at_ms % 20_000 == 0))
            store.telemetry.append(PUMP, frame.take(frame.at_ms % 20_000 != 0))
        hours = naive_hours(frame, 0)
        rollup = store.telemetry.rollup(PUMP, T0, END)
        np.testing.assert_allclose(rollup.mean[:, 0], [hours[at][1] for at in rollup.hour_ms.tolist()], rtol=1e-6)


def test_a_channel_that_appears_later_is_missing_before(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, sensor_frame(300).select(("a_bar",)))
            store.telemetry.append(PUMP, sensor_frame(300, start_ms=T0 + 300 * MINUTE_MS))
        frame = store.telemetry.frame(PUMP, T0, END)
        assert frame.channels == CHANNELS
        assert np.isnan(frame.values[:300, 1:]).all()
        assert not np.isnan(frame.values[300:]).any()
        rollup = store.telemetry.rollup(PUMP, T0, END)
        assert rollup.count[0].tolist() == [60, 0, 0]


def test_rows_that_say_something_else_change_and_bring_their_flags(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0: (1, 2, NAN), T0 + 1: (1, 2, 3)}, flags=4))
            counts = store.telemetry.append(PUMP, frame_of({T0: (1, NAN, 9), T0 + 1: (1, 7, 3), T0 + 2: (0, 0, 0)}, flags=8))
        assert counts == (1, 2, 0)
        frame = store.telemetry.frame(PUMP, T0, END)
        assert frame.values.tolist() == [[1, 2, 9], [1, 7, 3], [0, 0, 0]]
        # A filled gap adds up flags, a contradiction replaces them.
        assert frame.flags.tolist() == [12, 8, 8]


def test_the_last_row_follows_the_newest_time_and_its_corrections(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0 + 5: (1, 2, 3)}))
            store.telemetry.append(PUMP, frame_of({T0: (7, 7, 7)}, flags=1))
        assert store.telemetry.last()[PUMP].values == (1, 2, 3)
        with store.atomic():
            store.telemetry.append(PUMP, frame_of({T0 + 5: (4, 2, 3)}, flags=2))
        last = store.telemetry.last([PUMP, "a/none"])
        assert (list(last), last[PUMP].at_ms, last[PUMP].values, last[PUMP].flags) == ([PUMP], T0 + 5, (4, 2, 3), 2)
        assert last[PUMP].channels == CHANNELS


def test_scores_have_their_own_channels_and_their_own_rows(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.scores.append(PUMP, frame_of({T0: (0.5, 3.5)}, ("limit", "score")))
            with pytest.raises(FormatError):
                store.scores.append(PUMP, frame_of({T0: (1, 2, 3)}))
        assert store.scores.last()[PUMP].channels == ("score", "limit", "alarmed", "drift_index")
        assert store.telemetry.span(PUMP) is None
        assert store.scores.frame(PUMP, T0, END, ("score",)).values.tolist() == [[3.5]]
        assert store.scores.frame("a/none", T0, END).channels == ("score", "limit", "alarmed", "drift_index")


def test_digests_name_content_not_history(tmp_path: Path) -> None:
    frame = sensor_frame(3_000)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with open_store(tmp_path / "a") as one, open_store(tmp_path / "b") as other:
        with one.atomic():
            one.telemetry.append(PUMP, frame)
        with other.atomic():
            other.telemetry.append(PUMP, frame.take(slice(1500, 3000)))
            other.telemetry.append(PUMP, frame.take(slice(0, 2000)))
        digests = one.telemetry.chunk_digests(PUMP, T0, END)
        assert digests == other.telemetry.chunk_digests(PUMP, T0, END)
        assert [at for at, _ in digests] == [T0, T0 + DAY_MS, T0 + 2 * DAY_MS]
        assert one.telemetry.chunk_digests(PUMP, T0 + DAY_MS, T0 + DAY_MS + 1) == digests[1:2]
        with other.atomic():
            other.telemetry.append(PUMP, frame_of({T0: (0.0, 0.0, 0.0)}))
        changed = other.telemetry.chunk_digests(PUMP, T0, END)
        assert changed[0] != digests[0]
        assert changed[1:] == digests[1:]


def test_equal_rows_change_nothing_at_all(tmp_path: Path) -> None:
    frame = sensor_frame(2_000)
    with open_store(tmp_path) as store:
        with store.atomic():
            store.telemetry.append(PUMP, frame)
        before = store.telemetry.chunk_digests(PUMP, T0, END)
        with store.atomic():
            assert store.telemetry.append(PUMP, frame) == (0, 0, 2_000)
        assert store.telemetry.chunk_digests(PUMP, T0, END) == before


def test_rows_out_of_the_tables_range_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for at in (-1, 1 << 60):
            with pytest.raises(FormatError), store.atomic():
                store.telemetry.append(PUMP, frame_of({at: (1, 2, 3)}))
        with pytest.raises(TooLargeError, match="in one hour"), store.atomic():
            store.telemetry.append(PUMP, sensor_frame(65_537, step_ms=50))
        assert store.telemetry.span(PUMP) is None
        assert len(store.telemetry.frame(PUMP, 0, END)) == 0


def test_appending_needs_a_transaction(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with pytest.raises(OutsideTransactionError):
            store.telemetry.append(PUMP, sensor_frame(3))
        assert store.telemetry.pumps() == []


def test_an_append_that_was_undone_leaves_no_trace_in_later_ones(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with pytest.raises(KeyError), store.atomic():
            store.telemetry.append(PUMP, sensor_frame(3))
            raise KeyError
        with store.atomic():
            store.telemetry.append(PUMP, sensor_frame(5))
        assert len(store.telemetry.frame(PUMP, 0, END)) == 5
        assert isinstance(store.telemetry, ChunkTable)
        assert store.telemetry.last()[PUMP].channels == CHANNELS
