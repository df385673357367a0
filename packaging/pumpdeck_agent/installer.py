"""Install: verify, stage, try, commit; and find out after a cut where we were. All writes go through the FileSystem port.

Order of a good install, each step synced before the next: floor and metadata accepted -> package unpacked beside -> the staged
copy read back and verified -> folder renamed -> STAGED -> TRIAL with its try counted -> trial process -> one record with active,
previous, counter and receipt -> journal -> receipt in the outbox -> garbage. A cut leaves the old package active or the new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pumpdeck_agent import state as moves
from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import unseal_incoming
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.incoming import Incoming
from pumpdeck_agent.journal import Journal, JournalKind, JournalLine
from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.receipt_writer import ReceiptWriter
from pumpdeck_agent.receipts import Pen
from pumpdeck_agent.recovery import is_sound, recover
from pumpdeck_agent.requirements import check_requirements
from pumpdeck_agent.state import Candidate, DeviceState, Installed, Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, TrialRunner
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.receipts import Assignment, Outcome, Receipt, ReturnKind
from pumpdeck_packaging.package_reader import load_folder, read_package, unpack_to
from pumpdeck_packaging.trust_rules import ReleasedPackage
from pumpdeck_packaging.verify import VerifiedAssignment, verify_assignment, verify_metadata


@dataclass(frozen=True, slots=True)
class InstallParts:
    """What an installer works with, all of one device."""

    platform: Platform
    layout: Layout
    config: AgentConfig
    limits: AgentLimits
    runner: TrialRunner
    outbox: Outbox
    pen: Pen
    receipts: ReceiptWriter
    runtime_version: str
    why_wait: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Installation:
    """How an assignment stands: the state, and the receipt when it came to an end; else why it waits."""

    state: DeviceState
    receipt: Receipt | None
    waits_for: str = ""


class Installer:
    """Changes what one device runs. Only one at a time per device works: callers hold the install lock."""

    def __init__(self, parts: InstallParts) -> None:
        self._parts = parts
        self._fs = parts.platform.fs
        self._layout = parts.layout
        self._states = StateFiles(self._fs, parts.layout)
        self._journal = Journal(self._fs, parts.layout.journal)
        self._accepted = Accepted(self._fs, parts.layout, parts.config)
        self.incoming = Incoming(parts.platform, parts.layout, parts.limits, self.is_installed)
        self._is_recovered = False

    def is_installed(self, digest: str) -> bool:
        """True when the state knows the package and every byte of it is sound: a damaged copy must be able to come again."""
        state = self._states.load()
        known = state.package(digest) if state else None
        return known is not None and is_sound(self._fs, self._layout, known)

    def is_damaged(self, state: DeviceState) -> bool:
        """True when the active package in the store is not what it was when it was verified."""
        return state.active is not None and not is_sound(self._fs, self._layout, state.active)

    def ready(self) -> DeviceState:
        """The device state after whatever a cut left behind was put right; receipts that are due are in the outbox."""
        state = self._states.load()
        if state is None or not self._is_recovered or state.phase is Phase.TRIAL or self.is_damaged(state):
            parts = self._parts
            for record in recover(state, self._fs, self._layout, parts.receipts, parts.limits.max_tries):
                state = self._save(record)
            self._is_recovered = True
            if state is not None:
                self._tidy(state)
                self._accepted.tidy()
        if state is None:
            raise PumpdeckError("the device state could not be rebuilt", self._parts.config.device)
        return self._settle(state)

    def assign(self, files: Mapping[str, bytes]) -> Installation:
        """Carry out what the assignment in `files` says. Repeating it gives the same receipt and changes nothing.

        Raises:
            TrustError: the assignment is not to be believed; nothing changed.
            NotFoundError: the package was not pushed yet; nothing changed.
        """
        state = self.ready()
        now_ms = self._parts.platform.clock.now_ms()
        synced = self._parts.platform.is_clock_synced()
        before = self._accepted.load()
        verified = verify_assignment(before, files, now_ms=now_ms, clock_synced=synced)
        assignment = verified.assignment
        digest = assignment.package_sha256
        receipt = state.receipt_for(assignment.task, assignment.seq) if verified.repeated else None
        # Once committed, but lost since to a damaged disk: the same word brings it back.
        was_lost = receipt is not None and receipt.active_sha256 == digest != state.active_sha256
        if receipt is not None and not was_lost:
            # The word is an old one, but the metadata around it may revoke a key.
            self._accepted.save_news(before, verified)
            return Installation(state, receipt)
        is_known = digest in state.failed or self.is_installed(digest)
        if not is_known:
            unseal_incoming(self._fs, self._layout, self.incoming, verified.package)
        if not is_known and not self.incoming.has(digest):
            raise NotFoundError("the package is not on the device", digest, hint="push it first")
        return self._carry_out(self._accept(state, verified), assignment, verified.package)

    def take_metadata(self, files: Mapping[str, bytes]) -> Installation:
        """Believe newer metadata that brings no assignment; what runs stays as it is.

        Raises:
            TrustError, DamagedError: it is not to be believed; nothing changed.
        """
        state = self.ready()
        before = self._accepted.load()
        now_ms, synced = self._parts.platform.clock.now_ms(), self._parts.platform.is_clock_synced()
        self._accepted.save_news(before, verify_metadata(before, files, now_ms=now_ms, clock_synced=synced))
        return Installation(state, None)

    def resume(self) -> Installation:
        """Go on with a package that is staged and waited for something."""
        state = self.ready()
        if state.phase is not Phase.STAGED:
            return Installation(state, None)
        return self._proceed(state)

    def _accept(self, state: DeviceState, verified: VerifiedAssignment) -> DeviceState:
        self._accepted.save(verified)
        return self._save(moves.accept(state, verified.assignment.seq))

    def _carry_out(self, state: DeviceState, assignment: Assignment, package: ReleasedPackage) -> Installation:
        digest = assignment.package_sha256
        if digest == state.active_sha256:
            if state.candidate is not None:
                state = self._save(moves.drop_candidate(state))
            return self._end(state, assignment, Outcome.ALREADY, "this package is active")
        if digest in state.failed:
            return self._end(state, assignment, Outcome.REFUSED, "this package failed on this device before")
        installed = self._sound_copy(state, digest)
        # Read outside: bytes that the disk lost or damaged are not the package's fault, and may be pushed again.
        data = b"" if installed else self.incoming.read(digest)
        try:
            installed = installed or self._stage(data, digest, package)
        except PumpdeckError as error:
            return self._end(state, assignment, Outcome.REFUSED, error.sentence())
        # Trials that were cut count on, however often the same package is assigned.
        tries = state.candidate.tries if state.candidate and state.candidate.package == installed else 0
        candidate = Candidate(installed, assignment.task, assignment.seq, tries)
        return self._proceed(self._save(moves.stage(state, candidate)))

    def _stage(self, data: bytes, digest: str, released: ReleasedPackage) -> Installed:
        """Put the package into the store.

        Raises:
            DamagedError, RefusedError: the package is not what was signed for, or not for this device.
        """
        package = read_package(data, expected_sha256=digest, max_unpacked_bytes=released.words.unpacked_bytes)
        check_requirements(self._parts.config, package.manifest, self._parts.runtime_version)
        final = self._layout.package(digest)
        beside = final.with_name(final.name + ".part")
        self._fs.remove_tree(beside)
        self._fs.remove_tree(final)
        unpack_to(self._fs, beside, package)
        load_folder(self._fs, beside, manifest_digest=package.manifest_digest)
        self._fs.rename(beside, final)
        self._fs.fsync_dir(self._layout.store)
        return Installed(digest, package.manifest_digest)

    def _sound_copy(self, state: DeviceState, digest: str) -> Installed | None:
        staged = state.candidate.package if state.candidate else None
        for known in (state.previous, staged):
            if known is not None and known.sha256 == digest and is_sound(self._fs, self._layout, known):
                return known
        return None

    def _proceed(self, state: DeviceState) -> Installation:
        candidate = _candidate_of(state)
        reason = self._parts.why_wait()
        if reason:
            return Installation(self._save(moves.wait(state, reason)), None, reason)
        if not is_sound(self._fs, self._layout, candidate.package):
            # The disk's fault, not the package's: it may come again.
            state = self._save(moves.drop_candidate(state))
            self._collect_garbage(state)
            raise DamagedError("the staged copy was damaged on the disk", candidate.package.sha256, hint="push it again")
        state = self._save(moves.begin_trial(state))
        report = self._parts.runner.run(self._request(candidate))
        return self._judge(state, report)

    def _request(self, candidate: Candidate) -> TrialRequest:
        folder = self._layout.package(candidate.package.sha256)
        return TrialRequest(str(folder), candidate.package.manifest, self._parts.limits.trial_wall_s)

    def _judge(self, state: DeviceState, report: TrialReport) -> Installation:
        candidate = _candidate_of(state)
        outcome = Outcome.COMMITTED if report.passed else Outcome.ROLLED_BACK
        receipt = self._parts.receipts.write(state, candidate, outcome, report.reason, report.self_test)
        state = moves.commit(state, receipt) if report.passed else moves.roll_back(state, receipt)
        state = self._settle(self._save(state))
        self._tidy(state)
        if report.passed:
            self.incoming.clear()
        return Installation(state, receipt)

    def _end(self, state: DeviceState, assignment: Assignment, outcome: Outcome, reason: str) -> Installation:
        """The task ends here without a trial."""
        task = Candidate(Installed(assignment.package_sha256, ""), assignment.task, assignment.seq)
        receipt = self._parts.receipts.write(state, task, outcome, reason, None)
        return Installation(self._settle(self._save(moves.answer(state, receipt))), receipt)

    def _settle(self, state: DeviceState) -> DeviceState:
        """What follows a record, and is done again after a cut: journal, receipts into the outbox, garbage."""
        due = state.receipts_due
        if due:
            for receipt in due:
                self._write_journal(state, receipt)
            envelopes = [self._parts.pen.sign_receipt(receipt) for receipt in due]
            self._parts.outbox.add([Outgoing(ReturnKind.RECEIPT, data) for data in envelopes])
            self._collect_garbage(state)
            state = self._save(moves.receipted(state, due[-1].counter))
        return state

    def _write_journal(self, state: DeviceState, receipt: Receipt) -> None:
        lines = self._journal.lines()
        if lines and lines[-1].counter >= receipt.counter:
            return
        active = state.active if state.active_sha256 == receipt.active_sha256 else None
        self._journal.add(
            JournalLine(
                at_ms=receipt.at_ms,
                kind=_JOURNAL_KINDS.get(receipt.outcome, JournalKind.ANSWER),
                active=receipt.active_sha256,
                active_manifest=active.manifest if active else "",
                package_sha256=receipt.package_sha256,
                seq=receipt.seq,
                counter=receipt.counter,
                reason=receipt.reason,
            )
        )

    def _tidy(self, state: DeviceState) -> None:
        """Remove what an install that came to its end, or a cut, left lying: also half-unpacked folders and pushed bytes."""
        self._collect_garbage(state)
        # The staged package's bytes stay until its trial: its copy in the store may turn out damaged.
        self.incoming.forget({state.active_sha256, state.previous_sha256, *state.failed})

    def _collect_garbage(self, state: DeviceState) -> None:
        """Remove from the store what is not active, previous or staged."""
        for name in self._fs.listdir(self._layout.store):
            if name not in state.packages_in_use:
                self._fs.remove_tree(self._layout.store / name)

    def _save(self, state: DeviceState) -> DeviceState:
        self._states.save(state)
        return state


_JOURNAL_KINDS = {
    Outcome.COMMITTED: JournalKind.COMMIT,
    Outcome.ROLLED_BACK: JournalKind.ROLL_BACK,
    Outcome.FAILED_INCONSISTENT: JournalKind.FALL_BACK,
}


def _candidate_of(state: DeviceState) -> Candidate:
    if state.candidate is None:
        raise PumpdeckError("nothing is staged", "device state", found=state.phase)
    return state.candidate
