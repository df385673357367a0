"""Seeded mutation of bytes and of JSON: the same seed gives the same inputs on every computer.

Bytes are bent blindly; JSON is also bent as a tree and written again, so that what comes out passes the outer doors (canonical
form, lengths, digests, signatures made anew by the caller) and reaches what stands behind them.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Bend = Callable[[random.Random, bytearray, Sequence[bytes]], None]

_NUMBERS = (
    0,
    1,
    -1,
    127,
    255,
    256,
    32_767,
    65_535,
    65_536,
    2**31 - 1,
    2**31,
    2**32,
    2**53 - 1,
    2**53,
    -(2**53) + 1,
    2**63,
    10**40,
)
_SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    " ",
    "\0",
    "..",
    "../../etc/passwd",
    "con",
    "a" * 70,
    "A",
    "é",
    "\u2028",
    "0" * 64,
    "f" * 64,
    1.5,
    -0.0,
    1e308,
    5e-324,
    [],
    {},
    [[]],
    {"": None},
    "-",
    "²",
    "1_0",
    "age1",
    "ssh-ed25519 AAAA",
)
_PIECES = (
    b"", b"\0", b"\n", b"\r", b"\r\n", b",", b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b":", b"null", b"true",
    b"NaN", b"Infinity", b"1e999", b"-", b"9" * 20, b"9" * 5000, b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"../", b"[" * 60, b'{"a":' * 60,
    b"(" * 60, b"\x00" * 512, b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xc2\xb2",
)  # fmt: skip


def bend(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The data after one to four blind changes; others of the corpus lend pieces."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        rng.choice(_BENDS)(rng, found, corpus)
    return bytes(found[: 1 << 20])


def bend_json(rng: random.Random, value: Any, tokens: Sequence[str] = ()) -> Any:
    """A plain JSON value with one to three changes somewhere in its tree. `value` itself is left as it is."""
    found = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = _bend_tree(rng, found, tokens)
    return found


def encode_json(value: Any) -> bytes:
    """As canonical JSON is written, whatever the value: also what canonical JSON forbids."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _bend_tree(rng: random.Random, value: Any, tokens: Sequence[str]) -> Any:
    if isinstance(value, (dict, list)) and value and rng.random() < 0.88:
        place = rng.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
        how = rng.random()
        if how < 0.62:
            value[place] = _bend_tree(rng, value[place], tokens)
        elif how < 0.74:
            del value[place]
        elif isinstance(value, list):
            value.insert(rng.randrange(len(value) + 1), value[place])
        else:
            value[str(_leaf(rng, place, tokens))[:80]] = value[place]
        return value
    return _leaf(rng, value, tokens)


def _leaf(rng: random.Random, value: Any, tokens: Sequence[str]) -> Any:
    how = rng.random()
    if isinstance(value, str) and how < 0.45:
        return bend(rng, value.encode("utf-8", "surrogatepass"), ()).decode("utf-8", "replace")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and how < 0.45:
        return rng.choice((value + 1, value - 1, -value, value * 2, float(value), rng.choice(_NUMBERS)))
    if tokens and how < 0.6:
        return rng.choice(tokens)
    return rng.choice(_NUMBERS) if how < 0.75 else copy.deepcopy(rng.choice(_SCALARS))


def _span(rng: random.Random, data: Sequence[Any]) -> slice:
    start = rng.randrange(len(data) + 1)
    return slice(start, min(len(data), start + rng.choice((1, 1, 2, 4, 8, 64, 512))))


def _flip(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x20, 0x30, 0x39, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _drop(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    del data[_span(rng, data)]


def _repeat(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    span = _span(rng, data)
    data[span.start : span.start] = bytes(data[span]) * rng.choice((1, 2, 40))


def _insert(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(_PIECES)


def _replace(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    data[_span(rng, data)] = rng.choice(_PIECES)


def _graft(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if corpus:
        other = rng.choice(corpus)
        data[_span(rng, data)] = other[_span(rng, other)]


def _swap(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    one, two = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    data[one:] = data[two:] + data[one:two]


_BENDS: tuple[Bend, ...] = (_flip, _flip, _set, _set, _cut, _drop, _repeat, _insert, _insert, _replace, _graft, _swap)
