"""Install: verify, stage, try, commit; and find out after a cut where we were. All writes go through the FileSystem port.

Order of a good install, each step synced before the next: floor and metadata accepted -> package unpacked beside -> the staged
copy read back and verified -> folder renamed -> STAGED -> TRIAL with its try counted -> trial process -> one record with active,
previous, counter and receipt -> journal -> receipt in the outbox -> garbage. A cut leaves the old package active or the new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pumpdeck_agent import state as moves
from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import open_package
from pumpdeck_agent.conditions import check_format, check_token, under_rules, why_refused
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.incoming import Incoming
from pumpdeck_agent.journal import Journal, JournalKind, JournalLine
from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.receipt_writer import Evidence, ReceiptWriter
from pumpdeck_agent.receipts import Pen
from pumpdeck_agent.recovery import is_sound, recover
from pumpdeck_agent.requirements import check_requirements
from pumpdeck_agent.shadow_file import forget_shadow, read_standing
from pumpdeck_agent.state import STATE_FORMAT, Candidate, DeviceState, Installed, Phase, UsedToken
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, TrialRunner
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.receipts import Assignment, Outcome, Receipt, ReturnKind
from pumpdeck_packaging.package_reader import load_folder, read_package, unpack_to
from pumpdeck_packaging.trust_rules import ReleasedPackage
from pumpdeck_packaging.verify import TrustState, VerifiedAssignment, verify_assignment, verify_metadata


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

    def ready(self, wanted: str = "") -> DeviceState:
        """The device state after whatever a cut left behind was put right; receipts that are due are in the outbox.

        `wanted` is a package whose pushed bytes are kept even if it failed or was given up here before.

        Raises:
            RefusedError: a newer agent wrote the state; nothing changed.
        """
        state = self._states.load()
        if state is not None:
            check_format(state, STATE_FORMAT)
        if state is None or not self._is_recovered or state.phase is Phase.TRIAL or self.is_damaged(state):
            parts = self._parts
            for record in recover(state, self._fs, self._layout, parts.receipts, parts.limits.max_tries):
                state = self._save(record)
            self._is_recovered = True
            if state is not None:
                self._tidy(state, wanted)
                self._accepted.tidy()
        if state is None:
            raise PumpdeckError("the device state could not be rebuilt", self._parts.config.device)
        return self._settle(state)

    def assign(self, files: Mapping[str, bytes]) -> Installation:
        """Carry out what the assignment in `files` says. Repeating it gives the same receipt and changes nothing.

        Raises:
            TrustError: the assignment is not to be believed, or its downgrade word was used before; nothing changed.
            NotFoundError: the package was not pushed yet; nothing changed.
        """
        before, verified = self._verified(files)
        assignment = verified.assignment
        digest = assignment.package_sha256
        state = self.ready(digest)
        receipt = state.receipt_for(assignment.task, assignment.seq) if verified.repeated else None
        # Once committed, but lost since to a damaged disk: the same word brings it back.
        was_lost = receipt is not None and receipt.active_sha256 == digest != state.active_sha256
        if receipt is not None and not was_lost:
            # The word is an old one, but the metadata around it may revoke a key.
            self._accepted.save_news(before, verified)
            return Installation(state, receipt)
        used = check_token(state, verified)
        config = under_rules(self._parts.config, verified)
        refusal = "" if digest == state.active_sha256 else why_refused(config, state, verified)
        is_wanted = not refusal and not self.is_installed(digest)
        if is_wanted and not self.incoming.has(verified.package.stored_sha256):
            raise NotFoundError("the package is not on the device", digest, hint="push it first")
        # Before anything is written down: a ciphertext that does not open changes nothing.
        is_sealed = is_wanted and bool(verified.package.sealed)
        opened = open_package(self._fs, self._layout, self.incoming, verified.package) if is_sealed else b""
        if verified.repeated and self._is_staged(state, assignment):
            # Asked again while it waits: nothing new is to be written down, or patience would wear out the disk.
            self._accepted.save_news(before, verified)
            return self._proceed(state)
        state = self._accept(state, verified, used)
        if refusal:
            return self._end(state, assignment, Outcome.REFUSED, refusal)
        return self._carry_out(state, verified, opened)

    def _verified(self, files: Mapping[str, bytes]) -> tuple[TrustState, VerifiedAssignment]:
        platform = self._parts.platform
        now_ms, synced = platform.clock.now_ms(), platform.is_clock_synced()
        try:
            before = self._accepted.load()
            return before, verify_assignment(before, files, now_ms=now_ms, clock_synced=synced)
        except PumpdeckError:
            # Whoever asks, and whatever for: a device that was cut is put right first.
            self.ready()
            raise

    def _is_staged(self, state: DeviceState, assignment: Assignment) -> bool:
        candidate = state.candidate
        if candidate is None or (candidate.task, candidate.seq) != (assignment.task, assignment.seq):
            return False
        return is_sound(self._fs, self._layout, candidate.package)

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
        if state.phase not in (Phase.STAGED, Phase.SHADOW):
            return Installation(state, None)
        return self._proceed(state)

    def _accept(self, state: DeviceState, verified: VerifiedAssignment, used: UsedToken | None) -> DeviceState:
        self._accepted.save(verified)
        if used is not None:
            self._note_token(state, used)
        # Used up in the very record that lets the assignment take effect, and before anything of it does.
        return self._save(moves.accept(state, verified.assignment.seq, used))

    def _carry_out(self, state: DeviceState, verified: VerifiedAssignment, opened: bytes) -> Installation:
        assignment, package = verified.assignment, verified.package
        digest = assignment.package_sha256
        if digest == state.active_sha256:
            if state.candidate is not None:
                state = self._save(moves.drop_candidate(state))
            return self._end(state, assignment, Outcome.ALREADY, "this package is active")
        if self._is_spent(state):
            return self._give_up(state, _task_of(assignment, Installed(digest, "")))
        installed = self._sound_copy(state, digest)
        # Read outside: bytes that the disk lost or damaged are not the package's fault, and may be pushed again.
        data = b"" if installed else opened or self.incoming.read(digest)
        try:
            installed = installed or self._stage(data, digest, package)
        except PumpdeckError as error:
            return self._end(state, assignment, Outcome.REFUSED, error.sentence())
        # Trials that were cut count on, however often the same package is assigned.
        tries = state.candidate.tries if state.candidate and state.candidate.package == installed else 0
        candidate = replace(_task_of(assignment, installed), tries=tries, release=package.words.release)
        if verified.token is not None:
            candidate = replace(candidate, token=verified.token.digest)
        forget_shadow(self._fs, self._layout)
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
        if self._is_spent(state):
            return self._give_up(state, candidate)
        reason = self._parts.why_wait()
        if reason:
            return Installation(self._hold(state, reason), None, reason)
        if not is_sound(self._fs, self._layout, candidate.package):
            # The disk's fault, not the package's: it may come again.
            state = self._save(moves.drop_candidate(state))
            self._collect_garbage(state)
            raise DamagedError("the staged copy was damaged on the disk", candidate.package.sha256, hint="push it again")
        if state.phase is Phase.SHADOW:
            return self._look_at_shadow(state)
        state = self._save(moves.begin_trial(state))
        report = self._parts.runner.run(self._request(candidate))
        if report.passed and candidate.shadow_s and state.active is not None:
            forget_shadow(self._fs, self._layout)
            return self._look_at_shadow(self._save(moves.begin_shadow(state, report.self_test)))
        return self._judge(state, report)

    def _hold(self, state: DeviceState, reason: str) -> DeviceState:
        """The candidate waits, for this reason; what shadow scoring saw so far is worth nothing any more."""
        if state.phase is Phase.SHADOW:
            forget_shadow(self._fs, self._layout)
            return self._save(moves.postpone(state, reason))
        if state.phase is Phase.STAGED and _candidate_of(state).waits_for == reason:
            return state
        return self._save(moves.wait(state, reason))

    def _look_at_shadow(self, state: DeviceState) -> Installation:
        candidate = _candidate_of(state)
        standing = read_standing(self._fs, self._layout, candidate.package.sha256)
        if standing.problem:
            return self._judge(state, TrialReport(False, f"shadow scoring: {standing.problem}", candidate.self_test))
        if not standing.is_done(candidate.shadow_s):
            return Installation(state, None, standing.words(candidate.shadow_s))
        return self._judge(state, TrialReport(True, "", candidate.self_test))

    def _is_spent(self, state: DeviceState) -> bool:
        candidate = state.candidate
        is_its = candidate is None or candidate.seq == state.attempt.seq
        return is_its and state.attempt.moves >= self._parts.limits.max_moves

    def _give_up(self, state: DeviceState, task: Candidate) -> Installation:
        words = f"gave up after {state.attempt.moves} state records without an end; what ran goes on, a new assignment is needed"
        receipt = self._parts.receipts.write(state, task, Outcome.FAILED_INCONSISTENT, words)
        state = self._settle(self._save(moves.give_up(state, receipt)))
        self._tidy(state)
        return Installation(state, receipt)

    def _request(self, candidate: Candidate) -> TrialRequest:
        folder = self._layout.package(candidate.package.sha256)
        return TrialRequest(str(folder), candidate.package.manifest, self._parts.limits.trial_wall_s)

    def _judge(self, state: DeviceState, report: TrialReport) -> Installation:
        candidate = _candidate_of(state)
        outcome = Outcome.COMMITTED if report.passed else Outcome.ROLLED_BACK
        shadow = None
        if state.phase is Phase.SHADOW:
            shadow = read_standing(self._fs, self._layout, candidate.package.sha256).sketches
        evidence = Evidence(report.self_test, shadow)
        receipt = self._parts.receipts.write(state, candidate, outcome, report.reason, evidence)
        state = moves.commit(state, receipt) if report.passed else moves.roll_back(state, receipt)
        state = self._settle(self._save(state))
        self._tidy(state)
        if report.passed:
            self.incoming.clear()
        return Installation(state, receipt)

    def _end(self, state: DeviceState, assignment: Assignment, outcome: Outcome, reason: str) -> Installation:
        """The task ends here without a trial."""
        task = _task_of(assignment, Installed(assignment.package_sha256, ""))
        receipt = self._parts.receipts.write(state, task, outcome, reason)
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
                newest_release=state.newest_release,
            )
        )

    def _note_token(self, state: DeviceState, used: UsedToken) -> None:
        """Into the journal too: a word must stay used up when both copies of the state are lost."""
        if any((line.token, line.seq) == (used.digest, used.seq) for line in self._journal.lines()):
            return
        active = state.active or Installed("", "")
        line = JournalLine(
            at_ms=self._parts.platform.clock.now_ms(),
            kind=JournalKind.TOKEN,
            active=active.sha256,
            active_manifest=active.manifest,
            package_sha256="",
            seq=used.seq,
            counter=state.counter,
            reason="a downgrade word is used up",
        )
        self._journal.add(replace(line, token=used.digest, until_seq=used.until_seq))

    def _tidy(self, state: DeviceState, wanted: str = "") -> None:
        """Remove what an install that came to its end, or a cut, left lying: also half-unpacked folders and pushed bytes."""
        self._collect_garbage(state)
        if state.phase is not Phase.SHADOW:
            forget_shadow(self._fs, self._layout)
        # The staged package's bytes stay until its trial: its copy in the store may turn out damaged.
        over = {*state.failed, *state.given_up} - {wanted}
        self.incoming.forget({state.active_sha256, state.previous_sha256, *over})

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


def _task_of(assignment: Assignment, package: Installed) -> Candidate:
    return Candidate(
        package, assignment.task, assignment.seq, permit=assignment.permit, shadow_s=assignment.shadow_s or 0
    )


def _candidate_of(state: DeviceState) -> Candidate:
    if state.candidate is None:
        raise PumpdeckError("nothing is staged", "device state", found=state.phase)
    return state.candidate
