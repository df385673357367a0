"""A rollout: one plan, its waves and device tasks, as one frozen value. Events in, the next value and its commands out.

The value is what the store keeps (canonical JSON); the moves stand in `rollout_machine`, the tables in `rollout_states`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical, rollout_gates, rollout_machine
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.rollout_events import Command, Event
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_records import Approval, DeviceTask, Wave, current_wave, held_groups, voices_of
from pumpdeck_fleet.core.rollout_states import LIVE, UNSENT, RolloutState, TaskState, WaveState
from pumpdeck_fleet.core.statements import count_people

ROLLOUT_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Rollout:
    """The whole state of one rollout. `moves` counts the events taken in and names what they announce."""

    plan: RolloutPlan
    plan_digest: str
    state: RolloutState
    waves: tuple[Wave, ...]
    tasks: Mapping[str, DeviceTask]
    approvals: tuple[Approval, ...] = ()
    moves: int = 0
    changed_ms: int = 0
    halted_ms: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.plan_digest != self.plan.digest:
            raise ValueError(f"the plan of {self.plan.id} was altered: its hash is {self.plan.digest}")
        if len(self.waves) != len(self.plan.wave_sizes) or set(self.tasks) != set(self.plan.by_device):
            raise ValueError("waves or tasks are not those of the plan")

    @classmethod
    def draft(cls, plan: RolloutPlan) -> Rollout:
        """A rollout that nothing has happened to."""
        return cls(
            plan=plan,
            plan_digest=plan.digest,
            state=RolloutState.DRAFT,
            waves=tuple(Wave() for _ in plan.wave_sizes),
            tasks={task.device: DeviceTask(plan.task_id(task.device), task.device) for task in plan.tasks},
            changed_ms=plan.created_ms,
        )

    @classmethod
    def parse(cls, data: bytes) -> Rollout:
        """A rollout from canonical JSON.

        Raises:
            FormatError: it is not one, or its plan does not have the plan hash any more.
        """
        return canonical.decode(cls, data, "rollout", max_bytes=ROLLOUT_MAX_BYTES)

    def encode(self) -> bytes:
        """The rollout as canonical JSON."""
        return canonical.encode(self)

    @property
    def id(self) -> str:
        return self.plan.id

    @property
    def current_wave(self) -> int:
        """The first wave that is not over; the last one when all are."""
        return current_wave(self.waves)

    def receive(self, event: Event) -> tuple[Rollout, tuple[Command, ...]]:
        """The rollout after the event, and what must be done. Only what people ask wrongly raises.

        Raises:
            RefusedError, ConflictError: a person's event is not allowed now; nothing changed.
        """
        return rollout_machine.receive(self, (event,))

    def receive_all(self, events: Iterable[Event]) -> tuple[Rollout, tuple[Command, ...]]:
        """The same as one `receive` after the other, at the cost of one."""
        return rollout_machine.receive(self, events)

    def task(self, device: str) -> DeviceTask:
        """Raises: NotFoundError."""
        if device not in self.tasks:
            raise NotFoundError("takes no part in this rollout", device, expected=f"a device of {self.id}")
        return self.tasks[device]

    def counts(self, wave: int) -> rollout_gates.WaveCounts:
        """How the devices of one wave stand."""
        return rollout_gates.Tally(self.tasks[device].state for device in self.plan.waves[wave]).counts

    def limits(self, wave: int) -> rollout_gates.WaveLimits:
        """The gate of one wave in whole devices."""
        return rollout_gates.limits(self.plan.wave_sizes[wave], wave, self.plan.policy)

    def held_groups(self) -> dict[str, str]:
        """Redundancy group -> the device of this rollout that may be in trial."""
        return held_groups(self.plan, self.tasks)

    def outstanding(self, now_ms: int) -> tuple[Command, ...]:
        """Commands of tasks that are under way: what an outbox must hold for whoever drives the rollout from now on."""
        under_way = (task for task in self.tasks.values() if task.is_live and task.state not in UNSENT)
        return tuple(rollout_machine.deliver_command(self.plan, task, now_ms) for task in under_way)

    def why(self, device: str) -> tuple[str, ...]:
        """Why the device does not run its package yet, the first reason first; empty when it does."""
        excluded = [entry.reason for entry in self.plan.excluded if entry.device == device]
        if excluded:
            return tuple(f"left out of the plan: {reason}" for reason in excluded)
        if device not in self.tasks:
            return (f"not part of rollout {self.id}",)
        task = self.tasks[device]
        if task.state in (TaskState.COMMITTED, TaskState.ALREADY):
            return ()
        if task.state not in LIVE:
            return (f"{task.state}: {task.note}" if task.note else str(task.state),)
        return tuple(self._blocking(task))

    def _blocking(self, task: DeviceTask) -> Iterator[str]:
        missing = self.plan.policy.approvals - count_people(voices_of(self.approvals))
        if self.state in (RolloutState.DRAFT, RolloutState.PLANNED):
            yield f"the rollout is {self.state} and lacks {missing} approval" + ("s" if missing != 1 else "")
        elif self.state is not RolloutState.RUNNING:
            yield f"the rollout is {self.state}" + (f": {self.reason}" if self.reason else "")
        wave = self.plan.by_device[task.device].wave
        if self.waves[wave].state is WaveState.PENDING:
            yield f"its wave {wave + 1} has not opened: {self._wave_story(self.current_wave)}"
            return
        for group in self.plan.by_device[task.device].groups:
            holder = self.held_groups().get(group, task.device)
            if holder != task.device:
                yield f"{holder} of redundancy group {group} is not settled ({self.tasks[holder].state})"
        if task.state is TaskState.WAIT_COURIER:
            yield "it waits for a courier"
        if task.note:
            yield task.note if not task.attempts else f"{task.note} (attempt {task.attempts})"
        elif task.state in (TaskState.SENDING, TaskState.STAGED, TaskState.TRIAL):
            yield f"it is {task.state}, no receipt yet"

    def _wave_story(self, number: int) -> str:
        wave = self.waves[number]
        _, story = rollout_gates.judge_counts(self.counts(number), self.limits(number))
        return f"wave {number + 1} is {wave.state} ({story})"
