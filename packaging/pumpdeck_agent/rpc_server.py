"""The device's half of the conversation: one request at a time from a byte stream, answered in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from pumpdeck_fleet.core import errors
from pumpdeck_fleet.core.errors import EXIT_DEFECT, FormatError, PumpdeckError, UsageError
from pumpdeck_fleet.core.rpc import SUPPORTED_VERSIONS, VERSION, Frame, FrameDecoder, Op, encode_frame

READ_BYTES = 64 * 1024
_OP_MAX = 40
_WORDS_MAX = 2000
_COMMON = frozenset({"v", "id", "op", "body_bytes"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation says: header fields and body."""

    fields: Mapping[str, Any]
    body: bytes = b""


class RpcOperations(Protocol):
    """What an agent offers to a console, one method an operation of docs/formats.md."""

    def hello(self, console: str, workspace: str) -> Answer: ...

    def have(self, digest: str, size: int, hashes: bytes) -> Answer: ...

    def chunk(self, digest: str, index: int, data: bytes) -> Answer: ...

    def seal(self, digest: str, size: int) -> Answer: ...

    def assign(self, files: Mapping[str, bytes]) -> Answer: ...

    def status(self) -> Answer: ...

    def collect(self, max_bytes: int) -> Answer: ...

    def ack(self, digests: list[str]) -> Answer: ...

    def agent(self) -> Answer: ...

    def upgrade(self, files: Mapping[str, bytes]) -> Answer: ...


def serve_rpc(agent: RpcOperations, read: BinaryIO, write: BinaryIO) -> None:
    """Answer requests from `read` on `write` until the stream ends. Returns normally at an end between two frames.

    Raises:
        FormatError, TooLargeError: the stream cannot be followed, or it ended in mid-frame; what was answered stays answered.
        OSError: the other side went away.
    """
    decoder = FrameDecoder()
    while True:
        data = read.read(min(decoder.wanted_bytes, READ_BYTES))
        if not data:
            if not decoder.is_between_frames:
                raise FormatError("ended in mid-frame", "request")
            return
        for frame in decoder.feed(data):
            write.write(answer_frame(agent, frame))
            write.flush()


def answer_frame(agent: RpcOperations, frame: Frame) -> bytes:
    """The bytes of the answer to one request; an error of ours becomes an answer, and so does a defect."""
    header = frame.header
    identity = header.get("id") if type(header.get("id")) is int else 0
    op = str(header["op"])[:_OP_MAX] if isinstance(header.get("op"), str) else ""
    common = {"v": VERSION, "id": identity, "op": op}
    try:
        if type(header.get("v")) is not int or header["v"] not in SUPPORTED_VERSIONS:
            raise UsageError("this agent does not speak that version", "rpc", expected=SUPPORTED_VERSIONS, found=header.get("v"))
        answer = _dispatch(agent, str(op), header, frame.body)
    except PumpdeckError as error:
        return encode_frame({**common, "ok": False, "error": _on_the_wire(error), "supported": list(SUPPORTED_VERSIONS)})
    except Exception as error:  # noqa: BLE001 - the console must hear of a defect; the conversation goes on
        defect = PumpdeckError(f"the agent has a defect ({type(error).__name__}: {error})", str(op))
        return encode_frame({**common, "ok": False, "error": {**_on_the_wire(defect), "exit_code": EXIT_DEFECT}})
    return encode_frame({**answer.fields, **common, "ok": True}, answer.body)


def _on_the_wire(error: PumpdeckError) -> dict[str, Any]:
    """The error under the name of its nearest class that every console knows, short enough for a header whatever it quotes."""
    known = next(cls for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
    words = {name: text[:_WORDS_MAX] if isinstance(text, str) else text for name, text in error.as_dict().items()}
    return {**words, "error": known.__name__}


def _dispatch(agent: RpcOperations, op: str, header: Mapping[str, Any], body: bytes) -> Answer:
    if op not in _OPERATIONS:
        raise UsageError("is not an operation of this agent", repr(op[:40]), expected=", ".join(_OPERATIONS))
    fields, takes_body, run = _OPERATIONS[Op(op)]
    for name in header:
        if name not in _COMMON and name not in fields:
            raise FormatError("has an unknown field", op, expected=f"only {', '.join(fields) or 'none'}", found=repr(name[:60]))
    if body and not takes_body:
        raise FormatError("must not have a body", op, found=f"{len(body)} bytes")
    values = []
    for name, kind in fields.items():
        if type(header.get(name)) is not kind:
            raise FormatError("lacks a field or has it wrong", op, expected=f"{name}: {kind.__name__}", found=header.get(name))
        values.append(header[name])
    return run(agent, values, body)


_Run = Callable[[RpcOperations, list[Any], bytes], Answer]
_OPERATIONS: dict[Op, tuple[dict[str, type], bool, _Run]] = {
    Op.HELLO: ({"console": str, "workspace": str}, False, lambda a, v, _b: a.hello(v[0], v[1])),
    Op.HAVE: ({"digest": str, "bytes": int}, True, lambda a, v, b: a.have(v[0], v[1], b)),
    Op.CHUNK: ({"digest": str, "index": int}, True, lambda a, v, b: a.chunk(v[0], v[1], b)),
    Op.SEAL: ({"digest": str, "bytes": int}, False, lambda a, v, _b: a.seal(v[0], v[1])),
    Op.ASSIGN: ({"files": list}, True, lambda a, v, b: a.assign(split_files(v[0], b))),
    Op.STATUS: ({}, False, lambda a, _v, _b: a.status()),
    Op.COLLECT: ({"max_bytes": int}, False, lambda a, v, _b: a.collect(v[0])),
    Op.ACK: ({"digests": list}, False, lambda a, v, _b: a.ack(_texts(v[0]))),
    Op.AGENT: ({}, False, lambda a, _v, _b: a.agent()),
    Op.UPGRADE: ({"files": list}, True, lambda a, v, b: a.upgrade(split_files(v[0], b))),
}


def split_files(listed: list[Any], body: bytes) -> dict[str, bytes]:
    """The files of an `assign` request by name.

    Raises:
        FormatError: the list does not describe the body, or a name stands twice.
    """
    files: dict[str, bytes] = {}
    at = 0
    for entry in listed:
        if not isinstance(entry, dict) or set(entry) != {"name", "bytes"}:
            raise FormatError("is not {name, bytes}", "assign.files", found=repr(entry)[:60])
        name, size = entry["name"], entry["bytes"]
        if not isinstance(name, str) or type(size) is not int or size < 0 or name in files:
            raise FormatError("has a wrong or repeated entry", "assign.files", found=repr(entry)[:60])
        files[name] = body[at : at + size]
        at += size
    if at != len(body):
        raise FormatError("does not describe the body", "assign.files", expected=f"{at} bytes", found=f"{len(body)} bytes")
    return files


def _texts(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise FormatError("must be a list of digests", "ack.digests")
    return values
