"""The console's half of the conversation with a device's agent, over any two byte callables. Sans socket.

Requests may be posted ahead of their answers; answers come back in order. `push_blob` and `collect_all` are the two longer
exchanges that docs/formats.md describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pumpdeck_fleet.core import canonical, errors
from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, FormatError, PumpdeckError, UnreachableError
from pumpdeck_fleet.core.ports import Progress, RpcChannel
from pumpdeck_fleet.core.receipts import ReturnItem
from pumpdeck_fleet.core.rpc import CHUNK_BYTES, VERSION, WINDOW_BYTES, Frame, FrameDecoder, Op, request

RECV_BYTES = 64 * 1024
COLLECT_BYTES = 1024 * 1024
_ENVELOPE_MAX_BYTES = 1024 * 1024
_WORDS = ("error", "what", "which", "expected", "found", "hint")


@runtime_checkable
class PipelinedChannel(RpcChannel, Protocol):
    """A channel that takes requests ahead of their answers."""

    def post(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a request and do not wait."""
        ...

    def take(self) -> tuple[Mapping[str, Any], bytes]:
        """The answer to the oldest request that has none yet; raises as `call`."""
        ...


class RpcClient:
    """One conversation. `send` writes all it is given; `recv(n)` returns 1..n bytes, or none at the end of the stream."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        recv: Callable[[int], bytes],
        *,
        close: Callable[[], None] = lambda: None,
        name: str = "device",
    ) -> None:
        self._send = send
        self._recv = recv
        self._close = close
        self._name = name
        self._decoder = FrameDecoder()
        self._frames: deque[Frame] = deque()
        self._waiting: deque[tuple[int, str]] = deque()
        self._last_id = 0
        self._broken = ""

    def call(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> tuple[Mapping[str, Any], bytes]:
        """Send one request and wait for its answer (header, body).

        Raises:
            UnreachableError: the link broke or timed out.
            PumpdeckError: the agent refused; its own class and exit code are rebuilt.
        """
        if self._waiting:
            raise RuntimeError("answers are outstanding: take them before the next call")
        self.post(op, header, body)
        return self.take()

    def post(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a request and do not wait for its answer. Raises: UnreachableError, TooLargeError."""
        self._check_open()
        self._last_id += 1
        data = request(self._last_id, Op(op), header, body)
        try:
            self._send(data)
        except PumpdeckError as error:
            self._broken = error.what
            raise
        except OSError as error:
            self._broken = "the link broke while sending"
            raise UnreachableError(self._broken, self._name, found=str(error)) from error
        self._waiting.append((self._last_id, Op(op).value))

    def take(self) -> tuple[Mapping[str, Any], bytes]:
        """The answer to the oldest request without one. Raises as `call`."""
        self._check_open()
        identity, op = self._waiting.popleft()
        try:
            frame = self._next_frame()
            header = _checked_answer(frame.header, identity, op, self._name)
        except PumpdeckError as error:
            # The stream can not be followed any more: every later call must say so instead of reading on.
            self._broken = error.what
            raise
        if not header["ok"]:
            raise rebuild_error(header.get("error"), self._name)
        return header, frame.body

    def close(self) -> None:
        """End the conversation; harmless when repeated."""
        self._broken = self._broken or "the conversation was closed"
        self._close()

    def _check_open(self) -> None:
        if self._broken:
            raise UnreachableError(self._broken, self._name)

    def _next_frame(self) -> Frame:
        while not self._frames:
            try:
                data = self._recv(RECV_BYTES)
            except OSError as error:
                raise UnreachableError("the link broke", self._name, found=str(error)) from error
            if not data:
                raise UnreachableError("the agent ended the conversation", self._name)
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()


def _checked_answer(header: Mapping[str, Any], identity: int, op: str, name: str) -> Mapping[str, Any]:
    if header.get("v") != VERSION or header.get("id") != identity or header.get("op") != op:
        found = f"v {header.get('v')}, id {header.get('id')}, op {header.get('op')}"
        raise FormatError("answered another request", name, expected=f"v {VERSION}, id {identity}, op {op}", found=found)
    if type(header.get("ok")) is not bool:
        raise FormatError("lacks a field", f"answer of {name}", expected="ok")
    return header


def rebuild_error(value: object, name: str) -> PumpdeckError:
    """The agent's error as the class of the same name; an unknown class becomes a PumpdeckError with its exit code."""
    if not isinstance(value, Mapping):
        return FormatError("lacks a field", f"answer of {name}", expected="error")
    words = {key: str(value.get(key, ""))[:2000] for key in _WORDS}
    found = getattr(errors, words["error"], None)
    cls = found if isinstance(found, type) and issubclass(found, PumpdeckError) else PumpdeckError
    error = cls.__new__(cls)
    # Not every leaf has the same constructor (IllegalMoveError): the words are what counts here.
    PumpdeckError.__init__(
        error,
        words["what"] or "the agent refused",
        words["which"] or name,
        expected=words["expected"] or None,
        found=words["found"] or None,
        hint=words["hint"],
    )
    code = value.get("exit_code")
    if type(code) is int and 1 <= code <= 130:
        error.exit_code = code
    return error


@dataclass(frozen=True, slots=True)
class ReturnBatch:
    """What one `collect` handed over: the signed index's envelope, still to be verified, and the items it must cover."""

    envelope: bytes
    items: tuple[tuple[ReturnItem, bytes], ...]


def push_blob(
    channel: RpcChannel, digest: str, data: bytes, on_progress: Progress = lambda _step, _done, _total: None
) -> int:
    """Make the device hold `data` in its incoming folder; chunks that it has already are not sent again.

    Progress counts bytes the agent has acknowledged. Returns the bytes that were sent.

    Raises:
        DigestMismatchError: `data` is not what `digest` says.
        UnreachableError, PumpdeckError: as `RpcChannel.call`.
    """
    if canonical.digest(data) != digest:
        raise DigestMismatchError("is not the package it is called", digest, found=canonical.digest(data))
    hashes = b"".join(bytes.fromhex(canonical.digest(data[i : i + CHUNK_BYTES])) for i in range(0, len(data), CHUNK_BYTES))
    header, _ = channel.call(Op.HAVE, {"digest": digest, "bytes": len(data)}, hashes)
    if header.get("complete") is True:
        on_progress("push", len(data), len(data))
        return 0
    indexes = list(_missing_indexes(header.get("missing"), len(hashes) // 32))
    sent = _send_chunks(channel, digest, data, indexes, on_progress)
    channel.call(Op.SEAL, {"digest": digest, "bytes": len(data)})
    return sent


def _missing_indexes(missing: object, count: int) -> Iterator[int]:
    for pair in missing if isinstance(missing, list) else [None]:
        first, length = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if type(first) is not int or type(length) is not int or not 0 <= first < first + length <= count:
            raise FormatError("is not a list of missing chunks", "answer to have", expected=f"within 0..{count}")
        yield from range(first, first + length)


def _send_chunks(channel: RpcChannel, digest: str, data: bytes, indexes: list[int], on_progress: Progress) -> int:
    total = len(data)
    pieces = [data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in indexes]
    done = total - sum(map(len, pieces))
    on_progress("push", done, total)
    if not isinstance(channel, PipelinedChannel):
        for index, piece in zip(indexes, pieces, strict=True):
            channel.call(Op.CHUNK, {"digest": digest, "index": index}, piece)
            done += len(piece)
            on_progress("push", done, total)
        return sum(map(len, pieces))
    unacknowledged: deque[int] = deque()
    for index, piece in zip(indexes, pieces, strict=True):
        while unacknowledged and sum(unacknowledged) + len(piece) > WINDOW_BYTES:
            done += _take_chunk(channel, unacknowledged)
            on_progress("push", done, total)
        channel.post(Op.CHUNK, {"digest": digest, "index": index}, piece)
        unacknowledged.append(len(piece))
    while unacknowledged:
        done += _take_chunk(channel, unacknowledged)
        on_progress("push", done, total)
    return sum(map(len, pieces))


def _take_chunk(channel: PipelinedChannel, unacknowledged: deque[int]) -> int:
    try:
        channel.take()
    except UnreachableError:
        raise
    except PumpdeckError:
        # The answers to what is already on its way would be taken for those of the next request.
        unacknowledged.popleft()
        while unacknowledged:
            unacknowledged.popleft()
            try:
                channel.take()
            except UnreachableError:
                break
            except PumpdeckError:
                continue
        raise
    return unacknowledged.popleft()


def parse_collect(header: Mapping[str, Any], body: bytes) -> ReturnBatch:
    """A `collect` answer as envelope and items; digests are checked, the signature is the caller's to verify.

    Raises:
        FormatError, DigestMismatchError: the answer does not follow docs/formats.md.
    """
    listed = header.get("items")
    if not isinstance(listed, list):
        raise FormatError("lacks a field", "answer to collect", expected="items")
    items = [canonical.from_plain(ReturnItem, value, f"items[{i}]") for i, value in enumerate(listed)]
    size = int.from_bytes(body[:4], "big")
    at = 4 + size
    if any(item.bytes < 0 for item in items):
        raise FormatError("lists an item of less than nothing", "answer to collect")
    if len(body) < 4 or size > _ENVELOPE_MAX_BYTES or at + sum(item.bytes for item in items) != len(body):
        raise FormatError("has the wrong length", "answer to collect", found=f"{len(body)} bytes")
    found = []
    for item in items:
        data = body[at : at + item.bytes]
        at += item.bytes
        if canonical.digest(data) != item.digest:
            raise DigestMismatchError("is not what its digest says", f"{item.kind.value} {item.digest[:12]}")
        found.append((item, data))
    return ReturnBatch(body[4 : 4 + size], tuple(found))


def collect_batch(channel: RpcChannel, max_bytes: int = COLLECT_BYTES) -> tuple[ReturnBatch, bool]:
    """The next things that wait on the device, and whether more will follow once these are acknowledged."""
    header, body = channel.call(Op.COLLECT, {"max_bytes": max_bytes})
    return parse_collect(header, body), header.get("more") is True


def acknowledge(channel: RpcChannel, digests: list[str]) -> int:
    """Tell the device that these are stored for good; it removes them. Returns how many it removed."""
    removed = channel.call(Op.ACK, {"digests": digests})[0].get("removed")
    if type(removed) is not int:
        raise FormatError("lacks a field", "answer to ack", expected="removed")
    return removed


def collect_all(
    channel: RpcChannel, keep: Callable[[ReturnBatch], None], *, max_bytes: int = COLLECT_BYTES
) -> int:
    """Hand every batch that waits on the device to `keep`, and acknowledge a batch only after `keep` returned.

    `keep` verifies and stores durably; when it raises, nothing of its batch is acknowledged and the device keeps it all.
    Returns the number of items collected.

    Raises:
        DamagedError: the device hands over the same things again after they were acknowledged.
    """
    count, more, before = 0, True, ""
    while more:
        batch, more = collect_batch(channel, max_bytes)
        if not batch.items:
            break
        digests = [item.digest for item, _ in batch.items]
        if digests[0] == before:
            raise DamagedError("the device repeats what was acknowledged", digests[0])
        before = digests[0]
        keep(batch)
        acknowledge(channel, digests)
        count += len(digests)
    return count
