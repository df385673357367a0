"""Reading, checking and exporting the audit chain."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.audit import AuditEntry, AuditHead
from pumpdeck_fleet.core.clock import format_ms

_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry with the actor's name, where it was not erased."""

    entry: AuditEntry
    name: str


@operation("audit.list", runs_in="reader")
def list_audit(workspace: Workspace, *, words: str = "", limit: int = 200) -> tuple[AuditRow, ...]:
    """The newest `limit` entries that hold every one of `words`, oldest first."""
    wanted = words.lower().split()
    names = workspace.store.persons.names()
    if not wanted:
        newest = workspace.store.audit.latest(limit)
        return tuple(AuditRow(entry, names.get(entry.actor, "")) for entry in reversed(newest))
    found: deque[AuditRow] = deque(maxlen=limit)
    for entry in entries(workspace):
        row = AuditRow(entry, names.get(entry.actor, ""))
        text = f"{entry.actor} {row.name} {entry.action} {entry.subject} {entry.reason}".lower()
        if all(word in text for word in wanted):
            found.append(row)
    return tuple(found)


@operation("audit.verify", runs_in="reader")
def verify_audit(workspace: Workspace) -> AuditHead:
    """The head of the chain after every link was computed again.

    Raises:
        AuditBrokenError: names the first position that does not hold.
    """
    return workspace.store.audit.verify()


def export_lines(workspace: Workspace) -> Iterator[str]:
    """The whole chain as JSON lines, each with the entry's digest; names of persons are left out."""
    for entry in entries(workspace):
        yield json.dumps(
            {
                "chain": entry.chain,
                "position": entry.position,
                "at": format_ms(entry.at_ms),
                "at_ms": entry.at_ms,
                "actor": entry.actor,
                "action": entry.action,
                "subject": entry.subject,
                "reason": entry.reason,
                "digests": dict(entry.digests),
                "previous": entry.previous,
                "digest": entry.digest,
            },
            sort_keys=True,
        )


def entries(workspace: Workspace) -> Iterator[AuditEntry]:
    """Every entry of the chain, oldest first, a page at a time."""
    after = 0
    while page := workspace.store.audit.entries(after=after, limit=_PAGE):
        yield from page
        after = page[-1].position
