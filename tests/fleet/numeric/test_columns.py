"""The column chunk: exact, small, reproducible, and refused when anything in it is wrong."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError, PumpdeckError, TooLargeError
from pumpdeck_fleet.numeric.columns import MAX_ROWS, RAW, decode_chunk, encode_chunk, pack_rows
from pumpdeck_fleet.numeric.frame import TelemetryFrame, empty_frame
from support.frames import CHANNELS, T0, frame_of, frames, same_frame, sensor_frame

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "column_chunk.bin"
NAN = float("nan")


def golden_frame() -> TelemetryFrame:
    """Decimals, raw bits, missing values, an uneven step and flags, in five rows."""
    rows = {
        T0: (100.5, 20.25, 1 / 3),
        T0 + 60_000: (100.4, NAN, 2 / 3),
        T0 + 120_000: (NAN, 20.27, -1e-20),
        T0 + 121_001: (-99.9, 20.26, 3e38),
        T0 + 7_200_000: (0.0, 0.0, NAN),
    }
    flags = np.array([0, 128, 128, 1, 0], np.uint16)
    frame = frame_of(rows)
    return TelemetryFrame(frame.channels, frame.at_ms, frame.values, flags)


def body(chunk: bytes) -> bytes:
    """The bytes behind the zlib stream's own spelling: header, names, decimals and what the stream holds."""
    at = chunk.index(b"\x78\x01")
    return chunk[:at] + zlib.decompress(chunk[at:])


def test_the_golden_chunk_is_read_as_it_was_written() -> None:
    assert same_frame(decode_chunk(GOLDEN.read_bytes()), golden_frame())


def test_the_golden_chunk_is_written_again() -> None:
    # Another zlib may spell the stream otherwise; what it holds may not change.
    assert body(encode_chunk(golden_frame())) == body(GOLDEN.read_bytes())


@given(frames())
@settings(max_examples=200)
def test_a_frame_comes_back_exactly(frame: TelemetryFrame) -> None:
    assert same_frame(decode_chunk(encode_chunk(frame)), frame)


@given(frames(max_rows=6), st.data())
@settings(max_examples=200)
def test_damaged_bytes_are_refused_or_still_a_frame(frame: TelemetryFrame, data: st.DataObject) -> None:
    chunk = bytearray(encode_chunk(frame))
    at = data.draw(st.integers(0, len(chunk) - 1))
    chunk[at] ^= data.draw(st.integers(1, 255))
    try:
        decode_chunk(bytes(chunk))
    except PumpdeckError as error:
        assert isinstance(error, FormatError | TooLargeError)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_a_crash(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_chunk(data)


@given(frames(max_rows=10), st.integers(1, 30))
def test_a_cut_or_longer_chunk_is_refused(frame: TelemetryFrame, count: int) -> None:
    chunk = encode_chunk(frame)
    with pytest.raises(FormatError):
        decode_chunk(chunk[:-count])
    with pytest.raises(FormatError):
        decode_chunk(chunk + bytes(count))


def test_a_chunk_that_would_inflate_is_refused_without_growing() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    chunk = encode_chunk(frame_of({T0: (1.0,)}, ("a",)))
    head = chunk[: chunk.index(b"\x78\x01")]
    with pytest.raises(FormatError, match="wrong length"):
        decode_chunk(head + bomb)


def test_more_rows_than_the_limit_are_refused() -> None:
    frame = sensor_frame(MAX_ROWS + 1, step_ms=1)
    with pytest.raises(TooLargeError):
        encode_chunk(frame)
    huge = bytearray(encode_chunk(empty_frame(CHANNELS)))
    huge[4:8] = (MAX_ROWS + 1).to_bytes(4, "little")
    with pytest.raises(TooLargeError):
        decode_chunk(bytes(huge))


def test_times_that_do_not_rise_are_refused() -> None:
    chunk = encode_chunk(frame_of({T0: (1.0,), T0 + 1: (2.0,)}, ("a",)))
    at = chunk.index(b"\x78\x01")
    raw = bytearray(zlib.decompress(chunk[at:]))
    raw[1] = 0  # the second step of time, first byte plane
    with pytest.raises(FormatError, match="time does not rise"):
        decode_chunk(chunk[:at] + zlib.compress(bytes(raw), 1))


def test_the_same_rows_give_the_same_bytes_however_they_lie_in_memory() -> None:
    frame = sensor_frame(500)
    wide = np.asfortranarray(np.concatenate([frame.values, frame.values], axis=1))[:, :3]
    other = TelemetryFrame(frame.channels, frame.at_ms[::1].copy(), wide, frame.flags)
    assert encode_chunk(other) == encode_chunk(frame)


def test_decimal_channels_are_kept_as_decimals_and_others_raw() -> None:
    rows = {T0 + row: (row / 10, row * 1000.0, row / 7) for row in range(20)}
    assert list(pack_rows(frame_of(rows))[:3]) == [1, 0, RAW]


def test_sensor_rows_take_less_than_half_of_their_floats() -> None:
    frame = sensor_frame(1440)
    assert len(encode_chunk(frame)) < 0.5 * frame.values.nbytes
