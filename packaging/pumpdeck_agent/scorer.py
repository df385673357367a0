"""Scores what lies in the spool, offline: each row once, whatever is cut off when.

Order for each file: rows scored in memory -> items into the outbox -> each pump's record replaced -> the file removed. A cut
before the records repeats the same work with the same bytes; a cut behind them finds the file's digest in the records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.loaded import LoadedPackage, load_package
from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.pump_record import PumpRecord, read_record, write_record
from pumpdeck_agent.pump_scoring import FrameResult, PumpScoring
from pumpdeck_agent.return_items import finish_close
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.spool import Spool, SpoolFile
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import PumpdeckError


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


class Scorer:
    """Scores for one device. Holds the loaded package and the pumps' live state; another process may do so too, by turns."""

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
        # Live state by tag, with the digest of the record it was saved as: when the file differs, somebody else went on.
        self._live: dict[str, tuple[str, PumpScoring]] = {}

    def score_spool(self, max_files: int = 1_000_000) -> ScoreCounts:
        """Score the files that wait, oldest name first. Without an active package they wait on, within the spool's limit.

        Raises:
            BusyError: another process is scoring.
            DamagedError: the active package cannot be read; the agent's next start puts that right.
        """
        if not self._spool.names():
            return ScoreCounts()
        with self._platform.locks.hold(self._layout.score_lock, self._limits.lock_wait_s):
            package = self._active_package()
            if package is None:
                return ScoreCounts(dropped_files=self._spool.shrink())
            counts = ScoreCounts()
            with self._memory_follows_disk():
                for name in self._spool.names()[:max_files]:
                    counts = counts.plus(self._score_file(package, name))
            return counts

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
            scoring = self._restore(package, tag.lower())
            if scoring is None:
                foreign += len(frame)
                continue
            results.append(scoring.score(frame, file.digest))
            touched.append(scoring)
        self._save(touched)
        return results, foreign

    def _save(self, touched: list[PumpScoring]) -> None:
        """The one order that loses and repeats nothing: outbox first, then the records."""
        self._outbox.add([item for scoring in touched for item in scoring.take_outgoing()])
        for scoring in touched:
            tag = scoring.figures.tag.lower()
            digest = write_record(self._fs, self._layout.pump_state(tag), scoring.record())
            self._live[tag] = (digest, scoring)

    @contextlib.contextmanager
    def _memory_follows_disk(self) -> Iterator[None]:
        """After a failure memory may be ahead of the disk: forget it, what the disk says counts."""
        try:
            yield
        except BaseException:
            self._live.clear()
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
        return self._rebuild(package, tag, record)

    def _rebuild(self, package: LoadedPackage, tag: str, record: PumpRecord | None) -> PumpScoring:
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
        return scoring

    def _active_package(self) -> LoadedPackage | None:
        state = self._states.load()
        if state is None or state.active is None:
            self._package = None
        elif self._package is None or self._package.sha256 != state.active.sha256:
            folder = self._layout.package(state.active.sha256)
            self._package = load_package(self._fs, folder, state.active.manifest, self._models)
        return self._package
