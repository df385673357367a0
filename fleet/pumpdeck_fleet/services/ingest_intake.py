"""From blocks of a file to rows of pumps: pump, time, order, quality, store, and the tally of what became of every row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import InputError, NotFoundError, UsageError
from pumpdeck_fleet.core.inventory import Fleet, Pump
from pumpdeck_fleet.core.telemetry import IngestReport, QualityFlag
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame, UInt16
from pumpdeck_fleet.services.ingest_columns import ColumnPlan, PumpColumns
from pumpdeck_fleet.services.ingest_options import IngestOptions
from pumpdeck_fleet.services.ingest_sources import Block, Source
from pumpdeck_fleet.services.ingest_tally import Tally
from pumpdeck_fleet.services.ingest_times import TimeReader, TimeStatus, format_utc
from pumpdeck_fleet.services.quality import PumpQuality
from pumpdeck_fleet.services.quality_rules import QualityRules
from pumpdeck_fleet.store import Store

EARLIEST_MS = 631_152_000_000  # 1990: an earlier row comes from a clock that was never set
FUTURE_MS = DAY_MS
REMEMBERED_ROWS = 600

_STATUS_WORDS = {
    TimeStatus.MISSING: "has no time",
    TimeStatus.UNREADABLE: "is not a time",
    TimeStatus.AMBIGUOUS: "has a local time that happens twice (clocks go back)",
    TimeStatus.NONEXISTENT: "has a local time that does not happen (clocks go forward)",
}


@dataclass(eq=False, slots=True)
class _PumpIntake:
    """One pump of the file: its columns, its checks, and where its time stands."""

    pump: Pump
    columns: PumpColumns
    quality: PumpQuality
    last_ms: int | None = None
    latest_ms: int | None = None
    falls: bool = False


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one pump in the order of the file. `places` are their numbers in the file."""

    places: Int64
    at_ms: Int64
    values: Float32
    flags: UInt16

    def take(self, chosen: NDArray[Any]) -> _Rows:
        """The chosen rows."""
        return _Rows(self.places[chosen], self.at_ms[chosen], self.values[chosen], self.flags[chosen])


class Intake:
    """Takes the blocks of one file. With `skip_bad` unusable rows are counted, without it the first of them ends the ingest."""

    def __init__(self, store: Store, fleet: Fleet, source: Source, plan: ColumnPlan, options: IngestOptions) -> None:
        self._store = store
        self._fleet = fleet
        self._source = source
        self._plan = plan
        self._options = options
        self._tally = Tally()
        self._pumps: dict[str, _PumpIntake | None] = {}
        self._readers: dict[str, TimeReader] = {}
        if options.site:
            fleet.site(options.site)
        for column in plan.left_out:
            self._tally.note(f"column {column!r} is no channel and was left out", "", 0, -1)

    def take(self, block: Block) -> None:
        """Put the rows of a block into the store.

        Raises:
            InputError: a row cannot be used, and bad rows are not skipped; names file, line and column.
        """
        codes, names = self._pump_codes(block)
        pumps = [self._pump(name, block.first_row + int(np.argmax(codes == code))) for code, name in enumerate(names)]
        usable = self._known(block, codes, pumps)
        at_ms, status = self._times(block, codes, pumps)
        usable &= self._timely(block, at_ms, status, usable)
        chosen = np.flatnonzero(usable)
        for code, rows in _grouped(codes, chosen):
            entry = pumps[code]
            assert entry is not None
            values = entry.columns.values_of(block.values[rows])
            self._take_pump(entry, _Rows(rows + block.first_row, at_ms[rows], values, np.zeros(len(rows), np.uint16)))

    def report(self, path: str, digest: str) -> IngestReport:
        """What became of the rows.

        Raises:
            InputError: there was not one.
        """
        tally = self._tally
        if self._source.skipped_rows:
            tally.refuse("has the wrong number of columns", "", self._source.skipped_rows, -1)
        if not tally.rows:
            raise InputError("holds no rows", path, expected="rows behind the header line", found="none")
        return IngestReport(
            path=path,
            digest=digest,
            accepted=tally.accepted,
            flagged=tally.flagged,
            refused=tally.refused,
            already=tally.already,
            pumps=tuple(sorted(tally.pumps)),
            start_ms=tally.start_ms,
            end_ms=tally.end_ms,
            problems=tally.problems(self._source.places),
        )

    # Pumps

    def _pump_codes(self, block: Block) -> tuple[Int64, list[str]]:
        """Number of the pump's name for each row (-1: none given), and the names."""
        rows = len(block.times)
        if block.pumps is None:
            return np.zeros(rows, np.int64), [self._options.pump]
        column = block.pumps
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        codes = column.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        names = [str(name if name is not None else "").strip() for name in column.dictionary.to_pylist()]
        used = np.unique(codes[codes >= 0])
        renumbered = np.full(len(names) + 1, -1, np.int64)
        renumbered[used] = np.arange(len(used))
        return renumbered[codes], [names[code] for code in used]

    def _pump(self, name: str, row: int) -> _PumpIntake | None:
        if name not in self._pumps:
            try:
                pump = self._find_pump(name)
            except NotFoundError as error:
                if not self._options.skip_bad:
                    where = self._source.place(row, self._plan.pump)
                    raise InputError(error.what, f"{where}, {name!r}", expected=error.expected, hint=error.hint) from error
                self._pumps[name] = None
            else:
                columns = self._plan.of(pump)
                kind = self._fleet.pump_types[pump.type]
                self._pumps[name] = _PumpIntake(pump, columns, PumpQuality(columns.channels, kind.cadence_s, QualityRules()))
        return self._pumps[name]

    def _find_pump(self, name: str) -> Pump:
        if self._options.site and "/" not in name:
            for pump in self._fleet.pumps:
                if pump.site == self._options.site and pump.tag.lower() == name.lower():
                    return pump
            raise NotFoundError("no such pump at this site", f"{self._options.site}/{name}")
        return self._fleet.pump(name)

    def _known(self, block: Block, codes: Int64, pumps: list[_PumpIntake | None]) -> NDArray[np.bool_]:
        """Rows whose pump is known and whose numbers are numbers."""
        usable = np.array([pump is not None for pump in pumps] + [False], np.bool_)[codes]
        nameless = codes < 0
        blank = nameless & np.isnan(block.values).all(axis=1)
        self._turn_down("names no pump", block, nameless & ~blank, self._plan.pump)
        self._turn_down("names a pump this fleet does not have", block, ~usable & ~nameless, self._plan.pump)
        if block.refused is not None:
            self._turn_down("holds a text where a number should be", block, block.refused & usable, None)
            usable &= ~block.refused
        return usable

    # Times

    def _times(self, block: Block, codes: Int64, pumps: list[_PumpIntake | None]) -> tuple[Int64, NDArray[np.uint8]]:
        zones = [self._zone_of(pump) for pump in pumps]
        if len(set(zones)) <= 1:
            return self._reader(zones[0] if zones else "").read(block.times)
        at_ms, status = np.zeros(len(codes), np.int64), np.full(len(codes), TimeStatus.MISSING, np.uint8)
        for zone in sorted(set(zones)):
            rows = np.flatnonzero(np.isin(codes, [code for code, name in enumerate(zones) if name == zone]))
            at_ms[rows], status[rows] = self._reader(zone).read(block.times.take(pa.array(rows)))
        return at_ms, status

    def _zone_of(self, entry: _PumpIntake | None) -> str:
        site = entry.pump.site if entry else self._options.site
        return self._options.time_zone or (self._fleet.site(site).time_zone if site else "")

    def _reader(self, zone: str) -> TimeReader:
        if zone not in self._readers:
            try:
                info = ZoneInfo(zone) if zone else None
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise UsageError("is not a time zone", repr(zone), expected="a name such as Europe/London") from error
            where = f"{self._source.header}, column {self._plan.time + 1} ({self._source.columns[self._plan.time]})"
            self._readers[zone] = TimeReader(info, self._options.time_format, where)
        return self._readers[zone]

    def _timely(self, block: Block, at_ms: Int64, status: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows whose time was read and can be true."""
        blank = (status == TimeStatus.MISSING) & np.isnan(block.values).all(axis=1)
        read = status == TimeStatus.READ
        for kind, what in _STATUS_WORDS.items():
            rows = usable & (status == kind) & ~blank
            shown_twice = kind in (TimeStatus.AMBIGUOUS, TimeStatus.NONEXISTENT)
            self._turn_down(what, block, rows, self._plan.time, always_skip=shown_twice)
        latest_ms = self._store.clock.now_ms() + FUTURE_MS
        wrong = read & usable & ((at_ms < EARLIEST_MS) | (at_ms > latest_ms))
        self._turn_down("has a time before 1990 or in the future", block, wrong, self._plan.time)
        timely: NDArray[np.bool_] = read & ~wrong
        return timely

    def _turn_down(
        self, what: str, block: Block, rows: NDArray[np.bool_], column: int | None, *, always_skip: bool = False
    ) -> None:
        """Count rows that cannot be used, or end the ingest at the first of them."""
        count = int(rows.sum())
        if not count:
            return
        first = block.first_row + int(np.argmax(rows))
        if not (always_skip or self._options.skip_bad):
            hint = "correct it, or leave such rows out with --skip-bad"
            raise InputError(what, self._source.place(first, column), found=self._source.text(first, column), hint=hint)
        self._tally.refuse(what, "", count, first)

    # Rows of one pump

    def _take_pump(self, entry: _PumpIntake, rows: _Rows) -> None:
        rows = self._with_values(entry, rows)
        if not len(rows.places):
            return
        first_block = entry.last_ms is None
        rows = self._in_order(entry, rows)
        rows = self._once(entry, rows)
        if first_block:
            self._remember(entry, int(rows.at_ms[0]))
        flags = rows.flags | entry.quality.check(rows.at_ms, rows.values)
        frame = TelemetryFrame(entry.columns.names, rows.at_ms, rows.values, flags)
        counts = self._store.telemetry.append(entry.pump.id, frame)
        self._tally.accepted += counts.new + counts.changed
        self._tally.already += counts.same
        self._tally.took(entry.pump.id, int(rows.at_ms[0]), int(rows.at_ms[-1]))
        self._note_flags(entry, rows, flags)

    def _remember(self, entry: _PumpIntake, start_ms: int) -> None:
        span = self._store.telemetry.span(entry.pump.id)
        if span is not None and span[1] < start_ms:
            tail = self._store.telemetry.tail(entry.pump.id, REMEMBERED_ROWS)
            entry.quality.remember(tail.select(entry.columns.names))

    def _with_values(self, entry: _PumpIntake, rows: _Rows) -> _Rows:
        empty = np.isnan(rows.values).all(axis=1)
        if not empty.any():
            return rows
        self._tally.refuse("holds no value", entry.pump.id, int(empty.sum()), int(rows.places[np.argmax(empty)]))
        return rows.take(np.logical_not(empty))

    def _in_order(self, entry: _PumpIntake, rows: _Rows) -> _Rows:
        """Rows sorted by time. A file may rise or fall throughout; a step back in a rising one is a clock that jumped."""
        before = rows.at_ms[0] if entry.last_ms is None else entry.last_ms
        steps = np.diff(rows.at_ms, prepend=before)
        entry.last_ms = int(rows.at_ms[-1])
        back = steps < 0
        if back.any():
            rising = (steps > 0).any() or (entry.latest_ms is not None and not entry.falls)
            if rising:
                rows = self._jumped(entry, rows, back)
            entry.falls = not rising
        top = int(rows.at_ms.max())
        entry.latest_ms = top if entry.latest_ms is None else max(top, entry.latest_ms)
        if not (steps[1:] > 0).all():
            rows = rows.take(np.argsort(rows.at_ms, kind="stable"))
        return rows

    def _jumped(self, entry: _PumpIntake, rows: _Rows, back: NDArray[np.bool_]) -> _Rows:
        first = int(np.argmax(back))
        place = int(rows.places[first])
        if not self._options.skip_bad:
            earlier = rows.at_ms[first - 1] if first else entry.latest_ms
            raise InputError(
                f"time goes backwards for {entry.pump.id}",
                self._source.place(place, self._plan.time),
                expected=f"later than {format_utc(int(earlier or 0))}",
                found=format_utc(int(rows.at_ms[first])),
                hint="correct the clock, or keep such rows, flagged, with --skip-bad",
            )
        start = rows.at_ms[0] if entry.latest_ms is None else entry.latest_ms
        highest = np.maximum.accumulate(np.concatenate([[start], rows.at_ms[:-1]]))
        jumped = rows.at_ms < highest
        self._tally.note("time goes backwards", entry.pump.id, int(jumped.sum()), place)
        flags = rows.flags | np.where(jumped, np.uint16(QualityFlag.CLOCK_JUMP), np.uint16(0))
        return _Rows(rows.places, rows.at_ms, rows.values, flags)

    def _once(self, entry: _PumpIntake, rows: _Rows) -> _Rows:
        """One row for each time: the last of them, flagged when an earlier one said something else."""
        repeats = np.flatnonzero(rows.at_ms[1:] == rows.at_ms[:-1])
        if not len(repeats):
            return rows
        one, other = rows.values[repeats], rows.values[repeats + 1]
        same = ((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
        flags = rows.flags.copy()
        flags[repeats[~same] + 1] |= np.uint16(QualityFlag.DUPLICATE)
        self._tally.already += int(same.sum())
        if not same.all():
            what, count = "stands twice with other values; the last one counts", int((~same).sum())
            self._tally.refuse(what, entry.pump.id, count, int(rows.places[repeats[~same][0]]))
        keep = np.ones(len(rows.places), np.bool_)
        keep[repeats] = False
        return _Rows(rows.places, rows.at_ms, rows.values, flags).take(keep)

    def _note_flags(self, entry: _PumpIntake, rows: _Rows, flags: UInt16) -> None:
        flagged = flags != 0
        if not flagged.any():
            return
        self._tally.flagged += int(flagged.sum())
        for flag in _FLAG_WORDS:
            marked = (flags & np.uint16(flag)) != 0
            if marked.any():
                first = int(rows.places[np.argmax(marked)])
                self._tally.note(_FLAG_WORDS[flag], entry.pump.id, int(marked.sum()), first)


_FLAG_WORDS = {
    QualityFlag.RANGE: "flagged: a value out of the sensor's range",
    QualityFlag.FLAT_LINE: "flagged: the whole row stands still",
    QualityFlag.STUCK: "flagged: a channel stands still",
    QualityFlag.UNIT_SWAP: "flagged: a channel looks as if in another unit",
    QualityFlag.GAP: "flagged: first row behind a gap",
    QualityFlag.MISSING: "flagged: a value is missing",
}


def _grouped(codes: Int64, chosen: Int64) -> list[tuple[int, Int64]]:
    """(code, its rows) of the chosen rows, rows in the order of the file."""
    if not len(chosen):
        return []
    found = codes[chosen]
    if (np.diff(found) < 0).any():
        order = np.argsort(found, kind="stable")
        chosen, found = chosen[order], found[order]
    cuts = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(found)]
    return [(int(found[first]), chosen[first:last]) for first, last in pairwise(cuts)]
