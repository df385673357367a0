"""Reference edges: where a channel's line is cut into cells, and how many reference rows fell into each.

Made at training time, shipped in the package; sketches count on them. Per channel: 29 quantile edges (30 quantile
bins), 31 equal-width edges over the central 99 % (30 bins), 4 overflow edges beyond either end (10 overflow bins),
and a fence on both sides of each *atom*: a value that holds a large share of the rows (a stopped pump, a coarse
sensor). Every edge is a whole multiple of a power of two of about 1/256 of the channel's width: exact in float64,
small on the wire. Bins are right-closed: (a, b].
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.detectors import MAX_CHANNELS, channels_digest
from pumpdeck_fleet.numeric.frame import Float32, Float64, Int64, run_starts
from pumpdeck_fleet.numeric.varint import VarintReader, write_signed, write_unsigned

QUANTILE_BINS = 30
WIDTH_BINS = 30
MAX_ATOMS = 10
ATOM_SHARE = 0.05
EDGES_MAX_BYTES = 32_768
_GRID = 256
_POWERS = (np.float64(1.0), np.float64(10.0), np.float64(100.0))
_MANY_ROWS = 1000
_MOST_STEPS = 16_384
_MAGIC = b"PDE1"
_OVERFLOW_TENTHS = (1, 3, 10, 30)
_FARTHEST = 1 << 60
_MOST_ROWS = 1 << 40


@dataclass(frozen=True)
class Cuts:
    """One channel's edges in whole grid steps of 2**exponent.

    Raises:
        FormatError: 29 quantiles that do not fall, a range of at least 30 steps and at most 10 atoms are what it
        takes.
    """

    exponent: int
    low: int
    high: int
    quantiles: tuple[int, ...]
    atoms: tuple[int, ...]

    def __post_init__(self) -> None:
        q, a = list(self.quantiles), list(self.atoms)
        sound = len(q) == QUANTILE_BINS - 1 and q == sorted(q) and self.high - self.low >= WIDTH_BINS
        sound = sound and len(a) <= MAX_ATOMS and a == sorted(set(a)) and -300 <= self.exponent <= 300
        if not sound or max(map(abs, (self.low, self.high, *q, *a))) > _FARTHEST // 8:
            raise FormatError("do not make sense", "channel edges", expected="29 rising quantiles, a range, few atoms")

    @cached_property
    def width_cuts(self) -> tuple[int, ...]:
        """The 31 edges of the equal-width bins."""
        span = self.high - self.low
        return tuple(self.low + span * place // WIDTH_BINS for place in range(WIDTH_BINS + 1))

    @cached_property
    def overflow_cuts(self) -> tuple[int, ...]:
        """The 10 edges around the 10 overflow bins: 4 below, both ends of the range, 4 above."""
        beyond = [max(rank, (self.high - self.low) * tenths // 10) for rank, tenths in enumerate(_OVERFLOW_TENTHS, 1)]
        return (
            *(self.low - far for far in reversed(beyond)),
            self.low,
            self.high,
            *(self.high + far for far in beyond),
        )

    @cached_property
    def decile_cuts(self) -> tuple[int, ...]:
        """Every third quantile edge, each once: the reference deciles of PSI, with each atom in a bin of its own."""
        fences = [place for atom in self.atoms for place in (atom - 1, atom)]
        return tuple(sorted({*self.quantiles[2::3], *fences}))

    @cached_property
    def all_cuts(self) -> tuple[int, ...]:
        """All edges, rising, each once."""
        return tuple(sorted({*self.quantiles, *self.width_cuts, *self.overflow_cuts, *self.decile_cuts}))

    @cached_property
    def lines(self) -> Float64:
        """All edges in the channel's unit, float64."""
        return np.ldexp(np.array(self.all_cuts, np.float64), self.exponent)

    def fold(self, counts: Int64, cuts: Iterable[int]) -> Int64:
        """Cell counts added up to right-closed bins between `cuts` (some of `all_cuts`); one bin more than distinct cuts."""
        place = np.searchsorted(self.all_cuts, np.array(sorted(set(cuts))))
        upto = np.concatenate([[0], np.cumsum(counts)])
        return np.asarray(np.diff(upto[np.concatenate([[0], place + 1, [len(counts)]])]), np.int64)


@dataclass(frozen=True, eq=False)
class ChannelEdges:
    """One channel's cuts, its reference centre and width (float32 values), and the reference window's rows per cell, int64."""

    cuts: Cuts
    centre: float
    width: float
    reference: Int64

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.width) and self.width > 0):
            raise FormatError(
                "is not a finite centre and a positive width", "channel edges", found=(self.centre, self.width)
            )
        sound = self.reference.shape == (len(self.cuts.all_cuts) + 1,)
        if not sound or (self.reference < 0).any() or (self.reference > _MOST_ROWS).any():
            raise FormatError("do not fit their cells", "reference counts", expected=len(self.cuts.all_cuts) + 1)


@dataclass(frozen=True, eq=False)
class ReferenceEdges:
    """The edges of all channels of one pump."""

    channels: tuple[str, ...]
    edges: tuple[ChannelEdges, ...]

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that name this edge set; only sketches on the same one can be merged or compared."""
        return hashlib.sha256(encode_edges(self)).digest()[:8]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each channel's cells start in a sketch's flat counts; the last entry is their number."""
        starts = [0]
        for edge in self.edges:
            starts.append(starts[-1] + len(edge.reference))
        return tuple(starts)


def fit_edges(channels: tuple[str, ...], values: Float32, widths: Float64) -> ReferenceEdges:
    """Edges from the reference window: values float32 [n, c] (NaN = missing), widths [c] (never below a sensor's step).

    Raises:
        FormatError: a channel has no value at all.
    """
    return edges_of_ranked(channels, ranked_columns(values), widths)


def ranked_columns(values: Float32) -> tuple[Float32, ...]:
    """The values of each channel in rising order, missing ones left out, from rows float32 [n, c]."""
    columns = np.ascontiguousarray(values.T)
    return tuple(_ranked(column if (finite := np.isfinite(column)).all() else column[finite]) for column in columns)


def _ranked(column: Float32) -> Float32:
    """The values in rising order. Sensors speak in decimal steps: counting a hundred values takes a third of sorting them all."""
    for power in _POWERS if len(column) >= _MANY_ROWS else ():
        # A few values tell most powers apart before all are asked.
        some = column[:32]
        if ((np.rint(some * power) / power).astype(np.float32) != some).any():
            continue
        whole = np.rint(column * power)
        low = whole.min()
        if whole.max() - low <= _MOST_STEPS and ((whole / power).astype(np.float32) == column).all():
            counts = np.bincount((whole - low).astype(np.int64))
            held = np.flatnonzero(counts)
            return np.repeat(((held + low) / power).astype(np.float32), counts[held])
    return np.sort(column)


def edges_of_ranked(channels: tuple[str, ...], ranked: Sequence[Float32], widths: Float64) -> ReferenceEdges:
    """`fit_edges` from `ranked_columns`, for who has them already: sorting is most of the work.

    Raises:
        FormatError: as `fit_edges`.
    """
    return ReferenceEdges(
        channels,
        tuple(_fit_channel(name, ranked[place], float(widths[place])) for place, name in enumerate(channels)),
    )


def _fit_channel(name: str, found: Float32, width: float) -> ChannelEdges:
    rows = len(found)
    if not rows:
        raise FormatError("has no value in the reference window", name)
    largest = max(abs(float(found[0])), abs(float(found[-1])))
    width = float(np.float32(max(width, abs(float(found[rows // 2])) * 1e-6, largest * 1e-12, 1e-12)))
    exponent = math.floor(math.log2(width / _GRID))
    # Sensors speak in steps: a value is put on the grid once, however many rows have it.
    places = run_starts(found)
    steps = np.ceil(np.ldexp(found[places].astype(np.float64), -exponent)).astype(np.int64)
    on_grid = np.repeat(steps, np.diff(places, append=rows))
    starts = run_starts(on_grid)
    shares = np.diff(starts, append=rows)
    heavy = np.flatnonzero(shares >= ATOM_SHARE * rows)
    heavy = heavy[np.argsort(-shares[heavy], kind="stable")[:MAX_ATOMS]]
    # The inverted-CDF quantile is a value that occurred: at least k/30 of the rows lie at or below edge k.
    ranks = [-(-rows * k // QUANTILE_BINS) - 1 for k in range(1, QUANTILE_BINS)]
    low, high = int(on_grid[rows // 200]) - 1, int(on_grid[-1 - rows // 200])
    cuts = Cuts(
        exponent=exponent,
        low=low,
        high=max(high, low + WIDTH_BINS),
        quantiles=tuple(on_grid[ranks].tolist()),
        atoms=tuple(sorted(on_grid[starts[heavy]].tolist())),
    )
    upto = np.searchsorted(on_grid, np.array(cuts.all_cuts), side="right")
    centre = float(np.float32(found.mean(dtype=np.float64)))
    return ChannelEdges(cuts, centre, width, np.diff(upto, prepend=0, append=rows))


def encode_edges(edges: ReferenceEdges) -> bytes:
    """Magic, channel count, channels' digest, then per channel its cuts, centre, width and reference counts.

    About 160 bytes a channel. The same edges always give the same bytes.
    """
    parts = [_MAGIC, struct.pack("<B", len(edges.channels)), channels_digest(edges.channels)]
    for edge in edges.edges:
        cuts = edge.cuts
        rising = np.diff(cuts.quantiles).tolist()
        parts.append(write_signed([cuts.exponent, cuts.low, cuts.quantiles[0]]))
        parts.append(write_unsigned([cuts.high - cuts.low, *rising, len(cuts.atoms)]))
        parts.append(write_signed(np.diff(cuts.atoms, prepend=0).tolist()))
        parts.append(struct.pack("<ff", edge.centre, edge.width))
        parts.append(write_unsigned(edge.reference.tolist()))
    return b"".join(parts)


def decode_edges(data: bytes, channels: tuple[str, ...], what: str = "reference edges") -> ReferenceEdges:
    """The edges of these channels.

    Raises:
        TooLargeError: more than `EDGES_MAX_BYTES`.
        FormatError: not such edges, cut, padded, or made for other channels.
    """
    if len(data) > EDGES_MAX_BYTES:
        raise TooLargeError("is too large", what, expected=f"at most {EDGES_MAX_BYTES} bytes", found=len(data))
    reader = VarintReader(data, what)
    head = reader.take(len(_MAGIC) + 9)
    if not 0 < len(channels) <= MAX_CHANNELS or head != _MAGIC + bytes([len(channels)]) + channels_digest(channels):
        raise FormatError("is not a set of reference edges for these channels", what, expected=", ".join(channels))
    edges = ReferenceEdges(channels, tuple(_read_channel(reader) for _ in channels))
    reader.finish()
    return edges


def _read_channel(reader: VarintReader) -> ChannelEdges:
    exponent, low, first = reader.signed(3)
    span, *rising = reader.unsigned(QUANTILE_BINS - 1)
    atoms = reader.signed(reader.one(0, MAX_ATOMS))
    cuts = Cuts(
        exponent=exponent,
        low=low,
        high=low + span,
        quantiles=tuple(_running([first, *rising])),
        atoms=tuple(_running(atoms)),
    )
    centre, width = struct.unpack("<ff", reader.take(8))
    return ChannelEdges(cuts, centre, width, np.array(reader.unsigned(len(cuts.all_cuts) + 1), np.int64))


def _running(steps: list[int]) -> list[int]:
    total, out = 0, []
    for step in steps:
        total += step
        out.append(total)
    return out
