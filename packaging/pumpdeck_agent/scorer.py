"""Scores what lies in the spool, offline: each row once, whatever is cut off when.

Order for each file: rows scored in memory -> items into the outbox -> each pump's record replaced -> the file removed. A cut
before the records repeats the same work with the same bytes; a cut behind them finds the file's digest in the records.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.loaded import LoadedPackage, LoadedPump, load_package
from pumpdeck_agent.outbox import Outbox, OutboxCounts, Outgoing, with_room
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.pump_record import PumpFigures, PumpRecord, read_record, write_record
from pumpdeck_agent.pump_scoring import FrameResult, PumpScoring, RowResult
from pumpdeck_agent.return_items import finish_close
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.shadow import ShadowWatch
from pumpdeck_agent.spool import Spool, SpoolFile
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.receipts import AlarmNotice
from pumpdeck_fleet.numeric.frame import Float32

# Rows of one pump that are scored and not saved yet. More than that wait only when the disk takes nothing; then the oldest go.
UNSAVED_MAX_ROWS = 4096
# So many rows of one pump are a reason to save at once: each takes 1 kB until then.
_SAVE_ROWS = 256
CHANGES_MAX = 1000

Announce = Callable[[list[AlarmNotice]], None]


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """What one pass over the spool did. `refused_*`: could not be read; `foreign_rows`: of a pump that has no model here."""

    files: int = 0
    rows: int = 0
    late_rows: int = 0
    foreign_rows: int = 0
    refused_rows: int = 0
    refused_files: int = 0
    dropped_files: int = 0
    alarms: int = 0

    def plus(self, other: ScoreCounts) -> ScoreCounts:
        """Both together."""
        return ScoreCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A row that came by itself: tag in lower case, float32 [c] in the order of the pump's channels, NaN where missing."""

    tag: str
    at_ms: int
    values: Float32


class Scorer:
    """Scores for one device. Holds the loaded package and the pumps' live state; another process may do so too, by turns.

    Files: `score_spool`, each saved before the next. Rows that come one by one: `push`, saved by `flush`; what a failure takes
    from memory meanwhile is scored again from the rows that are kept until then. Threads take turns.
    """

    def __init__(
        self, platform: Platform, layout: Layout, config: AgentConfig, limits: AgentLimits, models: ModelCache
    ) -> None:
        self._platform = platform
        self._fs = platform.fs
        self._layout = layout
        self._config = config
        self._limits = limits
        self._models = models
        self._spool = Spool(platform.fs, layout, limits)
        self._outbox = Outbox(platform.fs, layout, limits)
        self._states = StateFiles(platform.fs, layout)
        self._package: LoadedPackage | None = None
        self._shadow = ShadowWatch(platform.fs, layout, limits)
        # Live state by tag, with the digest of the record it was saved as: when the file differs, somebody else went on.
        self._live: dict[str, tuple[str, PumpScoring]] = {}
        self._unsaved: dict[str, list[LiveRow]] = {}
        self._dropped_rows = 0
        self._changes: list[AlarmNotice] = []
        self._turn = threading.RLock()
        self._announce: Announce | None = None

    def announce_by(self, announce: Announce) -> None:
        """What rows of a file raise or clear is told to this before anything is saved: a slow disk must not delay an alarm.

        It may be told twice, when the save fails and the rows are scored again.
        """
        self._announce = announce

    def score_spool(self, max_files: int = 1_000_000) -> ScoreCounts:
        """Score the files that wait, oldest name first. Without an active package they wait on, within the spool's limit.

        Raises:
            BusyError: another process is scoring.
            DamagedError: the active package cannot be read; the agent's next start puts that right.
        """
        if not self._spool.names():
            return ScoreCounts()
        with self._turn, self._platform.locks.hold(self._layout.score_lock, self._limits.lock_wait_s):
            package = self._active_package()
            if package is None:
                return ScoreCounts(dropped_files=self._spool.shrink())
            counts = ScoreCounts()
            with self._memory_follows_disk():
                for name in self._spool.names()[:max_files]:
                    counts = counts.plus(self._score_file(package, name))
            return counts

    def shrink_spool(self) -> int:
        """While nothing can be scored: keep the spool within its limit, oldest files first. Returns how many went."""
        with self._turn:
            return self._spool.shrink()

    def package(self) -> LoadedPackage | None:
        """What runs now, loaded when it was not; None: NO_MODEL. Raises: DamagedError."""
        with self._turn:
            return self._active_package()

    @property
    def loaded(self) -> LoadedPackage | None:
        """What was loaded last, without a look at the disk; rows that come by themselves are scored with it."""
        return self._package

    def pump(self, tag: str) -> LoadedPump | None:
        """What this pump is scored with, as loaded last; the tag in lower case."""
        package = self._package
        return package.pumps.get(tag) if package is not None else None

    @property
    def dropped_rows(self) -> int:
        """Rows that were scored and given up before they could be saved."""
        return self._dropped_rows

    def has_unsaved(self) -> bool:
        """True when `flush` has something to do."""
        return bool(self._unsaved)

    @property
    def is_save_due(self) -> bool:
        """True when more rows wait to be saved than memory should be spent on, whatever the time."""
        return any(len(rows) >= _SAVE_ROWS for rows in list(self._unsaved.values()))

    def push(self, rows: Sequence[LiveRow], *, is_explained: bool = False) -> list[RowResult]:
        """Score these rows in order, all or none.

        Raises:
            NotFoundError: there is no package, or none for one of the pumps.
            ConflictError: a row is not later than the one before of its pump.
        """
        with self._turn:
            pumps = {tag: self._pump_of(tag) for tag in {row.tag for row in rows}}
            newest = {tag: scoring.last_ms for tag, scoring in pumps.items()}
            for row in rows:
                last_ms = newest[row.tag]
                if last_ms is not None and row.at_ms <= last_ms:
                    raise ConflictError("is not later than the row before", row.tag, expected=f"> {last_ms}", found=row.at_ms)
                newest[row.tag] = row.at_ms
            results = []
            with self._memory_follows_disk():
                for row in rows:
                    results.append(pumps[row.tag].push(row.at_ms, row.values, is_explained=is_explained))
                    self._unsaved.setdefault(row.tag, []).append(row)
            for tag, scoring in pumps.items():
                self._note_changes(scoring)
                self._bound_unsaved(tag)
            return results

    def capture(self, tag: str) -> None:
        """Pin the newest rows of this pump, as around an alarm; with the next save."""
        with self._turn:
            live = self._live.get(tag.lower())
            if live is not None and live[1].last_ms is not None:
                live[1].capture(live[1].last_ms)

    def flush(self) -> None:
        """Save what was pushed. Raises: BusyError, OSError: it is kept, try again."""
        if not self._unsaved:
            return
        with self._turn, self._platform.locks.hold(self._layout.score_lock, self._limits.lock_wait_s):
            package = self._package
            if package is None:
                return
            with self._memory_follows_disk():
                touched = [self._restore(package, tag) for tag in self._unsaved]
                self._save([scoring for scoring in touched if scoring is not None])
                self._unsaved.clear()

    def figures(self) -> dict[str, PumpFigures]:
        """Figures by tag of the pumps that were scored so far, rows that are not saved yet included."""
        with self._turn:
            found = {}
            for pump in self._config.pumps:
                live = self._live.get(pump.tag.lower())
                record = None if live else read_record(self._fs, self._layout.pump_state(pump.tag))
                if live is not None:
                    found[pump.tag] = live[1].settled_figures()
                elif record is not None:
                    found[pump.tag] = record[0].figures
            return found

    def put(self, items: Sequence[Outgoing]) -> None:
        """Put something else into the outbox; scoring does so too, by turns."""
        with self._turn:
            self._outbox.add(items)

    def tidy_outbox(self) -> None:
        """Remove what a cut left half-written in the outbox; the caller holds the locks of all who write there."""
        self._outbox.tidy()

    def outbox_counts(self) -> OutboxCounts:
        """How full the outbox is."""
        return self._outbox.counts()

    def take_changes(self) -> list[AlarmNotice]:
        """Alarms raised and cleared since the last call, for those who announce them on site; the outbox has them anyway."""
        with self._turn:
            changes, self._changes = self._changes, []
            return changes

    def _pump_of(self, tag: str) -> PumpScoring:
        live = self._live.get(tag)
        if live is not None and self._package is not None and live[1].figures.package_sha256 == self._package.sha256:
            return live[1]
        scoring = self._restore(self._package, tag) if self._package is not None else None
        if scoring is None:
            hint = f"pumps here: {', '.join(sorted(self._package.pumps))}" if self._package else "no model is installed"
            raise NotFoundError("no model scores this pump here", tag, hint=hint)
        return scoring

    def _note_changes(self, scoring: PumpScoring) -> None:
        self._changes += scoring.take_changes()
        # In a process that announces nothing they would only pile up.
        del self._changes[:-CHANGES_MAX]

    def _bound_unsaved(self, tag: str) -> None:
        rows = self._unsaved[tag]
        extra = len(rows) - UNSAVED_MAX_ROWS
        if extra > 0:
            del rows[:extra]
            self._dropped_rows += extra

    def _score_file(self, package: LoadedPackage, name: str) -> ScoreCounts:
        try:
            file = self._spool.read(name)
        except FileNotFoundError:
            return ScoreCounts()
        except PumpdeckError:
            self._spool.refuse(name)
            return ScoreCounts(refused_files=1)
        results, foreign = self._score_frames(package, file)
        self._spool.done(name)
        return ScoreCounts(
            files=1,
            rows=sum(result.scored for result in results),
            late_rows=sum(result.late for result in results),
            foreign_rows=foreign,
            refused_rows=file.refused_rows,
            alarms=sum(result.raised for result in results),
        )

    def _score_frames(self, package: LoadedPackage, file: SpoolFile) -> tuple[list[FrameResult], int]:
        results, touched, foreign = [], [], 0
        for tag, frame in file.frames.items():
            scoring = self._restore(package, tag)
            if scoring is None:
                foreign += len(frame)
                continue
            results.append(scoring.score(frame, file.digest))
            self._note_changes(scoring)
            touched.append(scoring)
        if self._announce is not None and self._changes:
            self._announce(self.take_changes())
        self._save(touched)
        for tag in file.frames:
            self._unsaved.pop(tag, None)
        return results, foreign

    def _save(self, touched: list[PumpScoring]) -> None:
        """The one order that loses and repeats nothing: outbox first, then the records."""
        self._outbox.add([item for scoring in touched for item in scoring.take_outgoing()])
        # Before the records: a row that is in one was seen by the shadow too, or never will be.
        self._shadow.save()
        for scoring in touched:
            for from_ms in scoring.take_pins():
                self._outbox.pin(scoring.figures.tag, from_ms)
            tag = scoring.figures.tag.lower()
            path, record = self._layout.pump_state(tag), scoring.record()
            size = sum(map(len, record.blobs.values()))
            # Without its record no row counts as scored and no file leaves the spool: raw rows give way to it.
            digest = with_room(partial(write_record, self._fs, path, record), partial(self._outbox.make_room, size))
            self._live[tag] = (digest, scoring)

    @contextlib.contextmanager
    def _memory_follows_disk(self) -> Iterator[None]:
        """After a failure memory may be ahead of the disk: forget it, what the disk says counts."""
        try:
            yield
        except BaseException:
            self._live.clear()
            self._shadow.forget_memory()
            raise

    def _restore(self, package: LoadedPackage, tag: str) -> PumpScoring | None:
        """The pump's state as it is on the disk; None when the package has no such pump."""
        pump = package.pumps.get(tag)
        if pump is None:
            return None
        found = read_record(self._fs, self._layout.pump_state(tag))
        record, digest = found if found is not None else (None, "")
        live = self._live.get(tag)
        if live is not None and live[0] == digest and live[1].figures.package_sha256 == package.sha256:
            return live[1]
        return self._rebuild(package, tag, record, digest)

    def _rebuild(self, package: LoadedPackage, tag: str, record: PumpRecord | None, digest: str) -> PumpScoring:
        device, sha256, pump = self._config.device, package.sha256, package.pumps[tag]
        owed: list[Outgoing] = []
        if record is not None:
            record, owed = finish_close(record, self._outbox)
        try:
            scoring = PumpScoring.restore(device, sha256, pump, self._limits, record)
        except PumpdeckError:
            # A record whose parts do not fit each other is worth as much as none.
            scoring = PumpScoring.restore(device, sha256, pump, self._limits, None)
        scoring.owe(owed)
        scoring.shadow = self._shadow.pump(tag)
        self._note_changes(scoring)
        last_ms = scoring.last_ms
        for row in self._unsaved.get(tag, ()):
            if (last_ms is None or row.at_ms > last_ms) and len(row.values) == len(pump.spec.channels):
                scoring.push(row.at_ms, row.values)
        # They were announced when the rows came.
        scoring.take_changes()
        self._live[tag] = (digest, scoring)
        return scoring

    def _active_package(self) -> LoadedPackage | None:
        state = self._states.load()
        if state is None or state.active is None:
            self._package = None
        elif self._package is None or self._package.sha256 != state.active.sha256:
            folder = self._layout.package(state.active.sha256)
            self._package = load_package(self._fs, folder, state.active.manifest, self._models)
        self._shadow.follow(state, self._package)
        for tag, (_, scoring) in self._live.items():
            scoring.shadow = self._shadow.pump(tag)
        return self._package
