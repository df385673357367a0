"""Settling what workspaces differed on when they met: a person's signed word, which travels and ends the same everywhere."""

from __future__ import annotations

import re

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.vouching import Circle, Pen, seal_chains
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError, UsageError
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.statements import Kind
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.merge import KnownConflict, derive, known_conflicts, settle_hosts
from pumpdeck_fleet.store.merge_signed import HOST_KEY

SIDES = ("OURS", "THEIRS", "KEPT")
_VERSION = re.compile(r"version ([0-9a-f]{12})")


@operation("sync.settle", runs_in="worker")
def settle(workspace: Workspace, *, which: str, take: str, because: str) -> KnownConflict:
    """Decide a conflict, by its number or the beginning of its name: what this workspace had, the other, or what the merge kept.

    Saying the other way later is allowed: the latest word counts, wherever it was given.

    Raises:
        NotFoundError: no such conflict. UsageError: no reason. RefusedError: this cannot be taken, or nobody can sign it here.
    """
    found = _find(workspace.store, which)
    if not because.strip():
        raise UsageError("needs a reason", f"conflict {found.number}", hint="say why with --because")
    chosen, dropped = _sides(found, take)
    pen = _pen(workspace, found)
    words = " ".join(because.split())[:400]
    with workspace.store.atomic() as store:
        about = {"kind": found.conflict.kind, "which": found.conflict.which, "take": chosen, "drop": dropped, "because": words}
        pen.write(workspace, Kind.SETTLEMENT, found.digest, about)
        _apply(store, found, chosen)
        reason = f"{found.conflict.kind} {found.conflict.which}: {words}"
        store.audit.append(workspace.actor, "conflict.settle", found.digest[:12], reason, {"conflict": found.digest})
        seal_chains(workspace, pen)
    return _find(workspace.store, found.digest)


def _find(store: Store, which: str) -> KnownConflict:
    known = known_conflicts(store)
    found = [one for one in known if which == str(one.number) or (len(which) >= 6 and one.digest.startswith(which))]
    if len(found) != 1:
        raise NotFoundError("is no conflict that was found", which, hint="list them with: pumpdeck sync conflicts")
    return found[0]


def _sides(found: KnownConflict, take: str) -> tuple[str, str]:
    """What is taken and what is dropped."""
    conflict, side = found.conflict, take.upper()
    if side not in SIDES:
        raise UsageError("is no side", take, expected=", ".join(SIDES))
    if side != "KEPT" and not conflict.ours:
        hint = "settle it with --take KEPT, or do what the conflict advises first"
        raise RefusedError("has no side that is ours", f"conflict {found.number}", found=conflict.kept, hint=hint)
    is_kept = side == "KEPT" or (conflict.ours == "kept") == (side == "OURS")
    if not is_kept and conflict.kind not in (HOST_KEY, "alias"):
        raise RefusedError(
            "cannot be turned round by a word", f"conflict {found.number}, {conflict.kind}", found=conflict.advice,
            hint="do what the conflict advises, then settle it with --take KEPT",
        )  # fmt: skip
    return (conflict.kept, conflict.other) if is_kept else (conflict.other, conflict.kept)


def _pen(workspace: Workspace, found: KnownConflict) -> Pen:
    circle = Circle(workspace)
    is_device = found.conflict.kind == HOST_KEY
    pen = circle.pen((workspace.fleet.device(found.conflict.which).site,)) if is_device else circle.any_pen()
    if not pen.signers:
        hint = "unlock your deploy or release key: what is settled must count in the other workspaces too"
        raise RefusedError("cannot be settled without a signature", f"conflict {found.number}", found=pen.why, hint=hint)
    return pen


def _apply(store: Store, found: KnownConflict, chosen: str) -> None:
    conflict = found.conflict
    if conflict.kind == HOST_KEY:
        settle_hosts(store, [conflict.which])
        derive(store)
    elif conflict.kind == "alias" and (version := _VERSION.match(chosen)):
        model, _, alias = conflict.which.rpartition(" ")
        number = next((one.number for one in store.registry.versions(model) if one.content_digest.startswith(version[1])), None)
        if number is None:
            raise NotFoundError("is not here", f"{model} version {version[1]}")
        if store.registry.aliases(model).get(Alias(alias)) != number:
            # A move later than all that are known: it wins wherever it comes to.
            store.registry.set_alias(model, Alias(alias), number)
