import numpy as np
import pytest

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate, empty_frame
from support.pump_rows import pump_frame


def frame(*times: int) -> TelemetryFrame:
    rows = len(times)
    values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    return TelemetryFrame(("a", "b"), np.array(times, np.int64), values, np.zeros(rows, np.uint16))


def test_time_that_stands_still_is_refused_and_the_row_is_named() -> None:
    with pytest.raises(FormatError, match="row 2"):
        frame(1, 5, 5)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float64), np.zeros((3, 2), np.float32)]
)
def test_a_frame_of_the_wrong_shape_or_type_is_refused(values: np.ndarray) -> None:
    with pytest.raises(FormatError, match="values"):
        TelemetryFrame(("a", "b"), np.array([1, 2], np.int64), values, np.zeros(2, np.uint16))


def test_a_channel_that_stands_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="twice"):
        TelemetryFrame(("a", "a"), np.array([1], np.int64), np.zeros((1, 2), np.float32), np.zeros(1, np.uint16))


def test_between_takes_the_start_and_not_the_end() -> None:
    assert frame(1, 5, 9).between(1, 9).at_ms.tolist() == [1, 5]


def test_selected_channels_come_in_the_asked_order_and_an_unknown_one_is_missing() -> None:
    chosen = frame(1, 2).select(("b", "x", "a"))
    assert chosen.values[:, [0, 2]].tolist() == [[1, 0], [3, 2]]
    assert np.isnan(chosen.values[:, 1]).all()


def test_frames_put_together_are_the_frame_they_were_cut_from() -> None:
    whole = pump_frame(1, days=1)
    parts = [whole.take(slice(0, 5)), whole.take(slice(5, 5)), whole.take(slice(5, None))]
    again = concatenate(parts)
    assert np.array_equal(again.values, whole.values)
    assert np.array_equal(again.at_ms, whole.at_ms)


def test_frames_that_overlap_in_time_are_not_put_together() -> None:
    with pytest.raises(FormatError, match="does not rise"):
        concatenate([frame(1, 5), frame(5, 6)])


def test_an_empty_frame_has_channels_and_no_rows() -> None:
    assert (len(empty_frame(("a",))), empty_frame(("a",)).values.shape) == (0, (0, 1))
