"""Models from outside and the people who accept them: who said so and why stands in the audit chain, by content."""

from __future__ import annotations

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import RefusedError, UsageError
from pumpdeck_fleet.core.registry import ModelVersion

ACCEPT_ACTION = "model.accept_foreign"


def still_to_accept(workspace: Workspace, version: ModelVersion) -> int:
    """How many people must still accept this very content; 0: it was learned here, or enough have."""
    if version.origin is None:
        return 0
    people = {
        entry.actor
        for entry in entries(workspace)
        if entry.action == ACCEPT_ACTION and entry.digests.get("content") == version.content_digest
    }
    return max(max(workspace.policies.foreign.approvals, 1) - len(people), 0)


def require(workspace: Workspace, version: ModelVersion, reason: str, *, accept: bool) -> int:
    """How many people must still accept the version after this one; with `accept` this person's word is noted.

    Raises:
        RefusedError: it is foreign, and nobody asked for it to be accepted. UsageError: no reason.
    """
    missing = still_to_accept(workspace, version)
    origin = version.origin
    if origin is None or not missing:
        return 0
    which = f"{version.model} {version.number}"
    if not accept:
        raise RefusedError(
            "was not learned here, and it takes a person to accept it",
            which,
            found=f"{origin.file} by {origin.made_by}, licence {origin.licence}",
            hint="read its card (models show --card), then add --accept-foreign and a --reason",
        )
    if not reason.strip():
        raise UsageError("accepting a foreign model needs a reason", which, hint="say why with --reason")
    digests = {"content": version.content_digest, "source": origin.source_digest}
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, ACCEPT_ACTION, which, reason=reason.strip(), digests=digests)
        return still_to_accept(workspace, version)
