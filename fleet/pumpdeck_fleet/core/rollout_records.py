"""The frozen records a rollout is made of: approvals, waves and device tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core.receipts import SelfTest
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_states import LIVE, RECEIPTED, TaskState, WaveState
from pumpdeck_fleet.core.statements import Voice

_UNDER_WAY = frozenset({TaskState.WAIT_COURIER, TaskState.SENDING, TaskState.STAGED, TaskState.TRIAL})


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes, to a plan or to an override; the plan hash says to what exactly.

    `person` is whose key signed it, empty where nobody's did: then it counts in the workspace where it was given alone.
    """

    actor: str
    at_ms: int
    plan_digest: str
    reason: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave's story. Its devices and its size stand in the plan."""

    state: WaveState = WaveState.PENDING
    opened_ms: int = 0
    soak_until_ms: int = 0
    ended_ms: int = 0
    reason: str = ""
    override: Approval | None = None

    @property
    def is_over(self) -> bool:
        """True when the next wave may open."""
        return self.state is WaveState.PASSED or self.override is not None


@dataclass(frozen=True, slots=True)
class DeviceTask:
    """One device's part. What shall run there stands in the plan.

    `assign_ms` is when the assignment was let go: 0 means that the device cannot have got it. `deadline_ms` is 0 until the
    wave opens. `note` is the last reason. The receipt's digest and key stand here once a signed receipt ended the task.
    """

    id: str
    device: str
    state: TaskState = TaskState.QUEUED
    seq: int = 0
    deadline_ms: int = 0
    assign_ms: int = 0
    changed_ms: int = 0
    attempts: int = 0
    note: str = ""
    receipt_digest: str = ""
    key_id: str = ""
    previous_sha256: str = ""
    alarmed_pumps: int = 0
    drifting_pumps: int = 0
    self_test: SelfTest | None = None

    def __post_init__(self) -> None:
        # REFUSED alone may stand without one: a wrong host key, or a device that declined the assignment.
        if self.state in RECEIPTED and self.state is not TaskState.REFUSED and not self.receipt_digest:
            raise ValueError(f"{self.state} needs the receipt of {self.device}")

    @property
    def is_live(self) -> bool:
        """True from the start of the rollout until the task has ended: what its device runs may still change through it."""
        return self.seq > 0 and self.state in LIVE

    @property
    def holds_trial_slot(self) -> bool:
        """True while the device may be in trial, as far as anybody can know."""
        return self.state in _UNDER_WAY or (self.state is TaskState.UNKNOWN and self.assign_ms > 0)


def voices_of(approvals: Sequence[Approval]) -> tuple[Voice, ...]:
    """Who has said yes."""
    return tuple(Voice(one.actor, one.person) for one in approvals)


def current_wave(waves: Sequence[Wave]) -> int:
    """The first wave that is not over; the last one when all are."""
    return next((number for number, wave in enumerate(waves) if not wave.is_over), len(waves) - 1)


def held_groups(plan: RolloutPlan, tasks: Mapping[str, DeviceTask]) -> dict[str, str]:
    """Redundancy group -> the device that may be in trial."""
    held = (task.device for task in tasks.values() if task.holds_trial_slot)
    return {group: device for device in held for group in plan.by_device[device].groups}
