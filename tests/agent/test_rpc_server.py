"""The device's half of the conversation: frames of docs/formats.md over any byte stream."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_agent.rpc_server import Answer, answer_frame, serve_rpc, split_files
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, PumpdeckError
from pumpdeck_fleet.core.rpc import Frame, FrameDecoder, Op, encode_frame, request
from pumpdeck_packaging.verify import NotAssignedError
from support.devices import Bench, package


class Echo:
    """Answers every operation with what it was given."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: Answer({"got": [repr(value) for value in values]}, b"body of " + name.encode())


def answered(frame: bytes, agent: Any = None) -> dict[str, Any]:
    (asked,) = FrameDecoder().feed(frame)
    (said,) = FrameDecoder().feed(answer_frame(agent or Echo(), asked))
    return {**said.header, "body": said.body}


def test_an_answer_repeats_version_id_and_operation() -> None:
    said = answered(request(7, Op.SEAL, {"digest": "x", "bytes": 3}))
    assert (said["v"], said["id"], said["op"], said["ok"]) == (1, 7, "seal", True)
    assert (said["got"], said["body"]) == (["'x'", "3"], b"body of seal")


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"v": 2, "id": 1, "op": "status"}, "version"),
        ({"id": 1, "op": "status"}, "version"),
        ({"v": 1, "id": 1, "op": "reboot"}, "operation"),
        ({"v": 1, "id": 1, "op": ["status"]}, "operation"),
        ({"v": 1, "id": 1, "op": "status", "extra": 1}, "unknown field"),
        ({"v": 1, "id": 1, "op": "seal", "digest": "x"}, "bytes"),
        ({"v": 1, "id": 1, "op": "seal", "digest": "x", "bytes": "3"}, "bytes"),
        ({"v": 1, "id": 1, "op": "seal", "digest": "x", "bytes": True}, "bytes"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(header: dict[str, Any], word: str) -> None:
    said = answered(encode_frame(header))
    assert said["ok"] is False
    assert said["supported"] == [1]
    assert word in str(said["error"])


def test_a_body_where_none_belongs_is_refused() -> None:
    assert answered(request(1, Op.STATUS, {}, b"x"))["error"]["error"] == "FormatError"


def test_errors_travel_under_a_name_that_every_console_knows() -> None:
    class Refusing(Echo):
        def status(self) -> Answer:
            raise NotAssignedError("is assigned nothing", "d1")

    error = answered(request(1, Op.STATUS, {}), Refusing())["error"]
    assert (error["error"], error["exit_code"], error["what"]) == ("TrustError", 3, "is assigned nothing")


def test_a_defect_is_an_answer_and_the_conversation_goes_on() -> None:
    class Broken(Echo):
        def status(self) -> Answer:
            raise ZeroDivisionError("oops")

    read = io.BytesIO(request(1, Op.STATUS, {}) + request(2, Op.SEAL, {"digest": "x", "bytes": 1}))
    write = io.BytesIO()
    serve_rpc(Broken(), read, write)
    first, second = FrameDecoder().feed(write.getvalue())
    assert (first.header["ok"], first.header["error"]["exit_code"]) == (False, 1)
    assert second.header["ok"] is True


def test_a_stream_that_ends_in_mid_frame_is_an_error_after_its_whole_requests_were_answered() -> None:
    data = request(1, Op.STATUS, {}) + request(2, Op.STATUS, {})[:-3]
    write = io.BytesIO()
    with pytest.raises(FormatError):
        serve_rpc(Echo(), io.BytesIO(data), write)
    assert len(FrameDecoder().feed(write.getvalue())) == 1


class Trickle(io.BytesIO):
    """A stream that gives a byte at a time, as a slow link may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(1, size or 1))


def test_a_stream_that_trickles_is_served_alike() -> None:
    data = request(1, Op.HAVE, {"digest": "d", "bytes": 9}, b"h" * 32) + request(2, Op.STATUS, {})
    write = io.BytesIO()
    serve_rpc(Echo(), Trickle(data), write)
    assert [frame.header["id"] for frame in FrameDecoder().feed(write.getvalue())] == [1, 2]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_the_server_fail_in_an_unknown_way(data: bytes) -> None:
    with contextlib.suppress(PumpdeckError):
        serve_rpc(Echo(), io.BytesIO(data), io.BytesIO())


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)),
    st.binary(max_size=9),
)
def test_no_header_makes_an_operation_fail_in_an_unknown_way(header: dict[str, Any], body: bytes) -> None:
    for op in Op:
        said = answer_frame(Echo(), Frame({**header, "v": 1, "id": 1, "op": op.value, "body_bytes": len(body)}, body))
        (frame,) = FrameDecoder().feed(said)
        assert frame.header["ok"] or frame.header["error"]["exit_code"] != 1


@pytest.mark.parametrize(
    "listed",
    [
        [{"name": "a", "bytes": 2}],
        [{"name": "a", "bytes": 4}],
        [{"name": "a", "bytes": 1}, {"name": "a", "bytes": 2}],
        [{"name": "a", "bytes": -3}, {"name": "b", "bytes": 6}],
        [{"name": "a"}],
        ["a"],
        [{"name": 1, "bytes": 3}],
        [],
    ],
)
def test_a_file_list_that_does_not_describe_the_body_is_refused(listed: list[Any]) -> None:
    with pytest.raises(FormatError):
        split_files(listed, b"abc")


def test_hello_says_who_the_device_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    header, _ = bench.channel().call(Op.HELLO, {"console": "0.1.0", "workspace": "w"})
    assert (header["device"], header["site"], header["pumps"]) == ("gannet-d1", "gannet", ["P-101A", "P-101B"])
    assert (header["key_id"], header["public_key"]) == (bench.identity.key_id, bench.identity.public_pem)
    assert (header["root_version"], header["seq"], header["supported"]) == (1, 0, [1])
    bench.install(package())
    assert bench.channel().call(Op.HELLO, {"console": "0.1.0", "workspace": "w"})[0]["seq"] > 0


def test_a_path_for_a_digest_touches_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = sorted(path for path in bench.root.rglob("*"))
    for call in (
        lambda c: c.call(Op.CHUNK, {"digest": "../../state.0", "index": 0}, b"x"),
        lambda c: c.call(Op.SEAL, {"digest": "../agent.json", "bytes": 3}),
        lambda c: c.call(Op.ACK, {"digests": ["../../agent.json"]}),
    ):
        with pytest.raises(FormatError):
            call(bench.channel())
    assert sorted(path for path in bench.root.rglob("*")) == before


def test_a_spoilt_push_is_refused_and_leaves_nothing_sealed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    built = package()
    channel = bench.channel()
    channel.call(Op.CHUNK, {"digest": built.sha256, "index": 0}, built.data[:-1] + b"x")
    with pytest.raises(DigestMismatchError):
        channel.call(Op.SEAL, {"digest": built.sha256, "bytes": len(built.data)})
    assert list((bench.root / "incoming").iterdir()) == []
