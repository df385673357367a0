"""After a start: what did a cut leave behind? The last word is always a package that was verified and committed, or none."""

from __future__ import annotations

from dataclasses import replace

from pumpdeck_agent import state as moves
from pumpdeck_agent.config import Layout
from pumpdeck_agent.journal import Journal
from pumpdeck_agent.receipt_writer import ReceiptWriter
from pumpdeck_agent.state import STATE_FORMAT, Candidate, DeviceState, Installed, Phase, UsedToken
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_packaging.package_reader import load_folder

# What happened to the device itself, and was asked for by nobody, carries this task.
OWN_TASK = "device"


def recover(
    state: DeviceState | None, fs: FileSystem, layout: Layout, receipts: ReceiptWriter, max_tries: int
) -> tuple[DeviceState, ...]:
    """The records to be saved, in order, until the device stands on firm ground; the last one is where it stands.

    - an older agent wrote the state: the same in the present format; the other copy stays as it was meanwhile
    - both state copies lost: the last committed package of the journal, verified again; none in it: nothing runs
    - a trial was cut: it is tried again later, up to `max_tries` times; then it is rolled back
    - the active package is damaged: the previous one, when it is sound; else nothing runs

    Each ends with a receipt that says so, except a trial that will be tried again.
    """
    records: list[DeviceState] = []
    if state is not None and state.format < STATE_FORMAT:
        state = moves.upgrade(state)
        records.append(state)
    if state is None:
        state = rebuild(Journal(fs, layout.journal), receipts)
        records.append(state)
    if state.phase is Phase.TRIAL:
        state = _after_cut_trial(state, receipts, max_tries)
        records.append(state)
    if state.active is not None and not is_sound(fs, layout, state.active):
        state = _after_damage(state, fs, layout, receipts)
        records.append(state)
    return tuple(records)


def is_sound(fs: FileSystem, layout: Layout, package: Installed) -> bool:
    """True when every byte of the package in the store is what it was when it was verified."""
    try:
        load_folder(fs, layout.package(package.sha256), manifest_digest=package.manifest)
    except DamagedError:
        return False
    return True


def rebuild(journal: Journal, receipts: ReceiptWriter) -> DeviceState:
    """A state from the journal alone: what it says was active last, and a receipt that tells of the loss."""
    lines = journal.lines()
    last = lines[-1] if lines else None
    known = next((line for line in reversed(lines) if line.active and line.active_manifest), None)
    # A roll back in between does not move what was active; a line that says "nothing" ends the search.
    active = None
    if last is not None and last.active and known is not None and known.active == last.active:
        active = Installed(known.active, known.active_manifest)
    # One above what can still be read: a receipt may have been made whose record was lost.
    counter = (last.counter if last else 0) + 1
    blank = DeviceState(
        STATE_FORMAT, 1, moves.resting_phase(active), last.seq if last else 0, active, counter=counter, receipted=counter
    )
    blank = replace(
        blank,
        newest_release=max((line.newest_release or 0 for line in lines), default=0),
        tokens=tuple(UsedToken(line.token, line.seq, line.until_seq or 0) for line in lines if line.token),
    )
    word = "runs what the journal says was committed last" if active else "nothing is left to run"
    receipt = receipts.write(blank, _own(active), Outcome.FAILED_INCONSISTENT, f"both copies of the state were lost; {word}")
    return moves.fall_back(blank, active, receipt)


def _after_cut_trial(state: DeviceState, receipts: ReceiptWriter, max_tries: int) -> DeviceState:
    candidate = state.candidate
    if candidate is None:
        # A record that contradicts itself: what runs is all that counts.
        receipt = receipts.write(state, _own(state.active), Outcome.FAILED_INCONSISTENT, "a trial without a candidate")
        return moves.fall_back(state, state.active, receipt)
    if candidate.tries < max_tries:
        return moves.postpone(state, f"the device restarted during the trial ({candidate.tries} of {max_tries})")
    reason = f"the device restarted during {candidate.tries} trials"
    return moves.roll_back(state, receipts.write(state, candidate, Outcome.ROLLED_BACK, reason))


def _after_damage(state: DeviceState, fs: FileSystem, layout: Layout, receipts: ReceiptWriter) -> DeviceState:
    previous = state.previous if state.previous is not None and is_sound(fs, layout, state.previous) else None
    word = "the previous one runs" if previous else "nothing is left to run"
    task = _own(state.active)
    after = replace(state, active=previous, previous=None)
    receipt = receipts.write(after, task, Outcome.FAILED_INCONSISTENT, f"the active package is damaged on the disk; {word}")
    return moves.fall_back(state, previous, receipt)


def _own(package: Installed | None) -> Candidate:
    return Candidate(package or Installed("", ""), OWN_TASK, 0)
