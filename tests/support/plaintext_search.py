"""Looks for telemetry in a folder as a finder with time and tools would: as text, as numbers, inside every stream that opens."""

from __future__ import annotations

import base64
import binascii
import json
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.numeric.columns import decode_chunk

_DEPTH = 4
_STREAM_MAX_BYTES = 64 << 20
_ZLIB_HEADS = tuple(bytes([0x78, second]) for second in range(256) if (0x7800 + second) % 31 == 0 and not second & 0x20)
_OTHER_HEADS = (b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"BZh", b"PDC1", b"ustar")


def forms_of(value: float) -> list[bytes]:
    """Ways in which a reading may stand in a file: text and numbers of each width and order."""
    single = float(np.float32(value))
    words = [f"{value:g}", repr(value), f"{single!r}"]
    packed = [struct.pack(order + kind, single) for order in "<>" for kind in "fd"]
    return sorted({*(word.encode() for word in words), *packed})


def findings(folder: Path, values: list[float], words: list[str]) -> set[str]:
    """Which of the values and words can be read somewhere under the folder, and in which file."""
    needles = {form: f"{value:g}" for value in values for form in forms_of(value)}
    needles |= {form: word for word in words for form in (word.encode(), word.encode("utf-16-le"))}
    singles = np.array(values, np.float32)
    found = set()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for data in _opened(path.read_bytes(), _DEPTH):
                found |= {f"{path.name}: {what}" for form, what in needles.items() if form in data}
                found |= {f"{path.name}: {value:g}" for value in _in_chunk(data, singles)}
    return found


def _in_chunk(data: bytes, singles: np.ndarray) -> list[float]:
    """The values inside a column chunk: they are shuffled there, so that no number stands in one piece."""
    try:
        values = decode_chunk(data).values
    except (PumpdeckError, ValueError):
        return []
    return [float(one) for one in singles if bool(np.any(values == one))]


def _opened(data: bytes, depth: int) -> Iterator[bytes]:
    """The bytes, and whatever any decompressor or decoder makes of any part of them."""
    yield data
    if depth == 0:
        return
    for inner in (*_streams(data), *_payloads(data), *_members(data)):
        yield from _opened(inner, depth - 1)


def _streams(data: bytes) -> Iterator[bytes]:
    for head in (*_ZLIB_HEADS, *_OTHER_HEADS):
        at = data.find(head)
        while at >= 0:
            if head == b"PDC1":
                yield data[at:]
            else:
                inner = _decompressed(head, data[at:])
                if inner and len(inner) > 16:
                    yield inner
            at = data.find(head, at + 1) if at + 1 < len(data) and head != b"ustar" else -1


def _decompressed(head: bytes, data: bytes) -> bytes:
    try:
        if head == b"\xfd7zXZ\x00":
            return lzma.LZMADecompressor().decompress(data, _STREAM_MAX_BYTES)
        if head[0] == 0x78 or head == b"\x1f\x8b\x08":
            return zlib.decompressobj(47).decompress(data, _STREAM_MAX_BYTES)
    except (zlib.error, lzma.LZMAError, EOFError):
        pass
    return b""


def _payloads(data: bytes) -> Iterator[bytes]:
    """What stands in base64 in signed envelopes, one JSON value a line."""
    for line in data.split(b"\n"):
        try:
            plain = json.loads(line)
            if isinstance(plain, dict) and isinstance(plain.get("payload"), str):
                yield base64.b64decode(plain["payload"])
        except (ValueError, binascii.Error):
            continue


def _members(data: bytes) -> Iterator[bytes]:
    if b"ustar" not in data[:600]:
        return
    try:
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    yield stream.read()
    except tarfile.TarError:
        return
