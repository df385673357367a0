"""One pump being scored: window, detector, alarm logic and sketch, and what of it waits to be put into the outbox."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from operator import ge, le
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.loaded import LoadedPump
from pumpdeck_agent.outbox import Outgoing
from pumpdeck_agent.process_state import TripWatch, process_state
from pumpdeck_agent.pump_record import RECORD_FORMAT, ProcessState, PumpFigures, PumpRecord
from pumpdeck_agent.return_items import chunk_item, close_record, sketch_item
from pumpdeck_agent.runtime import RowCall
from pumpdeck_agent.segments import OpenSegment
from pumpdeck_agent.shadow import ShadowPump
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.core.receipts import AlarmNotice, ReturnKind
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.numeric.alarm import AlarmTrace, AlarmTracker
from pumpdeck_fleet.numeric.columns import encode_chunk
from pumpdeck_fleet.numeric.detectors import has_votes
from pumpdeck_fleet.numeric.features import WindowMean
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame, UInt16, empty_frame
from pumpdeck_fleet.numeric.sketch import decode_sketch, empty_sketch, encode_sketch, make_sketch, merge

NOTICE_FORMAT = 1
_MISSING = np.float32(np.nan)
_LARGEST = np.finfo(np.float32).max
# Time, values, score, alarmed, drift index of a row that was pushed. A plain tuple: one is made for every row.
_Pushed = tuple[int, Float32, float, bool, float]


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What one frame did: rows scored, rows that came too late, alarms raised."""

    scored: int = 0
    late: int = 0
    raised: int = 0


class RowResult(NamedTuple):
    """What one row gave. `score`: None when no voting channel is there. `notice`: the alarm that it raised or cleared.

    `answers`: the graph's outputs for it, when asked for.
    """

    pump: str
    at_ms: int
    score: float | None
    limit: float
    alarmed: bool
    drift_index: float
    notice: AlarmNotice | None = None
    answers: Mapping[str, NDArray[Any]] | None = None


class PumpScoring:
    """The live state of one pump under one package. `outgoing` is handed over by `take_outgoing` before `record` is saved.

    Rows come in frames (`score`) or one by one (`push`): the latter touches only window, detector and alarm logic and puts the
    row into a buffer; sketch and segments take it from there when the record is made.
    """

    def __init__(self, device: str, package_sha256: str, pump: LoadedPump, limits: AgentLimits) -> None:
        self._device = device
        self._pump = pump
        self._limits = limits
        self.figures = PumpFigures(RECORD_FORMAT, pump.entry.tag, package_sha256)
        self._window = WindowMean(pump.spec)
        self._tracker = AlarmTracker(pump.block, pump.settings)
        self._sketch = empty_sketch(pump.edges)
        self._rows = OpenSegment()
        self._scores = OpenSegment()
        self._trips = TripWatch(pump.entry.channels, empty_frame(()))
        # The same pump under a candidate that is scored beside this package, if there is one.
        self.shadow: ShadowPump | None = None
        self._outgoing: list[Outgoing] = []
        self._buffer: list[_Pushed] = []
        self._changes: list[AlarmNotice] = []
        self._pins: list[int] = []
        self._low = np.array([channel.low for channel in pump.entry.channels], np.float32)
        self._high = np.array([channel.high for channel in pump.entry.channels], np.float32)
        self._lows: list[float] = np.maximum(self._low, -_LARGEST).tolist()
        self._highs: list[float] = np.minimum(self._high, _LARGEST).tolist()

    @classmethod
    def restore(
        cls, device: str, sha256: str, pump: LoadedPump, limits: AgentLimits, record: PumpRecord | None
    ) -> PumpScoring:
        """Go on where the record stops. Under another package alarm state and sketch begin anew; no row is scored twice."""
        scoring = cls(device, sha256, pump, limits)
        if record is None:
            return scoring
        scoring.figures = replace(record.figures, tag=pump.entry.tag)
        scoring._window = _window_of(pump, record.blobs["window"])
        scoring._rows = OpenSegment(record.blobs.get("rows", b""))
        scoring._scores = OpenSegment(record.blobs.get("scores", b""))
        scoring._trips = TripWatch(pump.entry.channels, scoring._rows.tail())
        if record.figures.package_sha256 == sha256:
            scoring._tracker = AlarmTracker.from_bytes(pump.block, pump.settings, record.blobs["alarm"])
            if record.blobs["sketch"]:
                scoring._sketch = decode_sketch(record.blobs["sketch"], pump.edges)
        else:
            scoring._change_package(sha256, record)
        return scoring

    def score(self, frame: TelemetryFrame, file_digest: str) -> FrameResult:
        """Take the rows of one spool file, once: a file whose digest is in the figures already changes nothing."""
        self._fold()
        if file_digest == self.figures.last_file:
            return FrameResult()
        flagged = _with_flags(frame, self._pump.entry.channels)
        late = self._put_aside_late(flagged)
        fresh = flagged.take(slice(late, None))
        raised = 0
        for start in range(0, len(fresh), self._limits.segment_rows):
            raised += self._score_rows(fresh.take(slice(start, start + self._limits.segment_rows)))
        self.figures = replace(self.figures, last_file=file_digest, late_rows=self.figures.late_rows + late)
        return FrameResult(len(fresh), late, raised)

    @cached_property
    def _score_row(self) -> RowCall:
        return self._pump.model.row_call(self._pump.parameters)

    @property
    def last_ms(self) -> int | None:
        """Time of the newest row; a row to be pushed must be later."""
        return self._buffer[-1][0] if self._buffer else self.figures.last_row_ms

    def settled_figures(self) -> PumpFigures:
        """The figures with every row so far in them."""
        self._fold()
        return self.figures

    def push(self, at_ms: int, values: Float32, *, is_explained: bool = False) -> RowResult:
        """Take one row: float32 [c] in the order of the pump's channels, NaN where missing; kept, not copied.

        Raises:
            FormatError: the row is not later than the last one; nothing changed.
        """
        features = self._features(at_ms, values)
        pump, tracker, answers = self._pump, self._tracker, None
        shown = tracker.correct(at_ms, features)
        if is_explained:
            answers = pump.model.answers(shown.reshape(1, -1), pump.parameters)
            score = float(answers["score"][0])
        else:
            score = self._score_row(shown)
        was_alarmed = tracker.alarmed
        alarmed = tracker.push(at_ms, features, score)
        if score == 0.0 and not has_votes(pump.block, shown.reshape(1, -1))[0]:
            score = math.nan
        drift_index = tracker.drift_index
        self._buffer.append((at_ms, values, score, alarmed, drift_index))
        notice = None
        if alarmed != was_alarmed:
            notice = self._notice(at_ms, score, alarmed, self._guilty(features[None]))
            self._outgoing.append(_alarm_item(notice))
            self._changes.append(notice)
            self.capture(at_ms)
        known = None if math.isnan(score) else score
        return RowResult(pump.entry.tag, at_ms, known, pump.block.limit, alarmed, drift_index, notice, answers)

    def take_changes(self) -> list[AlarmNotice]:
        """Alarms raised and cleared since the last call, for those who announce them on site."""
        changes, self._changes = self._changes, []
        return changes

    def capture(self, at_ms: int) -> None:
        """Rows around this time are worth more than others: pin them, those in the outbox and those to come."""
        around_ms = round(self._limits.capture_around_s * 1000)
        figures, from_ms = self.figures, at_ms - around_ms
        open_ms = self._rows.start_ms()
        if figures.pin_from_ms is not None and figures.pin_to_ms is not None and figures.pin_to_ms >= (open_ms or from_ms):
            from_ms = min(from_ms, figures.pin_from_ms)
        self.figures = replace(figures, pin_from_ms=from_ms, pin_to_ms=at_ms + around_ms)
        if open_ms is None or open_ms > at_ms - around_ms:
            self._pins.append(at_ms - around_ms)

    def take_pins(self) -> list[int]:
        """Segments with rows from these times on are to be pinned where they are in the outbox already."""
        pins, self._pins = self._pins, []
        return pins

    def owe(self, items: list[Outgoing]) -> None:
        """These go out with the next save."""
        self._outgoing += items

    def take_outgoing(self) -> list[Outgoing]:
        """What is to be put into the outbox before the record is saved."""
        # Folding may close a segment or a day: that must be among what goes out before the record says that it did.
        self._fold()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def record(self) -> PumpRecord:
        """Everything a restart needs."""
        self._fold()
        blobs = {
            "window": self._window.to_bytes(),
            "alarm": self._tracker.to_bytes(),
            "rows": self._rows.to_bytes(),
            "scores": self._scores.to_bytes(),
            "sketch": encode_sketch(self._sketch) if self._sketch.rows else b"",
        }
        return PumpRecord(replace(self.figures, open_start_ms=self._rows.start_ms()), blobs)

    def _score_rows(self, frame: TelemetryFrame) -> int:
        values = frame.select(self._pump.spec.channels).values
        features = self._window.extend(frame.at_ms, self._within(values))
        was_alarmed = self._tracker.alarmed
        trace = self._tracker.extend(frame.at_ms, features, self._score_features)
        notices = self._notices(trace, features, was_alarmed)
        self._outgoing += [_alarm_item(notice) for notice in notices]
        self._changes += notices
        for notice in notices:
            self.capture(notice.at_ms)
        self._keep(frame, values, trace)
        return sum(notice.raised for notice in notices)

    def _features(self, at_ms: int, values: Float32) -> Float32:
        found = values.tolist()
        # Built-in functions over a handful of floats cost a third of what numpy does; a missing value fails both comparisons.
        if all(map(le, self._lows, found)) and all(map(ge, self._highs, found)):
            return self._window.push(at_ms, values, is_whole=True)
        return self._window.push(at_ms, self._within(values))

    def _within(self, values: Float32) -> Float32:
        """Values beyond the channel's range are a sensor's fault, not the pump's: missing for the model, as in training."""
        outside = (values < self._low) | (values > self._high)
        return np.where(outside, _MISSING, values) if outside.any() else values

    def _fold(self) -> None:
        """Rows that were pushed, into sketch, segments and figures."""
        if not self._buffer:
            return
        rows, self._buffer = self._buffer, []
        at_ms = np.array([row[0] for row in rows], np.int64)
        values = np.array([row[1] for row in rows], np.float32)
        frame = TelemetryFrame(self._pump.spec.channels, at_ms, values, np.zeros(len(rows), np.uint16))
        scores, drifts = (np.array([row[place] for row in rows], np.float32) for place in (2, 4))
        trace = AlarmTrace(at_ms, scores, np.array([row[3] for row in rows]), drifts)
        self._keep(_with_flags(frame, self._pump.entry.channels), values, trace)

    def _keep(self, frame: TelemetryFrame, values: Float32, trace: AlarmTrace) -> None:
        self._sketch_rows(frame.at_ms, values)
        if self.shadow is not None:
            self.shadow.observe(frame, trace)
        self._rows.add(frame)
        self._scores.add(self._scores_frame(trace))
        self._refresh(trace, frame)
        if self._rows.rows >= self._limits.open_rows:
            self._close_segments()

    def _score_features(self, features: Float32) -> Float32:
        return self._pump.model.score(features, self._pump.parameters)

    def _scores_frame(self, trace: AlarmTrace) -> TelemetryFrame:
        rows = len(trace.at_ms)
        limit = np.full(rows, self._pump.block.limit, np.float32)
        columns = np.column_stack([trace.score, limit, trace.alarmed.astype(np.float32), trace.drift_index])
        return TelemetryFrame(
            ("score", "limit", "alarmed", "drift_index"),
            trace.at_ms,
            columns.astype(np.float32, copy=False),
            np.zeros(rows, np.uint16),
        )

    def _refresh(self, trace: AlarmTrace, frame: TelemetryFrame) -> None:
        score = float(trace.score[-1])
        process = process_state(self._pump.entry.channels, self._rows.tail())
        tripped_ms = self._trips.take(frame, self.figures.tripped_ms)
        self.figures = replace(
            self.figures,
            scored_rows=self.figures.scored_rows + len(frame),
            last_row_ms=int(frame.at_ms[-1]),
            score=score if np.isfinite(score) else None,
            alarmed=self._tracker.alarmed,
            drift_index=self._tracker.drift_index,
            # Just after a segment was closed there are too few rows to say anything new.
            process=self.figures.process if process is ProcessState.UNKNOWN else process,
            tripped_ms=tripped_ms,
        )

    def _put_aside_late(self, frame: TelemetryFrame) -> int:
        """Rows not later than the last scored one are sent as they are, never scored. Returns how many there are."""
        last_ms = self.figures.last_row_ms
        if last_ms is None:
            return 0
        late = int(np.searchsorted(frame.at_ms, last_ms, side="right"))
        if late:
            old = frame.take(slice(0, late))
            self._outgoing.append(chunk_item(ReturnKind.SEGMENT, self.figures, int(old.at_ms[0]), encode_chunk(old)))
        return late

    def _close_segments(self) -> None:
        start_ms = self._rows.start_ms() or 0
        for kind, segment in ((ReturnKind.SEGMENT, self._rows), (ReturnKind.SCORES, self._scores)):
            self._outgoing.append(chunk_item(kind, self.figures, start_ms, segment.to_bytes()))
        self._rows, self._scores = OpenSegment(), OpenSegment()

    def _notices(self, trace: AlarmTrace, features: Float32, was_alarmed: bool) -> list[AlarmNotice]:
        before = np.concatenate([[was_alarmed], trace.alarmed[:-1]])
        return [
            self._notice(
                int(trace.at_ms[row]), float(trace.score[row]), bool(trace.alarmed[row]), self._guilty(features[row : row + 1])
            )
            for row in np.flatnonzero(trace.alarmed != before).tolist()
        ]

    def _notice(self, at_ms: int, score: float, raised: bool, channel: str) -> AlarmNotice:
        return AlarmNotice(
            format=NOTICE_FORMAT,
            device=self._device,
            pump=self.figures.tag,
            at_ms=at_ms,
            raised=raised,
            score=score,
            limit=self._pump.block.limit,
            channel=channel if raised else "",
            package_sha256=self.figures.package_sha256,
        )

    def _guilty(self, features: Float32) -> str:
        # The baseline's offset stands still while a pump is alarmed, so the present one is that of the row.
        corrected = features - (self._tracker.offset * self._pump.block.width).astype(np.float32)
        answers = self._pump.model.answers(corrected, self._pump.parameters)
        return self._pump.block.channels[int(answers["contributions"][0].argmax())]

    def _sketch_rows(self, at_ms: Int64, values: Float32) -> None:
        days = at_ms // DAY_MS
        for day in np.unique(days).tolist():
            here = days == day
            if self.figures.sketch_day_ms != day * DAY_MS:
                self._begin_day(day * DAY_MS)
            self._sketch = merge(self._sketch, make_sketch(self._pump.edges, at_ms[here], values[here]))
            self.figures = replace(self.figures, is_sketch_sent=False)

    def _begin_day(self, day_ms: int) -> None:
        if self._sketch.rows and not self.figures.is_sketch_sent:
            self._outgoing.append(sketch_item(self.figures, encode_sketch(self._sketch)))
        self._sketch = empty_sketch(self._pump.edges)
        self.figures = replace(self.figures, sketch_day_ms=day_ms)

    def _change_package(self, package_sha256: str, record: PumpRecord) -> None:
        """What was gathered under the old package goes out under its name."""
        old = record.figures
        self._outgoing += close_record(record)[1]
        self._rows, self._scores = OpenSegment(), OpenSegment()
        if old.alarmed and old.last_row_ms is not None:
            # The new package knows nothing of the old alarm: unless it is cleared here, nobody ever will.
            notice = AlarmNotice(
                NOTICE_FORMAT, self._device, old.tag, old.last_row_ms, False, 0.0, 0.0, "", old.package_sha256
            )
            self._outgoing.append(_alarm_item(notice))
            self._changes.append(notice)
        self.figures = replace(
            self.figures, package_sha256=package_sha256, alarmed=False, drift_index=0.0, sketch_day_ms=None
        )


def _window_of(pump: LoadedPump, data: bytes) -> WindowMean:
    try:
        return WindowMean.from_bytes(pump.spec, data)
    except PumpdeckError:
        # Made for other channels: the first window under the new package starts with the next row.
        return WindowMean(pump.spec)


def _alarm_item(notice: AlarmNotice) -> Outgoing:
    return Outgoing(ReturnKind.ALARM, canonical.encode(notice), notice.pump, notice.at_ms)


def _with_flags(frame: TelemetryFrame, channels: Iterable[Channel]) -> TelemetryFrame:
    """The frame with range and missing flags from what the manifest says of the channels."""
    flags: UInt16 = frame.flags.copy()
    place = {name: index for index, name in enumerate(frame.channels)}
    for channel in channels:
        index = place.get(channel.name)
        if index is None:
            flags |= np.uint16(QualityFlag.MISSING)
            continue
        values = frame.values[:, index]
        missing = np.isnan(values)
        outside = ~missing & ((values < channel.low) | (values > channel.high))
        flags[missing] |= np.uint16(QualityFlag.MISSING)
        flags[outside] |= np.uint16(QualityFlag.RANGE)
    return TelemetryFrame(frame.channels, frame.at_ms, frame.values, flags)
