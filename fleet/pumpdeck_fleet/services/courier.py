"""Device tasks that leave with a courier: the same commands of the same outbox, handed out instead of sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState
from pumpdeck_fleet.services.deploy import check_sendable
from pumpdeck_fleet.services.deploy_delivery import assignment_of
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.store import Store

_WITH_COURIER = frozenset({TaskState.WAIT_COURIER, TaskState.SENDING})


@dataclass(frozen=True, slots=True)
class CourierTask:
    """One command that may leave on a stick now. `is_again`: a stick has left with it before."""

    command: ev.Deliver
    rollout: Rollout

    @property
    def is_again(self) -> bool:
        return self.rollout.tasks[self.command.device].assign_ms > 0

    @property
    def deadline_ms(self) -> int:
        """When the console stops waiting for its receipt."""
        return self.rollout.tasks[self.command.device].deadline_ms

    @property
    def assignment(self) -> Assignment:
        """What has to be signed for it; the same every time."""
        return assignment_of(self.command, self.rollout)


@dataclass(frozen=True, slots=True)
class AwaitedReturn:
    """A device whose receipt has not come back. `left_ms` is 0 while no stick has left with its assignment."""

    device: str
    site: str
    rollout: str
    state: TaskState
    left_ms: int
    deadline_ms: int


def courier_tasks(store: Store, devices: Collection[str]) -> tuple[list[CourierTask], list[tuple[str, str]]]:
    """What may leave for these devices, and which commands must not, with the reason."""
    tasks, problems = [], []
    retired = store.devices.retired()
    for row in store.outbox.waiting():
        command = row.command
        if not isinstance(command, ev.Deliver) or command.link is not Link.COURIER or command.device not in devices:
            continue
        if command.device in retired:
            problems.append((command.device, "it is retired"))
            continue
        rollout = store.rollouts.load(command.rollout)
        if rollout.state is not RolloutState.RUNNING:
            problems.append((command.device, f"rollout {rollout.id} is {rollout.state}"))
            continue
        try:
            check_sendable(rollout, command)
        except PumpdeckError as error:
            problems.append((command.device, error.sentence()))
            continue
        if rollout.tasks[command.device].state in _WITH_COURIER:
            tasks.append(CourierTask(command, rollout))
    return tasks, problems


def hand_out(store: Store, tasks: Sequence[CourierTask], now_ms: int) -> None:
    """From here on these assignments count as given away, whether the stick arrives or not.

    Call when all their bytes lie on the stick and nothing there says yet that it is whole: never given away before it is stored.
    """
    by_rollout: dict[str, list[ev.Event]] = {}
    for task in tasks:
        by_rollout.setdefault(task.command.rollout, []).append(ev.HandedOut(now_ms, task.command.device))
    with store.atomic():
        for rollout, events in by_rollout.items():
            feed(store, rollout, events)


def awaited_returns(store: Store) -> tuple[AwaitedReturn, ...]:
    """Every courier device whose receipt is outstanding, the nearest deadline first."""
    found = []
    for rollout_id in {rollout for _, rollout in store.rollouts.live_tasks().values()}:
        rollout = store.rollouts.load(rollout_id)
        for device, task in rollout.tasks.items():
            planned = rollout.plan.by_device[device]
            if planned.link is Link.COURIER and task.is_live and task.deadline_ms:
                found.append(
                    AwaitedReturn(device, planned.site, rollout_id, task.state, task.assign_ms, task.deadline_ms)
                )
    return tuple(sorted(found, key=lambda one: (one.deadline_ms, one.device)))
