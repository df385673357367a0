"""What a device runs and what it is about to run: a pure state machine and the bytes of its two copies on disk.

Every change is one new record. Record n goes to copy n % 2, so a cut while writing leaves record n - 1 whole; the highest valid
record wins. It holds all that must move together: the active package, the one before it, the counter and the receipts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, IllegalMoveError
from pumpdeck_fleet.core.receipts import Receipt

STATE_FORMAT = 1
STATE_MAX_BYTES = 64 * 1024
KEPT_RECEIPTS = 4
KEPT_FAILED = 32


class Phase(enum.StrEnum):
    """Where the device stands with its packages."""

    NO_MODEL = "NO_MODEL"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    TRIAL = "TRIAL"
    FAILED_INCONSISTENT = "FAILED_INCONSISTENT"


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.NO_MODEL: frozenset({Phase.STAGED, Phase.FAILED_INCONSISTENT}),
    Phase.ACTIVE: frozenset({Phase.STAGED, Phase.ACTIVE, Phase.FAILED_INCONSISTENT}),
    Phase.STAGED: frozenset({Phase.STAGED, Phase.TRIAL, Phase.ACTIVE, Phase.NO_MODEL, Phase.FAILED_INCONSISTENT}),
    Phase.TRIAL: frozenset({Phase.STAGED, Phase.ACTIVE, Phase.NO_MODEL, Phase.FAILED_INCONSISTENT}),
    Phase.FAILED_INCONSISTENT: frozenset({Phase.STAGED, Phase.ACTIVE}),
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A package in the store: its digest, which is its folder's name, and the digest of its manifest, which covers its files."""

    sha256: str
    manifest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """The package that is staged or on trial, the task that asked for it, and how often its trial was begun."""

    package: Installed
    task: str
    seq: int
    tries: int = 0
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One record. `receipted` is the highest counter whose receipt has reached the outbox; `receipts` are the newest few."""

    format: int
    record: int
    phase: Phase
    seq: int
    active: Installed | None = None
    previous: Installed | None = None
    candidate: Candidate | None = None
    failed: tuple[str, ...] = ()
    counter: int = 0
    receipted: int = 0
    receipts: tuple[Receipt, ...] = ()

    def receipt_for(self, task: str, seq: int) -> Receipt | None:
        """The receipt that already answers this assignment, so that repeating it changes nothing."""
        return next((r for r in reversed(self.receipts) if r.task == task and r.seq == seq), None)

    @property
    def receipts_due(self) -> tuple[Receipt, ...]:
        """Receipts that have not reached the outbox yet."""
        return tuple(receipt for receipt in self.receipts if receipt.counter > self.receipted)

    def package(self, digest: str) -> Installed | None:
        """The active, previous or staged package of that digest."""
        staged = self.candidate.package if self.candidate else None
        return next((one for one in (self.active, self.previous, staged) if one and one.sha256 == digest), None)

    @property
    def packages_in_use(self) -> frozenset[str]:
        """What garbage collection must never take."""
        staged = self.candidate.package if self.candidate else None
        return frozenset(package.sha256 for package in (self.active, self.previous, staged) if package)

    @property
    def active_sha256(self) -> str:
        """What runs; empty when nothing does."""
        return self.active.sha256 if self.active else ""

    @property
    def previous_sha256(self) -> str:
        """What ran before; empty when nothing did."""
        return self.previous.sha256 if self.previous else ""


def fresh_state(seq: int) -> DeviceState:
    """A device that was just enrolled: nothing runs."""
    return DeviceState(STATE_FORMAT, 1, Phase.NO_MODEL, seq)


def resting_phase(active: Installed | None) -> Phase:
    """Where a device rests when nothing is staged."""
    return Phase.ACTIVE if active else Phase.NO_MODEL


def _move(state: DeviceState, target: Phase) -> DeviceState:
    if target not in MOVES[state.phase]:
        raise IllegalMoveError(state.phase, target, "device state")
    return replace(state, record=state.record + 1, phase=target)


def accept(state: DeviceState, seq: int) -> DeviceState:
    """The assignment with this sequence number was verified; nothing lower is ever believed again."""
    return replace(state, record=state.record + 1, seq=max(state.seq, seq))


def stage(state: DeviceState, candidate: Candidate) -> DeviceState:
    """The candidate's bytes are here, verified."""
    return replace(_move(state, Phase.STAGED), candidate=candidate)


def wait(state: DeviceState, reason: str) -> DeviceState:
    """The candidate stays staged, for this reason.

    Raises:
        IllegalMoveError: nothing is staged.
    """
    if state.candidate is None:
        raise IllegalMoveError(state.phase, Phase.STAGED, "device state")
    return replace(_move(state, Phase.STAGED), candidate=replace(state.candidate, waits_for=reason))


def begin_trial(state: DeviceState) -> DeviceState:
    """The trial is about to start; written before it does, so that a crash in it is counted.

    Raises:
        IllegalMoveError: nothing is staged.
    """
    if state.candidate is None:
        raise IllegalMoveError(state.phase, Phase.TRIAL, "device state")
    tried = replace(state.candidate, tries=state.candidate.tries + 1, waits_for="")
    return replace(_move(state, Phase.TRIAL), candidate=tried)


def commit(state: DeviceState, receipt: Receipt) -> DeviceState:
    """The candidate is active from this record on, the old active package is the previous one, the receipt counts.

    Raises:
        IllegalMoveError: no trial was under way.
    """
    if state.candidate is None or state.phase is not Phase.TRIAL:
        raise IllegalMoveError(state.phase, Phase.ACTIVE, "device state")
    moved = replace(_move(state, Phase.ACTIVE), active=state.candidate.package, candidate=None)
    return _with_receipt(replace(moved, previous=state.active), receipt)


def roll_back(state: DeviceState, receipt: Receipt) -> DeviceState:
    """The candidate is gone and in the failed set; what was active stays active.

    Raises:
        IllegalMoveError: nothing was staged or on trial.
    """
    if state.candidate is None:
        raise IllegalMoveError(state.phase, resting_phase(state.active), "device state")
    digest = state.candidate.package.sha256
    failed = (*(other for other in state.failed if other != digest), digest)
    moved = replace(_move(state, resting_phase(state.active)), candidate=None, failed=failed[-KEPT_FAILED:])
    return _with_receipt(moved, receipt)


def answer(state: DeviceState, receipt: Receipt) -> DeviceState:
    """A task ends without touching what runs or is staged: refused, or already active."""
    return _with_receipt(replace(state, record=state.record + 1), receipt)


def drop_candidate(state: DeviceState) -> DeviceState:
    """A newer assignment says that the active package is the wanted one: nothing is staged any more."""
    if state.candidate is None:
        return state
    return replace(_move(state, resting_phase(state.active)), candidate=None)


def fall_back(state: DeviceState, active: Installed | None, receipt: Receipt) -> DeviceState:
    """The active package is damaged: run `active` instead, or nothing when there is none."""
    moved = _move(state, Phase.ACTIVE if active else Phase.FAILED_INCONSISTENT)
    return _with_receipt(replace(moved, active=active, previous=None, candidate=None), receipt)


def receipted(state: DeviceState, counter: int) -> DeviceState:
    """Receipts up to this counter are in the outbox."""
    return replace(state, record=state.record + 1, receipted=max(state.receipted, counter))


def _with_receipt(state: DeviceState, receipt: Receipt) -> DeviceState:
    if receipt.counter != state.counter + 1:
        raise IllegalMoveError(f"counter {state.counter}", f"counter {receipt.counter}", "receipt")
    # A receipt that is still due is never pushed out: it is the only word on what happened.
    due = [r for r in state.receipts if r.counter > state.receipted]
    done = [r for r in state.receipts if r.counter <= state.receipted]
    kept = (done + due)[-max(KEPT_RECEIPTS - 1, len(due)) :]
    return replace(state, counter=receipt.counter, receipts=(*kept, receipt))


def encode_state(state: DeviceState) -> bytes:
    """One copy: the body's digest on the first line, then the body as canonical JSON."""
    return seal(canonical.encode(state))


def decode_state(data: bytes, what: str) -> DeviceState:
    """A record from one copy.

    Raises:
        DigestMismatchError: it was cut or altered.
        FormatError, TooLargeError: it is not a state record, or not of a format we know.
    """
    state = canonical.decode(DeviceState, unseal(data, what), what, max_bytes=STATE_MAX_BYTES)
    if state.format != STATE_FORMAT:
        raise FormatError("has an unknown format", what, expected=STATE_FORMAT, found=state.format)
    return state
