"""The console's half: pipelining, resuming, errors, collecting; against the real agent in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.outbox import Outgoing
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import (
    DamagedError,
    DigestMismatchError,
    FormatError,
    IllegalMoveError,
    NotFoundError,
    PumpdeckError,
    RefusedError,
    UnreachableError,
)
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnKind
from pumpdeck_fleet.core.rpc import CHUNK_BYTES, WINDOW_BYTES, FrameDecoder, Op, encode_frame
from pumpdeck_fleet.transports.rpc_client import (
    RpcClient,
    collect_all,
    collect_batch,
    push_blob,
    rebuild_error,
)
from pumpdeck_packaging.signing import verify_dsse
from support.devices import Bench, LoopChannel, package

BLOB = random.Random(5).randbytes(9 * CHUNK_BYTES + 123)
NAME = canonical.digest(BLOB)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Counting(LoopChannel):
    """Counts chunks that are sent and not yet acknowledged; can lose the link after so many."""

    def __init__(self, agent: Any, cut_after: int = 1 << 30) -> None:
        super().__init__(agent)
        self.sent = self.acknowledged = self.most = 0
        self.cut_after = cut_after

    def post(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> None:
        if op == Op.CHUNK:
            if self.sent >= self.cut_after:
                raise UnreachableError("the link broke", "test")
            self.sent += len(body)
            self.most = max(self.most, self.sent - self.acknowledged)
        super().post(op, header, body)

    def take(self) -> tuple[Mapping[str, Any], bytes]:
        header, body = super().take()
        if header["op"] == "chunk":
            index = header["index"]
            self.acknowledged += len(BLOB[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
        return header, body


def test_a_blob_arrives_whole_within_the_window_and_progress_counts_what_was_acknowledged(bench: Bench) -> None:
    channel = Counting(bench.agent())
    seen: list[tuple[int, int]] = []

    def progress(step: str, done: int, total: int) -> None:
        seen.append((done, channel.acknowledged))
        assert total == len(BLOB)

    assert push_blob(channel, NAME, BLOB, progress) == len(BLOB)
    assert (bench.root / "incoming" / NAME).read_bytes() == BLOB
    assert WINDOW_BYTES // 2 < channel.most <= WINDOW_BYTES
    assert all(done <= acknowledged for done, acknowledged in seen)
    assert seen[-1][0] == len(BLOB)


def test_an_interrupted_push_sends_only_what_is_missing(bench: Bench) -> None:
    with pytest.raises(UnreachableError):
        push_blob(Counting(bench.agent(), cut_after=4 * CHUNK_BYTES), NAME, BLOB)
    again = Counting(bench.agent())
    sent = push_blob(again, NAME, BLOB)
    assert sent == len(BLOB) - 4 * CHUNK_BYTES
    assert (bench.root / "incoming" / NAME).read_bytes() == BLOB
    assert push_blob(Counting(bench.agent()), NAME, BLOB) == 0


def test_a_blob_that_is_not_its_digest_is_never_sent(bench: Bench) -> None:
    channel = Counting(bench.agent())
    with pytest.raises(DigestMismatchError):
        push_blob(channel, NAME, BLOB[:-1])
    assert channel.sent == 0


def test_a_plain_channel_without_pipelining_will_do(bench: Bench) -> None:
    inner = bench.channel()

    class Plain:
        def call(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> tuple[Mapping[str, Any], bytes]:
            return inner.call(op, header, body)

        def close(self) -> None:
            inner.close()

    assert push_blob(Plain(), NAME, BLOB) == len(BLOB)


def test_after_a_refused_chunk_the_conversation_is_still_in_step(bench: Bench) -> None:
    agent = bench.agent()
    agent.installer.incoming.write_chunk = _refuse  # type: ignore[method-assign]
    channel = LoopChannel(agent)
    with pytest.raises(RefusedError):
        push_blob(channel, NAME, BLOB)
    assert channel.call(Op.STATUS, {})[0]["op"] == "status"


def _refuse(*_: object) -> None:
    raise RefusedError("the disk is full", "test")


def test_errors_are_rebuilt_as_the_class_they_were() -> None:
    first = NotFoundError("is not there", "x", expected="a", found="b", hint="c")
    again = rebuild_error(first.as_dict(), "d1")
    assert type(again) is NotFoundError
    assert again.sentence() == first.sentence()
    moved = rebuild_error(IllegalMoveError("A", "B", "thing").as_dict(), "d1")
    assert type(moved) is IllegalMoveError
    assert moved.exit_code == 3


@pytest.mark.parametrize("word", ["FutureError", "SystemExit", "annotations", ""])
def test_an_unknown_error_keeps_its_words_and_exit_code(word: str) -> None:
    error = rebuild_error({"error": word, "what": "newer than us", "exit_code": 5}, "d1")
    assert type(error) is PumpdeckError
    assert (error.what, error.exit_code) == ("newer than us", 5)


@pytest.mark.parametrize("value", [None, "no", [], {"error": 3, "what": 7, "exit_code": "x"}, {"exit_code": 0}])
def test_an_error_without_form_is_still_an_error(value: object) -> None:
    assert rebuild_error(value, "d1").exit_code > 0


def scripted(answer: Callable[[dict[str, Any]], bytes]) -> RpcClient:
    """A client whose other side answers each request by a function of its header."""
    decoder, waiting = FrameDecoder(), bytearray()

    def send(data: bytes) -> None:
        for frame in decoder.feed(data):
            waiting.extend(answer(dict(frame.header)))

    def recv(count: int) -> bytes:
        data = bytes(waiting[:count])
        del waiting[:count]
        return data

    return RpcClient(send, recv, name="d1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": 99}, FormatError),
        ({"op": "ack"}, FormatError),
        ({"v": 3}, FormatError),
        ({"ok": "yes"}, FormatError),
    ],
)
def test_an_answer_to_something_else_ends_the_conversation(change: dict[str, Any], expected: type[PumpdeckError]) -> None:
    def answer(header: dict[str, Any]) -> bytes:
        return encode_frame({"v": 1, "id": header["id"], "op": header["op"], "ok": True} | change)

    client = scripted(answer)
    with pytest.raises(expected):
        client.call(Op.STATUS, {})
    with pytest.raises(UnreachableError):
        client.call(Op.STATUS, {})


def test_a_stream_that_ends_is_unreachable() -> None:
    client = scripted(lambda _: b"")
    with pytest.raises(UnreachableError):
        client.call(Op.STATUS, {})


def test_garbage_instead_of_a_frame_is_a_format_error() -> None:
    client = scripted(lambda _: b"Welcome to this device!\n")
    with pytest.raises(DamagedError):
        client.call(Op.STATUS, {})


def test_collecting_acknowledges_only_what_was_kept(bench: Bench) -> None:
    agent = bench.agent()
    agent.outbox.add([Outgoing(ReturnKind.ALARM, bytes([n]) * 100) for n in range(30)])

    class Full(Exception):
        pass

    kept: list[bytes] = []

    def keep(batch: Any) -> None:
        if len(kept) > 10:
            raise Full
        kept.extend(data for _, data in batch.items)

    with pytest.raises(Full):
        collect_all(bench.channel(), keep, max_bytes=500)
    assert len(kept) == 15
    assert agent.outbox.counts().items == 15
    assert collect_all(bench.channel(), lambda _: None, max_bytes=500) == 15
    assert agent.outbox.counts().items == 0


def test_the_index_is_signed_covers_every_item_and_its_counter_rises(bench: Bench) -> None:
    agent = bench.agent()
    agent.outbox.add([Outgoing(ReturnKind.ALARM, b"one"), Outgoing(ReturnKind.SCORES, b"two", "P-101A", 5)])
    counters = []
    for _ in range(3):
        batch, more = collect_batch(bench.channel())
        keys = {bench.identity.key_id: bench.identity.public_pem}
        index = canonical.parse_json(
            verify_dsse(batch.envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20), "index", max_bytes=1 << 20
        )
        assert index["items"] == canonical.to_plain([item for item, _ in batch.items])
        assert [data for _, data in batch.items] == [b"one", b"two"]
        assert not more
        counters.append(index["counter"])
    assert counters == [1, 2, 3]


def test_a_lost_return_counter_never_falls(bench: Bench) -> None:
    for _ in range(2):
        collect_batch(bench.channel())
    (bench.root / "trust" / "returned.json").unlink()
    batch, _ = collect_batch(bench.channel())
    keys = {bench.identity.key_id: bench.identity.public_pem}
    payload = verify_dsse(batch.envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20)
    assert canonical.parse_json(payload, "index", max_bytes=1 << 20)["counter"] > 2


def test_the_conversation_of_a_delivery_is_few_round_trips(bench: Bench) -> None:
    built = package()
    files = bench.assign(built)
    channel = bench.channel()
    push_blob(channel, built.sha256, built.data)
    answer = bench.send_assignment(channel, files)
    collect_all(channel, lambda _: None)
    assert answer["outcome"] == "committed"
    assert channel._last_id == 6  # have, chunk, seal, assign, collect, ack


def test_a_broken_pipe_is_an_unreachable_device() -> None:
    def broken(_: object) -> bytes:
        raise BrokenPipeError("gone")

    with pytest.raises(UnreachableError):
        RpcClient(broken, broken).call(Op.STATUS, {})  # type: ignore[arg-type]
    with pytest.raises(UnreachableError):
        RpcClient(lambda _: None, broken).call(Op.STATUS, {})
