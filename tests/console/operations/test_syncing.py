"""Two laptops with real trust and real devices: each works by itself, then they meet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations import syncing
from pumpdeck_console.operations.agent_releases import agent_desk, build_agent_release
from pumpdeck_console.operations.backups import backup
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.syncing import list_conflicts, plan_sync, sync
from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store.merge import dump
from pumpdeck_packaging.agent_desk import AgentContent
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME
from pumpdeck_packaging.trust_repository import AssignmentRequest
from support.courier_fleet import MODEL, POLICY, CourierFleet, courier_fleet
from support.second_laptop import laptop, started


@pytest.fixture
def fleet(tmp_path: Path) -> CourierFleet:
    fleet = courier_fleet(tmp_path / "fleet")
    fleet.release(1)
    return fleet


def test_work_of_both_laptops_meets(fleet: CourierFleet) -> None:
    other = laptop(fleet, "two")
    pump = fleet.workspace.fleet.pumps[0].id
    with other.store.atomic() as store:
        store.labels.add(Label(pump, 0, HOUR_MS, Verdict.FAULT, "bearing", other.actor, fleet.clock.now_ms()))
        at_ms = np.arange(0, HOUR_MS, 60_000, dtype=np.int64)
        rows = TelemetryFrame(("flow_m3_h",), at_ms, np.ones((60, 1), np.float32), np.zeros(60, np.uint16))
        store.telemetry.append(pump, rows)
    digest = other.artifacts.put(b"a card written in the field")
    plan = plan_sync(fleet.workspace, folder=str(other.root))
    assert plan.is_plan and plan.report.taken["telemetry"] == 60
    assert fleet.workspace.store.labels.all() == [] and not fleet.workspace.artifacts.has(digest)
    result = sync(fleet.workspace, folder=str(other.root))
    assert result.report.taken == plan.report.taken
    assert not result.report.refused and not result.report.conflicts
    assert len(fleet.workspace.store.labels.all()) == 1
    assert fleet.workspace.artifacts.get(digest) == b"a card written in the field"
    again = sync(fleet.workspace, folder=str(other.root))
    assert not again.report.is_news
    back = sync(other, folder=str(fleet.workspace.root))
    assert not back.report.refused
    assert dump(other.store) == dump(fleet.workspace.store)
    assert fleet.workspace.store.audit.verify().position > 0


def test_a_receipt_brought_by_another_laptop_ends_our_task(fleet: CourierFleet) -> None:
    first = fleet.devices[0].id
    rollout = started(fleet.workspace, fleet, (first,))
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    fleet.visit(first)
    other = laptop(fleet, "two")
    intake_bundle(other, folder=str(fleet.stick().folder))
    assert fleet.workspace.store.rollouts.load(rollout).tasks[first].state is TaskState.SENDING
    result = sync(fleet.workspace, folder=str(other.root))
    assert result.report.receipts == 1
    assert fleet.workspace.store.rollouts.load(rollout).tasks[first].state is TaskState.COMMITTED


def test_two_live_tasks_never_stand_on_one_device(fleet: CourierFleet) -> None:
    devices = tuple(device.id for device in fleet.devices)
    other = laptop(fleet, "two")
    mine = started(fleet.workspace, fleet, devices)
    rollout_operations.abort(other, rollout_id=started(other, fleet, devices), reason="this uses up the number")
    theirs = started(other, fleet, devices)
    deploy.advance(fleet.workspace.store, fleet.workspace.fleet, fleet.clock.now_ms())
    result = sync(fleet.workspace, folder=str(other.root))
    assert {one.device for one in result.report.gave_way} == set(devices)
    live = fleet.workspace.store.rollouts.live_tasks()
    assert {rollout for _, rollout in live.values()} == {theirs}
    ended = fleet.workspace.store.rollouts.load(mine)
    assert {task.state for task in ended.tasks.values()} == {TaskState.SUPERSEDED}
    assert all(theirs in task.note for task in ended.tasks.values())
    assert fleet.workspace.store.outbox.waiting() == []
    back = sync(other, folder=str(fleet.workspace.root))
    assert not back.report.gave_way
    assert other.store.rollouts.live_tasks() == live


def test_what_was_handed_over_is_waited_for(fleet: CourierFleet) -> None:
    first = fleet.devices[0].id
    other = laptop(fleet, "two")
    mine = started(fleet.workspace, fleet, (first,))
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    rollout_operations.abort(other, rollout_id=started(other, fleet, (first,)), reason="this uses up the number")
    started(other, fleet, (first,))
    sync(fleet.workspace, folder=str(other.root))
    assert fleet.workspace.store.rollouts.load(mine).tasks[first].state is TaskState.UNKNOWN
    fleet.visit(first)
    intake_bundle(fleet.workspace, folder=str(fleet.stick().folder))
    assert fleet.workspace.store.rollouts.load(mine).tasks[first].state is TaskState.COMMITTED


def test_a_rollout_has_one_driver(fleet: CourierFleet) -> None:
    first = fleet.devices[0].id
    other = laptop(fleet, "two")
    rollout = started(fleet.workspace, fleet, (first,))
    sync(other, folder=str(fleet.workspace.root))
    with pytest.raises(RefusedError, match="driven by another workspace"):
        rollout_operations.halt(other, rollout_id=rollout, reason="no")
    deploy.advance(other.store, other.fleet, fleet.clock.now_ms())
    assert other.store.outbox.waiting() == []
    rollout_operations.adopt(other, rollout_id=rollout, reason="the laptop fell into the sea")
    assert rollout_operations.halt(other, rollout_id=rollout, reason="no").state == RolloutState.HALTED
    sync(fleet.workspace, folder=str(other.root))
    assert fleet.workspace.store.rollouts.load(rollout).state is RolloutState.HALTED
    with pytest.raises(RefusedError, match="driven by another workspace"):
        rollout_operations.resume(fleet.workspace, rollout_id=rollout, reason="go")


def test_an_approval_given_elsewhere_counts_at_home(fleet: CourierFleet) -> None:
    other = laptop(fleet, "two")
    request = deploy.PlanRequest({MODEL: 1}, (fleet.devices[0].id,), POLICY)
    now_ms = fleet.clock.now_ms()
    rollout = deploy.plan(fleet.workspace.store, fleet.workspace.fleet, request, actor="actor-a", now_ms=now_ms)
    sync(other, folder=str(fleet.workspace.root))
    assert rollout_operations.approve(other, rollout_id=rollout.id).state == RolloutState.PLANNED
    result = sync(fleet.workspace, folder=str(other.root))
    assert result.report.approved == (rollout.id,)
    assert fleet.workspace.store.rollouts.load(rollout.id).state is RolloutState.RUNNING


def test_files_of_people_are_listed_and_left_alone(fleet: CourierFleet) -> None:
    other = laptop(fleet, "two")
    path = other.root / "policies.toml"
    path.write_bytes(path.read_bytes() + b"# changed in the field\n")
    before = (fleet.workspace.root / "policies.toml").read_bytes()
    result = sync(fleet.workspace, folder=str(other.root))
    assert [(one.kind, one.which) for one in result.report.conflicts] == [("file", "policies.toml")]
    assert (fleet.workspace.root / "policies.toml").read_bytes() == before
    assert [one.conflict.which for one in list_conflicts(fleet.workspace)] == ["policies.toml"]


def test_a_forged_receipt_in_an_exchange_is_refused(fleet: CourierFleet) -> None:
    """Attack: the other folder holds a receipt that no device signed."""
    first = fleet.devices[0].id
    rollout = started(fleet.workspace, fleet, (first,))
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    fleet.visit(first)
    other = laptop(fleet, "two")
    intake_bundle(other, folder=str(fleet.stick().folder))
    (row,) = other.store.receipts.of(first)
    with other.store.atomic() as store:
        forged = row.envelope.replace(b'"sig":"', b'"sig":"AAAA')
        assert forged != row.envelope
        store.side().sql.write("UPDATE receipt SET envelope = ? WHERE device = ?", (forged, first))
    result = sync(fleet.workspace, folder=str(other.root))
    assert [which for which, _ in result.report.refused] == [f"receipt 1 of {first}"]
    assert fleet.workspace.store.receipts.of(first) == []
    assert fleet.workspace.store.rollouts.load(rollout).tasks[first].state is TaskState.SENDING


def test_a_backup_is_as_good_as_the_workspace(fleet: CourierFleet, tmp_path: Path) -> None:
    other = laptop(fleet, "two")
    with other.store.atomic() as store:
        store.audit.append(other.actor, "work", "in the field")
    backup(other, to=str(tmp_path / "exchange.tar"))
    result = sync(fleet.workspace, folder=str(tmp_path / "exchange.tar"))
    assert result.report.taken["audit"] >= 1
    assert other.store.workspace in fleet.workspace.store.audit.chains()


def test_a_newer_release_of_the_agent_comes_along_and_an_older_one_never_takes_its_place(fleet: CourierFleet) -> None:
    other = laptop(fleet, "laptop2")
    site = fleet.devices[0].site
    first = build_agent_release(fleet.workspace, release=True)
    sync(other, folder=str(fleet.workspace.root))
    word = agent_desk(other, site).word()
    assert word.sha256 == first.sha256 and other.artifacts.has(first.sha256)
    newer = AgentContent("9.9.9", "a" * 64, 1000)
    fleet.clock.advance(HOUR_MS)
    agent_desk(other, site).release(newer, [other.signing_key("release", site).signer])
    sync(other, folder=str(fleet.workspace.root))
    assert agent_desk(other, site).word().version == "9.9.9"
    sync(fleet.workspace, folder=str(other.root))
    assert agent_desk(fleet.workspace, site).word().version == "9.9.9"
    envelope = other.trust_path / site / AGENT_WORD_NAME
    envelope.write_bytes(envelope.read_bytes().replace(b"a", b"b", 1))
    report = sync(fleet.workspace, folder=str(other.root)).report
    assert any(what == f"trust of {site}" for what, _ in report.refused)
    assert agent_desk(fleet.workspace, site).word().version == "9.9.9"


def test_what_is_no_workspace_is_said_so(fleet: CourierFleet, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="neither a workspace nor a backup"):
        sync(fleet.workspace, folder=str(tmp_path / "nowhere"))
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DamagedError):
        sync(fleet.workspace, folder=str(tmp_path / "a.tar"))


@pytest.mark.parametrize("cut", ["_merge_sites", "_merge_stores", "_sign_again", "_take_returns", "_start_approved"])
@pytest.mark.parametrize("is_after", [False, True])
def test_a_sync_that_was_cut_is_simply_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str, is_after: bool
) -> None:
    """Ctrl-C or a kill between any two steps: nothing acknowledged is lost, and the next run ends where one run would have."""
    fleet = courier_fleet(tmp_path / "fleet", devices_per_site=3)
    fleet.release(1)
    devices = tuple(device.id for device in fleet.devices if device.site == "gannet")
    other = laptop(fleet, "two")
    started(fleet.workspace, fleet, devices[:1])
    export_bundle(fleet.workspace, query="site:gannet", to=str(fleet.stick().folder))
    # The other laptop signs twice: its metadata is the newer one and takes the place of ours.
    rollout = started(other, fleet, devices[1:2])
    export_bundle(other, query="site:gannet", to=str(fleet.stick("theirs").folder))
    request = AssignmentRequest(devices[2], fleet.packages[devices[2]].sha256, "t-by-hand")
    other.trust("gannet").assign([request], other.signing_key("deploy", "gannet").signer)
    signed = [fleet.workspace.trust("gannet").assignment(devices[0])]
    signed += [other.trust("gannet").assignment(device) for device in devices[1:]]
    step = getattr(syncing, cut)

    def interrupted(*words: object, **more: object) -> None:
        if is_after:
            step(*words, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(syncing, cut, interrupted)
        with pytest.raises(KeyboardInterrupt):
            sync(fleet.workspace, folder=str(other.root))
    fleet.workspace.store.audit.verify()
    result = sync(fleet.workspace, folder=str(other.root))
    assert not result.report.refused and not result.unsigned
    assert set(fleet.workspace.store.rollouts.live_tasks()) == set(devices[:2])
    assert rollout in fleet.workspace.store.rollouts.states()
    assert [fleet.workspace.trust("gannet").assignment(device) for device in devices] == signed
    assert not sync(fleet.workspace, folder=str(other.root)).report.is_news


def test_two_laptops_that_signed_for_one_site_lose_no_assignment(tmp_path: Path) -> None:
    fleet = courier_fleet(tmp_path / "fleet", devices_per_site=2)
    fleet.release(1)
    first, second = (device.id for device in fleet.devices if device.site == "gannet")
    other = laptop(fleet, "two")
    mine = started(fleet.workspace, fleet, (first,))
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    theirs = started(other, fleet, (second,))
    export_bundle(other, to=str(fleet.stick("theirs").folder))
    result = sync(fleet.workspace, folder=str(other.root))
    assert result.unsigned == () and not result.report.conflicts
    sync(other, folder=str(fleet.workspace.root))
    for workspace in (fleet.workspace, other):
        trust = workspace.trust("gannet")
        assert {trust.assignment(first) is None, trust.assignment(second) is None} == {False}
    for device, stick in ((first, fleet.stick()), (second, fleet.stick("theirs"))):
        fleet.visit(device, stick)
        intake_bundle(fleet.workspace, folder=str(stick.folder))
    sync(other, folder=str(fleet.workspace.root))
    assert fleet.workspace.store.rollouts.load(mine).tasks[first].state is TaskState.COMMITTED
    assert other.store.rollouts.load(theirs).tasks[second].state is TaskState.COMMITTED


def test_an_assignment_is_signed_again_with_every_word_it_had() -> None:
    assignment = Assignment(1, "gannet-d1", "a" * 64, 7, 8, 9, "t-1", None, True, 3600, "a token")
    request = syncing._request(assignment)
    again = dataclasses.asdict(request) | dataclasses.asdict(request.terms)
    fields = {field.name for field in dataclasses.fields(Assignment)} - {"format"}
    assert {name: again[name] for name in fields} == {
        name: value for name, value in dataclasses.asdict(assignment).items() if name in fields
    }
