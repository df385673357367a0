"""What a device runs and what it is about to run: a pure state machine and the bytes of its two copies on disk.

Every change is one new record. Record n goes to copy n % 2, so a cut while writing leaves record n - 1 whole; the highest valid
record wins. It holds all that must move together: the active package, the one before it, the counter and the receipts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any

from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, IllegalMoveError
from pumpdeck_fleet.core.receipts import Outcome, Receipt, SelfTest

STATE_FORMAT = 2
OLDEST_FORMAT = 1
STATE_MAX_BYTES = 256 * 1024
KEPT_RECEIPTS = 4
KEPT_FAILED = 32


class Phase(enum.StrEnum):
    """Where the device stands with its packages."""

    NO_MODEL = "NO_MODEL"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    TRIAL = "TRIAL"
    SHADOW = "SHADOW"
    FAILED_INCONSISTENT = "FAILED_INCONSISTENT"


_ENDS = frozenset({Phase.ACTIVE, Phase.NO_MODEL, Phase.FAILED_INCONSISTENT})
MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.NO_MODEL: frozenset({Phase.STAGED, Phase.FAILED_INCONSISTENT}),
    Phase.ACTIVE: frozenset({Phase.STAGED, Phase.ACTIVE, Phase.FAILED_INCONSISTENT}),
    Phase.STAGED: _ENDS | {Phase.STAGED, Phase.TRIAL},
    Phase.TRIAL: _ENDS | {Phase.STAGED, Phase.SHADOW},
    Phase.SHADOW: _ENDS | {Phase.STAGED},
    Phase.FAILED_INCONSISTENT: _ENDS | {Phase.STAGED},
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A package in the store: its digest, which is its folder's name, and the digest of its manifest, which covers its files."""

    sha256: str
    manifest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """The package that is staged or on trial, the task that asked for it, and how often its trial was begun.

    `release` is the release version that introduced it. `permit`, `token` and `shadow_s` are the assignment's; `self_test` is
    there once the trial was passed and shadow scoring began.
    """

    package: Installed
    task: str
    seq: int
    tries: int = 0
    waits_for: str = ""
    release: int = 0
    permit: str | None = None
    token: str | None = None
    shadow_s: int = 0
    self_test: SelfTest | None = None


@dataclass(frozen=True, slots=True)
class UsedToken:
    """A used downgrade word, by its digest: the assignment it served, and after which number it has run out anyway."""

    digest: str
    seq: int
    until_seq: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """How many records one assignment has cost without coming to an end."""

    seq: int = 0
    moves: int = 0

    def next(self, seq: int) -> Attempt:
        """One more for that assignment."""
        return Attempt(seq, self.moves + 1 if seq == self.seq else 1)


NO_ATTEMPT = Attempt()


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One record. `receipted` is the highest counter whose receipt has reached the outbox; `receipts` are the newest few.

    `newest_release` is the highest release version that was ever committed here: what is below it is a downgrade.
    """

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
    newest_release: int = 0
    tokens: tuple[UsedToken, ...] = ()
    attempt: Attempt = NO_ATTEMPT

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

    def token_use(self, digest: str) -> UsedToken | None:
        """The use of that downgrade word; None when it was not used."""
        return next((used for used in self.tokens if used.digest == digest), None)

    @property
    def given_up(self) -> frozenset[str]:
        """Packages whose assignments were given up lately."""
        staged = self.candidate.package.sha256 if self.candidate else ""
        over = (r.package_sha256 for r in self.receipts if r.outcome is Outcome.FAILED_INCONSISTENT)
        return frozenset(over) - {staged}

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


def upgrade(state: DeviceState) -> DeviceState:
    """The same state as a record of the present format.

    Raises:
        IllegalMoveError: a newer agent wrote it.
    """
    if state.format > STATE_FORMAT:
        raise IllegalMoveError(f"format {state.format}", f"format {STATE_FORMAT}", "device state")
    return replace(state, format=STATE_FORMAT, record=state.record + 1)


def resting_phase(active: Installed | None) -> Phase:
    """Where a device rests when nothing is staged."""
    return Phase.ACTIVE if active else Phase.NO_MODEL


def _move(state: DeviceState, target: Phase) -> DeviceState:
    if target not in MOVES[state.phase]:
        raise IllegalMoveError(state.phase, target, "device state")
    return replace(state, record=state.record + 1, phase=target)


def accept(state: DeviceState, seq: int, used: UsedToken | None = None) -> DeviceState:
    """The assignment with this sequence number was verified; nothing lower is ever believed again, and its token is used up."""
    seq_floor = max(state.seq, seq)
    # A token whose end lies behind is refused by its number; only the others must be remembered.
    tokens = tuple(one for one in state.tokens if one.until_seq >= seq_floor and (used is None or one.digest != used.digest))
    return replace(
        state,
        record=state.record + 1,
        seq=seq_floor,
        tokens=(*tokens, used) if used else tokens,
        attempt=state.attempt.next(seq),
    )


def stage(state: DeviceState, candidate: Candidate) -> DeviceState:
    """The candidate's bytes are here, verified. If it had failed before, somebody entitled asked to try it again."""
    failed = tuple(digest for digest in state.failed if digest != candidate.package.sha256)
    return replace(
        _move(state, Phase.STAGED), candidate=candidate, failed=failed, attempt=state.attempt.next(candidate.seq)
    )


def wait(state: DeviceState, reason: str) -> DeviceState:
    """The candidate stays staged, for this reason.

    Raises:
        IllegalMoveError: nothing is staged.
    """
    if state.candidate is None:
        raise IllegalMoveError(state.phase, Phase.STAGED, "device state")
    return replace(_move(state, Phase.STAGED), candidate=replace(state.candidate, waits_for=reason))


def postpone(state: DeviceState, reason: str) -> DeviceState:
    """As `wait`, but something had begun: that counts towards the cap.

    Raises:
        IllegalMoveError: nothing is staged.
    """
    waiting = wait(state, reason)
    return replace(waiting, attempt=_counted(waiting))


def begin_trial(state: DeviceState) -> DeviceState:
    """The trial is about to start; written before it does, so that a crash in it is counted.

    Raises:
        IllegalMoveError: nothing is staged.
    """
    if state.candidate is None:
        raise IllegalMoveError(state.phase, Phase.TRIAL, "device state")
    tried = replace(state.candidate, tries=state.candidate.tries + 1, waits_for="")
    return replace(_move(state, Phase.TRIAL), candidate=tried, attempt=_counted(state))


def begin_shadow(state: DeviceState, self_test: SelfTest | None) -> DeviceState:
    """The trial was passed; from here on the candidate is scored beside the active package.

    Raises:
        IllegalMoveError: no trial was under way, or nothing is active beside which it could be scored.
    """
    if state.candidate is None or state.active is None:
        raise IllegalMoveError(state.phase, Phase.SHADOW, "device state")
    passed = replace(state.candidate, tries=0, waits_for="", self_test=self_test)
    return replace(_move(state, Phase.SHADOW), candidate=passed, attempt=_counted(state))


def commit(state: DeviceState, receipt: Receipt) -> DeviceState:
    """The candidate is active from this record on, the old active package is the previous one, the receipt counts.

    Raises:
        IllegalMoveError: neither a trial nor shadow scoring was under way.
    """
    if state.candidate is None or state.phase not in (Phase.TRIAL, Phase.SHADOW):
        raise IllegalMoveError(state.phase, Phase.ACTIVE, "device state")
    moved = replace(_move(state, Phase.ACTIVE), active=state.candidate.package, candidate=None)
    newest = max(state.newest_release, state.candidate.release)
    return _with_receipt(replace(moved, previous=state.active, newest_release=newest), receipt)


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
    phase = state.phase
    if phase is Phase.FAILED_INCONSISTENT and state.active is not None:
        # A new assignment was heard: what it found fault with is over, and what runs is sound.
        phase = Phase.ACTIVE
    return _with_receipt(replace(state, record=state.record + 1, phase=phase), receipt)


def give_up(state: DeviceState, receipt: Receipt) -> DeviceState:
    """The assignment took too many records without coming to an end: it ends here, and what was active goes on."""
    return _with_receipt(replace(_move(state, Phase.FAILED_INCONSISTENT), candidate=None), receipt)


def drop_candidate(state: DeviceState) -> DeviceState:
    """A newer assignment says that the active package is the wanted one: nothing is staged any more."""
    if state.candidate is None:
        return state
    return replace(_move(state, resting_phase(state.active)), candidate=None, attempt=_counted(state))


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


def _counted(state: DeviceState) -> Attempt:
    return state.attempt.next(state.candidate.seq) if state.candidate else state.attempt


def encode_state(state: DeviceState) -> bytes:
    """One copy: the body's digest on the first line, then the body as canonical JSON.

    Raises:
        IllegalMoveError: it is of another format than this agent writes.
    """
    if state.format != STATE_FORMAT:
        raise IllegalMoveError(f"format {state.format}", f"format {STATE_FORMAT}", "device state")
    return seal(canonical.encode(state))


def decode_state(data: bytes, what: str) -> DeviceState:
    """A record from one copy, as it was written: `upgrade` makes one of the present format of it.

    Of a record that a newer agent wrote only what says what runs is taken: enough to go on scoring, never to be written back.

    Raises:
        DigestMismatchError: it was cut or altered.
        FormatError, TooLargeError: it is not a state record.
    """
    plain = canonical.parse_json(unseal(data, what), what, max_bytes=STATE_MAX_BYTES)
    found = plain.get("format") if isinstance(plain, dict) else None
    if type(found) is int and found > STATE_FORMAT:
        return _of_a_newer_agent(plain, what)
    state = canonical.from_plain(DeviceState, plain, what)
    if state.format < OLDEST_FORMAT:
        raise FormatError("has an unknown format", what, expected=STATE_FORMAT, found=state.format)
    return state


# What every format to come keeps under these names, so that an older agent can tell what runs.
_LASTING = ("format", "record", "seq", "counter")


def _of_a_newer_agent(plain: dict[str, Any], what: str) -> DeviceState:
    kept = {name: plain.get(name) for name in _LASTING} | {"phase": Phase.FAILED_INCONSISTENT.value}
    state = canonical.from_plain(DeviceState, kept, what)
    active = plain.get("active")
    if isinstance(active, dict) and isinstance(active.get("sha256"), str) and isinstance(active.get("manifest"), str):
        return replace(state, phase=Phase.ACTIVE, active=Installed(active["sha256"], active["manifest"]))
    return state
