"""Features: the causal mean of each channel over the last `window_s` of row time. One module for training and device.

The window of a row at time t is (t - window, t]. Sums are anchored to a grid of cells of one window's length in row
time: the window of any row is a suffix of one cell plus a prefix of the next, each summed in row order in float64.
So a result depends only on the rows inside the window and their times: never on a row's index, on how rows were cut
into chunks, or on a value that has left the window, and one pass costs the same whatever the window's length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64, check_rising, run_starts

STATE_MAX_BYTES = 64 * 1024 * 1024
_NOTHING = np.float32(0)
_FEW_RUNS = 64
_MANY_LINES = 256
# A block of rows begins with room for so many and doubles.
_FEWEST_ROWS = 16


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A model's ordered inputs: channel names and the window in seconds."""

    channels: tuple[str, ...]
    window_s: float

    def __post_init__(self) -> None:
        if self.window_s <= 0 or not self.channels:
            raise ValueError("a feature spec needs channels and a window longer than 0 s")

    @property
    def window_ms(self) -> int:
        """The window in whole milliseconds, at least 1."""
        return max(1, round(self.window_s * 1000))


@dataclass(frozen=True, slots=True)
class _Carried:
    """Rows that later windows still need: those younger than one window."""

    at_ms: Int64
    values: Float32


def window_means(at_ms: Int64, values: Float32, window_ms: int) -> tuple[Float32, NDArray[np.int64]]:
    """Means float32 [n, c] (NaN where the window holds no value) and how many values stand behind each, int64 [n, c].

    at_ms: int64 [n], strictly rising. values: float32 [n, c]; NaN and infinity count as missing.
    """
    means, counts = window_columns(at_ms, np.ascontiguousarray(values.T), window_ms)
    return np.ascontiguousarray(means.T), np.broadcast_to(counts, means.shape).T


def window_columns(at_ms: Int64, columns: Float32, window_ms: int) -> tuple[Float32, NDArray[np.int64]]:
    """`window_means` channel by channel: means float32 [c, n] of values float32 [c, n], counts int64 [c, n].

    Where no value is missing at all, the counts of all channels are one line: int64 [1, n]. numpy runs along the last axis, and
    rows are far more than channels: who takes many rows takes this form.
    """
    channels, rows = columns.shape
    if not rows:
        return np.zeros((channels, 0), np.float32), np.zeros((channels, 0), np.int64)
    present = np.isfinite(columns)
    is_whole = bool(present.all())
    filled = (columns if is_whole else np.where(present, columns, _NOTHING)).astype(np.float64)
    cells = at_ms // window_ms
    starts = run_starts(cells)
    lengths = np.diff(starts, append=rows)
    total, suffix = _cell_sums(filled, starts, lengths)
    oldest = last_before(at_ms, window_ms) + 1
    reaches_back = oldest < np.repeat(starts, lengths)
    total += np.where(reaches_back, np.take(suffix, oldest, axis=1), 0.0)
    if is_whole:
        counts = (np.arange(1, rows + 1) - oldest)[None]
    else:
        seen = np.zeros((channels, rows + 1), np.int64)
        np.cumsum(present, axis=1, out=seen[:, 1:])
        counts = seen[:, 1:] - np.take(seen, oldest, axis=1)
    return _mean(total, counts), counts


def last_before(at_ms: Int64, span_ms: int) -> Int64:
    """For each row the place of the last row at least `span_ms` (0 or more) older, int64 [n]; -1 where there is none.

    at_ms: int64 [n], strictly rising. A steady cadence needs no search.
    """
    rows = len(at_ms)
    if rows > 1:
        step = int(at_ms[1] - at_ms[0])
        if int(at_ms[-1] - at_ms[0]) == step * (rows - 1) and (np.diff(at_ms) == step).all():
            return np.maximum(np.arange(rows) - -(-span_ms // step), -1)
    return np.asarray(np.searchsorted(at_ms, at_ms - span_ms, side="right") - 1, np.int64)


def _mean(total: Float64, counts: NDArray[np.int64] | Float64) -> Float32:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(total / counts, np.float64).astype(np.float32)


def _cell_sums(filled: Float64, starts: Int64, lengths: Int64) -> tuple[Float64, Float64]:
    """Running sums inside each cell from its first row and from its last row, both [c, n]."""
    prefix, suffix = np.empty_like(filled), np.empty_like(filled)
    runs = np.flatnonzero(np.diff(lengths, prepend=-1))
    if len(runs) <= _FEW_RUNS:
        # A steady cadence: cells of one length stand side by side and are a block as they lie.
        for first, last in zip(runs.tolist(), [*runs[1:].tolist(), len(lengths)], strict=True):
            size, cells = int(lengths[first]), last - first
            span = slice(int(starts[first]), int(starts[first]) + size * cells)
            ahead, back = _running_sums(filled[:, span].reshape(-1, size))
            prefix[:, span], suffix[:, span] = ahead.reshape(len(filled), -1), back.reshape(len(filled), -1)
        return prefix, suffix
    # Cells of like length are padded to one block: no Python loop over cells, at most twice the memory.
    sizes = np.int64(1) << np.ceil(np.log2(lengths)).astype(np.int64)
    for size in np.unique(sizes):
        chosen = sizes == size
        place = starts[chosen, None] + np.arange(size)
        inside = np.arange(size) < lengths[chosen, None]
        block = np.where(inside, filled[:, np.minimum(place, filled.shape[1] - 1)], 0.0)
        where = place[inside]
        prefix[:, where] = np.cumsum(block, axis=2)[:, inside]
        suffix[:, where] = np.cumsum(block[:, :, ::-1], axis=2)[:, :, ::-1][:, inside]
    return prefix, suffix


def _running_sums(lines: Float64) -> tuple[Float64, Float64]:
    """Running sums of each line float64 [l, n] from its first value and from its last; both may be views."""
    if len(lines) < _MANY_LINES:
        return np.cumsum(lines, axis=1), np.cumsum(lines[:, ::-1], axis=1)[:, ::-1]
    # Place by place over all lines at once: the same additions in the same order, in a quarter of the time.
    ahead = np.ascontiguousarray(lines.T)
    back = ahead.copy()
    for place in range(1, len(ahead)):
        np.add(ahead[place - 1], ahead[place], out=ahead[place])
    for place in range(len(back) - 2, -1, -1):
        np.add(back[place + 1], back[place], out=back[place])
    return ahead.T, back.T


def has_full_window(counts: NDArray[np.int64]) -> Bools:
    """Rows whose window holds nine tenths of the usual number of values, or more, in some channel: what training takes."""
    most = counts.T.max(axis=0, initial=0)
    if not len(most):
        return np.zeros(0, np.bool_)
    top = int(most.max())
    # What more than half of the rows have is the median; it need not be sought.
    usual = top if 2 * int((most == top).sum()) > len(most) else np.median(most)
    return np.asarray(most >= 0.9 * usual)


class WindowMean:
    """The streaming form of `window_means`: same bits, rows handed in one at a time or in chunks of any size.

    Rows of the cell that runs and of the one behind it lie in two blocks, which change places when a cell ends. A block's row is
    its values with 0 where missing, then 1 where present: sums and counts are one addition, float64 [2 c].
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._window_ms = spec.window_ms
        self._width = 2 * len(spec.channels)
        self._last_ms: int | None = None
        self._cell = -1
        self._rows_at: list[int] = []
        self._rows, self._back_rows = self._new_block(_FEWEST_ROWS), self._new_block(_FEWEST_ROWS)
        self._has_gaps = self._back_has_gaps = False
        self._running: Float64 = np.zeros(self._width)
        self._total: Float64 = np.zeros(self._width)
        self._mean: Float64 = np.zeros(len(spec.channels))
        self._back_sum: Float64 = np.zeros((_FEWEST_ROWS + 1, self._width))
        self._back_at: list[int] = []
        self._first_back = 0
        self._hold_back()

    def is_newer(self, at_ms: int) -> bool:
        """True when a row at this time may be pushed: it is later than every row so far."""
        return self._last_ms is None or at_ms > self._last_ms

    def push(self, at_ms: int, values: Float32, *, is_whole: bool = False) -> Float32:
        """The feature row float32 [c] of one telemetry row. `is_whole`: the caller knows that every value is finite.

        Raises:
            FormatError: the row is not later than the last one; nothing changed.
        """
        self._check_newer(at_ms)
        cell = at_ms // self._window_ms
        if cell != self._cell:
            self._turn(cell)
        count, place = len(values), len(self._rows_at)
        if place == len(self._rows):
            self._grow()
        row = self._rows[place]
        # Finite numbers of single precision cannot add up to more than double precision holds.
        is_whole = is_whole or math.isfinite(sum(values.tolist()))
        if is_whole:
            row[:count] = values
        else:
            self._has_gaps = True
            present = np.isfinite(values)
            row[:count] = np.where(present, values, _NOTHING)
            row[count:] = present
        np.add(self._running, row, self._running)
        self._rows_at.append(at_ms)
        self._last_ms = at_ms
        oldest_ms = at_ms - self._window_ms
        first = self._first_back
        while self._back_at[first] <= oldest_ms:
            first += 1
        self._first_back = first
        total = np.add(self._running, self._back_sum[first], self._total)
        if not is_whole:
            return _mean(total[:count], total[count:])
        # `_mean` without its guard against empty windows, which costs as much as everything else here.
        np.divide(total[:count], total[count:], self._mean)
        return self._mean.astype(np.float32)

    def extend(self, at_ms: Int64, values: Float32) -> Float32:
        """The feature rows float32 [n, c] of many telemetry rows.

        Raises:
            FormatError: time does not rise, or starts before the last row; nothing changed.
        """
        check_rising(at_ms)
        if not len(at_ms):
            return np.zeros((0, len(self.spec.channels)), np.float32)
        self._check_newer(int(at_ms[0]))
        if len(at_ms) == 1:
            return self.push(int(at_ms[0]), values[0])[None]
        before = self._carried()
        all_at = np.concatenate([before.at_ms, at_ms])
        all_values = np.concatenate([before.values, values.astype(np.float32, copy=False)])
        means, _ = window_means(all_at, all_values, self._window_ms)
        young = int(np.searchsorted(all_at, all_at[-1] - self._window_ms, side="right"))
        self._load(_Carried(all_at[young:], all_values[young:]))
        return means[len(before.at_ms) :]

    def to_bytes(self) -> bytes:
        """The state, for a restart; `from_bytes` gives a twin that answers with the same bits."""
        carried = self._carried()
        return encode_arrays({"at_ms": carried.at_ms, "values": carried.values})

    @classmethod
    def from_bytes(cls, spec: FeatureSpec, data: bytes) -> WindowMean:
        """Raises: FormatError, TooLargeError: not such a state, or made for other channels."""
        arrays = decode_arrays(data, "window state", max_bytes=STATE_MAX_BYTES)
        if set(arrays) != {"at_ms", "values"} or arrays["values"].shape != (len(arrays["at_ms"]), len(spec.channels)):
            raise FormatError(
                "does not fit the feature spec", "window state", expected=f"{len(spec.channels)} channels"
            )
        if arrays["at_ms"].dtype != np.int64 or arrays["values"].dtype != np.float32 or arrays["at_ms"].ndim != 1:
            raise FormatError("has the wrong types", "window state", expected="int64 times and float32 values")
        check_rising(arrays["at_ms"])
        mean = cls(spec)
        mean._load(_Carried(arrays["at_ms"].copy(), arrays["values"].copy()))
        return mean

    def _check_newer(self, at_ms: int) -> None:
        if not self.is_newer(at_ms):
            raise FormatError(
                "is not later than the row before", "telemetry row", expected=f"> {self._last_ms}", found=at_ms
            )

    def _carried(self) -> _Carried:
        first, back, now = self._first_back, len(self._back_at) - 1, len(self._rows_at)
        at = [*self._back_at[first:-1], *self._rows_at]
        rows = np.concatenate([self._back_rows[first:back], self._rows[:now]])
        count = self._width // 2
        values = np.where(rows[:, count:] > 0, rows[:, :count], np.nan)
        return _Carried(np.array(at, np.int64), values.astype(np.float32))

    def _load(self, carried: _Carried) -> None:
        if not len(carried.at_ms):
            return
        self._last_ms = int(carried.at_ms[-1])
        self._cell = self._last_ms // self._window_ms
        cells = carried.at_ms // self._window_ms
        for cell in (self._cell - 1, self._cell):
            here = cells == cell
            self._hold_back()
            self._fill(carried.at_ms[here], carried.values[here])
        # The last running sum, not `sum`: numpy adds in pairs there, and the bits would differ.
        self._running = np.cumsum(self._rows[: len(self._rows_at)], axis=0)[-1].copy()

    def _fill(self, at_ms: Int64, values: Float32) -> None:
        """Make these the rows of the cell that runs."""
        present = np.isfinite(values)
        while len(self._rows) < len(at_ms):
            self._grow()
        self._rows[: len(at_ms), : self._width // 2] = np.where(present, values, _NOTHING)
        self._rows[: len(at_ms), self._width // 2 :] = present
        self._rows_at, self._has_gaps = at_ms.tolist(), True

    def _turn(self, cell: int) -> None:
        """Begin a new cell; the one that ends becomes the cell behind, if it is the neighbour."""
        if cell != self._cell + 1:
            self._rows_at = []
        self._hold_back()
        self._cell = cell
        self._running.fill(0.0)

    def _hold_back(self) -> None:
        """The running cell becomes the cell behind, and one without rows begins."""
        rows, count = self._rows, len(self._rows_at)
        self._rows, self._back_rows = self._back_rows, rows
        if self._back_has_gaps:
            self._rows[:, self._width // 2 :] = 1.0
        self._back_has_gaps, self._has_gaps = self._has_gaps, False
        # A time that is never old ends the list, so that the search for the first young row needs no bound.
        self._back_at = [*self._rows_at, 2**63]
        self._rows_at = []
        if len(self._back_sum) <= count:
            self._back_sum = np.zeros((len(rows) + 1, self._width))
        self._back_sum[count] = 0.0
        if count:
            np.cumsum(rows[:count][::-1], axis=0, out=self._back_sum[:count][::-1])
        self._first_back = 0

    def _grow(self) -> None:
        block = self._new_block(2 * len(self._rows))
        block[: len(self._rows)] = self._rows
        self._rows = block

    def _new_block(self, rows: int) -> Float64:
        block = np.zeros((rows, self._width))
        block[:, self._width // 2 :] = 1.0
        return block
