"""Frames of the conversation between console and agent: encode, decode, and the rules both halves share. No I/O.

A frame is a 4-byte big-endian header length, a canonical JSON header `{v, id, op, .., body_bytes}` and `body_bytes` bytes of
body. An answer carries the request's `id` and `op`, and either `ok: true` with its fields or `ok: false` with `error`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TooLargeError

VERSION = 1
SUPPORTED_VERSIONS = (1,)
HEADER_MAX_BYTES = 64 * 1024
BODY_MAX_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
WINDOW_BYTES = 128 * 1024

_LENGTH = struct.Struct(">I")


class Op(enum.StrEnum):
    """What a console may ask of an agent."""

    HELLO = "hello"
    HAVE = "have"
    CHUNK = "chunk"
    SEAL = "seal"
    ASSIGN = "assign"
    STATUS = "status"
    COLLECT = "collect"
    ACK = "ack"
    AGENT = "agent"
    UPGRADE = "upgrade"


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame."""

    header: Mapping[str, Any]
    body: bytes


def encode_frame(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The bytes of one frame; `body_bytes` is set here.

    Raises:
        TooLargeError: header or body is over its limit.
    """
    head = canonical.encode({**header, "body_bytes": len(body)})
    if len(head) > HEADER_MAX_BYTES or len(body) > BODY_MAX_BYTES:
        raise TooLargeError("does not fit a frame", str(header.get("op", "")), found=f"{len(head)} + {len(body)} bytes")
    return _LENGTH.pack(len(head)) + head + body


def request(identity: int, op: Op, fields: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The bytes of a request."""
    return encode_frame({**fields, "v": VERSION, "id": identity, "op": op.value}, body)


class FrameDecoder:
    """Bytes in, whole frames out; holds at most one frame's bytes beyond what it was fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: Mapping[str, Any] | None = None
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes; every frame that is whole now, in order.

        Raises:
            FormatError, TooLargeError: the stream cannot be followed any more; close it.
        """
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    @property
    def is_between_frames(self) -> bool:
        """True when no part of a frame is waiting: the only point where a stream may end."""
        return not self._buffer and self._header is None

    @property
    def wanted_bytes(self) -> int:
        """How many bytes the next step needs: a reader that asks its stream for just so many never waits in vain."""
        return self._wanted - len(self._buffer)

    def _next(self) -> Frame | None:
        if self._header is None and not self._read_header():
            return None
        if self._header is None or len(self._buffer) < self._wanted:
            return None
        frame = Frame(self._header, self._take(self._wanted))
        self._header, self._wanted = None, _LENGTH.size
        return frame

    def _read_header(self) -> bool:
        if len(self._buffer) < _LENGTH.size:
            return False
        (head_bytes,) = _LENGTH.unpack_from(self._buffer)
        if head_bytes > HEADER_MAX_BYTES:
            raise TooLargeError(
                "is too large", "frame header", expected=f"at most {HEADER_MAX_BYTES}", found=head_bytes
            )
        self._wanted = _LENGTH.size + head_bytes
        if len(self._buffer) < self._wanted:
            return False
        head = self._take(self._wanted)[_LENGTH.size :]
        header = canonical.parse_json(head, "frame header", max_bytes=HEADER_MAX_BYTES)
        if not isinstance(header, dict) or type(header.get("body_bytes")) is not int or header["body_bytes"] < 0:
            raise FormatError("lacks a field", "frame header", expected="an object with body_bytes")
        if header["body_bytes"] > BODY_MAX_BYTES:
            raise TooLargeError(
                "is too large", "frame body", expected=f"at most {BODY_MAX_BYTES}", found=header["body_bytes"]
            )
        self._header, self._wanted = header, header["body_bytes"]
        return True

    def _take(self, count: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return data
