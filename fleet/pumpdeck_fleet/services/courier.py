"""Device tasks that leave with a courier: the same commands of the same outbox, handed out instead of sent, or sent as well."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState
from pumpdeck_fleet.core.sticks import StickEntry
from pumpdeck_fleet.services.deploy import check_sendable
from pumpdeck_fleet.services.deploy_delivery import assignment_of
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.store import Store

_WITH_COURIER = {
    Link.COURIER: frozenset({TaskState.WAIT_COURIER, TaskState.SENDING}),
    # What a link has brought in part, or in whole without an answer, a stick may bring again.
    Link.SSH: frozenset({TaskState.SENDING, TaskState.STAGED, TaskState.TRIAL}),
}


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
    """A device whose receipt has not come back. `left_ms` is 0 while no stick has left with its assignment.

    `stick`, `stick_state` and `carrier` are those of the last stick that left with it; empty when none is known.
    """

    device: str
    site: str
    rollout: str
    state: TaskState
    left_ms: int
    deadline_ms: int
    stick: str = ""
    stick_state: str = ""
    carrier: str = ""


@dataclass(frozen=True, slots=True)
class CourierWork:
    """What may leave for some devices (`tasks`), and who is left out although something is planned for it, with the reason."""

    tasks: tuple[CourierTask, ...]
    left_out: tuple[tuple[str, str], ...]


def courier_tasks(store: Store, devices: Collection[str]) -> CourierWork:
    """What may leave on a stick for these devices, be it that a link serves them too."""
    tasks: list[CourierTask] = []
    left_out: dict[str, str] = {}
    live = {device: name for device, (_, name) in store.rollouts.live_tasks().items() if device in devices}
    rollouts = {name: store.rollouts.load(name) for name in set(live.values())}
    retired = store.devices.retired()
    for row in store.outbox.waiting():
        command = row.command
        if not isinstance(command, ev.Deliver) or command.device not in devices:
            continue
        if command.device in retired:
            left_out[command.device] = "it is retired"
            continue
        rollout = rollouts.get(command.rollout) or store.rollouts.load(command.rollout)
        reason = _refusal(rollout, command)
        if reason:
            left_out[command.device] = reason
        elif rollout.tasks[command.device].state in _WITH_COURIER.get(command.link, ()):
            tasks.append(CourierTask(command, rollout))
    served = {task.command.device for task in tasks}
    for device, name in live.items():
        if device not in served:
            left_out.setdefault(device, "; ".join(rollouts[name].why(device)[:1]) or f"rollout {name} does not send it yet")
    return CourierWork(tuple(tasks), tuple(sorted(left_out.items())))


def _refusal(rollout: Rollout, command: ev.Deliver) -> str:
    if rollout.state is not RolloutState.RUNNING:
        return f"rollout {rollout.id} is {rollout.state}"
    try:
        check_sendable(rollout, command)
    except PumpdeckError as error:
        return error.sentence()
    return ""


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
    """Every device that a courier serves and whose receipt is outstanding, the nearest deadline first."""
    carried: dict[str, StickEntry] = {}
    for entry in store.sticks.out():
        for task_id in entry.tasks:
            carried.setdefault(task_id, entry)
    found = []
    for rollout_id in {rollout for _, rollout in store.rollouts.live_tasks().values()}:
        rollout = store.rollouts.load(rollout_id)
        for device, task in rollout.tasks.items():
            planned, stick = rollout.plan.by_device[device], carried.get(task.id)
            if not task.is_live or not task.deadline_ms or (planned.link is not Link.COURIER and stick is None):
                continue
            one = AwaitedReturn(device, planned.site, rollout_id, task.state, task.assign_ms, task.deadline_ms)
            if stick is not None:
                one = replace(one, stick=stick.id, stick_state=stick.state.value, carrier=stick.carrier)
            found.append(one)
    return tuple(sorted(found, key=lambda one: (one.deadline_ms, one.device)))
