"""What a rollout takes in (events) and what it asks for (commands). Time, people, devices and silence all come in as events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Receipt
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout_states import TaskState

SYSTEM = "pumpdeck"
"""The actor of moves that no person asked for."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """A person makes a plan out of the draft: from here on nothing in it can change."""

    now_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Approve:
    """A person agrees to exactly this plan. `person` is whose key signed it, empty where none did."""

    now_ms: int
    actor: str
    plan_digest: str
    person: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Let an approved rollout run. `last_seqs` holds the highest assignment number known of each device.

    `live` names the other rollout that holds a live task on a device: such a rollout cannot start.
    """

    now_ms: int
    actor: str
    last_seqs: Mapping[str, int] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. `closed` says why a site must not be sent to now, `busy_groups` which rollout holds a redundancy group."""

    now_ms: int
    closed: Mapping[str, str] = field(default_factory=dict)
    busy_groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """The package lies whole on the device; the sender asks leave to hand over the assignment."""

    now_ms: int
    device: str


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A courier has taken package and assignment along."""

    now_ms: int
    device: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """The device holds the assignment but has not ended it: it waits (STAGED, with the reason) or tries the package (TRIAL)."""

    now_ms: int
    device: str
    state: TaskState
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt to deliver ended without an answer. `retryable` is false for wrong host keys and refused logins."""

    now_ms: int
    device: str
    reason: str
    retryable: bool
    next_ms: int = 0


@dataclass(frozen=True, slots=True)
class Declined:
    """The device answered the first assignment of this task that ever left with an error: it took nothing on.

    Never for a repeated assignment: the one before may be under way on the device.
    """

    now_ms: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipted:
    """A receipt whose signature was verified against the device's enrolled key. Made by `services/collect.py` only."""

    now_ms: int
    receipt: Receipt
    digest: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Observed:
    """How a device's pumps behaved since its commit: how many were alarmed, and how many drift."""

    now_ms: int
    device: str
    alarmed_pumps: int
    drifting_pumps: int


@dataclass(frozen=True, slots=True)
class Halt:
    """A person stops the rollout for now."""

    now_ms: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """A person lets a halted rollout go on. `override` lets the next wave open although this one failed; it needs a reason."""

    now_ms: int
    actor: str
    reason: str
    override: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """A person ends the rollout. What was not handed over is cancelled, what was is still waited for."""

    now_ms: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Supersede:
    """Another rollout takes this device over; only a task that was not handed over can go."""

    now_ms: int
    actor: str
    device: str
    by: str


@dataclass(frozen=True, slots=True)
class GiveWay:
    """Another workspace started a task for this device under a higher number, and the device obeys the highest.

    What was not handed over is superseded; what was can only be waited for.
    """

    now_ms: int
    device: str
    by: str


@dataclass(frozen=True, slots=True)
class Retire:
    """A person ended this device: nothing it signs counts any more, so its task cannot end by a receipt.

    `reason` is what its key says of its end: `retired: ..`.
    """

    now_ms: int
    actor: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Revert:
    """A person takes the rollout back through another rollout, named `by`."""

    now_ms: int
    actor: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class RevertEnded:
    """The rollout that takes this one back has ended; `complete` when every device is back."""

    now_ms: int
    complete: bool


Event = (
    Freeze
    | Approve
    | Start
    | Tick
    | Staged
    | HandedOut
    | Progressed
    | AttemptFailed
    | Declined
    | Receipted
    | Observed
    | Halt
    | Resume
    | Abort
    | Supersede
    | GiveWay
    | Retire
    | Revert
    | RevertEnded
)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Bring this package and its assignment to the device. Goes through the outbox; `id` is the task's name."""

    id: str
    rollout: str
    device: str
    site: str
    link: Link
    package_sha256: str
    package_bytes: int
    seq: int
    plan_digest: str
    not_before_ms: int


@dataclass(frozen=True, slots=True)
class Assign:
    """The sender may hand over the assignment now: the task is stored as STAGED. `is_first`: none has left before."""

    id: str
    device: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The Deliver command of that name must not be carried out any more."""

    id: str


@dataclass(frozen=True, slots=True)
class MoveAlias:
    """Let an alias of a model point to this version; `champion` before it becomes `previous`."""

    id: str
    model: str
    alias: Alias
    number: int
    content_digest: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Something people and auditors must know: becomes an audit entry in the same transaction."""

    id: str
    actor: str
    action: str
    subject: str
    reason: str
    digests: Mapping[str, str] = field(default_factory=dict)


Command = Deliver | Assign | Withdraw | MoveAlias | Announce
