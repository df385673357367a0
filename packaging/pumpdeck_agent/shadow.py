"""Shadow scoring: a candidate that passed its trial scores the live rows beside the active package, and nobody hears of it.

Whatever it does wrong ends shadow scoring and nothing else: the active model's scores, alarms and records never wait for it.
Kept on the disk pump by pump (`shadow_file`); what a power cut takes are the rows since the last save, counted by neither.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.loaded import LoadedPackage, LoadedPump, load_package
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.shadow_file import (
    SHADOW_FORMAT,
    ShadowFigures,
    ShadowRecord,
    ShadowStart,
    note_problem,
    read_shadow,
    read_start,
    write_shadow,
    write_start,
)
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_fleet.core.clock import MINUTE_MS
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import SHADOW_EDGES, ShadowSketch
from pumpdeck_fleet.numeric.alarm import AlarmTrace, AlarmTracker
from pumpdeck_fleet.numeric.features import WindowMean
from pumpdeck_fleet.numeric.frame import Float32, TelemetryFrame

# A longer pause between two rows was watched by nobody.
_PAUSE_MS = 15 * MINUTE_MS
_EDGES = np.array(SHADOW_EDGES)
_MISSING = np.float32(np.nan)


class ShadowPump:
    """One pump under the candidate. `active_limit` is that of the model it is compared with."""

    def __init__(self, sha256: str, pump: LoadedPump, active_limit: float, record: ShadowRecord | None) -> None:
        self._sha256 = sha256
        self._pump = pump
        self._active_limit = active_limit
        self._window, self._tracker = WindowMean(pump.spec), AlarmTracker(pump.block, pump.settings)
        self._last_ms: int | None = None
        self.sketch = ShadowSketch(differences=(0,) * (len(_EDGES) + 1))
        if record is not None:
            self._window = WindowMean.from_bytes(pump.spec, record.window)
            self._tracker = AlarmTracker.from_bytes(pump.block, pump.settings, record.alarm)
            self._last_ms, self.sketch = record.figures.last_row_ms, record.figures.sketch
        self.problem = ""
        self.is_changed = False
        self._low = np.array([channel.low for channel in pump.entry.channels], np.float32)
        self._high = np.array([channel.high for channel in pump.entry.channels], np.float32)

    def observe(self, frame: TelemetryFrame, trace: AlarmTrace) -> None:
        """Rows that the active model has just scored, and what it made of them. Never raises: a problem is remembered."""
        if self.problem:
            return
        fresh = 0 if self._last_ms is None else int(np.searchsorted(frame.at_ms, self._last_ms, side="right"))
        if fresh >= len(frame):
            return
        try:
            self._take(frame.take(slice(fresh, None)), trace.score[fresh:], trace.alarmed[fresh:])
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, the active model's scoring goes on
            self.problem = f"{self._pump.entry.tag}: {type(error).__name__}: {error}"
        self.is_changed = True

    def record(self) -> ShadowRecord:
        """What a restart needs."""
        window, alarm = self._window.to_bytes(), self._tracker.to_bytes()
        figures = ShadowFigures(
            SHADOW_FORMAT, self._pump.entry.tag, self._sha256, self._last_ms or 0, self.sketch, len(window), len(alarm)
        )
        return ShadowRecord(figures, window, alarm)

    def _take(self, frame: TelemetryFrame, score: Float32, alarmed: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        values = frame.select(self._pump.spec.channels).values
        outside = (values < self._low) | (values > self._high)
        features = self._window.extend(frame.at_ms, np.where(outside, _MISSING, values))
        mine = self._tracker.extend(frame.at_ms, features, lambda rows: self._pump.model.score(rows, self._pump.parameters))
        if bool((np.isfinite(score) & ~np.isfinite(mine.score)).any()):
            self.problem = f"{self._pump.entry.tag}: it gives no score where the active model gives one"
            return
        known = np.isfinite(score) & np.isfinite(mine.score)
        away = mine.score[known] / self._pump.block.limit - score[known] / self._active_limit
        counts = np.bincount(np.searchsorted(_EDGES, away, side="left"), minlength=len(_EDGES) + 1)
        before = frame.at_ms[:1] if self._last_ms is None else np.array([self._last_ms], np.int64)
        pauses = np.diff(np.concatenate([before, frame.at_ms]))
        old, largest = self.sketch, float(np.abs(away).max(initial=0.0))
        self.sketch = ShadowSketch(
            rows=old.rows + int(known.sum()),
            both=old.both + int((alarmed & mine.alarmed).sum()),
            only_active=old.only_active + int((alarmed & ~mine.alarmed).sum()),
            only_new=old.only_new + int((~alarmed & mine.alarmed).sum()),
            watched_ms=old.watched_ms + int(np.minimum(pauses, _PAUSE_MS).sum()),
            largest=max(old.largest, round(largest, 6)),
            differences=tuple(int(a + b) for a, b in zip(old.differences, counts, strict=True)),
        )
        self._last_ms = int(frame.at_ms[-1])


class ShadowWatch:
    """The candidate beside the active package of one device; holds nothing while there is none."""

    def __init__(self, fs: FileSystem, layout: Layout, limits: AgentLimits) -> None:
        self._fs = fs
        self._layout = layout
        self._limits = limits
        self._candidate: LoadedPackage | None = None
        self._start: ShadowStart | None = None
        self._pumps: dict[str, ShadowPump] = {}
        self._active: LoadedPackage | None = None

    def follow(self, state: DeviceState | None, active: LoadedPackage | None) -> None:
        """Begin or end with what the device's state says. Never raises."""
        candidate = state.candidate if state is not None and state.phase is Phase.SHADOW else None
        if candidate is None or active is None:
            self._candidate, self._start, self._active = None, None, None
            self._pumps.clear()
            return
        digest = candidate.package.sha256
        if self._start is not None and self._start.package_sha256 == digest and self._active is active:
            return
        self._pumps.clear()
        self._active, self._candidate = active, None
        try:
            self._begin(digest, candidate.package.manifest, active)
        except (OSError, PumpdeckError) as error:
            self._tell(f"it cannot be loaded ({error})")

    def pump(self, tag: str) -> ShadowPump | None:
        """The pump under the candidate, tag in lower case; None while nothing is to be compared."""
        if self._candidate is None or self._active is None or (self._start is not None and self._start.problem):
            return None
        if tag not in self._pumps:
            new, old = self._candidate.pumps.get(tag), self._active.pumps.get(tag)
            if new is None or old is None:
                return None
            sha256 = self._candidate.sha256
            record = read_shadow(self._fs, self._layout, new.entry.tag, sha256)
            try:
                self._pumps[tag] = ShadowPump(sha256, new, old.block.limit, record)
            except PumpdeckError:
                self._pumps[tag] = ShadowPump(sha256, new, old.block.limit, None)
        return self._pumps[tag]

    def save(self) -> None:
        """What was seen since the last save, onto the disk. Never raises: it is tried again with the next rows."""
        for one in self._pumps.values():
            if not one.is_changed:
                continue
            try:
                if one.problem:
                    self._tell(one.problem)
                else:
                    write_shadow(self._fs, self._layout, one.record())
                one.is_changed = False
            except (OSError, PumpdeckError):
                # The installer may just have ended it and removed its folder.
                continue

    def forget_memory(self) -> None:
        """Memory may be ahead of the disk: go on from what was saved."""
        self._pumps.clear()

    def _begin(self, digest: str, manifest: str, active: LoadedPackage) -> None:
        before = read_start(self._fs, self._layout, digest)
        starts = before.starts + 1 if before is not None else 1
        self._start = ShadowStart(SHADOW_FORMAT, digest, starts, (), before.problem if before is not None else "")
        if starts > self._limits.shadow_starts and not self._start.problem:
            self._tell(f"scoring began {starts} times beside it; it may take the process down")
        if self._start.problem:
            return
        # On the disk before the graph is loaded: one that takes this process down must have been counted.
        write_start(self._fs, self._layout, self._start)
        # Its own cache: the graph goes when shadow scoring ends.
        candidate = load_package(self._fs, self._layout.package(digest), manifest, ModelCache())
        shared = tuple(sorted(pump.entry.tag for tag, pump in candidate.pumps.items() if tag in active.pumps))
        self._start = replace(self._start, pumps=shared)
        write_start(self._fs, self._layout, self._start)
        if not shared:
            self._tell("no pump is scored by both packages")
        self._candidate = candidate

    def _tell(self, problem: str) -> None:
        if self._start is not None and not self._start.problem:
            self._start = replace(self._start, problem=problem)
            note_problem(self._fs, self._layout, self._start, problem)
