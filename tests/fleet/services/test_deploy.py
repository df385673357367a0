"""Planning, approving and starting on a real store; time in `advance`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.clock import HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError
from pumpdeck_fleet.core.inventory import Fleet, Site, Window
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.deploy_delivery import deliver_due
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.services.site_windows import is_open
from support.fake_devices import T0, make_fleet
from support.workspaces import MODEL, POLICY, Yard, make_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = make_yard(tmp_path)
    yield made
    made.store.close()


def run_to_end(yard: Yard, rollout_id: str) -> None:
    """Tick and deliver until the rollout does not move on its own any more."""
    for _ in range(20):
        yard.clock.advance(15_000)
        deploy.advance(yard.store, yard.fleet, yard.clock.now_ms())
        if yard.store.rollouts.load(rollout_id).state is not RolloutState.RUNNING:
            return
        deliver_due(yard.delivery())
    raise AssertionError("the rollout never ended")


def test_a_rollout_reaches_every_device_and_moves_the_champion(yard: Yard) -> None:
    rollout = yard.running()
    run_to_end(yard, rollout.id)
    assert yard.store.rollouts.load(rollout.id).state is RolloutState.COMPLETED
    assert {name: device.active for name, device in yard.devices.items()} == {
        name: yard.package_of(name) for name in yard.devices
    }
    assert yard.store.registry.aliases(MODEL) == {Alias.CHAMPION: 1}
    assert yard.store.devices.active() == {name: device.active for name, device in yard.devices.items()}
    assert yard.store.outbox.waiting() == []
    assert yard.store.rollouts.live_tasks() == {}
    yard.store.audit.verify()


def test_the_champion_before_becomes_the_previous(yard: Yard) -> None:
    run_to_end(yard, yard.running(1).id)
    yard.build(2)
    run_to_end(yard, yard.running(2).id)
    assert yard.store.registry.aliases(MODEL) == {Alias.CHAMPION: 2, Alias.PREVIOUS: 1}
    moves = [entry for entry in yard.store.audit.entries(limit=10_000) if entry.action == "alias.champion"]
    assert [entry.subject for entry in moves] == [MODEL, MODEL]


def test_a_dry_run_stores_nothing(yard: Yard) -> None:
    before = (yard.store.audit.head(), yard.store.rollouts.states())
    request = deploy.PlanRequest({MODEL: 1}, tuple(yard.devices), POLICY)
    plan = deploy.draft_plan(yard.store, yard.fleet, request, T0)
    assert plan.wave_sizes == (1, 3)
    assert (yard.store.audit.head(), yard.store.rollouts.states()) == before


def test_a_plan_for_an_unknown_version_or_device_is_refused(yard: Yard) -> None:
    with pytest.raises(NotFoundError, match="no such model version"):
        deploy.draft_plan(yard.store, yard.fleet, deploy.PlanRequest({MODEL: 9}, ("d000",), POLICY), T0)
    with pytest.raises(NotFoundError, match="no such device"):
        deploy.draft_plan(yard.store, yard.fleet, deploy.PlanRequest({MODEL: 1}, ("d999",), POLICY), T0)


def test_who_is_left_out_and_why(tmp_path: Path) -> None:
    fleet = make_fleet(4)
    nowhere = replace(fleet.devices[1], address="")
    fleet = replace(fleet, devices=(fleet.devices[0], nowhere, *fleet.devices[2:]))
    yard = make_yard(tmp_path, fleet=fleet)
    with yard.store.atomic() as store:
        store._sql.write("UPDATE device SET public_pem = NULL WHERE device = 'd002'")
        store._sql.write("DELETE FROM device_key WHERE device = 'd002'")
    run_to_end(yard, yard.running().id)
    request = deploy.PlanRequest({MODEL: 1}, tuple(yard.devices), POLICY)
    with pytest.raises(RefusedError) as refused:
        deploy.draft_plan(yard.store, yard.fleet, request, T0)
    assert "it has no address" in str(refused.value)
    assert "not enrolled" in str(refused.value)
    assert "it runs this package already" in str(refused.value)


def test_every_step_of_a_person_is_audited_with_the_plan_hash(yard: Yard) -> None:
    rollout = yard.running()
    entries = [entry for entry in yard.store.audit.entries() if entry.action.startswith("rollout.")]
    assert [(entry.action, entry.actor) for entry in entries] == [
        ("rollout.planned", "actor-author"),
        ("rollout.approve", "actor-approver"),
        ("rollout.approved", "actor-approver"),
        ("rollout.running", "actor-operator"),
    ]
    assert {entry.digests["plan"] for entry in entries} == {rollout.plan_digest}


def test_a_refused_event_leaves_store_and_audit_as_they_were(yard: Yard) -> None:
    rollout = yard.running()
    before = (yard.store.audit.head(), yard.store.rollouts.load(rollout.id))
    with pytest.raises(RefusedError):
        deploy.approve(yard.store, rollout.id, "0" * 64, actor="actor-x", now_ms=T0)
    assert (yard.store.audit.head(), yard.store.rollouts.load(rollout.id)) == before


def test_one_live_task_a_device_over_all_rollouts(yard: Yard) -> None:
    first = yard.running()
    with pytest.raises(ConflictError, match="live task"):
        yard.running()
    assert yard.store.rollouts.load(first.id).state is RolloutState.RUNNING
    assert {rollout for _, rollout in yard.store.rollouts.live_tasks().values()} == {first.id}


def test_a_newer_rollout_may_supersede_what_was_not_handed_over(yard: Yard) -> None:
    first = yard.running()
    yard.build(2)
    request = deploy.PlanRequest({MODEL: 2}, tuple(yard.devices), POLICY)
    second = deploy.plan(yard.store, yard.fleet, request, actor="actor-a", now_ms=T0)
    deploy.approve(yard.store, second.id, second.plan_digest, actor="actor-b", now_ms=T0)
    deploy.start(yard.store, second.id, actor="actor-a", now_ms=T0, supersede=True)
    states = {task.state for task in yard.store.rollouts.load(first.id).tasks.values()}
    assert states == {TaskState.SUPERSEDED}
    assert {rollout for _, rollout in yard.store.rollouts.live_tasks().values()} == {second.id}
    assert min(task.seq for task in yard.store.rollouts.load(second.id).tasks.values()) == 2


def test_redundant_pumps_of_two_rollouts_are_never_tried_at_once(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, fleet=make_fleet(4, group="P-1"))
    policy = replace(POLICY, waves=("rest",))
    for devices in (("d000",), ("d002",)):
        request = deploy.PlanRequest({MODEL: 1}, devices, policy)
        rollout = deploy.plan(yard.store, yard.fleet, request, actor="actor-a", now_ms=T0)
        deploy.approve(yard.store, rollout.id, rollout.plan_digest, actor="actor-b", now_ms=T0)
        deploy.start(yard.store, rollout.id, actor="actor-a", now_ms=T0)
    deploy.advance(yard.store, yard.fleet, T0 + 1)
    assert [row.command.device for row in yard.store.outbox.waiting()] == ["d000"]  # type: ignore[union-attr]
    waiting = yard.store.rollouts.all()[1]
    assert "holds it" in waiting.why("d002")[0]


def test_a_closed_window_holds_a_site_back_and_opens_again(tmp_path: Path) -> None:
    # T0 is midnight UTC.
    yard = make_yard(tmp_path, fleet=make_fleet(2, window=Window(120, 300)))
    rollout = yard.running()
    (after,) = deploy.advance(yard.store, yard.fleet, T0)
    assert {task.state for task in after.tasks.values()} == {TaskState.QUEUED, TaskState.WAIT_WINDOW}
    assert "outside the maintenance window 02:00-05:00 UTC" in " ".join(after.why(after.plan.waves[0][0]))
    assert yard.store.outbox.waiting() == []
    (after,) = deploy.advance(yard.store, yard.fleet, T0 + 2 * HOUR_MS)
    assert after.tasks[rollout.plan.waves[0][0]].state is TaskState.UNKNOWN  # the deadline of one hour came first


def test_a_policy_may_ignore_the_windows(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, fleet=make_fleet(2, window=Window(120, 300)))
    yard.running(policy=replace(POLICY, keep_windows=False))
    deploy.advance(yard.store, yard.fleet, T0)
    assert len(yard.store.outbox.waiting()) == 1


@pytest.mark.parametrize(
    ("minute", "is_inside"),
    [(21 * 60 + 59, False), (22 * 60, True), (23 * 60 + 59, True), (0, True), (119, True), (120, False)],
)
def test_a_window_may_wrap_around_midnight(minute: int, is_inside: bool) -> None:
    site = Site("a", "A", "platform", make_fleet().sites[0].link, window=Window(22 * 60, 120))
    assert is_open(site, T0 + minute * MINUTE_MS) is is_inside


def test_a_window_is_in_the_sites_own_time(tmp_path: Path) -> None:
    site = Site("a", "A", "platform", make_fleet().sites[0].link, time_zone="Asia/Dubai", window=Window(120, 300))
    assert is_open(site, T0)  # midnight UTC, 04:00 in Dubai
    assert not is_open(site, T0 + 2 * HOUR_MS)


def test_a_daily_cap_bounds_what_goes_to_a_site_in_a_day(tmp_path: Path) -> None:
    fleet = make_fleet(8)  # four devices at each of two sites, 152 kB each
    fleet = replace(fleet, sites=tuple(replace(site, daily_cap_mb=0.2) for site in fleet.sites))
    yard = make_yard(tmp_path, fleet=fleet)
    rollout = yard.running(policy=replace(POLICY, waves=("rest",), deadline_s=7 * 86_400.0))
    for day in range(2):
        for _ in range(3):
            yard.clock.advance(15_000)
            deploy.advance(yard.store, fleet, yard.clock.now_ms())
            deliver_due(yard.delivery())
        assert sum(len(device.commits) for device in yard.devices.values()) == 4 * (day + 1)
        yard.clock.advance(24 * HOUR_MS)
    assert yard.store.rollouts.load(rollout.id).state is RolloutState.COMPLETED
    yard.store.close()


def test_a_window_that_closes_after_the_command_was_given_is_kept(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, fleet=make_fleet(2, window=Window(120, 300)))
    yard.clock.advance(5 * HOUR_MS - 1)
    yard.running()
    deploy.advance(yard.store, yard.fleet, yard.clock.now_ms())
    assert len(yard.store.outbox.waiting()) == 1
    yard.clock.advance(1)
    assert deliver_due(yard.delivery()).tried == 0
    assert all(not device.calls for device in yard.devices.values())
    yard.store.close()


def test_a_revert_brings_back_what_ran_before(yard: Yard) -> None:
    run_to_end(yard, yard.running(1).id)
    first = {name: device.active for name, device in yard.devices.items()}
    yard.build(2)
    second = yard.running(2)
    run_to_end(yard, second.id)
    assert {name: device.active for name, device in yard.devices.items()} != first
    back = deploy.revert(yard.store, second.id, "worse", actor="actor-a", now_ms=yard.clock.now_ms())
    assert yard.store.rollouts.load(second.id).state is RolloutState.REVERTING
    deploy.approve(yard.store, back.id, back.plan_digest, actor="actor-b", now_ms=yard.clock.now_ms())
    deploy.start(yard.store, back.id, actor="actor-a", now_ms=yard.clock.now_ms())
    run_to_end(yard, back.id)
    assert {name: device.active for name, device in yard.devices.items()} == first
    assert yard.store.rollouts.load(second.id).state is RolloutState.REVERTED
    assert yard.store.registry.aliases(MODEL)[Alias.CHAMPION] == 1


def test_a_first_rollout_has_nothing_to_go_back_to(yard: Yard) -> None:
    rollout = yard.running(1)
    run_to_end(yard, rollout.id)
    with pytest.raises(RefusedError, match="no model before"):
        deploy.revert(yard.store, rollout.id, "worse", actor="actor-a", now_ms=T0)
    assert yard.store.rollouts.load(rollout.id).state is RolloutState.COMPLETED


def test_a_rollout_is_found_by_the_beginning_of_its_name(yard: Yard) -> None:
    rollout = yard.running()
    assert deploy.find_rollout(yard.store, rollout.id[:5]).id == rollout.id
    with pytest.raises(NotFoundError):
        deploy.find_rollout(yard.store, "r9")


def test_a_late_receipt_reaches_a_rollout_that_gave_the_device_up(yard: Yard) -> None:
    rollout = yard.running()
    deploy.advance(yard.store, yard.fleet, T0)
    device = rollout.plan.waves[0][0]
    feed(yard.store, rollout.id, [ev.Staged(T0, device)])
    deploy.advance(yard.store, yard.fleet, T0 + 2 * HOUR_MS)
    assert yard.store.rollouts.load(rollout.id).tasks[device].state is TaskState.UNKNOWN
    assert yard.store.rollouts.live_task(device) is None


def test_fleet_without_devices_cannot_be_planned(yard: Yard) -> None:
    empty = Fleet("none", (), (), (), {}, {}, {})
    with pytest.raises(RefusedError, match="no device"):
        deploy.draft_plan(yard.store, empty, deploy.PlanRequest({MODEL: 1}, (), POLICY), T0)
