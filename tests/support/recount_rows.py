"""A second opinion on rows: column chunks, reference edges and PSI, from docs/formats.md alone, without the product's readers."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
RAW = 255
MISSING = -(1 << 31)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one pump: at_ms [n], values [n, c] float32 (NaN = missing), flags [n]."""

    channels: tuple[str, ...]
    at_ms: Array
    values: Array
    flags: Array

    def between(self, start_ms: int, end_ms: int) -> Rows:
        """Rows with `start_ms <= t < end_ms`."""
        keep = (self.at_ms >= start_ms) & (self.at_ms < end_ms)
        return Rows(self.channels, self.at_ms[keep], self.values[keep], self.flags[keep])

    def column(self, channel: str) -> Array:
        """One channel's values that are there."""
        values = self.values[:, self.channels.index(channel)].astype(np.float64)
        return values[np.isfinite(values)]

    def digest(self) -> str:
        """The content digest of a chunk with these rows."""
        parts = ["\0".join(self.channels).encode() + b"\0\0", self.at_ms.astype("<i8").tobytes()]
        parts += [self.values.astype("<f4").tobytes(), self.flags.astype("<u2").tobytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()


def unpack_chunk(data: bytes, rows: int, channels: Sequence[str], has_flags: bool) -> Rows:
    """The rows of a store chunk: one byte of decimals a channel, then one zlib stream of shuffled columns."""
    decimals, raw = data[: len(channels)], zlib.decompress(data[len(channels) :])
    assert len(raw) == rows * (8 + 4 * len(channels) + 2 * has_flags)
    at_ms = np.cumsum(_plain(raw[: 8 * rows], 8, rows).view("<i8"))
    values = np.empty((rows, len(channels)), np.float32)
    offset = 8 * rows
    for place, power in enumerate(decimals):
        words = _plain(raw[offset : offset + 4 * rows], 4, rows).view("<u4")
        offset += 4 * rows
        values[:, place] = words.view("<f4") if power == RAW else _decimal(words.tolist(), power)
    flags = _plain(raw[offset:], 2, rows).view("<u2") if has_flags else np.zeros(rows, np.uint16)
    return Rows(tuple(channels), at_ms, values, flags)


def _plain(shuffled: bytes, size: int, rows: int) -> Array:
    """Bytes of a column in their order: stored are all first bytes, then all second bytes, .."""
    return np.frombuffer(shuffled, np.uint8).reshape(size, rows).T.copy().reshape(-1)


def _decimal(words: list[int], power: int) -> list[float]:
    number, found = 0, []
    for word in words:
        step = word >> 1 if word & 1 == 0 else -(word >> 1) - 1
        number = (number + step + (1 << 31)) % (1 << 32) - (1 << 31)
        found.append(math.nan if number == MISSING else number / 10**power)
    return found


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of several chunks of one pump, in order of time."""
    assert len({part.channels for part in parts}) == 1
    at_ms = np.concatenate([part.at_ms for part in parts])
    assert (np.diff(at_ms) > 0).all()
    values = np.concatenate([part.values for part in parts])
    return Rows(parts[0].channels, at_ms, values, np.concatenate([part.flags for part in parts]))


@dataclass(frozen=True, slots=True)
class Edges:
    """One channel's reference deciles: the cuts in the channel's unit, and the reference rows in each bin."""

    cuts: tuple[float, ...]
    counts: tuple[int, ...]

    def bin(self, values: Array) -> list[int]:
        """Rows in each right-closed bin (a, b]."""
        bounds = [-math.inf, *self.cuts, math.inf]
        return [int(((values > low) & (values <= high)).sum()) for low, high in pairwise(bounds)]

    def psi_of(self, values: Array, reference: Sequence[int] | None = None) -> float:
        """PSI of raw values against the reference counts (those in the edges unless others are given)."""
        before, now = self.counts if reference is None else reference, self.bin(values)
        return sum(_term(q / sum(before), p / sum(now)) for q, p in zip(before, now, strict=True))


def _term(before: float, now: float) -> float:
    before, now = max(before, 1e-4), max(now, 1e-4)
    return (now - before) * math.log(now / before)


def parse_edges(data: bytes, channels: Sequence[str]) -> dict[str, Edges]:
    """The deciles of each channel from `PDE1` bytes."""
    names = hashlib.sha256("\n".join(channels).encode()).digest()[:8]
    assert data[:13] == b"PDE1" + bytes([len(channels)]) + names, "edges of other channels"
    reader = _Reader(data, 13)
    found = {name: reader.channel() for name in channels}
    assert reader.at == len(data)
    return found


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def signed(self) -> int:
        number = self.unsigned()
        return number >> 1 if number & 1 == 0 else -(number >> 1) - 1

    def channel(self) -> Edges:
        exponent, low, first = self.signed(), self.signed(), self.signed()
        span = self.unsigned()
        quantiles = [first]
        for _ in range(28):
            quantiles.append(quantiles[-1] + self.unsigned())
        atoms: list[int] = []
        for _ in range(self.unsigned()):
            atoms.append((atoms[-1] if atoms else 0) + self.signed())
        struct.unpack_from("<ff", self.data, self.at)
        self.at += 8
        deciles = sorted({*quantiles[2::3], *atoms, *(atom - 1 for atom in atoms)})
        every = sorted({*quantiles, *deciles, *_width(low, span), *_overflow(low, span)})
        cells = [self.unsigned() for _ in range(len(every) + 1)]
        counts, place = [], 0
        for cut in deciles:
            upto = every.index(cut) + 1
            counts.append(sum(cells[place:upto]))
            place = upto
        counts.append(sum(cells[place:]))
        return Edges(tuple(math.ldexp(cut, exponent) for cut in deciles), tuple(counts))


def _width(low: int, span: int) -> list[int]:
    return [low + span * place // 30 for place in range(31)]


def _overflow(low: int, span: int) -> list[int]:
    beyond = [max(rank, span * tenths // 10) for rank, tenths in enumerate((1, 3, 10, 30), 1)]
    return [*(low - far for far in beyond), low, low + span, *(low + span + far for far in beyond)]
