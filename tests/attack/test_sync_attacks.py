"""A folder or a backup from strange hands: what gives authority is believed under the signature of a person, and in no other way.

Each test asks for both: refused, and unchanged.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.devices import keep_identity
from pumpdeck_console.operations.models import promote
from pumpdeck_console.operations.retiring import retire
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.trust_changing import ChangeRequest
from pumpdeck_console.operations.vouching import Circle
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.statements import Kind, Statement
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store.json_rows import to_text
from pumpdeck_fleet.store.merge import dump
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, sign_dsse
from support.courier_fleet import MODEL, CourierFleet, courier_fleet
from support.second_laptop import TWO_PEOPLE, change, colleague, laptop, planned, started


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[CourierFleet]:
    fleet = courier_fleet(tmp_path / "fleet")
    yield fleet
    fleet.workspace.close()


def refusals(workspace: Workspace, other: Workspace) -> list[str]:
    """What a sync turns down, by name."""
    return [which for which, _ in sync(workspace, folder=str(other.root)).report.refused]


def forged(statement: Statement, key: Ed25519Signer) -> bytes:
    return sign_dsse(canonical.encode(statement), "application/vnd.pumpdeck.statement.v1+json", key)


def lay_in(workspace: Workspace, statement: Statement, envelope: bytes) -> None:
    """Write a statement into a store as a forger would: past everything that checks it."""
    with workspace.store.atomic() as store:
        store.statements.add(statement, envelope)


def write(workspace: Workspace, sql: str, *values: object) -> None:
    with workspace.store.atomic() as store:
        store.side().sql.write(sql, values)


def approve_unsigned(workspace: Workspace, rollout: str, actor: str) -> None:
    found = workspace.store.rollouts.load(rollout)
    deploy.approve(workspace.store, rollout, found.plan_digest, actor=actor, now_ms=workspace.clock.now_ms())


def test_a_forged_approval(fleet: CourierFleet) -> None:
    """Forged approval: the other store says that somebody approved; nobody signed it."""
    other = laptop(fleet, "two")
    rollout = planned(fleet.workspace, fleet, (fleet.devices[0].id,)).id
    sync(other, folder=str(fleet.workspace.root))
    approve_unsigned(other, rollout, "actor-forged")
    before = fleet.workspace.store.rollouts.load(rollout)
    assert refusals(fleet.workspace, other) == [f"approval of {rollout} by actor-forged"]
    assert fleet.workspace.store.rollouts.load(rollout) == before
    assert fleet.workspace.store.outbox.waiting() == []


def test_an_approval_under_a_strange_key(fleet: CourierFleet) -> None:
    """Forged approval: signed, by a key that no site knows."""
    other = laptop(fleet, "two")
    found = planned(fleet.workspace, fleet, (fleet.devices[0].id,))
    sync(other, folder=str(fleet.workspace.root))
    approve_unsigned(other, found.id, "actor-forged")
    about = {"plan": found.plan_digest, "actor": "actor-forged", "at_ms": "1"}
    statement = Statement(1, Kind.APPROVAL, found.id, ("gannet",), about, other.store.workspace, "actor-forged", 1, 1)
    lay_in(other, statement, forged(statement, generate_key()))
    refused = refusals(fleet.workspace, other)
    assert refused == [f"statement rollout.approve of {found.id}", f"approval of {found.id} by actor-forged"]
    assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED
    assert fleet.workspace.store.statements.of(Kind.APPROVAL) == []


def test_a_signature_that_was_stripped(fleet: CourierFleet) -> None:
    """Stripped signature: a true approval whose statement was taken away counts as none."""
    other = laptop(fleet, "two")
    found = planned(fleet.workspace, fleet, (fleet.devices[0].id,))
    sync(other, folder=str(fleet.workspace.root))
    rollout_operations.approve(other, rollout_id=found.id)
    write(other, "DELETE FROM statement WHERE kind = 'rollout.approve'")
    assert refusals(fleet.workspace, other) == [f"approval of {found.id} by {fleet.workspace.store.persons.name_of(other.actor)}"]
    assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED


@pytest.mark.parametrize("which", ["subject", "plan", "actor", "sites", "column"])
def test_a_signature_on_something_else(fleet: CourierFleet, which: str) -> None:
    """Replayed signature: a true approval is laid onto another rollout, another plan, another person or another site."""
    other = laptop(fleet, "two")
    first, second = (planned(fleet.workspace, fleet, (device.id,)) for device in fleet.devices)
    sync(other, folder=str(fleet.workspace.root))
    rollout_operations.approve(other, rollout_id=first.id)
    (row,) = other.store.statements.of(Kind.APPROVAL)
    plain = canonical.to_plain(row.statement)
    bent = {
        "subject": {"subject": second.id},
        "plan": {"about": {**plain["about"], "plan": second.plan_digest}},
        "actor": {"about": {**plain["about"], "actor": "actor-other"}},
        "sites": {"sites": ["heron"]},
        "column": {},
    }[which]
    envelope = json.loads(row.envelope)
    if bent:
        envelope["payload"] = base64.b64encode(canonical.encode({**plain, **bent})).decode("ascii")
    data, body = canonical.encode(envelope), canonical.encode({**plain, **bent}).decode("utf-8")
    subject = second.id if which in ("subject", "column") else first.id
    columns = "digest = ?, subject = ?, body = ?, envelope = ?"
    write(other, f"UPDATE statement SET {columns} WHERE digest = ?", canonical.digest(data), subject, body, data, row.digest)
    write(other, "UPDATE rollout SET body = replace(body, ?, ?)", other.actor, "actor-other" if which == "actor" else other.actor)
    assert f"statement rollout.approve of {subject}" in refusals(fleet.workspace, other)
    states = {fleet.workspace.store.rollouts.load(one.id).state for one in (first, second)}
    assert states == {RolloutState.PLANNED}
    assert fleet.workspace.store.statements.of(Kind.APPROVAL) == []


def test_an_approval_for_another_site(fleet: CourierFleet) -> None:
    """Approval from beside: a true key of one site signs, for that site, a rollout that concerns another."""
    other = laptop(fleet, "two")
    here, elsewhere = fleet.devices
    assert here.site != elsewhere.site
    found = planned(fleet.workspace, fleet, (here.id,))
    sync(other, folder=str(fleet.workspace.root))
    approve_unsigned(other, found.id, other.actor)
    about = {"plan": found.plan_digest, "actor": other.actor, "at_ms": "1"}
    with other.store.atomic():
        assert Circle(other).pen((elsewhere.site,)).write(other, Kind.APPROVAL, found.id, about)
    refused = refusals(fleet.workspace, other)
    assert refused == [f"approval of {found.id} by {fleet.workspace.store.persons.name_of(other.actor)}"]
    assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED
    assert fleet.workspace.store.rollouts.load(found.id).approvals == ()


def test_a_takeover_signed_for_another_site(fleet: CourierFleet) -> None:
    """Takeover from beside: the same of a change of driver."""
    other = laptop(fleet, "two")
    here, elsewhere = fleet.devices
    found = planned(fleet.workspace, fleet, (here.id,))
    sync(other, folder=str(fleet.workspace.root))
    with other.store.atomic() as store:
        deploy.adopt(store, found.id, "mine now", actor=other.actor, now_ms=other.clock.now_ms())
        about = {"workspace": store.workspace, "epoch": str(store.rollouts.epoch(found.id))}
        assert Circle(other).pen((elsewhere.site,)).write(other, Kind.ADOPTION, found.id, about)
    assert f"rollout {found.id}" in refusals(fleet.workspace, other)
    assert found.id not in fleet.workspace.store.rollouts.homes()


def test_the_approval_of_somebody_who_left(fleet: CourierFleet) -> None:
    """Revoked person: an approval that comes in after its key was taken out, however early its time says it was given."""
    grace = colleague(fleet, "grace")
    found = planned(fleet.workspace, fleet, (fleet.devices[0].id,))
    sync(grace, folder=str(fleet.workspace.root))
    key = grace.signing_key("deploy", "gannet").signer.key_id
    change(fleet, ChangeRequest("deploy", remove=(key,), is_lost=True))
    # Backdated: the clock of her laptop says a day before anything happened.
    grace.clock.advance(-86_400_000)  # type: ignore[attr-defined]
    rollout_operations.approve(grace, rollout_id=found.id)
    assert f"statement rollout.approve of {found.id}" in refusals(fleet.workspace, grace)
    assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED
    assert fleet.workspace.store.rollouts.load(found.id).approvals == ()


def test_one_person_on_two_laptops_counts_once(fleet: CourierFleet) -> None:
    """One person with two keys, two workspaces and two names: headquarters has said that both keys are theirs."""
    mine = fleet.workspace.signing_key("deploy", "gannet").signer.key_id
    again = colleague(fleet, "the-other-laptop", person=mine)
    found = planned(fleet.workspace, fleet, (fleet.devices[0].id,), TWO_PEOPLE)
    sync(again, folder=str(fleet.workspace.root))
    rollout_operations.approve(fleet.workspace, rollout_id=found.id)
    rollout_operations.approve(again, rollout_id=found.id)
    report = sync(fleet.workspace, folder=str(again.root)).report
    assert [(one.kind, one.which) for one in report.conflicts] == [("approval", found.id)]
    assert "approved already" in report.conflicts[0].advice
    assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED
    assert len(fleet.workspace.store.rollouts.load(found.id).approvals) == 1


def test_two_people_are_two_in_whatever_order_they_meet(fleet: CourierFleet) -> None:
    grace = colleague(fleet, "grace")
    for is_home_first in (True, False):
        found = planned(fleet.workspace, fleet, (fleet.devices[0].id,), TWO_PEOPLE)
        sync(grace, folder=str(fleet.workspace.root))
        if is_home_first:
            rollout_operations.approve(fleet.workspace, rollout_id=found.id)
        rollout_operations.approve(grace, rollout_id=found.id)
        sync(fleet.workspace, folder=str(grace.root))
        if not is_home_first:
            assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.PLANNED
            rollout_operations.approve(fleet.workspace, rollout_id=found.id)
        assert fleet.workspace.store.rollouts.load(found.id).state is RolloutState.RUNNING
        rollout_operations.abort(fleet.workspace, rollout_id=found.id, reason="next order")


def test_keys_of_which_nobody_said_whose_they_are_count_as_one(fleet: CourierFleet) -> None:
    """Unnamed keys: until headquarters says whose a key is, all such keys together are one person."""
    grace = colleague(fleet, "grace")
    circle = Circle(fleet.workspace)
    keys = list(circle.people("gannet"))
    assert circle.person(("gannet",), keys) == "?"
    assert circle.person(("gannet",), ["0" * 64]) == "?"
    ours = Circle(grace).pen(site.id for site in fleet.workspace.fleet.sites)
    assert ours.person.startswith("p-") and ours.person != circle.pen(("gannet",)).person


def test_a_forged_enrolment(fleet: CourierFleet) -> None:
    """Forged enrolment: a later one, of a key that the forger holds; the later enrolment would win."""
    other = laptop(fleet, "two")
    device, key = fleet.devices[0].id, generate_key()
    before = fleet.workspace.store.devices.all_keys()
    with other.store.atomic() as store:
        store.devices.put_identity(device, key.public_pem, key.key_id, "", fleet.clock.now_ms() + 1_000)
    assert refusals(fleet.workspace, other) == [f"device key {key.key_id[:12]} of {device}"]
    assert fleet.workspace.store.devices.all_keys() == before


@pytest.mark.parametrize("kind", ["age key", "retire", "unsigned end", "host key"])
def test_what_is_said_of_a_device_without_a_signature(fleet: CourierFleet, kind: str) -> None:
    """Forged: an age key to which packages would be encrypted, the end of a true key, another host key."""
    other = laptop(fleet, "two")
    device = fleet.devices[0].id
    before = dump(fleet.workspace.store)["device_key"], fleet.workspace.store.age_keys.get(device)
    statement = {
        "age key": "UPDATE device_age_key SET age_key = 'age1forged', at_ms = at_ms + 1",
        "retire": "UPDATE device_key SET ended_ms = enrolled_ms + 1, ended = 'retired: stolen'",
        "unsigned end": "UPDATE device_key SET ended_ms = enrolled_ms + 1, ended = 'lost'",
        "host key": "UPDATE device_key SET host_key = 'zz forged'",
    }[kind]
    write(other, statement)
    assert len(refusals(fleet.workspace, other)) == 2
    assert (dump(fleet.workspace.store)["device_key"], fleet.workspace.store.age_keys.get(device)) == before


def test_the_key_of_another_device(fleet: CourierFleet) -> None:
    """A true person enrols one device under the key of another: two names for one computer."""
    other = laptop(fleet, "two")
    first, second = (device.id for device in fleet.devices)
    taken = fleet.workspace.store.devices.identity(second)
    assert taken is not None
    keep_identity(other, first, taken.public_pem, "", may_replace=True)
    refused = refusals(fleet.workspace, other)
    assert f"statement device.enrol of {first}" in refused
    identity = fleet.workspace.store.devices.identity(first)
    assert identity is not None and identity.key_id != taken.key_id


def test_a_moved_alias(fleet: CourierFleet) -> None:
    """Forged: the champion moved by nobody, under the name of this workspace or of another one."""
    other = laptop(fleet, "two")
    content = other.store.registry.versions(MODEL)[0].content_digest
    for name in (fleet.workspace.store.workspace, "ws-00000000beef"):
        write(other, "INSERT INTO alias_move VALUES (?, 'champion', 9999999999999, ?, ?)", MODEL, name, content)
    assert len(refusals(fleet.workspace, other)) == 2
    assert fleet.workspace.store.registry.aliases(MODEL) == {}
    promote(other, model=MODEL, which=version_name(other.store.registry.versions(MODEL)[0].number))
    assert len(refusals(fleet.workspace, other)) == 2
    assert fleet.workspace.store.registry.aliases(MODEL) != {}


@pytest.mark.parametrize("home", ["mine", "theirs"])
def test_a_rollout_that_nobody_approved(fleet: CourierFleet, home: str) -> None:
    """Forged: a running rollout, said to be driven here, or driven there with tasks that would beat ours."""
    other = laptop(fleet, "two")
    device = fleet.devices[0].id
    mine = started(fleet.workspace, fleet, (device,))
    theirs = planned(other, fleet, (device,)).id
    approve_unsigned(other, theirs, "actor-forged")
    deploy.start(other.store, theirs, actor="actor-forged", now_ms=fleet.clock.now_ms(), unheard=True, trust_seqs={device: 9_999})
    if home == "mine":
        name = fleet.workspace.store.workspace
        write(other, "INSERT INTO rollout_home (rollout, workspace, epoch) VALUES (?, ?, 1)", theirs, name)
    before = fleet.workspace.store.rollouts.live_tasks()
    refused = refusals(fleet.workspace, other)
    assert f"rollout {theirs}" in refused
    assert fleet.workspace.store.rollouts.live_tasks() == before
    assert set(fleet.workspace.store.rollouts.states()) == {mine}


def test_a_rollout_that_nobody_took_over(fleet: CourierFleet) -> None:
    """Forged: another workspace says that it drives our rollout now."""
    other = laptop(fleet, "two")
    mine = started(fleet.workspace, fleet, (fleet.devices[0].id,))
    sync(other, folder=str(fleet.workspace.root))
    with other.store.atomic() as store:
        store.rollouts.set_home(mine, other.store.workspace)
    assert refusals(fleet.workspace, other) == [f"rollout {mine}"]
    assert fleet.workspace.store.rollouts.homes() == {}
    assert rollout_operations.halt(fleet.workspace, rollout_id=mine, reason="still ours").state == RolloutState.HALTED


def test_a_forged_rollout_is_not_adopted(fleet: CourierFleet) -> None:
    """A rollout that stood here before rows were proven: without signed approvals nobody drives it on."""
    other = laptop(fleet, "two")
    device = fleet.devices[0].id
    theirs = planned(other, fleet, (device,)).id
    approve_unsigned(other, theirs, "actor-forged")
    deploy.start(other.store, theirs, actor="actor-forged", now_ms=fleet.clock.now_ms(), unheard=True)
    with other.store.atomic() as store:
        store.rollouts.set_home(theirs, "ws-00000000beef")
    with pytest.raises(RefusedError, match="too few people"):
        rollout_operations.adopt(other, rollout_id=theirs, reason="the driver is lost")
    assert other.store.rollouts.homes() == {theirs: "ws-00000000beef"}


def test_an_audit_chain_that_nobody_signed(fleet: CourierFleet) -> None:
    """Forged: entries of another workspace under no signed head, or under one of a strange key: none is taken."""
    other = laptop(fleet, "two")
    sync(fleet.workspace, folder=str(other.root))
    held = fleet.workspace.store.audit.head(other.store.workspace)
    with other.store.atomic() as store:
        store.audit.append("actor-forged", "model.override", "esp 1", digests={"content": "c" * 64})
    report = sync(fleet.workspace, folder=str(other.root)).report
    assert report.unsealed == ((other.store.workspace, 1),)
    assert fleet.workspace.store.audit.head(other.store.workspace) == held
    head = other.store.audit.head()
    body = {"format": 1, "chain": head.chain, "position": head.position, "digest": head.digest, "at_ms": 1}
    envelope = sign_dsse(canonical.encode(body), "application/vnd.pumpdeck.checkpoint.v1+json", generate_key())
    write(other, "INSERT INTO audit_seal VALUES (?, ?, ?, ?)", head.chain, head.position, canonical.digest(envelope), envelope)
    sync(fleet.workspace, folder=str(other.root))
    assert fleet.workspace.store.audit.head(other.store.workspace) == held


def test_our_own_chain_is_written_by_nobody_else(fleet: CourierFleet) -> None:
    """Forged: the other store holds more of this workspace's chain than this workspace wrote, under a true head of before."""
    other = laptop(fleet, "two")
    sync(fleet.workspace, folder=str(other.root))
    sync(other, folder=str(fleet.workspace.root))
    mine = fleet.workspace.store.workspace
    table = other.store.audit
    chain, table._chain = table._chain, mine
    with other.store.atomic() as store:
        store.audit.append("actor-forged", "trust.change", "gannet")
    table._chain = chain
    head = fleet.workspace.store.audit.head()
    assert refusals(fleet.workspace, other)[0] == f"audit of {mine}"
    assert fleet.workspace.store.audit.head().position == head.position + 0 or fleet.workspace.store.audit.verify()
    actions = {entry.action for entry in fleet.workspace.store.audit.entries(after=head.position)}
    assert "trust.change" not in actions


def test_a_receipt_of_a_key_that_is_not_believed(fleet: CourierFleet) -> None:
    """The forger's own device key signs receipts as it likes: neither key nor receipt comes in."""
    other = laptop(fleet, "two")
    device = fleet.devices[0].id
    before = fleet.workspace.store.receipts.of(device)
    write(other, "UPDATE device_key SET key_id = ? WHERE device = ?", "f" * 64, device)
    write(
        other,
        "INSERT INTO receipt (device, key_id, counter, received_ms, body, envelope) VALUES (?, ?, 1, 1, '{}', x'00')",
        device, "f" * 64,
    )  # fmt: skip
    refused = refusals(fleet.workspace, other)
    assert refused == [f"device key {'f' * 12} of {device}", f"receipt 1 of {device}"]
    assert fleet.workspace.store.receipts.of(device) == before


def test_a_true_end_comes_over(fleet: CourierFleet) -> None:
    """What the attacks above imitate: signed at once by who did it, it is believed."""
    other = laptop(fleet, "two")
    device = fleet.devices[0].id
    assert retire(other, device=device, reason="scrapped").not_signed == ""
    assert refusals(fleet.workspace, other) == []
    assert device in fleet.workspace.store.devices.retired()
    key = generate_key()
    other.clock.advance(1_000)  # type: ignore[attr-defined]
    assert keep_identity(other, device, key.public_pem, "", may_replace=True).not_signed == ""
    assert refusals(fleet.workspace, other) == []
    identity = fleet.workspace.store.devices.identity(device)
    assert identity is not None and identity.key_id == key.key_id
    assert to_text(identity) == to_text(other.store.devices.identity(device))
