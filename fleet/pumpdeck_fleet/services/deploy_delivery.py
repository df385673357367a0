"""Carry out what the outbox holds: packages and assignments to devices, receipts back into their rollouts.

Threads talk to devices and nothing else; the calling thread owns the store. A thread asks it by mail, the caller answers a batch
of mail with one transaction, and the thread goes on only once that is committed. So nothing is sent before it is stored, and a
kill at any moment leaves a store from which the same call goes on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import (
    NotFoundError,
    PumpdeckError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.ports import Progress, RpcChannel
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES, NO_TERMS, Assignment
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import GOOD, RolloutState, TaskState
from pumpdeck_fleet.services.collect import Collector
from pumpdeck_fleet.services.deploy import check_sendable
from pumpdeck_fleet.services.deploy_conversation import (
    Conversation,
    Declined,
    Failed,
    Mail,
    Returned,
    Said,
    Staging,
    Waits,
)
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.services.deploy_threads import run_threads
from pumpdeck_fleet.services.site_windows import bytes_left, closed_sites
from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_fleet.store.rollouts import OutboxRow

ASSIGNMENT_FORMAT = 1
ASSIGNMENT_FILE = "assign.json"
DUE_LIMIT = 10_000


class Assigner(Protocol):
    """Who signs which package a device shall run, and hands out the files that prove it (one trust repository a site)."""

    def assign(self, site: str, assignments: Sequence[Assignment]) -> None:
        """Sign these assignments in one step and keep them durably. Raises: PumpdeckError."""
        ...

    def files_for(self, site: str, device: str) -> Sequence[tuple[str, bytes]]:
        """The metadata files for a device and, under `assign.json`, its assignment if it has one."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What delivering needs. `connect` and `assigner.files_for` are called from several threads at once.

    `stored_digest`: site, device and digest of a package -> digest of what travels for it, where that is its ciphertext.
    """

    collector: Collector
    artifacts: ArtifactStore
    connect: Callable[[Device], RpcChannel]
    assigner: Assigner
    on_progress: Progress = lambda _step, _done, _total: None
    console: str = "pumpdeck"
    concurrency: int = 8
    stored_digest: Callable[[str, str, str], str] = lambda _site, _device, digest: digest


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What one call did: devices tried, those that ended well, and what went wrong by device."""

    tried: int
    committed: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class _Due:
    """One command that may be carried out now."""

    command: ev.Deliver
    tries: int
    device: Device
    rollout: Rollout


def deliver_due(delivery: Delivery) -> DeliveryReport:
    """Carry out every Deliver command that is due and whose rollout runs; those for couriers are left for a bundle.

    Raises:
        Whatever is a defect here or stops this process; what devices, links and keys do wrong ends in the report.
    """
    office = _Office(delivery)
    due = office.sign(office.due())
    jobs = [office.conversation(entry) for entry in due]
    run_threads([job for job in jobs if job is not None], office.answer, delivery.concurrency)
    return DeliveryReport(len(due), tuple(office.committed), tuple(office.problems), office.sent_bytes)


class _Office:
    """The side that owns the store: picks commands, has them signed, answers mail."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._store = delivery.collector.store
        self._clock = delivery.collector.clock
        self._due: dict[str, _Due] = {}
        self._files: dict[str, tuple[tuple[str, bytes], ...]] = {}
        self._total = 0
        self._done = 0
        self._ended: deque[tuple[str, TaskState]] = deque()
        self.committed: list[str] = []
        self.problems: list[tuple[str, str]] = []
        self.sent_bytes = 0

    def due(self) -> list[_Due]:
        rows = self._store.outbox.due(self._clock.now_ms(), DUE_LIMIT)
        rollouts: dict[str, Rollout] = {}
        found = []
        for row in rows:
            if isinstance(row.command, ev.Deliver) and row.command.link is not Link.COURIER:
                entry = self._checked(row, row.command, rollouts)
                found += [entry] if entry else []
        found = self._open_now(found, rollouts)
        self._due = {entry.command.device: entry for entry in found}
        self._total = len(found)
        return found

    def _open_now(self, found: Sequence[_Due], rollouts: Mapping[str, Rollout]) -> list[_Due]:
        """Those whose site may be sent to now: a window may have closed since the command was given, or a cap may be reached."""
        fleet, now_ms = self._delivery.collector.fleet, self._clock.now_ms()
        closed = {
            name: closed_sites(fleet, rollouts.values(), one.plan.policy, now_ms) for name, one in rollouts.items()
        }
        left = bytes_left(fleet, rollouts.values(), now_ms)
        kept = []
        for entry in found:
            site = entry.command.site
            if site in closed[entry.command.rollout] or left.get(site, math.inf) <= 0:
                continue
            if site in left:
                left[site] -= entry.command.package_bytes
            kept.append(entry)
        return kept

    def _checked(self, row: OutboxRow[ev.Command], command: ev.Deliver, rollouts: dict[str, Rollout]) -> _Due | None:
        if command.rollout not in rollouts:
            rollouts[command.rollout] = self._store.rollouts.load(command.rollout)
        rollout = rollouts[command.rollout]
        if rollout.state is not RolloutState.RUNNING:
            return None
        try:
            check_sendable(rollout, command)
            device = self._delivery.collector.fleet.device(command.device)
        except PumpdeckError as error:
            self._fail(command, row.tries, error, is_final=True)
            return None
        return _Due(command, row.tries, device, rollout)

    def sign(self, due: Sequence[_Due]) -> list[_Due]:
        """One signing step for each site; the commands whose assignment lies signed on disk now."""
        by_site: dict[str, list[_Due]] = {}
        for entry in due:
            by_site.setdefault(entry.command.site, []).append(entry)
        ready = []
        for site, entries in sorted(by_site.items()):
            try:
                self._sign_site(site, entries)
            except PumpdeckError as error:
                # Nothing is wrong with the devices: try again when the key or the repository is there.
                for entry in entries:
                    self._fail(entry.command, entry.tries, error, is_final=False)
                continue
            ready += entries
        return ready

    def _sign_site(self, site: str, entries: Sequence[_Due]) -> None:
        assigner = self._delivery.assigner
        missing = [entry for entry in entries if not self._is_signed(entry)]
        if missing:
            assigner.assign(site, [assignment_of(entry.command, entry.rollout) for entry in missing])
        for entry in entries:
            self._files[entry.command.device] = tuple(assigner.files_for(site, entry.command.device))

    def _is_signed(self, entry: _Due) -> bool:
        filed = self._filed(entry.command.site, entry.command.device)
        wanted = assignment_of(entry.command, entry.rollout)
        if not filed or not entry.rollout.tasks[entry.command.device].assign_ms:
            return filed == canonical.encode(wanted)
        # A courier may have it: a device that meets two wordings of one number believes neither.
        found = canonical.decode(Assignment, filed, f"assignment of {wanted.device}", max_bytes=ASSIGNMENT_MAX_BYTES)
        return (found.task, found.seq, found.package_sha256) == (wanted.task, wanted.seq, wanted.package_sha256)

    def _filed(self, site: str, device: str) -> bytes:
        try:
            return dict(self._delivery.assigner.files_for(site, device)).get(ASSIGNMENT_FILE, b"")
        except NotFoundError:
            return b""

    def conversation(self, entry: _Due) -> Conversation | None:
        """What a thread needs to serve one device; nothing when the device is not enrolled any more."""
        command = entry.command
        try:
            identity = self._delivery.collector.identity(command.device)
        except NotFoundError as error:
            self._fail(command, entry.tries, error, is_final=True)
            return None
        stored = self._delivery.stored_digest(command.site, command.device, command.package_sha256)
        return Conversation(
            command=command,
            device=entry.device,
            identity=identity,
            load_package=partial(self._delivery.artifacts.get, stored),
            files=self._files[command.device],
            connect=self._delivery.connect,
            verify=self._delivery.collector.verify,
            verify_receipt=self._delivery.collector.verify_receipt,
            hello={"console": self._delivery.console, "workspace": self._store.workspace},
        )

    def answer(self, mails: Sequence[Mail]) -> list[object]:
        """Answers to a batch of mail, all in one transaction; one that fails does not harm the others."""
        answers: list[object] = []
        with self._store.atomic():
            for mail in mails:
                try:
                    with self._store.atomic():
                        answers.append(self._answer(mail))
                except PumpdeckError as error:
                    answers.append(error)
        # After the commit: who listens may be slow, or may raise to cancel.
        while self._ended:
            device, state = self._ended.popleft()
            self._done += 1
            self._delivery.on_progress(f"{device} {state}", self._done, self._total)
        return answers

    def _answer(self, mail: Mail) -> object:
        command = mail.command
        now_ms = self._clock.now_ms()
        match mail:
            case Staging(sent_bytes=sent_bytes):
                self.sent_bytes += sent_bytes
                fed = feed(self._store, command.rollout, [ev.Staged(now_ms, command.device)])
                return fed.leave(command.device)
            case Returned(verified=verified):
                return self._delivery.collector.keep(verified)
            case Said(receipt=receipt):
                return self._delivery.collector.keep_receipts([receipt])
            case Waits(state=state, reason=reason):
                progressed = ev.Progressed(now_ms, command.device, state, reason)
                rollout = feed(self._store, command.rollout, [progressed]).rollout
                self._retry(command, now_ms + rollout.plan.policy.retry_ms(1), reason)
                self._step(command.device)
            case Declined(error=error):
                declined = ev.Declined(now_ms, command.device, error.sentence())
                feed(self._store, command.rollout, [declined])
                self.problems.append((command.device, error.sentence()))
                self._step(command.device)
            case Failed(error=error, is_ours=is_ours):
                is_final = is_ours or not is_retryable(error)
                self._fail(command, self._due[command.device].tries, error, is_final=is_final)
                self._step(command.device)
            case _:
                self._step(command.device)
        return None

    def _step(self, device: str) -> None:
        task = self._store.rollouts.load(self._due[device].command.rollout).tasks[device]
        if task.state in GOOD:
            self.committed.append(device)
        self._ended.append((device, task.state))

    def _fail(self, command: ev.Deliver, tries: int, error: PumpdeckError, *, is_final: bool) -> None:
        now_ms = self._clock.now_ms()
        reason = error.sentence()
        with self._store.atomic():
            policy = self._store.rollouts.load(command.rollout).plan.policy
            next_ms = now_ms + policy.retry_ms(tries + 1)
            failed = ev.AttemptFailed(now_ms, command.device, reason, not is_final, next_ms)
            feed(self._store, command.rollout, [failed])
            self._retry(command, next_ms, reason)
        self.problems.append((command.device, reason))

    def _retry(self, command: ev.Deliver, at_ms: int, reason: str) -> None:
        with self._store.atomic():
            self._store.outbox.retry(command.id, at_ms, reason)


def is_retryable(error: PumpdeckError) -> bool:
    """Whether trying again can help. Wrong host keys, refused logins and broken trust never get better by themselves."""
    if isinstance(error, UnreachableError):
        return error.retryable
    return not isinstance(error, RefusedError | UsageError | NotFoundError)


def assignment_of(command: ev.Deliver, rollout: Rollout) -> Assignment:
    """What is to be signed for a command: the same every time."""
    terms = rollout.plan.terms or NO_TERMS
    return Assignment(
        format=ASSIGNMENT_FORMAT,
        device=command.device,
        package_sha256=command.package_sha256,
        seq=command.seq,
        # The command's own time, so that signing again after a kill says the same.
        issued_at_ms=command.not_before_ms,
        soft_until_ms=rollout.tasks[command.device].deadline_ms,
        task=command.id,
        permit=terms.permit,
        retry=terms.retry,
        shadow_s=terms.shadow_s,
    )
