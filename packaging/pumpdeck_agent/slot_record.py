"""Which agent a device runs, and which it is about to run: a pure state machine. The launcher reads the same record.

Two slots, `a` and `b`, each hold one agent. Every change is one new record; record n goes to copy n % 2, as with device states.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, IllegalMoveError
from pumpdeck_fleet.core.receipts import AgentReceipt

SLOT_FORMAT = 1
SLOT_MAX_BYTES = 32 * 1024
SLOTS = ("a", "b")
KEPT_FAILED = 16


class SlotPhase(enum.StrEnum):
    """Where the device stands with its agents. ROLLED_BACK is written by the launcher; the agent then gives its receipt."""

    ACTIVE = "ACTIVE"
    TRIAL = "TRIAL"
    PROBATION = "PROBATION"
    ROLLED_BACK = "ROLLED_BACK"


MOVES: dict[SlotPhase, frozenset[SlotPhase]] = {
    SlotPhase.ACTIVE: frozenset({SlotPhase.TRIAL, SlotPhase.ACTIVE}),
    SlotPhase.TRIAL: frozenset({SlotPhase.TRIAL, SlotPhase.PROBATION, SlotPhase.ACTIVE}),
    SlotPhase.PROBATION: frozenset({SlotPhase.ACTIVE, SlotPhase.ROLLED_BACK}),
    SlotPhase.ROLLED_BACK: frozenset({SlotPhase.ACTIVE}),
}


@dataclass(frozen=True, slots=True)
class AgentBuild:
    """One agent in a slot. `libraries` is the digest of its wheels, and so their folder; empty: this Python's own libraries."""

    slot: str
    sha256: str
    version: str
    serial: int
    libraries: str = ""

    def __post_init__(self) -> None:
        if self.slot not in SLOTS:
            raise FormatError("is not a slot", "slot record", expected=" or ".join(SLOTS), found=self.slot)


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One record. `serial` is the highest accepted one, signed by `keys`; `failed` are `<sha256>:<serial>` that came to nothing.

    In PROBATION and after it `active` is what runs; `candidate` is what is on trial, or what the launcher rolled back.
    """

    format: int
    record: int
    phase: SlotPhase
    active: AgentBuild
    previous: AgentBuild | None = None
    candidate: AgentBuild | None = None
    tries: int = 0
    reason: str = ""
    serial: int = 0
    keys: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    counter: int = 0
    receipt: AgentReceipt | None = None


def fresh_record(build: AgentBuild) -> SlotRecord:
    """A device whose first agent was just put into its slot."""
    return SlotRecord(SLOT_FORMAT, 1, SlotPhase.ACTIVE, build, serial=build.serial)


def failure_of(build: AgentBuild) -> str:
    """How the failed set names a release: the same bytes released anew get another chance."""
    return f"{build.sha256}:{build.serial}"


def _move(record: SlotRecord, target: SlotPhase) -> SlotRecord:
    if target not in MOVES[record.phase]:
        raise IllegalMoveError(record.phase, target, "agent slots")
    return replace(record, record=record.record + 1, phase=target)


def other_slot(record: SlotRecord) -> str:
    """The slot that the active agent is not in."""
    return SLOTS[1 - SLOTS.index(record.active.slot)]


def make_room(record: SlotRecord) -> SlotRecord:
    """The other slot is about to be written over: nothing may count on it any more."""
    return replace(_move(record, SlotPhase.ACTIVE), previous=None, candidate=None, tries=0, reason="")


def accept(record: SlotRecord, serial: int, keys: tuple[str, ...]) -> SlotRecord:
    """A release with this serial was verified; nothing lower is believed while one of these keys is trusted."""
    return replace(record, record=record.record + 1, serial=serial, keys=keys)


def begin_trial(record: SlotRecord, candidate: AgentBuild) -> SlotRecord:
    """The candidate's trial is about to start; written before it does, so that a crash in it is counted."""
    tries = record.tries + 1 if record.phase is SlotPhase.TRIAL and record.candidate == candidate else 1
    return replace(_move(record, SlotPhase.TRIAL), candidate=candidate, tries=tries, reason="")


def put_on_probation(record: SlotRecord) -> SlotRecord:
    """The candidate passed its trial: the launcher starts it from now on, and goes back to the old one if it does not confirm.

    Raises:
        IllegalMoveError: nothing is on trial.
    """
    if record.candidate is None:
        raise IllegalMoveError(record.phase, SlotPhase.PROBATION, "agent slots")
    moved = _move(record, SlotPhase.PROBATION)
    return replace(moved, active=record.candidate, previous=record.active, candidate=None, tries=0)


def confirm(record: SlotRecord, receipt: AgentReceipt) -> SlotRecord:
    """The new agent answers: it stays.

    Raises:
        IllegalMoveError: none is on probation.
    """
    if record.phase is not SlotPhase.PROBATION:
        raise IllegalMoveError(record.phase, SlotPhase.ACTIVE, "agent slots")
    return _with_receipt(replace(_move(record, SlotPhase.ACTIVE), tries=0), receipt)


def roll_back(record: SlotRecord, receipt: AgentReceipt) -> SlotRecord:
    """The candidate came to nothing, in its trial or on probation; what was active before stays."""
    failed = (*record.failed, failure_of(record.candidate)) if record.candidate else record.failed
    moved = replace(_move(record, SlotPhase.ACTIVE), candidate=None, tries=0, reason="", failed=failed[-KEPT_FAILED:])
    return _with_receipt(moved, receipt)


def answer(record: SlotRecord, receipt: AgentReceipt) -> SlotRecord:
    """A request ends without touching what runs."""
    return _with_receipt(replace(record, record=record.record + 1), receipt)


def fall_back(record: SlotRecord) -> SlotRecord:
    """The disk damaged the active agent: the previous one runs, and is the active one.

    Raises:
        IllegalMoveError: there is none.
    """
    if record.previous is None:
        raise IllegalMoveError(record.phase, SlotPhase.ACTIVE, "agent slots")
    moved = _move(record, SlotPhase.ACTIVE)
    return replace(moved, active=record.previous, previous=None, candidate=None, tries=0)


def _with_receipt(record: SlotRecord, receipt: AgentReceipt) -> SlotRecord:
    return replace(record, counter=receipt.counter, receipt=receipt)


def encode_record(record: SlotRecord) -> bytes:
    """One copy: the body's digest on the first line, then the body as canonical JSON."""
    return seal(canonical.encode(record))


def decode_record(data: bytes, what: str) -> SlotRecord:
    """A record from one copy.

    Raises:
        DigestMismatchError: it was cut or altered. FormatError, TooLargeError: it is not a slot record.
    """
    record = canonical.decode(SlotRecord, unseal(data, what), what, max_bytes=SLOT_MAX_BYTES)
    if record.format != SLOT_FORMAT:
        raise FormatError("has an unknown format", what, expected=SLOT_FORMAT, found=record.format)
    return record
