"""Retention: old rows and snapshots go by policy, but what a live version was trained from only when a person insists.

A live version is one with an alias, or one that a device runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.models import running_by_version
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import UsageError

RETENTION_ACTION = "retention"


@dataclass(frozen=True, slots=True)
class NeededBy:
    """A live version whose lineage needs rows that are older than the policy keeps."""

    model: str
    version: int
    why: str
    snapshot_digest: str
    chunks: int


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What would go. `needed`: who still needs old chunks, `needed_chunks` of them together; they stay unless forced.

    before_ms: 0 where the policy keeps everything.
    """

    before_ms: int
    chunks: int
    rows: int
    bytes: int
    snapshots: tuple[str, ...]
    needed_chunks: int
    needed: tuple[NeededBy, ...]


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What went; `kept_chunks` are old and stay, because a live version needs them."""

    chunks: int
    rows: int
    bytes: int
    snapshots: int
    kept_chunks: int


@operation("retention.plan", runs_in="reader")
def plan_retention(workspace: Workspace) -> RetentionPlan:
    """What the policy would remove now."""
    days = workspace.policies.retention.telemetry_days
    if not days:
        return RetentionPlan(0, 0, 0, 0, (), 0, ())
    before_ms = workspace.clock.now_ms() - round(days * DAY_MS)
    old = {(one.pump, one.start_ms): one for one in workspace.store.telemetry.old_chunks(before_ms)}
    live = _live(workspace)
    needed = []
    held = set(workspace.store.snapshots.digests())
    wanted: set[tuple[str, int]] = set()
    for model, version, why, digest in live:
        pins = {pin for pin in workspace.store.snapshots.pinned([digest]) if pin in old} if digest in held else set()
        wanted |= pins
        if pins:
            needed.append(NeededBy(model, version, why, digest, len(pins)))
    free = [one for key, one in old.items() if key not in wanted]
    loose = tuple(sorted(one for one in held - {digest for *_, digest in live} if _end_ms(workspace, one) <= before_ms))
    rows, size = sum(one.rows for one in free), sum(one.bytes for one in free)
    return RetentionPlan(before_ms, len(free), rows, size, loose, len(wanted), tuple(needed))


@operation("retention", runs_in="worker")
def apply_retention(workspace: Workspace, *, force: bool = False, reason: str = "") -> RetentionReport:
    """Remove what the policy lets go. Chunks that a live version needs stay; with `force` they go as well.

    Raises:
        UsageError: `force` without a reason.
    """
    if force and not reason.strip():
        raise UsageError("needs a reason", "--force", hint="add --reason; it goes into the audit chain")
    if not workspace.policies.retention.telemetry_days:
        return RetentionReport(0, 0, 0, 0, 0)
    with workspace.store.atomic() as store:
        plan = plan_retention(workspace)
        if force:
            snapshots = {*plan.snapshots, *(one.snapshot_digest for one in plan.needed)}
        else:
            snapshots = set(plan.snapshots)
        live = set(store.snapshots.digests()) - snapshots
        keep = set(store.snapshots.pinned(sorted(live)))
        aside = store.snapshots.release(sorted(snapshots))
        gone = store.telemetry.remove_before(plan.before_ms, keep)
        told = f"{gone.rows} rows in {gone.chunks} chunks, {len(snapshots)} snapshots, {aside} old versions of chunks"
        lost = ", ".join(f"{one.model} v{one.version} ({one.why})" for one in plan.needed) if force else ""
        said = f"{told}; no longer replayable: {lost}; {reason.strip()}" if lost else told
        if gone.chunks or snapshots:
            store.audit.append(workspace.actor, RETENTION_ACTION, "telemetry", reason=said)
    return RetentionReport(gone.chunks, gone.rows, gone.bytes, len(snapshots), 0 if force else plan.needed_chunks)


def _end_ms(workspace: Workspace, digest: str) -> int:
    """The end of a snapshot's window: a recent one without a version may be that of a training under way."""
    parts = workspace.store.snapshots.manifest(digest).pumps.values()
    return max((workspace.store.snapshots.part(part).end_ms for part in parts), default=0)


def _live(workspace: Workspace) -> list[tuple[str, int, str, str]]:
    """(model, number, why it is live, snapshot) of each live version."""
    running = running_by_version(workspace)
    registry = workspace.store.registry
    found = []
    for model in registry.models():
        aliases = registry.aliases(model)
        for version in registry.versions(model):
            names = [alias.value for alias, number in aliases.items() if number == version.number]
            if pumps := running.get((model, version.number), 0):
                names.append(f"runs on {pumps} pumps")
            if names:
                found.append((model, version.number, ", ".join(names), version.lineage.snapshot_digest))
    return found
