"""Every door through which foreign bytes come in, each with honest bytes to start from and a way to bend them."""

from __future__ import annotations

import json
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_fleet.core import canonical
from support.mutation import bend, bend_json, encode_json

Parse = Callable[[bytes], object]
Make = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """One parser. `make` builds an input from a seed; `share` is its part of all inputs, less where one costs much.

    `honest`: the only inputs that may be accepted, where what comes in is signed or named by a digest; else None.
    """

    name: str
    parse: Parse
    make: Make
    share: float = 1.0
    honest: frozenset[bytes] | None = None


def bytes_maker(corpus: Sequence[bytes]) -> Make:
    """Blindly bent bytes."""
    return lambda rng: bend(rng, rng.choice(corpus), corpus)


def json_maker(corpus: Sequence[bytes], outer: Callable[[bytes], bytes] = bytes) -> Make:
    """Half of them bent as trees and written canonically, half as bytes; `outer` puts on what would be checked first."""
    plain = [json.loads(one) for one in corpus]
    tokens = sorted({token for one in plain for token in _texts(one)})

    def make(rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return outer(bend(rng, rng.choice(corpus), corpus))
        return outer(encode_json(bend_json(rng, rng.choice(plain), tokens)))

    return make


def with_outer(make: Make, outer: Callable[[bytes], bytes], bare: float = 0.2) -> Make:
    """Bent inside and whole outside; a share of them bent outside as well."""

    def both(rng: random.Random) -> bytes:
        data = outer(make(rng))
        return bend(rng, data, ()) if rng.random() < bare else data

    return both


def decoder(cls: type[Any], what: str, max_bytes: int = 1 << 20) -> Parse:
    """The strict reader of one dataclass."""
    return lambda data: canonical.decode(cls, data, what, max_bytes=max_bytes)


def sealed(body: bytes) -> bytes:
    """A digest line that fits, then the body: what the device's own records look like."""
    return canonical.digest(body).encode() + b"\n" + body


def framed(head: bytes) -> bytes:
    """An RPC frame around a header, with as much body as it asks for, within reason."""
    try:
        plain = json.loads(head)
        size = plain.get("body_bytes", 0) if isinstance(plain, dict) else 0
    except (ValueError, RecursionError):
        size = 0
    body = bytes(size) if type(size) is int and 0 <= size <= 4096 else b""
    return struct.pack(">I", len(head)) + head + body


def rezipped(head_bytes: int) -> Callable[[bytes], bytes]:
    """Deflate what stands behind the first bytes."""
    return lambda data: data[:head_bytes] + zlib.compress(data[head_bytes:], 1)


def rexz(data: bytes) -> bytes:
    """One xz stream as a package has it, quickly made."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)


def text_of(data: bytes) -> str:
    """As people type: any text, half pairs too."""
    return data.decode("utf-8", "surrogatepass" if data.isascii() else "replace")


def file_parser(path: Path, parse: Callable[[], object]) -> Parse:
    """For what reads a path: the bytes are put there first."""

    def run(data: bytes) -> object:
        path.write_bytes(data)
        return parse()

    return run


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_texts(item) for item in value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*(_texts(item) for item in value)) if value else set()
    return {value} if isinstance(value, str) and len(value) < 200 else set()
