"""Snapshots: which training sets are held, what is in one, what differs between two, and one as Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.query_rows import select_snapshots
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError

if TYPE_CHECKING:
    from pumpdeck_console.operations.held_source import HeldSource
    from pumpdeck_fleet.numeric.frame import TelemetryFrame


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One frozen training set and the model versions that came of it. held: its rows can be read from this workspace.

    A snapshot whose training was cut or refused has no version. end_ms: the end of its window; data_end_ms: 0 without a version.
    """

    snapshot_digest: str
    pump_type: str
    model: str
    versions: tuple[int, ...]
    data_end_ms: int
    pumps: int
    held: bool
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PumpPart:
    """What a snapshot holds of one pump."""

    pump: str
    start_ms: int
    end_ms: int
    chunks: int
    rows: int
    flagged: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PumpDiff:
    """What differs of one pump: rows by time, quality flags of rows that both hold, what is left out."""

    pump: str
    change: str
    added: int
    removed: int
    changed: int
    flags: int
    left_out_added: tuple[str, ...] = ()
    left_out_removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelDiff:
    """How one channel of one pump is distributed; psi over ten bins of the first snapshot, None without values."""

    pump: str
    channel: str
    mean_before: float | None
    mean_after: float | None
    std_before: float | None
    std_after: float | None
    psi: float | None


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """Two snapshots; pumps that are the same are not listed."""

    before: str
    after: str
    same_pumps: int
    pumps: tuple[PumpDiff, ...]
    channels: tuple[ChannelDiff, ...]


@operation("snapshots.list", runs_in="reader")
def list_snapshots(workspace: Workspace, *, query: str = "") -> tuple[SnapshotRow, ...]:
    """Snapshots that are held or that a registered version was trained from, newest data first; those that `query` selects.

    Raises:
        QueryError: the query cannot be read.
    """
    held = set(workspace.store.snapshots.digests())
    found: dict[tuple[str, str], SnapshotRow] = {}
    for model in workspace.store.registry.models():
        names = workspace.store.registry.aliases(model)
        for version in workspace.store.registry.versions(model):
            digest = version.lineage.snapshot_digest
            old = found.get((digest, model))
            aliases = tuple(alias.value for alias, number in names.items() if number == version.number)
            found[digest, model] = SnapshotRow(
                digest,
                version.pump_type,
                model,
                (*(old.versions if old else ()), version.number),
                version.data_end_ms,
                len(version.pumps),
                digest in held,
                (*(old.aliases if old else ()), *aliases),
            )
    known = {digest for digest, _ in found}
    loose = [_loose(workspace, digest) for digest in sorted(held - known)]
    rows = sorted([*found.values(), *loose], key=lambda row: (-row.data_end_ms, row.model, row.snapshot_digest))
    return select_snapshots(rows, query, workspace.clock.now_ms())


def _loose(workspace: Workspace, digest: str) -> SnapshotRow:
    pumps = workspace.store.snapshots.manifest(digest).pumps
    known = workspace.fleet.pump_by_id
    types = sorted({known[pump].type for pump in pumps if pump in known})
    return SnapshotRow(digest, ",".join(types), "", (), 0, len(pumps), held=True)


def find_snapshot(workspace: Workspace, name: str) -> HeldSource:
    """The snapshot that is held under that digest, or the only one that begins so.

    Raises:
        NotFoundError: none, or several.
    """
    from pumpdeck_console.operations.held_source import HeldSource  # deferred: numpy and the trainer

    matches = [one for one in workspace.store.snapshots.digests() if name and one.startswith(name.lower())]
    if len(matches) != 1:
        what = "several snapshots begin so" if matches else "no such snapshot is held here"
        raise NotFoundError(what, name, hint="list them with: pumpdeck snapshots")
    return HeldSource(workspace.store, matches[0])


@operation("snapshots.show", runs_in="reader")
def show_snapshot(workspace: Workspace, *, snapshot: str) -> tuple[str, tuple[PumpPart, ...]]:
    """The digest and what the snapshot holds of each pump; every row is read and proven by the digest of its chunk.

    Raises:
        NotFoundError: no snapshot, or several, begin so; or retention let its chunks go. DamagedError: a chunk was altered.
    """
    source = find_snapshot(workspace, snapshot)
    return source.digest, tuple(_part(source, pump) for pump in source.pumps)


def _part(source: HeldSource, pump: str) -> PumpPart:
    part, rows = source.part(pump), source.rows(pump)
    left_out = tuple(sorted({reason for _, _, reason in part.left_out}))
    return PumpPart(pump, part.start_ms, part.end_ms, len(part.chunks), len(rows), int((rows.flags != 0).sum()), left_out)


@operation("snapshots.diff", runs_in="reader")
def diff_snapshots(workspace: Workspace, *, before: str, after: str) -> SnapshotDiff:
    """What differs between two snapshots; only pumps whose manifests differ are read.

    Raises:
        As `show_snapshot`.
    """
    old, new = find_snapshot(workspace, before), find_snapshot(workspace, after)
    pumps: list[PumpDiff] = []
    channels: list[ChannelDiff] = []
    same = 0
    for pump in sorted({*old.pumps, *new.pumps}):
        if pump in old.pumps and pump in new.pumps and old.part(pump) == new.part(pump):
            same += 1
            continue
        sides = [source.rows(pump) if pump in source.pumps else None for source in (old, new)]
        pumps.append(_pump_diff(pump, (old, new), sides))
        if sides[0] is not None and sides[1] is not None:
            channels.extend(_channel_diffs(pump, sides[0], sides[1]))
    return SnapshotDiff(old.digest, new.digest, same, tuple(pumps), tuple(channels))


def _pump_diff(pump: str, sources: tuple[HeldSource, HeldSource], sides: list[TelemetryFrame | None]) -> PumpDiff:
    old, new = sides
    if old is None or new is None:
        return PumpDiff(pump, "removed" if new is None else "added", len(new or ()), len(old or ()), 0, 0)
    added, removed, changed, flags = _row_changes(old, new)
    before, after = ({f"{reason} {start}..{end}" for start, end, reason in one.part(pump).left_out} for one in sources)
    return PumpDiff(
        pump, "changed", added, removed, changed, flags, tuple(sorted(after - before)), tuple(sorted(before - after))
    )


def _row_changes(old: TelemetryFrame, new: TelemetryFrame) -> tuple[int, int, int, int]:
    """(rows added, removed, with another value, with other flags)."""
    import numpy as np  # deferred: lists do without

    channels = tuple(sorted({*old.channels, *new.channels}))
    common, at_old, at_new = np.intersect1d(old.at_ms, new.at_ms, assume_unique=True, return_indices=True)
    one, other = old.select(channels).values[at_old], new.select(channels).values[at_new]
    differs = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    flags = int((old.flags[at_old] != new.flags[at_new]).sum())
    return len(new) - len(common), len(old) - len(common), int(differs.any(axis=1).sum()), flags


def _channel_diffs(pump: str, old: TelemetryFrame, new: TelemetryFrame) -> Iterator[ChannelDiff]:
    import numpy as np  # deferred: lists do without

    from pumpdeck_fleet.numeric.drift import psi  # deferred with numpy

    for name in sorted({*old.channels, *new.channels}):
        one, other = (side.select((name,)).values[:, 0].astype(np.float64) for side in (old, new))
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        change = None
        if len(one) and len(other):
            cuts = np.unique(np.quantile(one, np.linspace(0.1, 0.9, 9)))
            counts = [np.bincount(np.searchsorted(cuts, side, side="left"), minlength=len(cuts) + 1) for side in (one, other)]
            change = psi(counts[0], counts[1])
        means = [float(side.mean()) if len(side) else None for side in (one, other)]
        spreads = [float(side.std()) if len(side) else None for side in (one, other)]
        yield ChannelDiff(pump, name, means[0], means[1], spreads[0], spreads[1], change)
