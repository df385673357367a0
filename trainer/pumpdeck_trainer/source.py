"""Where training rows come from: a small port that the console's operation fills from the store, and the snapshot over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.snapshots import PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.numeric.frame import Bools, Int64, TelemetryFrame

FAULT = "fault"
HEALTHY = "healthy"
STOPPED = "stopped"
MAINTENANCE = "maintenance"
SPEED_UNIT = "rpm"
STOPPED_BELOW = 0.02
"""A pump stands still below this share of a speed channel's range."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Rows at `start_ms <= t < end_ms` teach nothing. reason: `fault:<kind>`, `maintenance`, `before overhaul`, ..

    `healthy:<verdict>` leaves nothing out: a person looked at these rows and found the pump well.
    """

    start_ms: int
    end_ms: int
    reason: str

    @property
    def is_fault(self) -> bool:
        """True for a labelled fault: left out of training, and sought in the replay."""
        return self.reason.split(":", 1)[0] == FAULT

    @property
    def is_healthy(self) -> bool:
        """True for rows that somebody called normal, or the ground of a false alarm."""
        return self.reason.split(":", 1)[0] == HEALTHY

    def touches(self, at_ms: Int64) -> bool:
        """True when any of these rows, int64 [n], rising, lies in it."""
        return bool(np.searchsorted(at_ms, self.end_ms) > np.searchsorted(at_ms, self.start_ms))

    @property
    def kind(self) -> str:
        """The kind of a labelled fault; empty for other reasons and where nobody said it."""
        return self.reason.partition(":")[2] if self.is_fault else ""


class TrainingSource(Protocol):
    """Rows of the pumps of one type."""

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        """The pump's rows with `start_ms <= t < end_ms`, all channels it has."""
        ...

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> Sequence[tuple[int, str]]:
        """(start, digest) of every stored chunk of that time, in order: names the rows without reading them."""
        ...

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        """What labels, maintenance and dated inventory events say must not be learned from."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Which pumps, and the reference window `start_ms <= t < end_ms`."""

    pumps: tuple[str, ...]
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frozen training set by digest: of each pump and of the whole."""

    digest: str
    pumps: Mapping[str, str]


def snapshot_parts(source: TrainingSource, request: TrainingRequest) -> dict[str, PumpSnapshot]:
    """Exactly the rows (by the digests of their chunks) and exclusions that training will see, by pump; reads no row."""
    span = (request.start_ms, request.end_ms)
    return {
        pump: PumpSnapshot(
            *span,
            tuple((start, found) for start, found in source.chunk_digests(pump, *span)),
            tuple((one.start_ms, one.end_ms, one.reason) for one in source.exclusions(pump)),
        )
        for pump in request.pumps
    }


def take_snapshot(source: TrainingSource, request: TrainingRequest) -> Snapshot:
    """The digest of exactly the rows and exclusions that training will see; reads no row."""
    pumps = {pump: digest(part.encode()) for pump, part in snapshot_parts(source, request).items()}
    return Snapshot(SnapshotManifest(pumps).digest, pumps)


@dataclass(frozen=True, eq=False)
class CleanRows:
    """A pump's rows for training and, where there were labelled faults, those that a device would have scored as well.

    excluded: rows left out by reason. `judged` is `learned` itself when nothing but flags was left out. flags: rows by
    quality flag. verdicts: labelled faults, and rows that were called healthy.
    """

    learned: TelemetryFrame
    judged: TelemetryFrame
    total: int
    excluded: Mapping[str, int]
    flags: Mapping[str, int] = field(default_factory=dict)
    verdicts: tuple[Exclusion, ...] = ()


def clean(frame: TelemetryFrame, exclusions: Sequence[Exclusion], stopped: Bools | None = None) -> CleanRows:
    """Drop quality-flagged rows, what the exclusions cover and rows of a pump that stood still.

    Each dropped row is counted once, flags first. `judged` keeps labelled faults and standstill: a device scores them, too.
    """
    counts: dict[str, int] = {}
    keep = frame.flags == 0
    counts["flagged"] = int(len(frame) - keep.sum())
    judged = keep.copy()
    for one in sorted(exclusions, key=lambda item: (item.start_ms, item.end_ms, item.reason)):
        if one.is_healthy:
            continue
        inside = (frame.at_ms >= one.start_ms) & (frame.at_ms < one.end_ms) & keep
        reason = FAULT if one.is_fault else one.reason
        counts[reason] = counts.get(reason, 0) + int(inside.sum())
        keep &= ~inside
        if not one.is_fault:
            judged &= ~inside
    if stopped is not None:
        counts[STOPPED] = int((stopped & keep).sum())
        keep &= ~stopped
    learned = frame if keep.all() else frame.take(keep)
    same = bool(np.array_equal(keep, judged))
    excluded = {reason: rows for reason, rows in counts.items() if rows}
    verdicts = tuple(one for one in exclusions if one.is_fault or one.is_healthy)
    shown = learned if same else frame.take(judged)
    return CleanRows(learned, shown, len(frame), excluded, sensor_flags(frame.flags), verdicts)


def sensor_flags(flags: NDArray[np.uint16]) -> dict[str, int]:
    """How many rows carry each quality flag, by its name in lower case; a row may carry several."""
    if not flags.any():
        return {}
    found = {flag.name or "": int(((flags & flag.value) != 0).sum()) for flag in QualityFlag if flag.value}
    return {name.lower(): rows for name, rows in found.items() if rows}
