"""A refusal of a quality gate, and the two people who may set it aside: who said so and why stands in the audit chain."""

from __future__ import annotations

from typing import NoReturn

from pumpdeck_console.operations.vouching import Circle, seal_chains, voices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import GateRefusedError, UsageError
from pumpdeck_fleet.core.registry import ModelVersion
from pumpdeck_fleet.core.statements import Kind, count_people

OVERRIDE_ACTION = "model.override"
PEOPLE = 2
NEVER_OVERRIDDEN = ("parity", "reference")
"""A graph that computes something else than the model is no matter of opinion."""


def missing(workspace: Workspace, version: ModelVersion) -> int:
    """How many people must still override the refusals of this very content; 0: it may be used."""
    if not version.refusals:
        return 0
    said = {"content": version.content_digest}
    heard = voices(workspace, Kind.OVERRIDE, version.model, said, OVERRIDE_ACTION)
    return max(PEOPLE - count_people(heard), 0)


def override(workspace: Workspace, version: ModelVersion, reason: str) -> int:
    """Note that this person sets the refusals aside; how many more must.

    Raises:
        UsageError: no reason. GateRefusedError: this gate cannot be overridden.
    """
    if not reason.strip():
        raise UsageError("an override needs a reason", f"{version.model} {version.number}", hint="say why with --reason")
    if any(gate.name in NEVER_OVERRIDDEN for gate in version.refusals):
        refuse(version)
    subject, digests = f"{version.model} {version.number}", {"content": version.content_digest}
    gates = ", ".join(gate.name for gate in version.refusals)
    pen = Circle(workspace).any_pen()
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, OVERRIDE_ACTION, subject, reason=f"{gates}: {reason}", digests=digests)
        pen.write(workspace, Kind.OVERRIDE, version.model, {**digests, "actor": workspace.actor})
        seal_chains(workspace, pen)
        return missing(workspace, version)


def refuse(version: ModelVersion) -> NoReturn:
    """Raises: GateRefusedError - with the first refusal."""
    gate = version.refusals[0]
    hint = "two people may override it with --override and a reason"
    raise GateRefusedError(
        "a quality gate refused this version",
        f"{version.model} {version.number}",
        found=f"{gate.name}: {gate.reason}",
        hint="" if gate.name in NEVER_OVERRIDDEN else hint,
    )
