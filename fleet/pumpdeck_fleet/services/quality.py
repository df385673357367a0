"""Quality checks of telemetry rows: range, flat line, stuck, unit swap, gap, missing. Flags, never changes.

Rows are checked in order of time, block by block; what a check must remember goes from one block to the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame, UInt16
from pumpdeck_fleet.services.quality_rules import OTHER_UNITS, QualityRules

Bools = NDArray[np.bool_]


class PumpQuality:
    """The checks of one pump's rows."""

    def __init__(self, channels: tuple[Channel, ...], cadence_s: float, rules: QualityRules) -> None:
        self._gap_ms = cadence_s * 1000 * rules.gap_ratio
        self._gap_ratio = rules.gap_ratio
        self._low = np.array([channel.low for channel in channels], np.float32)
        self._high = np.array([channel.high for channel in channels], np.float32)
        self._runs = _Runs(len(channels), rules)
        self._swaps = _Swaps(channels, rules)
        self._last_ms: int | None = None
        self._last_step_ms = 0

    def remember(self, frame: TelemetryFrame) -> None:
        """Take rows that are known already as what came before; they are not judged again."""
        self.check(frame.at_ms, frame.values)

    def check(self, at_ms: Int64, values: Float32) -> UInt16:
        """Quality flags of rows that follow those of the call before.

        at_ms: int64 [n], strictly rising. values: float32 [n, c] in the order of the channels, NaN = missing.
        """
        flags = np.zeros(len(at_ms), np.uint16)
        if not len(at_ms):
            return flags
        flags[np.isnan(values).any(axis=1)] |= np.uint16(QualityFlag.MISSING)
        flags[((values < self._low) | (values > self._high)).any(axis=1)] |= np.uint16(QualityFlag.RANGE)
        flags[self._gaps(at_ms)] |= np.uint16(QualityFlag.GAP)
        stuck, flat = self._runs.check(at_ms, values)
        flags[stuck] |= np.uint16(QualityFlag.STUCK)
        flags[flat] |= np.uint16(QualityFlag.FLAT_LINE)
        flags[self._swaps.check(values)] |= np.uint16(QualityFlag.UNIT_SWAP)
        return flags

    def _gaps(self, at_ms: Int64) -> Bools:
        """The first row behind each gap. Rows older than what came before (a late file) are no gap."""
        first = int(at_ms[0]) - self._last_ms if self._last_ms is not None else 0
        steps = np.diff(at_ms, prepend=at_ms[0] - max(first, 0))
        before = np.concatenate([[self._last_step_ms], steps[:-1]])
        self._last_ms, self._last_step_ms = int(at_ms[-1]), int(steps[-1])
        return (steps > self._gap_ms) & (steps > self._gap_ratio * before) & (before > 0)


class _Runs:
    """How long each channel, and the whole row, has not moved."""

    def __init__(self, channels: int, rules: QualityRules) -> None:
        self._rules = rules
        width = channels + 1  # the last column is the whole row
        self._last = np.full(channels, np.nan, np.float32)
        self._rows = np.zeros(width, np.int64)
        self._start_ms = np.zeros(width, np.int64)
        self._seen_at_start = np.zeros(width, np.int64)
        self._moves_at_start = np.zeros(width, np.int64)
        self._moves = np.zeros(width, np.int64)
        self._seen = 0

    def check(self, at_ms: Int64, values: Float32) -> tuple[Bools, Bools]:
        """(rows with a stuck channel, rows that repeat whole)."""
        moved = np.empty((len(at_ms), len(self._last) + 1), np.bool_)
        # Missing is never equal to missing: a channel without values does not stand still.
        moved[0, :-1] = values[0] != self._last
        moved[1:, :-1] = values[1:] != values[:-1]
        moved[:, -1] = moved[:, :-1].any(axis=1)
        order = np.arange(len(at_ms))[:, np.newaxis]
        start = np.maximum.accumulate(np.where(moved, order, -1), axis=0)
        rows = np.where(start >= 0, order - start + 1, self._rows + order + 1)
        stands = np.zeros(moved.shape, np.bool_)
        moves = self._moves + np.cumsum(moved, axis=0) if (rows >= self._rules.stuck_rows).any() else None
        if moves is not None:
            stands = self._stands(at_ms, start, rows, moves)
        self._remember(at_ms, values, moved, start, rows)
        return self._sorted_out(values, stands)

    def _stands(self, at_ms: Int64, start: Int64, rows: Int64, moves: Int64) -> Bools:
        rules, inside = self._rules, start >= 0
        start_ms = np.where(inside, at_ms[start], self._start_ms)
        seen = np.where(inside, self._seen + start, self._seen_at_start)
        moves_before = np.where(inside, np.take_along_axis(moves, start, axis=0) - 1, self._moves_at_start)
        usual = seen / np.maximum(moves_before, 1)
        lasted = at_ms[:, np.newaxis] - start_ms >= rules.stuck_s * 1000
        judged = seen >= rules.stuck_history
        stands: Bools = (rows >= rules.stuck_rows) & lasted & judged & (rows > rules.stuck_ratio * usual)
        return stands

    def _remember(self, at_ms: Int64, values: Float32, moved: Bools, start: Int64, rows: Int64) -> None:
        last = start[-1]
        began = last >= 0
        counted = self._moves + np.cumsum(moved, axis=0)
        at_start = np.take_along_axis(counted, np.maximum(last, 0)[np.newaxis], axis=0)[0] - 1
        self._start_ms = np.where(began, at_ms[last], self._start_ms)
        self._seen_at_start = np.where(began, self._seen + last, self._seen_at_start)
        self._moves_at_start = np.where(began, at_start, self._moves_at_start)
        self._moves = counted[-1]
        self._rows = rows[-1]
        self._last = values[-1].copy()
        self._seen += len(at_ms)

    @staticmethod
    def _sorted_out(values: Float32, stands: Bools) -> tuple[Bools, Bools]:
        # Zeros on two channels or more are a pump at rest; zero on a single one is a dead sensor.
        at_rest = ((values == 0).sum(axis=1) > 1)[:, np.newaxis]
        flat = stands[:, -1] & ((values != 0).sum(axis=1) > 1) if values.shape[1] > 1 else np.zeros(len(values), np.bool_)
        stuck = (stands[:, :-1] & ~((values == 0) & at_rest)).any(axis=1)
        return stuck & ~flat, flat


class _Swaps:
    """Channels that jumped to what their level would be in another unit, and have not come back."""

    def __init__(self, channels: tuple[Channel, ...], rules: QualityRules) -> None:
        self._rules = rules
        self._channels = channels
        self._tail = np.empty((0, len(channels)), np.float32)
        self._levels: dict[int, tuple[float, float]] = {}
        """channel -> (level before the swap, the same in the other unit), while it lasts"""

    def check(self, values: Float32) -> Bools:
        """Rows with a swapped channel."""
        before = len(self._tail)
        joined = np.concatenate([self._tail, values])
        swapped = np.zeros(len(joined), np.bool_)
        for channel in list(self._levels):
            self._follow(channel, joined, before, swapped)
        for row in self._jumps(joined, before):
            self._judge(row, joined, swapped)
        self._tail = joined[-self._rules.swap_rows :].copy()
        return swapped[before:]

    def _jumps(self, values: Float32, before: int) -> list[int]:
        """Rows at which channels of one unit only jump: a pump that starts or trips moves more than that."""
        if len(values) < 2:
            return []
        old = values[:-1]
        far = np.abs(values[1:] - old) > self._rules.swap_jump * np.abs(old)
        far &= old != 0
        rows = np.flatnonzero(far.any(axis=1))
        return [int(row) + 1 for row in rows if row + 1 >= before and self._one_unit(far[row])]

    def _one_unit(self, jumping: Bools) -> bool:
        return len({self._channels[channel].unit for channel in np.flatnonzero(jumping)}) == 1

    def _judge(self, row: int, values: Float32, swapped: Bools) -> None:
        rules = self._rules
        for channel, name in enumerate(self._channels):
            old, new = values[row - 1, channel], values[row, channel]
            if channel in self._levels or not abs(new - old) > rules.swap_jump * abs(old):
                continue
            level = _level(values[max(0, row - rules.swap_rows) : row, channel])
            after = values[row : row + rules.swap_rows, channel]
            for factor, offset in OTHER_UNITS.get(name.unit, ()):
                shown = level * factor + offset
                if len(after) == rules.swap_rows and (np.abs(after - shown) <= rules.swap_tolerance * abs(shown)).all():
                    self._levels[channel] = (level, shown)
                    self._follow(channel, values, row, swapped)
                    break

    def _follow(self, channel: int, values: Float32, row: int, swapped: Bools) -> None:
        """Flag from `row` on until the channel is nearer to its level in its own unit."""
        level, shown = self._levels[channel]
        column = values[row:, channel]
        back = np.flatnonzero(np.abs(column - level) < np.abs(column - shown))
        end = int(back[0]) if len(back) else len(column)
        swapped[row : row + end] = True
        if len(back):
            del self._levels[channel]


def _level(column: Float32) -> float:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else float("nan")
