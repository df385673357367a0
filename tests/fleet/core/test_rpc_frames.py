"""Frames of the conversation: whatever way the bytes are cut, the same frames come out; what is no frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import DamagedError, TooLargeError
from pumpdeck_fleet.core.rpc import BODY_MAX_BYTES, HEADER_MAX_BYTES, FrameDecoder, Op, encode_frame, request

bodies = st.lists(st.binary(max_size=200), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(bodies, st.lists(st.integers(1, 50), max_size=30))
def test_frames_do_not_depend_on_how_the_stream_is_cut(contents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(request(n, Op.CHUNK, {"index": n}, body) for n, body in enumerate(contents))
    decoder, found, at = FrameDecoder(), [], 0
    for cut in [*cuts, len(stream)]:
        found += decoder.feed(stream[at : at + cut])
        at += cut
    assert [frame.body for frame in found] == contents
    assert [frame.header["id"] for frame in found] == list(range(len(contents)))
    assert decoder.is_between_frames


@settings(max_examples=60, deadline=None)
@given(bodies)
def test_a_reader_that_asks_for_what_is_wanted_never_reads_into_the_next_frame(contents: list[bytes]) -> None:
    stream = b"".join(request(n, Op.CHUNK, {}, body) for n, body in enumerate(contents))
    decoder, at = FrameDecoder(), 0
    for body in contents:
        frames: list[object] = []
        while not frames:
            wanted = decoder.wanted_bytes
            assert wanted > 0
            frames = list(decoder.feed(stream[at : at + wanted]))
            at += wanted
        assert len(frames) == 1
        assert frames[0].body == body  # type: ignore[attr-defined]
        assert decoder.is_between_frames
    assert at == len(stream)


def test_a_stream_inside_a_frame_is_not_between_frames() -> None:
    data = request(1, Op.STATUS, {}, b"body")
    for length in range(1, len(data)):
        decoder = FrameDecoder()
        decoder.feed(data[:length])
        assert not decoder.is_between_frames


@pytest.mark.parametrize(
    "data",
    [
        (HEADER_MAX_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x11{"body_bytes":-1}',
        b'\x00\x00\x00\x13{"body_bytes":true}',
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
    ],
)
def test_what_is_no_frame_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(DamagedError):
        FrameDecoder().feed(data)


def test_a_body_over_the_limit_is_refused_before_it_is_taken() -> None:
    head = b'{"body_bytes":%d}' % (BODY_MAX_BYTES + 1)
    with pytest.raises(TooLargeError):
        FrameDecoder().feed(len(head).to_bytes(4, "big") + head)
    with pytest.raises(TooLargeError):
        encode_frame({"op": "x"}, bytes(BODY_MAX_BYTES + 1))
    with pytest.raises(TooLargeError):
        encode_frame({"op": "x" * HEADER_MAX_BYTES})
