"""Rollouts and the outbox: kept as they stand, one live task a device, commands once, in order, until they are done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, NotFoundError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import plan_rollout
from support.rollouts import POLICY, VERSIONS, make_plan, plan_device, started
from support.stores import T0, open_store


def deliver(number: int, device: str = "d1", not_before_ms: int = 0) -> ev.Deliver:
    return ev.Deliver(f"r1:{number}", "r1", device, "gannet", Link.SSH, "a" * 64, 100, number, "b" * 64, not_before_ms)


def test_a_rollout_comes_back_as_it_stood(tmp_path: Path) -> None:
    rollout = started(make_plan(5))
    with open_store(tmp_path) as store:
        with store.atomic():
            store.rollouts.save(rollout)
        assert store.rollouts.load(rollout.id) == rollout
        assert store.rollouts.all() == [rollout]
        assert store.rollouts.states() == {rollout.id: "RUNNING"}
        with pytest.raises(NotFoundError):
            store.rollouts.load("none")


def test_live_tasks_follow_the_rollout_and_stand_once_a_device(tmp_path: Path) -> None:
    plan = make_plan(5)
    rollout = started(plan)
    with open_store(tmp_path) as store:
        with store.atomic():
            store.rollouts.save(rollout)
        live = store.rollouts.live_tasks()
        assert live == {device: (task.id, rollout.id) for device, task in rollout.tasks.items() if task.is_live}
        device = next(iter(live))
        assert store.rollouts.live_task(device) == live[device][0]
        assert store.rollouts.live_task("none") is None
        ended, _ = rollout.receive(ev.Abort(T0 + 1, "actor-1", "enough"))
        with store.atomic():
            store.rollouts.save(ended)
        assert set(store.rollouts.live_tasks()) == {name for name, task in ended.tasks.items() if task.is_live}


def test_a_second_rollout_cannot_take_a_device_that_has_a_live_task(tmp_path: Path) -> None:
    entries = [plan_device(number) for number in range(3)]
    one, other = (started(plan_rollout(name, VERSIONS, entries, POLICY, created_ms=T0)) for name in ("r1", "r2"))
    with open_store(tmp_path) as store:
        with store.atomic():
            store.rollouts.save(one)
        before = store.rollouts.live_tasks()
        with pytest.raises(ConflictError, match="live task"), store.atomic():
            store.rollouts.save(other)
        assert store.rollouts.live_tasks() == before
        assert [rollout.id for rollout in store.rollouts.all()] == ["r1"]


def test_a_plan_that_was_altered_is_damage(tmp_path: Path) -> None:
    rollout = started(make_plan(2))
    with open_store(tmp_path) as store:
        with store.atomic():
            store.rollouts.save(rollout)
            store._sql.write("UPDATE rollout SET body = replace(body, 'd000', 'd009')")
        with pytest.raises(DamagedError):
            store.rollouts.load(rollout.id)
        assert isinstance(rollout, Rollout)


def test_commands_come_in_order_once_and_until_they_are_done(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.outbox.add([deliver(2), deliver(1, "d2"), ev.Withdraw("w1")]) == 3
            assert store.outbox.add([deliver(2), deliver(3)]) == 1
        rows = store.outbox.due(T0)
        assert [row.command.id for row in rows] == ["r1:2", "r1:1", "w1", "r1:3"]
        assert rows[0].command == deliver(2)
        assert isinstance(rows[2].command, ev.Withdraw)
        assert [row.command.id for row in store.outbox.due(T0, limit=2)] == ["r1:2", "r1:1"]
        assert [row.command.id for row in store.outbox.waiting("d1")] == ["r1:2", "r1:3"]
        with store.atomic():
            assert store.outbox.done("r1:2")
            assert not store.outbox.done("r1:2")
            assert store.outbox.add([deliver(2)]) == 0
        assert [row.command.id for row in store.outbox.waiting()] == ["r1:1", "w1", "r1:3"]


def test_a_command_is_not_due_before_its_time(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.outbox.add([deliver(1, not_before_ms=T0 + 50), deliver(2)], due_ms=T0 + 10)
        assert store.outbox.due(T0 + 9) == []
        assert [row.command.id for row in store.outbox.due(T0 + 10)] == ["r1:2"]
        with store.atomic():
            store.outbox.retry("r1:2", T0 + 99, "no route")
        assert [row.command.id for row in store.outbox.due(T0 + 60)] == ["r1:1"]
        (row,) = (row for row in store.outbox.waiting() if row.command.id == "r1:2")
        assert (row.due_ms, row.tries, row.why) == (T0 + 99, 1, "no route")


def test_state_commands_and_audit_are_one(tmp_path: Path) -> None:
    rollout = started(make_plan(2))
    with open_store(tmp_path) as store:
        with pytest.raises(KeyError), store.atomic():
            store.rollouts.save(rollout)
            store.outbox.add([deliver(1)])
            store.audit.append("actor-1", "rollout.start", rollout.id)
            raise KeyError
        assert (store.rollouts.all(), store.outbox.waiting(), store.audit.entries()) == ([], [], [])
