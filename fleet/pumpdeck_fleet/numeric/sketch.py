"""Sketch: what a pump's channels looked like over some time (usually a day), in about 1 kB, mergeable exactly.

Rows are counted per cell of the reference edges (`numeric/edges.py`), from which the 30 quantile, 30 equal-width
and 10 overflow bins are sums. Beside the counts stand integer power sums of each channel's deviation from the
reference centre in 1/16 width: four moments, and the products of channel pairs (first 10 channels) over the rows in
which all of those are present. Everything is an integer, so merging is plain addition, in any order and any
grouping.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.edges import Cuts, ReferenceEdges
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64
from pumpdeck_fleet.numeric.varint import VarintReader, write_signed, write_unsigned

MAX_PAIRED = 10
SKETCH_MAX_BYTES = 65_536
# Up to here no power sum can leave int64: 2**26 rows of a deviation of at most 2**9, to the 4th power.
MAX_ROWS = 1 << 26
_INFLATED_MAX_BYTES = 131_072
_STEPS = 16
_FURTHEST = 512
_MAGIC = b"PDS1"
_ALIKE, _APART = 0, 1


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts and power sums of the rows from `first_ms` to `last_ms` on one edge set.

    counts: int64 [cells of all channels]. moments: int64 [4, c], sums of the 1st..4th power. complete: rows in
    which every paired channel was present; of these `sums` int64 [p] and `products` int64 [p, p], p = min(c, 10).
    """

    edges: ReferenceEdges
    rows: int
    first_ms: int
    last_ms: int
    counts: Int64
    moments: Int64
    complete: int
    sums: Int64
    products: Int64

    def cells(self, channel: int) -> Int64:
        """Rows per cell of one channel."""
        starts = self.edges.offsets
        return self.counts[starts[channel] : starts[channel + 1]]

    def quantile_counts(self, channel: int) -> Int64:
        """Rows per quantile bin: 30, fewer where quantile edges coincide (an atom)."""
        return self._fold(channel, self.cuts(channel).quantiles)

    def width_counts(self, channel: int) -> Int64:
        """Rows in the 30 equal-width bins (without what overflows)."""
        return self._fold(channel, self.cuts(channel).width_cuts)[1:-1]

    def overflow_counts(self, channel: int) -> Int64:
        """Rows in the 5 bins below and the 5 above the equal-width range."""
        folded = self._fold(channel, self.cuts(channel).overflow_cuts)
        return np.concatenate([folded[:5], folded[6:]])

    def decile_counts(self, channel: int) -> Int64:
        """Rows per reference decile, atoms apart: what `drift.psi` compares."""
        return self._fold(channel, self.cuts(channel).decile_cuts)

    def cuts(self, channel: int) -> Cuts:
        """The edges of one channel."""
        return self.edges.edges[channel].cuts

    def mean(self) -> Float64:
        """Mean of each channel in its unit, float64 [c]; NaN where it was never present."""
        seen = np.array([self.cells(place).sum() for place in range(len(self.edges.edges))])
        with np.errstate(invalid="ignore", divide="ignore"):
            away = self.moments[0] / (_STEPS * seen)
        centre = np.array([edge.centre for edge in self.edges.edges])
        width = np.array([edge.width for edge in self.edges.edges])
        return np.asarray(centre + away * width)

    def covariance(self) -> Float64:
        """Covariance of the paired channels in reference widths, float64 [p, p]; NaN below 2 complete rows."""
        if self.complete < 2:
            return np.full(self.products.shape, np.nan)
        mean = self.sums / self.complete
        return (self.products / self.complete - np.outer(mean, mean)) / _STEPS**2

    def _fold(self, channel: int, cuts: tuple[int, ...]) -> Int64:
        return self.cuts(channel).fold(self.cells(channel), cuts)


def empty_sketch(edges: ReferenceEdges) -> Sketch:
    """Nothing seen yet; merging it changes nothing."""
    channels, paired = len(edges.channels), min(len(edges.channels), MAX_PAIRED)
    return Sketch(
        edges=edges,
        rows=0,
        first_ms=0,
        last_ms=0,
        counts=np.zeros(edges.offsets[-1], np.int64),
        moments=np.zeros((4, channels), np.int64),
        complete=0,
        sums=np.zeros(paired, np.int64),
        products=np.zeros((paired, paired), np.int64),
    )


def make_sketch(edges: ReferenceEdges, at_ms: Int64, values: Float32) -> Sketch:
    """The sketch of rows at_ms int64 [n], values float32 [n, c] (NaN = missing), c as in the edges."""
    if values.shape != (len(at_ms), len(edges.channels)):
        raise FormatError(
            "has the wrong shape", "sketch rows", expected=f"n x {len(edges.channels)}", found=values.shape
        )
    if not len(at_ms):
        return empty_sketch(edges)
    present = np.isfinite(values)
    counts = np.zeros(edges.offsets[-1], np.int64)
    for place, edge in enumerate(edges.edges):
        cell = np.searchsorted(edge.cuts.lines, values[present[:, place], place].astype(np.float64), side="left")
        start, stop = edges.offsets[place], edges.offsets[place + 1]
        counts[start:stop] = np.bincount(cell, minlength=stop - start)
    steps = _deviations(edges, values, present)
    square = steps * steps
    paired = min(len(edges.channels), MAX_PAIRED)
    complete = present[:, :paired].all(axis=1)
    # float64 products of whole numbers up to 2**18 are exact far beyond a day of rows, and matmul of float64 is fast.
    whole = steps[complete, :paired].astype(np.float64)
    return Sketch(
        edges=edges,
        rows=len(at_ms),
        first_ms=int(at_ms.min()),
        last_ms=int(at_ms.max()),
        counts=counts,
        moments=np.stack(
            [steps.sum(axis=0), square.sum(axis=0), (square * steps).sum(axis=0), (square * square).sum(axis=0)]
        ),
        complete=int(complete.sum()),
        sums=whole.sum(axis=0).astype(np.int64),
        products=(whole.T @ whole).astype(np.int64),
    )


def _deviations(edges: ReferenceEdges, values: Float32, present: Bools) -> Int64:
    centre = np.array([edge.centre for edge in edges.edges])
    scale = _STEPS / np.array([edge.width for edge in edges.edges])
    away = np.where(present, (values - centre) * scale, 0.0)
    return np.asarray(np.rint(np.clip(away, -_FURTHEST, _FURTHEST)), np.int64)


def merge(left: Sketch, right: Sketch) -> Sketch:
    """What one sketch over all rows of both would be, exactly.

    Raises:
        FormatError: they stand on different edge sets.
        TooLargeError: more than 2**26 rows together.
    """
    if left.edges.digest != right.edges.digest:
        expected, found = left.edges.digest.hex(), right.edges.digest.hex()
        raise FormatError("stands on other reference edges", "sketch", expected=expected, found=found)
    if not left.rows or not right.rows:
        return left if left.rows else right
    if left.rows + right.rows > MAX_ROWS:
        raise TooLargeError("holds too many rows to merge", "sketch", expected=MAX_ROWS, found=left.rows + right.rows)
    return Sketch(
        edges=left.edges,
        rows=left.rows + right.rows,
        first_ms=min(left.first_ms, right.first_ms),
        last_ms=max(left.last_ms, right.last_ms),
        counts=left.counts + right.counts,
        moments=left.moments + right.moments,
        complete=left.complete + right.complete,
        sums=left.sums + right.sums,
        products=left.products + right.products,
    )


def encode_sketch(sketch: Sketch) -> bytes:
    """Magic, edge set digest, then zlib over varints.

    Counts go as they are; sums over complete rows are left out when they equal the moments (no value was missing).
    """
    paired = len(sketch.sums)
    numbers = [
        write_unsigned([sketch.rows, sketch.complete]),
        write_signed([sketch.first_ms]),
        write_unsigned([sketch.last_ms - sketch.first_ms]),
        write_unsigned(sketch.counts.tolist()),
        write_signed(sketch.moments[[0, 2]].ravel().tolist()),
        write_unsigned(sketch.moments[[1, 3]].ravel().tolist()),
        write_signed(sketch.products[np.triu_indices(paired, 1)].tolist()),
    ]
    diagonal = np.diagonal(sketch.products)
    if np.array_equal(sketch.sums, sketch.moments[0, :paired]) and np.array_equal(diagonal, sketch.moments[1, :paired]):
        numbers.append(bytes([_ALIKE]))
    else:
        numbers += [bytes([_APART]), write_signed(sketch.sums.tolist()), write_unsigned(diagonal.tolist())]
    return _MAGIC + sketch.edges.digest + zlib.compress(b"".join(numbers), 9)


def decode_sketch(data: bytes, edges: ReferenceEdges, what: str = "sketch") -> Sketch:
    """The sketch, when it stands on these edges.

    Raises:
        TooLargeError: more than `SKETCH_MAX_BYTES`.
        FormatError: not a sketch, damaged, of another edge set, or its numbers contradict each other.
    """
    if len(data) > SKETCH_MAX_BYTES:
        raise TooLargeError("is too large", what, expected=f"at most {SKETCH_MAX_BYTES} bytes", found=len(data))
    if data[:4] != _MAGIC:
        raise FormatError("is not a sketch", what, expected=_MAGIC.decode(), found=data[:4].hex())
    if data[4:12] != edges.digest:
        expected, found = edges.digest.hex(), data[4:12].hex()
        raise FormatError("stands on other reference edges", what, expected=expected, found=found)
    reader = VarintReader(_inflate(data[12:], what), what)
    sketch = _read(reader, edges)
    reader.finish()
    _check_sound(sketch, what)
    return sketch


def _inflate(packed: bytes, what: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, _INFLATED_MAX_BYTES)
    except zlib.error as error:
        raise FormatError(f"is damaged ({error})", what) from error
    if not inflater.eof or inflater.unused_data:
        raise FormatError("is cut, padded or too large inside", what, expected=f"at most {_INFLATED_MAX_BYTES} bytes")
    return raw


def _read(reader: VarintReader, edges: ReferenceEdges) -> Sketch:
    channels, paired = len(edges.channels), min(len(edges.channels), MAX_PAIRED)
    rows, complete = reader.one(0, MAX_ROWS), reader.one(0, MAX_ROWS)
    (first_ms,) = reader.signed(1)
    (span_ms,) = reader.unsigned(1)
    counts = np.array(reader.unsigned(edges.offsets[-1]), np.int64)
    odd = np.array(reader.signed(2 * channels), np.int64).reshape(2, channels)
    even = np.array(reader.unsigned(2 * channels), np.int64).reshape(2, channels)
    upper = np.zeros((paired, paired), np.int64)
    upper[np.triu_indices(paired, 1)] = reader.signed(paired * (paired - 1) // 2)
    if reader.one(_ALIKE, _APART) == _ALIKE:
        sums, diagonal = odd[0, :paired].copy(), even[0, :paired]
    else:
        sums = np.array(reader.signed(paired), np.int64)
        diagonal = np.array(reader.unsigned(paired), np.int64)
    return Sketch(
        edges=edges,
        rows=rows,
        first_ms=first_ms,
        last_ms=first_ms + span_ms,
        counts=counts,
        moments=np.stack([odd[0], even[0], odd[1], even[1]]),
        complete=complete,
        sums=sums,
        products=upper + upper.T + np.diag(diagonal),
    )


def _check_sound(sketch: Sketch, what: str) -> None:
    """Nobody's counts and sums are taken on trust: each must be possible for that many rows."""
    if sketch.complete > sketch.rows or (sketch.counts > sketch.rows).any():
        raise FormatError("counts more values than rows", what, expected=f"at most {sketch.rows}")
    for place, name in enumerate(sketch.edges.channels):
        if int(sketch.cells(place).sum()) > sketch.rows:
            raise FormatError("counts more values than rows", f"{what} {name}", expected=f"at most {sketch.rows}")
    most = [sketch.rows * _FURTHEST**power for power in range(1, 5)]
    far = any((np.abs(sums) > limit).any() for sums, limit in zip(sketch.moments, most, strict=True))
    far = far or bool((np.abs(sketch.sums) > sketch.complete * _FURTHEST).any())
    if far or (np.abs(sketch.products) > sketch.complete * _FURTHEST**2).any():
        raise FormatError("holds sums that its rows cannot give", what)
