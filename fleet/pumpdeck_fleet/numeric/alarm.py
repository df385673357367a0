"""The alarm logic: deadband, persistence, a slow adaptive baseline and a fixed-reference drift index.

The trainer's replay and the device call this very code, row by row or in bulk, with the same result to the last bit.

- The score of a row is taken after the *offset* of each channel is subtracted: the part of a slow, harmless change
  (season, wear-in, a process that settles) that the baseline has followed so far, in widths of the pump block.
- The offset moves at clock hours of row time only, towards the mean of the hour's quiet rows with time constant
  `tau_s`. Rows in alarm or above the limit are left out, so it stands still while the pump is alarmed. It never goes
  further than `follow` limits from the reference: a fault that creeps past that reaches the alarm all the same.
- The drift index is the largest offset of a voting channel: how far the baseline stands from its fixed reference.

Hour sums are integers (deviations in 1/4096 width), so they do not depend on the order or the grouping of additions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.adaptive import FURTHEST, STEPS, deviations, hour_offsets, hour_share
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.detectors import PumpBlock, encode_block, has_votes, to_float32
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64, check_rising

Scorer = Callable[[Float32], Float32]
"""Scores float32 [n] of feature rows float32 [n, c]: the ONNX session on a device, `score_rows` in the trainer."""

STATE_MAX_BYTES = 65_536
_FURTHEST_STEPS = FURTHEST * STEPS
_NEVER = -1


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """What an operator may change about alarms; the limit stands in the pump block.

    deadband: an alarm clears below `deadband * limit`. persistence_s: how long the score must stay beyond before
    anything changes. tau_s: time constant of the adaptive baseline. follow: how many limits the baseline may move
    from its reference.
    """

    deadband: float = 0.7
    persistence_s: float = 0.0
    tau_s: float = 86_400.0
    follow: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.deadband <= 1 and self.persistence_s >= 0 and self.tau_s > 0 and self.follow >= 0):
            raise ValueError("deadband must be in (0, 1], persistence >= 0 s, tau > 0 s and follow >= 0")


@dataclass(frozen=True, slots=True)
class _Streak:
    """Alarmed or not, and since when the score has been above the limit or below the deadband (-1: it is not)."""

    alarmed: bool = False
    above_ms: int = _NEVER
    below_ms: int = _NEVER


@dataclass(frozen=True, eq=False)
class AlarmTrace:
    """What became of n rows: score float32 (NaN: no voting channel), alarmed bool, drift index float32."""

    at_ms: Int64
    score: Float32
    alarmed: Bools
    drift_index: Float32


class AlarmTracker:
    """The alarm state of one pump under one block. Rows come strictly later than each other.

    One row: `corrected = correct(at_ms, features)`, score it, `push(at_ms, features, score)`. Many rows: `extend`.
    """

    def __init__(self, block: PumpBlock, settings: AlarmSettings) -> None:
        self.block = block
        self.settings = settings
        count = len(block.channels)
        self._centre = block.centre.astype(np.float64)
        self._width = block.width.astype(np.float64)
        self._limit = block.limit
        self._clear = to_float32(block.limit * settings.deadband)
        self._wait_ms = round(settings.persistence_s * 1000)
        self._alpha = hour_share(settings.tau_s)
        self._reach = settings.follow * block.limit
        self._voting = np.flatnonzero(block.votes)
        self._last_ms = _NEVER
        self._hour = _NEVER
        self._streak = _Streak()
        self._offset: Float64 = np.zeros(count)
        self._votes = block.votes.tolist()
        self._shifted: Float64 = np.zeros(count)
        self._baseline = list(zip(self._centre.tolist(), (self._width / STEPS).tolist(), strict=True))
        # Of the hour so far: sums of deviations and numbers of values. Whole numbers in lists: rows come one by one.
        self._sums = [0] * count
        self._counts = [0] * count
        self._set_shift()

    @property
    def alarmed(self) -> bool:
        """True while the pump is in alarm."""
        return self._streak.alarmed

    @property
    def drift_index(self) -> float:
        """The largest distance of the adaptive baseline from its reference over voting channels, in widths."""
        return self._drift_index

    @property
    def offset(self) -> Float64:
        """How far the baseline has followed each channel, float64 [c], in widths."""
        return self._offset.copy()

    def correct(self, at_ms: int, features: Float32) -> Float32:
        """The feature row as the detector must see it: less what the baseline has followed by that hour."""
        hour = at_ms // HOUR_MS
        if hour != self._hour:
            self._turn(hour)
        return np.subtract(features, self._shift, self._shifted).astype(np.float32)

    def push(self, at_ms: int, features: Float32, score: float) -> bool:
        """Take one row (uncorrected features and the score of the corrected ones) and say whether the pump is alarmed.

        Raises:
            FormatError: the row is not later than the last one; nothing changed.
        """
        self._check_newer(at_ms)
        hour = at_ms // HOUR_MS
        if hour != self._hour:
            self._turn(hour)
        self._last_ms = at_ms
        values = features.tolist()
        if not any(map(math.isfinite, compress(values, self._votes))):
            return self._streak.alarmed
        streak = self._streak = self._step(at_ms, score)
        if not (streak.alarmed or score > self._limit):
            self._count(values)
        return streak.alarmed

    def _count(self, values: list[float]) -> None:
        """`deviations` of one row, added up: plain floats, because numpy calls on 8 numbers cost several times as much."""
        sums, counts = self._sums, self._counts
        # The factor 4096 is a power of two: where it is applied changes no bit.
        for place, (value, (centre, step)) in enumerate(zip(values, self._baseline, strict=True)):
            away = (value - centre) / step
            if -_FURTHEST_STEPS <= away <= _FURTHEST_STEPS:
                sums[place] += round(away)
                counts[place] += 1
            elif math.isfinite(value):
                sums[place] += round(math.copysign(_FURTHEST_STEPS, away))
                counts[place] += 1

    def extend(self, at_ms: Int64, features: Float32, scorer: Scorer) -> AlarmTrace:
        """Take many rows. Equal, bit for bit, to `correct`, score and `push` row by row; about a hundred times faster.

        Raises:
            FormatError: time does not rise, or starts before the last row; nothing changed.
            What the scorer raises: rows before the ones it was asked for stay taken; go back to a saved state.
        """
        check_rising(at_ms)
        if not len(at_ms):
            return AlarmTrace(at_ms, np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros(0, np.float32))
        self._check_newer(int(at_ms[0]))
        if len(at_ms) == 1:
            return self._one(at_ms, features, scorer)
        trace, voted = _blank(at_ms), has_votes(self.block, features)
        steps, finite = deviations(np.ascontiguousarray(features.T), self.block)
        guess = np.full(len(at_ms), not self._streak.alarmed)
        rows = _Rows(at_ms, features, voted, steps, finite & voted, guess)
        hours = np.concatenate([np.flatnonzero(np.diff(at_ms // HOUR_MS, prepend=np.int64(-1))), [len(at_ms)]])
        place, ahead = 0, len(hours)
        while place < len(hours) - 1:
            stop = min(place + ahead, len(hours) - 1)
            done = self._try(rows, hours[place : stop + 1], scorer, trace)
            ahead = min(2 * ahead, len(hours)) if done == stop - place else max(ahead // 2, 1)
            place += done
        return trace

    def _one(self, at_ms: Int64, features: Float32, scorer: Scorer) -> AlarmTrace:
        moment, row = int(at_ms[0]), features[0]
        score = scorer(self.correct(moment, row)[None])
        alarmed = self.push(moment, row, float(score[0]))
        if not np.isfinite(row[self._voting]).any():
            score = np.full(1, np.nan, np.float32)
        return AlarmTrace(at_ms, score, np.array([alarmed]), np.array([self._drift_index], np.float32))

    def _try(self, rows: _Rows, hours: Int64, scorer: Scorer, trace: AlarmTrace) -> int:
        """Score the hours between the given rows on a guess, and accept as many of them as the guess held for (at least 1).

        The guess says which rows move the baseline: at first every one of a quiet pump and none of one in alarm, then
        what the last try found. The first hour in which a row behaves otherwise is still scored rightly (its offset
        was set before); what follows is tried again, with this try's findings as the guess.
        """
        first, last = int(hours[0]), int(hours[-1])
        span = slice(first, last)
        at_ms, voted = rows.at_ms[span], rows.voted[span]
        self._turn(int(at_ms[0] // HOUR_MS))
        sums, counts = self._hour_sums(rows, hours, rows.guess[span])
        offsets = self._offsets(sums, counts)
        which = np.repeat(np.arange(len(hours) - 1), np.diff(hours))
        shifts = offsets * self._width
        score = scorer((rows.features[span] - shifts[which]).astype(np.float32))
        alarmed, streak = self._run(at_ms, score, voted)
        counted = voted & ~alarmed & ~(score > self._limit)
        surprises = np.flatnonzero(voted & (counted != rows.guess[span]))
        rows.guess[span] = counted
        done = int(which[surprises[0]]) + 1 if len(surprises) else len(hours) - 1
        end = int(hours[done]) - first
        taken = slice(first, first + end)
        trace.score[taken] = np.where(voted[:end], score[:end], np.float32(np.nan))
        if end < len(at_ms):
            alarmed, streak = self._run(at_ms[:end], score[:end], voted[:end])
        trace.alarmed[taken], self._streak = alarmed, streak
        drift = np.abs(offsets[:, self._voting]).max(axis=1)
        trace.drift_index[taken] = drift[which[:end]].astype(np.float32)
        if done > 1:
            self._sums, self._counts = [0] * len(self._sums), [0] * len(self._counts)
        final = slice(int(hours[done - 1]) - first, end)
        steps, finite = rows.steps[:, span][:, final], rows.finite[:, span][:, final] & counted[final]
        self._sums = (self._sums + np.where(finite, steps, 0).sum(axis=1)).tolist()
        self._counts = (self._counts + finite.sum(axis=1)).tolist()
        self._offset = offsets[done - 1]
        self._set_shift()
        self._last_ms = int(at_ms[end - 1])
        self._hour = self._last_ms // HOUR_MS
        return done

    def _hour_sums(self, rows: _Rows, hours: Int64, counted: Bools) -> tuple[Int64, Int64]:
        """Sums of deviations and numbers of values of each hour, int64 [hours, c], with what the first hour already holds."""
        span = slice(int(hours[0]), int(hours[-1]))
        finite = rows.finite[:, span] & counted
        starts = hours[:-1] - hours[0]
        sums = np.add.reduceat(np.where(finite, rows.steps[:, span], 0), starts, axis=1).T
        counts = np.add.reduceat(finite.astype(np.int64), starts, axis=1).T
        sums[0] += self._sums
        counts[0] += self._counts
        return sums, counts

    def _offsets(self, sums: Int64, counts: Int64) -> Float64:
        """The offset in force in each hour, float64 [hours, c]: the present one, then what each full hour makes of it."""
        return hour_offsets(self._offset, (sums[:-1], counts[:-1]), self._alpha, self._reach)

    def _turn(self, hour: int) -> None:
        """Begin a new hour of row time: the offset takes in what the last hour held."""
        if hour == self._hour:
            return
        reach, offset = self._reach, []
        for start, total, count in zip(self._offset.tolist(), self._sums, self._counts, strict=True):
            # As `hour_offsets`, operation by operation, a zero's sign included: the bits must be the same.
            if count:
                start = (1.0 - self._alpha) * start + self._alpha * (total / (STEPS * count))
            else:
                start = start + 0.0
            if start > reach:
                start = reach
            elif start < -reach:
                start = -reach
            offset.append(start)
        self._offset = np.array(offset)
        self._sums, self._counts = [0] * len(offset), [0] * len(offset)
        self._hour = hour
        self._set_shift()

    def _set_shift(self) -> None:
        self._shift = self._offset * self._width
        self._drift_index = to_float32(max(map(abs, compress(self._offset.tolist(), self._votes))))

    def _step(self, at_ms: int, score: float) -> _Streak:
        before = self._streak
        above_ms = (before.above_ms if before.above_ms != _NEVER else at_ms) if score > self._limit else _NEVER
        below_ms = (before.below_ms if before.below_ms != _NEVER else at_ms) if score < self._clear else _NEVER
        alarmed = before.alarmed
        if above_ms != _NEVER and at_ms - above_ms >= self._wait_ms:
            alarmed = True
        elif below_ms != _NEVER and at_ms - below_ms >= self._wait_ms:
            alarmed = False
        if alarmed == before.alarmed and above_ms == before.above_ms and below_ms == before.below_ms:
            return before
        return _Streak(alarmed, above_ms, below_ms)

    def _run(self, at_ms: Int64, score: Float32, voted: Bools) -> tuple[Bools, _Streak]:
        """`_step` over many rows at once: alarmed or not after each, and the streak after the last."""
        before = self._streak
        chosen = np.flatnonzero(voted)
        if not len(chosen):
            return np.full(len(at_ms), before.alarmed), before
        times, values = (at_ms, score) if len(chosen) == len(at_ms) else (at_ms[chosen], score[chosen])
        if not (before.alarmed or (values > self._limit).any()):
            # A quiet stretch: nothing can change but since when the score has been low.
            low = _since_last(times, values < self._clear, before.below_ms)
            return np.zeros(len(at_ms), np.bool_), _Streak(False, _NEVER, low)
        above = _since(times, values > self._limit, before.above_ms)
        below = _since(times, values < self._clear, before.below_ms)
        up = (above != _NEVER) & (times - above >= self._wait_ms)
        down = (below != _NEVER) & (times - below >= self._wait_ms)
        settled = np.maximum.accumulate(np.where(up | down, np.arange(len(chosen)), -1))
        states = np.where(settled < 0, before.alarmed, up[settled])
        after = np.concatenate([[before.alarmed], states])[np.cumsum(voted)]
        return after.astype(np.bool_), _Streak(bool(states[-1]), int(above[-1]), int(below[-1]))

    def _check_newer(self, at_ms: int) -> None:
        if at_ms <= self._last_ms:
            raise FormatError(
                "is not later than the row before", "feature row", expected=f"> {self._last_ms}", found=at_ms
            )

    def to_bytes(self) -> bytes:
        """The state, for a restart. It belongs to this very block."""
        streak = self._streak
        head = [self._last_ms, self._hour, int(streak.alarmed), streak.above_ms, streak.below_ms]
        return encode_arrays(
            {
                "block": _fingerprint(self.block),
                "head": np.array(head, np.int64),
                "offset": self._offset,
                "hour": np.array([self._sums, self._counts], np.int64),
            }
        )

    @classmethod
    def from_bytes(cls, block: PumpBlock, settings: AlarmSettings, data: bytes) -> AlarmTracker:
        """A tracker that goes on where `to_bytes` stopped.

        Raises:
            FormatError, TooLargeError: not such a state, or of another block (then start a fresh one: the baseline
            is a new one).
        """
        arrays = decode_arrays(data, "alarm state", max_bytes=STATE_MAX_BYTES)
        tracker = cls(block, settings)
        count = len(block.channels)
        shapes = {"block": (8,), "head": (5,), "offset": (count,), "hour": (2, count)}
        types = {"block": np.uint8, "head": np.int64, "offset": np.float64, "hour": np.int64}
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if found != {name: (shapes[name], np.dtype(types[name])) for name in shapes}:
            raise FormatError("does not fit the pump block", "alarm state", expected=f"{count} channels")
        if not np.array_equal(arrays["block"], _fingerprint(block)):
            raise FormatError("belongs to another pump block", "alarm state")
        if not np.isfinite(arrays["offset"]).all() or (arrays["hour"][1] < 0).any():
            raise FormatError("holds numbers that make no sense", "alarm state")
        last_ms, hour, alarmed, above_ms, below_ms = arrays["head"].tolist()
        tracker._last_ms, tracker._hour = last_ms, hour
        tracker._streak = _Streak(bool(alarmed), above_ms, below_ms)
        tracker._offset = arrays["offset"].copy()
        tracker._sums, tracker._counts = arrays["hour"].tolist()
        tracker._set_shift()
        return tracker


@dataclass(frozen=True, eq=False)
class _Rows:
    at_ms: Int64
    features: Float32
    voted: Bools
    steps: Int64
    finite: Bools
    guess: Bools


def _blank(at_ms: Int64) -> AlarmTrace:
    rows = len(at_ms)
    return AlarmTrace(at_ms, np.zeros(rows, np.float32), np.zeros(rows, np.bool_), np.zeros(rows, np.float32))


def _since(times: Int64, holds: Bools, before_ms: int) -> Int64:
    """For each row the time since when `holds` is true without a break, -1 where it is not; `before_ms` carries on a run."""
    place = np.arange(len(times))
    broken = np.maximum.accumulate(np.where(holds, -1, place))
    start = times[np.minimum(broken + 1, len(times) - 1)]
    if before_ms != _NEVER:
        start = np.where(broken < 0, before_ms, start)
    return np.where(holds, start, _NEVER)


def _since_last(times: Int64, holds: Bools, before_ms: int) -> int:
    """`_since` of the last row alone."""
    breaks = np.flatnonzero(~holds)
    if not len(breaks):
        return before_ms if before_ms != _NEVER else int(times[0])
    return int(times[breaks[-1] + 1]) if breaks[-1] + 1 < len(times) else _NEVER


def _fingerprint(block: PumpBlock) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(encode_block(block)).digest()[:8], np.uint8)


def alarm_spans(at_ms: Int64, alarmed: Bools) -> list[tuple[int, int | None]]:
    """Each alarm as (raised, cleared) in ms; None while it stands at the last row."""
    edges = np.diff(alarmed.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    raised, cleared = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        (int(at_ms[start]), int(at_ms[stop]) if stop < len(at_ms) else None)
        for start, stop in zip(raised, cleared, strict=True)
    ]


def with_limit(block: PumpBlock, limit: float) -> PumpBlock:
    """The same block with another limit."""
    return replace(block, limit=limit)
