"""Delivering to simulated devices over fake channels: errors, retries, halts, and a kill at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import RefusedError, TrustError, UnreachableError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.collect import collect_device
from pumpdeck_fleet.services.deploy_delivery import deliver_due
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.store import Store
from support.fake_devices import T0, FakeChannel, Killed, Steps, make_fleet
from support.workspaces import MODEL, POLICY, Yard, make_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = make_yard(tmp_path)
    yield made
    made.store.close()


def first_wave(yard: Yard) -> tuple[str, str]:
    """A running rollout whose first device is due; (rollout, device)."""
    rollout = yard.running()
    deploy.advance(yard.store, yard.fleet, yard.clock.now_ms())
    return rollout.id, rollout.plan.waves[0][0]


def task_of(yard: Yard, rollout: str, device: str) -> TaskState:
    return yard.store.rollouts.load(rollout).tasks[device].state


def test_one_conversation_does_everything_in_order(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    report = deliver_due(yard.delivery())
    assert (report.tried, report.committed, report.problems) == (1, (device,), ())
    assert yard.devices[device].calls == ["hello", "have", *["chunk"] * 3, "seal", "assign", "collect", "ack"]
    assert task_of(yard, rollout, device) is TaskState.COMMITTED
    assert yard.devices[device].outbox == {}
    assert [row.receipt.outcome for row in yard.store.receipts.of(device)] == [Outcome.COMMITTED]


def test_a_wave_is_signed_in_one_batch_a_site(yard: Yard) -> None:
    yard.running(policy=replace(POLICY, waves=("rest",)))
    deploy.advance(yard.store, yard.fleet, T0)
    deliver_due(yard.delivery())
    assert sorted(yard.assigner.batches) == [("site0", 2), ("site1", 2)]


def test_an_unreachable_device_is_tried_again_later_and_later(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    yard.devices[device].error = UnreachableError("no answer", device)
    assert deliver_due(yard.delivery()).problems == ((device, f"{device}: no answer"),)
    assert deliver_due(yard.delivery()).tried == 0
    (row,) = yard.store.outbox.waiting(device)
    assert (row.due_ms, row.tries) == (T0 + 30_000, 1)
    yard.clock.advance(30_000)
    deliver_due(yard.delivery())
    (row,) = yard.store.outbox.waiting(device)
    assert (row.due_ms, row.tries) == (T0 + 90_000, 2)
    assert task_of(yard, rollout, device) is TaskState.SENDING
    yard.devices[device].error = None
    yard.clock.advance(60_000)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.COMMITTED


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("the host key is another one", "d", retryable=False),
        UnreachableError("the login was refused", "d", retryable=False),
        TrustError("another device answers", "d"),
    ],
)
def test_a_wrong_host_key_is_never_tried_again(yard: Yard, error: UnreachableError) -> None:
    rollout, device = first_wave(yard)
    yard.devices[device].error = error
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.REFUSED
    assert yard.store.rollouts.load(rollout).state is RolloutState.HALTED
    assert yard.store.outbox.waiting() == []


def test_another_device_at_the_address_gets_nothing(yard: Yard) -> None:
    """An attacker answers with a key of its own."""
    rollout, device = first_wave(yard)
    other = next(name for name in yard.devices if name != device)
    yard.devices[device].signer = yard.devices[other].signer
    deliver_due(yard.delivery())
    assert yard.devices[device].calls == ["hello"]
    assert task_of(yard, rollout, device) is TaskState.REFUSED


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.ROLLED_BACK, Outcome.FAILED_INCONSISTENT])
def test_a_bad_receipt_halts_and_nothing_more_is_sent(yard: Yard, outcome: Outcome) -> None:
    rollout, device = first_wave(yard)
    yard.devices[device].outcome = outcome
    deliver_due(yard.delivery())
    assert yard.store.rollouts.load(rollout).state is RolloutState.HALTED
    yard.clock.advance(100_000)
    deploy.advance(yard.store, yard.fleet, yard.clock.now_ms())
    assert deliver_due(yard.delivery()).tried == 0
    assert all(not found.calls for name, found in yard.devices.items() if name != device)
    assert yard.store.registry.aliases(MODEL) == {}


def test_a_forged_receipt_commits_nothing(yard: Yard) -> None:
    """The device's key was swapped after the hello: the receipt does not verify."""
    rollout, device = first_wave(yard)
    found = yard.devices[device]
    real, forger = found.sign_receipt, next(one for name, one in yard.devices.items() if name != device)
    found.sign_receipt = forger.sign_receipt  # type: ignore[method-assign]
    report = deliver_due(yard.delivery())
    assert "unknown key" in report.problems[0][1]
    assert task_of(yard, rollout, device) is TaskState.STAGED
    assert yard.store.receipts.of(device) == []
    found.sign_receipt = real  # type: ignore[method-assign]


def declining(*_args: object) -> object:
    raise TrustError("the signature of deploy does not hold", "assign.json")


def test_a_device_that_does_not_believe_the_assignment_halts_at_once(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    yard.devices[device]._assign = declining  # type: ignore[method-assign,assignment]
    report = deliver_due(yard.delivery())
    assert "does not hold" in report.problems[0][1]
    assert task_of(yard, rollout, device) is TaskState.REFUSED
    assert yard.store.rollouts.load(rollout).state is RolloutState.HALTED
    assert yard.store.outbox.waiting() == []


def test_a_second_assignment_that_is_declined_says_nothing_of_the_first(yard: Yard) -> None:
    """The answer to the first was lost; the device may be in trial with it."""
    rollout, device = first_wave(yard)
    found = yard.devices[device]
    real = found._assign

    def cut(header: object, body: bytes) -> object:
        real(header, body)  # type: ignore[arg-type]
        raise UnreachableError("the link broke", device)

    found._assign = cut  # type: ignore[method-assign,assignment]
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.STAGED
    found._assign = declining  # type: ignore[method-assign,assignment]
    yard.clock.advance(60_000)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.STAGED
    found._assign = real  # type: ignore[method-assign]
    yard.clock.advance(120_000)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.COMMITTED
    assert len(found.commits) == 1


def test_a_damaged_package_never_leaves(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    path = yard.artifacts.path(yard.package_of(device))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    deliver_due(yard.delivery())
    assert yard.devices[device].calls == []
    assert task_of(yard, rollout, device) is TaskState.REFUSED


def test_a_vetoed_device_is_asked_again(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    yard.devices[device].veto = "veto: crew at work"
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.STAGED
    assert yard.store.rollouts.load(rollout).why(device) == ("veto: crew at work",)
    yard.devices[device].veto = ""
    yard.clock.advance(60_000)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.COMMITTED


def test_a_key_that_is_not_there_leaves_the_devices_alone(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    yard.assigner.error = RefusedError("the deploy key is not there", "site0")
    deliver_due(yard.delivery())
    assert yard.devices[device].calls == []
    assert task_of(yard, rollout, device) is TaskState.SENDING
    yard.assigner.error = None
    yard.clock.advance(60_000)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.COMMITTED


def test_a_halt_between_package_and_assignment_keeps_the_assignment_back(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    found = yard.devices[device]
    seal = found._seal

    def halting_seal(header: object, body: bytes) -> object:
        with Store.open(yard.path / "pumpdeck.db", yard.clock) as other:
            deploy.halt(other, rollout, "storm", actor="actor-a", now_ms=T0)
        return seal(header, body)  # type: ignore[arg-type]

    found._seal = halting_seal  # type: ignore[method-assign,assignment]
    deliver_due(yard.delivery())
    assert "assign" not in found.calls
    assert found.commits == []
    assert task_of(yard, rollout, device) is TaskState.SENDING
    deploy.resume(yard.store, rollout, "calm", actor="actor-a", now_ms=T0)
    deliver_due(yard.delivery())
    assert task_of(yard, rollout, device) is TaskState.COMMITTED


def test_a_command_outside_the_approved_plan_is_refused(yard: Yard) -> None:
    rollout, device = first_wave(yard)
    found = yard.store.rollouts.load(rollout)
    (row,) = yard.store.outbox.waiting(device)
    assert isinstance(row.command, ev.Deliver)
    deploy.check_sendable(found, row.command)
    for changes in ({"plan_digest": "0" * 64}, {"package_sha256": "0" * 64}, {"seq": 99}, {"device": "d999"}):
        with pytest.raises(RefusedError):
            deploy.check_sendable(found, replace(row.command, **changes))


def test_courier_devices_are_left_for_a_bundle(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, fleet=make_fleet(2, link=Link.COURIER))
    rollout, device = first_wave(yard)
    assert deliver_due(yard.delivery()).tried == 0
    assert task_of(yard, rollout, device) is TaskState.WAIT_COURIER
    assert len(yard.store.outbox.waiting(device)) == 1


def test_a_defect_in_a_thread_is_not_swallowed(yard: Yard) -> None:
    first_wave(yard)

    def broken(_device: object) -> object:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deliver_due(replace(yard.delivery(), connect=broken))  # type: ignore[arg-type]


def test_many_devices_at_once_end_as_one_by_one(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, devices=40)
    rollout = yard.running(policy=replace(POLICY, waves=("rest",)))
    deploy.advance(yard.store, yard.fleet, T0)
    report = deliver_due(yard.delivery(concurrency=8))
    assert sorted(report.committed) == sorted(yard.devices)
    assert all(len(device.commits) == 1 for device in yard.devices.values())
    assert {task.state for task in yard.store.rollouts.load(rollout.id).tasks.values()} == {TaskState.COMMITTED}
    yard.store.audit.verify()
    yard.store.close()


# A kill at every step


@contextmanager
def killing_commits(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A step before and one after each commit of an outermost transaction."""
    real = Store.atomic
    depth = 0

    @contextmanager
    def counted(store: Store) -> Iterator[Store]:
        nonlocal depth
        depth += 1
        try:
            with real(store) as inside:
                yield inside
                if depth == 1:
                    steps.step()
        finally:
            depth -= 1
        if depth == 0:
            steps.step()

    with monkeypatch.context() as patch:
        patch.setattr(Store, "atomic", counted)
        yield


def run(yard: Yard, steps: Steps) -> None:
    """Everything from the first tick to the end of the rollout, as one process would do it."""
    for _ in range(6):
        deploy.advance(yard.store, yard.fleet, yard.clock.now_ms())
        deliver_due(yard.delivery(steps, concurrency=1))
        yard.clock.advance(15_000)


def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill between each two steps, start again, finish: one commit a device, the audit chain whole."""
    kill_at, was_killed = 0, True
    while was_killed:
        kill_at += 1
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        yard = make_yard(folder, devices=2)
        rollout = yard.running()
        steps = Steps(kill_at)
        yard.assigner.steps = steps
        try:
            with killing_commits(steps, monkeypatch):
                run(yard, steps)
            was_killed = False
        except Killed:
            pass
        yard.assigner.steps = Steps()
        yard.reopen()
        run(yard, Steps())
        _check_whole(yard, rollout.id, kill_at)
        yard.store.close()
    assert kill_at > 60


def _check_whole(yard: Yard, rollout_id: str, kill_at: int) -> None:
    for device in yard.devices.values():
        # A kill between storing and acknowledging leaves the receipt on the device; the next collect takes it, once.
        report = collect_device(yard.collector, FakeChannel(device, Steps()), device.device)
        assert (device.outbox, report.stored, report.problems) == ({}, {}, ()), kill_at
    rollout = yard.store.rollouts.load(rollout_id)
    assert rollout.state is RolloutState.COMPLETED, (kill_at, rollout.reason)
    for name, device in yard.devices.items():
        assert device.commits == [yard.package_of(name)], kill_at
        (row,) = yard.store.receipts.of(name)
        assert rollout.tasks[name].receipt_digest == row.digest
    actions = [(entry.action, entry.subject) for entry in yard.store.audit.entries(limit=10_000)]
    for name in yard.devices:
        assert actions.count(("task.assign", name)) == 1
        assert actions.count(("task.committed", name)) == 1
    assert actions.count(("rollout.completed", rollout_id)) == 1
    assert actions.count(("alias.champion", MODEL)) == 1
    assert yard.store.registry.aliases(MODEL) == {Alias.CHAMPION: 1}
    assert yard.store.outbox.waiting() == []
    yard.store.audit.verify()


def test_feeding_is_all_or_nothing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, device = first_wave(yard)
    before = (yard.store.rollouts.load(rollout), yard.store.audit.head())

    def failing(*_args: object, **_more: object) -> None:
        raise Killed

    monkeypatch.setattr(type(yard.store.audit), "append", failing)
    with pytest.raises(Killed):
        feed(yard.store, rollout, [ev.Staged(T0, device)])
    assert (yard.store.rollouts.load(rollout), yard.store.audit.head()) == before
