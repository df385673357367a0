"""Signing afterwards what stands here and nobody has signed: rows older than signatures, or done while a key was locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.vouching import Circle, Pen, seal_chains, unsigned_moves
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.statements import Kind, claim_of
from pumpdeck_fleet.store.devices import DeviceKeyRow


@dataclass(frozen=True, slots=True)
class Unsigned:
    """One thing that nobody whose key stands has signed. `why` says why this person cannot either; empty where they can."""

    kind: str
    subject: str
    words: str
    sites: tuple[str, ...]
    about: Mapping[str, str]
    why: str = ""


@operation("trust.unsigned", runs_in="worker")
def list_unsigned(workspace: Workspace) -> tuple[Unsigned, ...]:
    """What stands here and would not be believed elsewhere: device keys, their ends, age keys, aliases, own approvals."""
    circle = Circle(workspace)
    claims = _standing(workspace, circle)
    found = [one for one in _candidates(workspace) if claim_of(Kind(one.kind), one.subject, one.about) not in claims]
    pens: dict[tuple[str, ...], Pen] = {}
    for one in found:
        if one.sites not in pens:
            pens[one.sites] = circle.pen(one.sites) if one.sites else circle.any_pen()
    return tuple(
        Unsigned(one.kind, one.subject, one.words, pens[one.sites].sites, one.about, pens[one.sites].why) for one in found
    )


@operation("trust.vouch", runs_in="worker")
def vouch(workspace: Workspace) -> tuple[Unsigned, ...]:
    """Sign all of `list_unsigned` that this person's keys allow, and where the audit chains end; what was signed. Audited."""
    circle, signed = Circle(workspace), []
    with workspace.store.atomic() as store:
        for one in list_unsigned(workspace):
            if not one.why and circle.pen(one.sites).write(workspace, Kind(one.kind), one.subject, one.about):
                signed.append(one)
        if signed:
            digests = {"statements": canonical.digest(canonical.encode([[one.kind, one.subject] for one in signed]))}
            store.audit.append(workspace.actor, "trust.vouch", f"{len(signed)} statements", digests=digests)
        seal_chains(workspace)
    return tuple(signed)


def _standing(workspace: Workspace, circle: Circle) -> set[tuple[str, str, str]]:
    """What somebody has signed whose key stands now."""
    found = set()
    for row in workspace.store.statements.all():
        try:
            circle.statement(row.envelope)
        except PumpdeckError:
            continue
        found.add(row.statement.claim)
    return found


def _candidates(workspace: Workspace) -> list[Unsigned]:
    found = []
    known = {device.id: device.site for device in workspace.fleet.devices}
    for row in workspace.store.devices.all_keys():
        if row.device in known:
            found += _key_words(row, known[row.device])
    for device, age_key, at_ms in workspace.store.age_keys.all():
        if device in known:
            about = {"age_key": age_key, "at_ms": str(at_ms)}
            found.append(Unsigned(Kind.AGE_KEY.value, device, f"age key {age_key[:12]}", (known[device],), about))
    for model, about in unsigned_moves(workspace):
        words = f"{about['alias']} is {about['content_digest'][:12]}"
        found.append(Unsigned(Kind.ALIAS.value, model, words, (), about))
    return [*found, *_own_approvals(workspace)]


def _key_words(row: DeviceKeyRow, site: str) -> list[Unsigned]:
    about = {
        "key_id": row.key_id, "public_pem": row.public_pem, "host_key": row.host_key, "enrolled_ms": str(row.enrolled_ms),
    }  # fmt: skip
    found = [Unsigned(Kind.ENROLMENT.value, row.device, f"device key {row.key_id[:12]}", (site,), about)]
    if row.ended_ms is not None and row.ended != "replaced":
        end = {"key_id": row.key_id, "ended_ms": str(row.ended_ms), "ended": row.ended}
        found.append(Unsigned(Kind.END.value, row.device, f"key {row.key_id[:12]} was {row.ended}", (site,), end))
    return found


def _own_approvals(workspace: Workspace) -> list[Unsigned]:
    """A yes is the person's own: nobody signs it for another."""
    found, actor = [], workspace.actor
    signed = {(row.statement.subject, row.statement.about["actor"]) for row in workspace.store.statements.of(Kind.APPROVAL)}
    for rollout in workspace.store.rollouts.all():
        for one in rollout.approvals if rollout.state is RolloutState.PLANNED else ():
            if one.actor == actor and (rollout.id, actor) not in signed:
                about = {"plan": one.plan_digest, "actor": actor, "at_ms": str(one.at_ms)}
                sites = tuple(sorted(rollout.plan.sites))
                found.append(Unsigned(Kind.APPROVAL.value, rollout.id, "your approval", sites, about))
    return found
