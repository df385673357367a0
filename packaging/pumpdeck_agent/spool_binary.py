"""Binary spool segments, `*.pdc`: rows of one pump as telemetry column chunks (docs/formats.md, Agent root folder).

A JSON line `{format, pump}`, then each chunk behind its length (4 bytes, big-endian). No text is parsed, so a day of rows a
second is read in tens of milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.core.ids import check_tag
from pumpdeck_fleet.numeric.columns import MAX_ROWS, decode_chunk, encode_chunk
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate

SEGMENT_FORMAT = 1
# A small file can unfold into a large one: what the rows take in memory is limited, not only what they take on the disk.
DECODED_MAX_BYTES = 32 * 1024 * 1024
_HEAD_MAX_BYTES = 256
_LENGTH = struct.Struct(">I")
# Row and channel counts of a chunk, behind its magic.
_COUNTS = struct.Struct("<4xIH")


@dataclass(frozen=True, slots=True)
class _Head:
    format: int
    pump: str


def encode_segment(pump: str, frame: TelemetryFrame) -> bytes:
    """The rows of one pump as a binary spool segment."""
    parts = [canonical.encode(_Head(SEGMENT_FORMAT, pump)) + b"\n"]
    for start in range(0, len(frame), MAX_ROWS):
        chunk = encode_chunk(frame.take(slice(start, start + MAX_ROWS)))
        parts += [_LENGTH.pack(len(chunk)), chunk]
    return b"".join(parts)


def decode_segment(name: str, data: bytes) -> tuple[str, TelemetryFrame]:
    """Tag and rows.

    Raises:
        FormatError: not such a file, cut, damaged, or time does not rise from chunk to chunk.
        TooLargeError: the rows would take more memory than a device has to spare.
    """
    line, _, rest = data.partition(b"\n")
    head = canonical.decode(_Head, line, name, max_bytes=_HEAD_MAX_BYTES)
    if head.format != SEGMENT_FORMAT:
        raise FormatError("has an unknown format", name, expected=SEGMENT_FORMAT, found=head.format)
    check_tag(head.pump, name)
    chunks = list(_chunks(name, rest))
    if not chunks:
        raise FormatError("holds no rows", name)
    return head.pump, concatenate(decode_chunk(chunk, name) for chunk in chunks)


def _chunks(name: str, rest: bytes) -> Iterable[bytes]:
    at, decoded_bytes = 0, 0
    while at < len(rest):
        if len(rest) - at < _LENGTH.size:
            raise FormatError("is cut", name, expected="the length of a chunk")
        (size,) = _LENGTH.unpack_from(rest, at)
        chunk = rest[at + _LENGTH.size : at + _LENGTH.size + size]
        if len(chunk) != size or size < _COUNTS.size:
            raise FormatError("is cut", name, expected=f"a chunk of {size} bytes", found=len(chunk))
        rows, channels = _COUNTS.unpack_from(chunk)
        decoded_bytes += rows * (4 * channels + 10)
        if decoded_bytes > DECODED_MAX_BYTES:
            raise TooLargeError("holds too many rows", name, expected=f"at most {DECODED_MAX_BYTES} bytes in memory")
        yield chunk
        at += _LENGTH.size + size
