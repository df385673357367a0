"""What devices ask for: new models for their pumps. A training run answers a request, or a person dismisses it with a reason."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from pumpdeck_fleet.core.retraining import RetrainEntry

NOTE_MAX_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request and the name of whoever dismissed it (empty: nobody, or the name was erased)."""

    entry: RetrainEntry
    dismissed_by: str


@operation("devices.requests", runs_in="reader")
def list_requests(workspace: Workspace, *, query: str = "", with_closed: bool = False) -> tuple[RequestRow, ...]:
    """Requests for the pumps that `query` selects, the newest first; closed ones too `with_closed`.

    Raises:
        QueryError: the query cannot be read.
    """
    store = workspace.store
    found = store.retraining.all() if with_closed else store.retraining.open()
    if query.strip() and found:
        chosen = {row.pump.id for row in list_pumps(workspace, query=query)}
        found = [entry for entry in found if entry.pump in chosen]
    return tuple(RequestRow(entry, store.persons.name_of(entry.by) if entry.by else "") for entry in found)


@operation("devices.dismiss", runs_in="worker")
def dismiss_requests(workspace: Workspace, *, pump: str, reason: str) -> tuple[RetrainEntry, ...]:
    """Close every open request for a pump without training.

    Raises:
        NotFoundError: no such pump, or nothing is asked for it. UsageError: no reason.
    """
    note = reason.strip()
    if not 0 < len(note) <= NOTE_MAX_CHARACTERS or not note.isprintable():
        raise UsageError("is not a reason", "reason", expected=f"1-{NOTE_MAX_CHARACTERS} printable characters")
    identity = workspace.fleet.pump(pump).id
    with workspace.store.atomic() as store:
        asked = store.retraining.open((identity,))
        if not asked:
            raise NotFoundError("nothing is asked for it", identity, hint="see: pumpdeck devices requests")
        closed = tuple(entry.dismiss(workspace.actor, note, workspace.clock.now_ms()) for entry in asked)
        for entry in closed:
            store.retraining.put(entry)
            store.audit.append(workspace.actor, "retrain.dismissed", identity, note, {"item": entry.digest})
    return closed
