"""What the upkeep screen shows: checks of this workspace, its backups, trips that are out, what two workspaces differed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.workspace import Finding, doctor
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.audit import AuditEntry

BACKUP_ACTION, PROVEN_ACTION = "workspace.backup", "workspace.backup_verified"
PREPARE_ACTION, RETURN_ACTION, SYNC_ACTION = "trip.prepare", "trip.return", "sync.take"
OLD_BACKUP_MS = 7 * 86_400_000
"""From this age on a backup is called old."""
_ACTIONS = frozenset({BACKUP_ACTION, PROVEN_ACTION, PREPARE_ACTION, RETURN_ACTION, SYNC_ACTION})
_MOST = 500
_ORDER = {"bad": 0, "warn": 1, "ok": 2}


@dataclass(frozen=True, slots=True)
class BackupLine:
    """One place that backups were written to, and the newest one there.

    `is_there`: the place can be read from here now. `proven_ms`: when it was last read back after the day it was made, 0 never.
    """

    place: str
    at_ms: int
    by: str
    times: int
    is_there: bool
    proven_ms: int


@dataclass(frozen=True, slots=True)
class TripLine:
    """One trip: `returned_ms` is 0 while it is out; `lent` are rollouts that it drives."""

    trip: str
    prepared_ms: int
    by: str
    words: str
    returned_ms: int
    lent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConflictLine:
    """Something on which two workspaces differed when they met."""

    found_ms: int
    workspace: str
    kind: str
    which: str
    kept: str
    other: str
    advice: str


@dataclass(frozen=True, slots=True)
class UpkeepView:
    """Checks, the bad ones first; backup places, trips and conflicts, the newest first. `synced_ms`: the last sync, 0 never."""

    as_of_ms: int
    checks: tuple[Finding, ...] = ()
    backups: tuple[BackupLine, ...] = ()
    trips: tuple[TripLine, ...] = ()
    conflicts: tuple[ConflictLine, ...] = ()
    synced_ms: int = 0
    synced_with: str = ""


@operation("view.upkeep", runs_in="reader")
def upkeep_view(workspace: Workspace) -> UpkeepView:
    """The newest state of it all; the checks are those of `pumpdeck doctor`."""
    from pumpdeck_console.operations.syncing import list_conflicts  # deferred: TUF

    told = [entry for entry in entries(workspace) if entry.action in _ACTIONS]
    names = workspace.store.persons.names()
    own = [entry for entry in told if entry.chain == workspace.store.workspace]
    syncs = [entry for entry in own if entry.action == SYNC_ACTION]
    conflicts = tuple(
        ConflictLine(
            one.found_ms, one.workspace, one.conflict.kind, one.conflict.which, one.conflict.kept, one.conflict.other,
            one.conflict.advice,
        )
        for one in list_conflicts(workspace)[:_MOST]
    )  # fmt: skip
    return UpkeepView(
        as_of_ms=workspace.clock.now_ms(),
        checks=tuple(sorted(doctor(workspace), key=lambda one: _ORDER.get(one.verdict, 0))),
        backups=_backups(own, names),
        trips=_trips(workspace, own, names),
        conflicts=conflicts,
        synced_ms=syncs[-1].at_ms if syncs else 0,
        synced_with=syncs[-1].subject if syncs else "",
    )


def _backups(own: list[AuditEntry], names: dict[str, str]) -> tuple[BackupLine, ...]:
    found: dict[str, BackupLine] = {}
    for entry in own:
        old = found.get(entry.reason)
        if entry.action == BACKUP_ACTION:
            times = old.times + 1 if old else 1
            by = names.get(entry.actor, entry.actor)
            found[entry.reason] = BackupLine(entry.reason, entry.at_ms, by, times, _is_there(entry.reason), 0)
        elif entry.action == PROVEN_ACTION and old is not None:
            found[entry.reason] = BackupLine(old.place, old.at_ms, old.by, old.times, old.is_there, entry.at_ms)
    return tuple(sorted(found.values(), key=lambda one: -one.at_ms))


def _is_there(place: str) -> bool:
    path = Path(place)
    try:
        return bool(place) and (path.is_file() or (path / "backup.json").is_file())
    except OSError:
        return False


def _trips(workspace: Workspace, own: list[AuditEntry], names: dict[str, str]) -> tuple[TripLine, ...]:
    homes = workspace.store.rollouts.homes()
    returned = {entry.subject: entry.at_ms for entry in own if entry.action == RETURN_ACTION}
    lines = [
        TripLine(
            entry.subject, entry.at_ms, names.get(entry.actor, entry.actor), entry.reason, returned.get(entry.subject, 0),
            tuple(sorted(name for name, home in homes.items() if home == entry.subject)),
        )
        for entry in own
        if entry.action == PREPARE_ACTION
    ]  # fmt: skip
    return tuple(sorted(lines, key=lambda one: (one.returned_ms > 0, -one.prepared_ms)))
