"""What workspaces differ on is decided once: signed, audited, the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.countersigning import list_unsigned, vouch
from pumpdeck_console.operations.devices import keep_identity
from pumpdeck_console.operations.models import promote
from pumpdeck_console.operations.other_side import peoples_files
from pumpdeck_console.operations.settling import settle
from pumpdeck_console.operations.syncing import list_conflicts, plan_sync, sync
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.statements import Kind
from pumpdeck_packaging.signing import generate_key
from support.courier_fleet import MODEL, CourierFleet, courier_fleet
from support.second_laptop import laptop, planned


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[CourierFleet]:
    fleet = courier_fleet(tmp_path / "fleet")
    yield fleet
    fleet.workspace.close()


def host_keys(workspace: Workspace, device: str) -> set[str]:
    return {row.host_key for row in workspace.store.devices.keys(device)}


@pytest.mark.parametrize("take", ["OURS", "THEIRS"])
def test_a_host_key_is_the_chosen_one_in_both_workspaces(fleet: CourierFleet, take: str) -> None:
    device = fleet.devices[0].id
    identity = fleet.workspace.store.devices.identity(device)
    assert identity is not None
    other = laptop(fleet, "two")
    keep_identity(fleet.workspace, device, identity.public_pem, "ssh-ed25519 AAAA", may_replace=True)
    keep_identity(other, device, identity.public_pem, "ssh-ed25519 BBBB", may_replace=True)
    sync(fleet.workspace, folder=str(other.root))
    sync(other, folder=str(fleet.workspace.root))
    assert host_keys(fleet.workspace, device) == host_keys(other, device) == {"ssh-ed25519 BBBB"}
    (conflict,) = [one for one in list_conflicts(fleet.workspace) if one.conflict.kind == "host key"]
    assert conflict.conflict.ours == "other" and not conflict.settled
    done = settle(fleet.workspace, which=str(conflict.number), take=take, because="read from the device itself")
    assert "read from the device itself" in done.settled
    wanted = {"OURS": "ssh-ed25519 AAAA", "THEIRS": "ssh-ed25519 BBBB"}[take]
    for _ in range(2):
        assert not sync(other, folder=str(fleet.workspace.root)).report.refused
        assert not sync(fleet.workspace, folder=str(other.root)).report.refused
        assert host_keys(fleet.workspace, device) == host_keys(other, device) == {wanted}
    assert all(one.settled for one in list_conflicts(other) if one.conflict.kind == "host key")
    actions = [entry.action for entry in fleet.workspace.store.audit.latest()]
    assert "conflict.settle" in actions


def test_an_alias_goes_where_a_person_says(fleet: CourierFleet) -> None:
    fleet.release(2, 0.5)
    other = laptop(fleet, "two")
    fleet.clock.advance(1_000)
    mine, theirs = (one.number for one in fleet.workspace.store.registry.versions(MODEL))
    names = {one.content_digest: version_name(one.number) for one in other.store.registry.versions(MODEL)}
    digests = [one.content_digest for one in fleet.workspace.store.registry.versions(MODEL)]
    promote(fleet.workspace, model=MODEL, which=str(mine))
    fleet.clock.advance(1_000)
    promote(other, model=MODEL, which=names[digests[1]])
    sync(fleet.workspace, folder=str(other.root))
    assert fleet.workspace.store.registry.aliases(MODEL)[Alias.CHAMPION] == theirs
    (conflict,) = [one for one in list_conflicts(fleet.workspace) if one.conflict.kind == "alias"]
    settle(fleet.workspace, which=conflict.digest[:12], take="OURS", because="theirs was a mistake")
    assert fleet.workspace.store.registry.aliases(MODEL)[Alias.CHAMPION] == mine
    assert not sync(other, folder=str(fleet.workspace.root)).report.refused
    champion = other.store.registry.alias(MODEL, Alias.CHAMPION)
    assert champion is not None and champion.content_digest == digests[0]


def test_what_a_word_cannot_turn_round_is_refused(fleet: CourierFleet) -> None:
    other = laptop(fleet, "two")
    path = other.root / "policies.toml"
    path.write_bytes(path.read_bytes() + b"# changed in the field\n")
    sync(fleet.workspace, folder=str(other.root))
    with pytest.raises(RefusedError, match="turned round"):
        settle(fleet.workspace, which="1", take="THEIRS", because="it is newer")
    with pytest.raises(UsageError, match="reason"):
        settle(fleet.workspace, which="1", take="OURS", because=" ")
    with pytest.raises(NotFoundError):
        settle(fleet.workspace, which="7", take="OURS", because="no such one")
    assert fleet.workspace.store.statements.of(Kind.SETTLEMENT) == []
    settle(fleet.workspace, which="1", take="OURS", because="copied by hand")
    assert list_conflicts(fleet.workspace)[0].settled.endswith("copied by hand")


def test_what_nobody_signed_is_listed_and_signed_afterwards(fleet: CourierFleet) -> None:
    """A store of before there were signatures: its rows stand here, are not believed there, and are vouched for by a person."""
    other = laptop(fleet, "two")
    device, key = fleet.devices[0].id, generate_key()
    fleet.clock.advance(1_000)
    with fleet.workspace.store.atomic() as store:
        store.devices.put_identity(device, key.public_pem, key.key_id, "", fleet.clock.now_ms())
    assert len(sync(other, folder=str(fleet.workspace.root)).report.refused) == 1
    assert [(one.kind, one.subject, one.why) for one in list_unsigned(fleet.workspace)] == [("device.enrol", device, "")]
    assert len(vouch(fleet.workspace)) == 1 and list_unsigned(fleet.workspace) == ()
    assert not sync(other, folder=str(fleet.workspace.root)).report.refused
    identity = other.store.devices.identity(device)
    assert identity is not None and identity.key_id == key.key_id


def test_without_a_key_an_approval_stays_here_and_says_so(fleet: CourierFleet) -> None:
    for path in (*fleet.folder.rglob("deploy.key"), *fleet.folder.rglob("release.key")):
        path.unlink()
    fleet.workspace.forget_settings()
    rollout = planned(fleet.workspace, fleet, (fleet.devices[0].id,)).id
    report = rollout_operations.approve(fleet.workspace, rollout_id=rollout)
    assert report.state == "RUNNING" and "no private key" in report.not_signed
    assert fleet.workspace.store.statements.of(Kind.APPROVAL) == []


def test_a_folder_does_not_bring_the_root_by_which_it_is_judged(fleet: CourierFleet, tmp_path: Path) -> None:
    """Attack: a swapped workspace with keys, people and a root of its own, for a laptop that knows no root yet."""
    texts = {path: data.decode("utf-8") for path, data in peoples_files(fleet.workspace.root).items()}
    init_workspace(tmp_path / "new", files=texts, clock=fleet.clock)
    with Workspace(tmp_path / "new", fleet.clock, RealFileSystem()) as new:
        report = sync(new, folder=str(fleet.workspace.root)).report
        refused = dict(report.refused)
        assert all("a root with the words" in refused[f"trust of {site.id}"] for site in new.fleet.sites)
        assert new.store.devices.all_keys() == [] and new.store.audit.chains() == [new.store.workspace]
        assert not any(new.trust(site.id).exists for site in new.fleet.sites)
        report = sync(new, folder=str(fleet.workspace.root), new_roots=True).report
        assert report.refused == () and len(new.store.devices.all_keys()) == len(fleet.devices)


def test_a_plan_names_what_a_sync_would_refuse(fleet: CourierFleet) -> None:
    other = laptop(fleet, "two")
    key = generate_key()
    with other.store.atomic() as store:
        store.devices.put_identity(fleet.devices[0].id, key.public_pem, key.key_id, "", fleet.clock.now_ms() + 1)
    plan = plan_sync(fleet.workspace, folder=str(other.root))
    assert len(plan.report.refused) == 1 and "row by row" in plan.signature
