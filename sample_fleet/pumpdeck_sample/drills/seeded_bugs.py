"""D1m: the drills are drilled. Each sync, order of steps and check of a hash is dropped in turn; a drill must notice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pumpdeck_agent import accepted, recovery, state
from pumpdeck_agent import installer as installing
from pumpdeck_agent import journal as journaling
from pumpdeck_agent.agent import Agent
from pumpdeck_agent.installer import Installation, Installer
from pumpdeck_agent.outbox import Outbox
from pumpdeck_agent.state import DeviceState, Phase, encode_state
from pumpdeck_agent.trial import TrialReport
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import ReturnItem
from pumpdeck_packaging import package_reader
from pumpdeck_packaging.manifest import MANIFEST_NAME, Manifest, parse_manifest
from pumpdeck_sample.drills.d1 import QUICK, CrashDrill, Tally
from pumpdeck_sample.drills.d5 import FAILURES, Extent, drill_flips
from pumpdeck_sample.drills.d7 import drill_endless_crash
from pumpdeck_sample.drills.disk import Forgotten, RecordingDisk, Step, StepKind
from pumpdeck_sample.drills.scenarios import Stories

_SYNCS = (StepKind.FSYNC, StepKind.FSYNC_DIR)
_CONTROL_EVERY = 29
Look = Callable[[Stories], bool]
Patch = tuple[tuple[Any, str, Any], ...]


@dataclass(frozen=True)
class Bug:
    """A defect put in on purpose, and the drill that has to see it."""

    name: str
    is_caught: Look


def kind_of(step: Step) -> str:
    """A sync's place in the program: its path without digests and numbers."""
    path = re.sub(r"\d{12}-\w+-", "N-", re.sub(r"[0-9a-f]{64}", "D", step.path))
    return f"{step.kind.value} {path}"


def syncs_of(stories: Stories) -> list[str]:
    """Every kind of sync that the scenarios make."""
    found: dict[str, None] = {}
    for scenario in stories.scenarios:
        disk = RecordingDisk(scenario.start)
        for _ in scenario.run(stories.maker.agent(disk, stories.trials.on(disk))):
            pass
        found |= dict.fromkeys(kind_of(step) for step in disk.steps if step.kind in _SYNCS)
    return list(found)


def all_bugs(stories: Stories) -> Iterator[Bug]:
    """Every seeded bug."""
    for kind in syncs_of(stories):
        yield Bug(f"without {kind}", _crashes(_forget(kind)))
    for name, kind_of_installer in _ORDERS.items():
        yield Bug(name, _crashes(None, kind_of_installer, _SHOWS_IN.get(name, "")))
    yield Bug("the try is counted after the trial", _endless(_CountsLate))
    for name, (begins, patch) in _HASHES.items():
        yield Bug(name, _flips(begins, patch))


def drill_seeded_bugs(stories: Stories, every: int = 1) -> dict[str, Any]:
    """D1m: all of them must be caught; only every `every`-th in the short form."""
    missed = []
    tried = 0
    for bug in list(all_bugs(stories))[every // 2 :: every]:
        tried += 1
        if not bug.is_caught(stories):
            missed.append(bug.name)
    # Without any defect the same looks must see nothing, or what they caught says nothing.
    controls = (_crashes(None), _endless(Installer), _flips("", (), _CONTROL_EVERY))
    false = sum(look(stories) for look in controls[: 3 if every == 1 else 1])
    return {"tried": tried, "missed": len(missed), "false_alarms": false, "evidence": missed}


def _forget(kind: str) -> Forgotten:
    return lambda step: step.kind in _SYNCS and kind_of(step) == kind


def _crashes(forgotten: Forgotten | None, installer: type[Installer] = Installer, first: str = "") -> Look:
    """D1 in its short form; the story named `first`, where the bug ought to show, comes before the others."""

    def look(stories: Stories) -> bool:
        order = sorted(stories.scenarios, key=lambda scenario: scenario.name != first)
        buggy = replace(stories, maker=replace(stories.maker, agent_type=_agent_with(installer)))
        tally = Tally()
        for number, scenario in enumerate(order):
            CrashDrill(buggy, QUICK, tally, forgotten).run(scenario, number, stop_at_first=True)
            if tally.failures:
                return True
        return False

    return look


def _endless(installer: type[Installer]) -> Look:
    def look(stories: Stories) -> bool:
        buggy = replace(stories, maker=replace(stories.maker, agent_type=_agent_with(installer)))
        figures = drill_endless_crash(buggy, every=60)
        return bool(figures["too_many"] or figures["bricked"])

    return look


def _flips(begins: str, patch: Patch, every: int = 3) -> Look:
    def look(stories: Stories) -> bool:
        with _patched(patch):
            flips = drill_flips(stories, Extent(every, 1, begins, stop_at_first=True))
        return any(flips.ends[end] for end in FAILURES)

    return look


def _agent_with(kind: type[Installer]) -> type[Agent]:
    class Buggy(Agent):
        @cached_property
        def installer(self) -> Installer:
            return kind(super().installer._parts)

    return Buggy


@contextmanager
def _patched(changes: Patch) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


class _ReceiptFirst(Installer):
    def _judge(self, state: DeviceState, report: TrialReport) -> Installation:
        real, self._save = self._save, lambda one: one  # type: ignore[method-assign,assignment]
        result = super()._judge(state, report)
        self._save = real  # type: ignore[method-assign]
        self._save(result.state)
        return result


class _CommitsFirst(Installer):
    def _proceed(self, state: DeviceState) -> Installation:
        active = state.candidate.package if state.candidate else None
        self._save(replace(state, record=state.record + 1, active=active))
        return super()._proceed(replace(state, record=state.record + 1))


class _CollectsFirst(Installer):
    def _judge(self, state: DeviceState, report: TrialReport) -> Installation:
        # As if the record were written already: what was active goes.
        self._collect_garbage(replace(state, active=None))
        return super()._judge(state, report)


class _ForgetsReceipt(Installer):
    def _settle(self, state: DeviceState) -> DeviceState:
        due = state.receipts_due
        if due:
            self._save(replace(state, record=state.record + 1, receipted=due[-1].counter))
            state = replace(state, record=state.record + 1)
        return super()._settle(state)


class _JournalLast(Installer):
    def _settle(self, state: DeviceState) -> DeviceState:
        real, due = self._write_journal, state.receipts_due
        self._write_journal = lambda *_: None  # type: ignore[method-assign]
        state = super()._settle(state)
        self._write_journal = real  # type: ignore[method-assign]
        for receipt in due:
            self._write_journal(state, receipt)
        return state


class _OneCopy(Installer):
    def _save(self, state: DeviceState) -> DeviceState:
        even = replace(state, record=state.record + state.record % 2)
        newest = self._states.load()
        if newest is not None and even.record <= newest.record:
            even = replace(even, record=newest.record + 2)
        handle = self._fs.open_write(self._layout.state_copy(0))
        handle.write(encode_state(even))
        handle.fsync()
        handle.close()
        if self._fs.exists(self._layout.state_copy(1)):
            self._fs.unlink(self._layout.state_copy(1))
            self._fs.fsync_dir(self._layout.root)
        return even


class _SealsUnchecked(Installer):
    def __init__(self, parts: Any) -> None:
        super().__init__(parts)
        self.incoming.seal = self._seal  # type: ignore[method-assign]

    def _seal(self, digest: str, size: int) -> None:
        del size
        path = self._layout.incoming / f"{digest}.part"
        if self._fs.exists(path):
            self._fs.rename(path, self._layout.incoming / digest)
            self._fs.fsync_dir(self._layout.incoming)


class _RecordBeforeRename(Installer):
    def _stage(self, data: bytes, digest: str, released: Any) -> Any:
        # The record is there before the folder has its name: the rename comes after the answer of this step.
        fs, final = self._fs, self._layout.package(digest)
        installed = super()._stage(data, digest, released)
        fs.rename(final, final.with_name(final.name + ".part"))
        self._late = final
        return installed

    def _save(self, state: DeviceState) -> DeviceState:
        saved = super()._save(state)
        late = self.__dict__.pop("_late", None)
        if late is not None and state.candidate is not None:
            self._fs.rename(late.with_name(late.name + ".part"), late)
        return saved


class _UsesWordLate(Installer):
    def _accept(self, state: DeviceState, verified: Any, used: Any) -> DeviceState:
        self._used = used
        return super()._accept(state, verified, None)

    def _judge(self, state: DeviceState, report: TrialReport) -> Installation:
        done = super()._judge(state, report)
        used = self.__dict__.pop("_used", None)
        if used is None:
            return done
        return replace(done, state=self._save(replace(done.state, record=done.state.record + 1, tokens=(used,))))


class _ForgetsWord(Installer):
    def _accept(self, state: DeviceState, verified: Any, used: Any) -> DeviceState:
        del used
        return super()._accept(state, verified, None)


class _WordNotInJournal(Installer):
    def _note_token(self, state: DeviceState, used: Any) -> None:
        del state, used


class _CommitsUnwatched(Installer):
    def _look_at_shadow(self, state: DeviceState) -> Installation:
        return self._judge(replace(state, phase=Phase.TRIAL), TrialReport(True, ""))


class _NeverGivesUp(Installer):
    def _is_spent(self, state: DeviceState) -> bool:
        del state
        return False


class _CountsLate(Installer):
    def _proceed(self, state: DeviceState) -> Installation:
        real, tries = self._save, state.candidate.tries if state.candidate else 0
        waiting: list[DeviceState] = []

        def late(one: DeviceState) -> DeviceState:
            if one.candidate is not None and one.candidate.tries > tries:
                waiting.append(one)
                return one
            return real(one)

        self._save = late  # type: ignore[method-assign,assignment]
        try:
            return super()._proceed(state)
        finally:
            self._save = real  # type: ignore[method-assign]


_ORDERS: Mapping[str, type[Installer]] = {
    "the receipt goes out before the record": _ReceiptFirst,
    "active before its trial": _CommitsFirst,
    "garbage is collected before the record": _CollectsFirst,
    "the receipt counts as handed over before it is": _ForgetsReceipt,
    "the journal comes after the receipt is handed over": _JournalLast,
    "one state copy, written over": _OneCopy,
    "the record before the folder's rename": _RecordBeforeRename,
    "sealed without sync and check": _SealsUnchecked,
    "a downgrade word is used up after its effect": _UsesWordLate,
    "a downgrade word is not used up": _ForgetsWord,
    "a used downgrade word is not in the journal": _WordNotInJournal,
    "committed without its shadow hours": _CommitsUnwatched,
    "records are not counted against the cap": _NeverGivesUp,
}


_SHOWS_IN = {
    "a downgrade word is used up after its effect": "downgrade",
    "a downgrade word is not used up": "downgrade",
    "a used downgrade word is not in the journal": "downgrade",
    "committed without its shadow hours": "shadow hours",
    "records are not counted against the cap": "given up",
}


def _unsealed(data: bytes, what: str) -> bytes:
    del what
    return data.partition(b"\n")[2]


def _unchecked(members: dict[str, bytes], what: str, manifest: Manifest | None = None) -> Any:
    manifest_bytes = members[MANIFEST_NAME]
    manifest = manifest or parse_manifest(manifest_bytes, what)
    files = {name: data for name, data in members.items() if name != MANIFEST_NAME}
    return package_reader.PackageFiles(manifest, manifest_bytes, files)


def _any_manifest(fs: Any, folder: Any, *, manifest_digest: str | None = None) -> Any:
    del manifest_digest
    return package_reader.load_folder(fs, folder)


def _unchecked_item(self: Outbox, entry: Any) -> Any:
    line, _, data = self._fs.read_bytes(self._folder / entry.name, 1 << 24).partition(b"\n")
    return canonical.decode(ReturnItem, line, entry.name, max_bytes=4096), data


def _no_chain(self: journaling.Journal) -> Any:
    data = self._fs.read_bytes(self._path, 1 << 24)
    raw = [line for line in data.split(b"\n") if line]
    found = [canonical.decode(journaling.JournalLine, line.split(b" ", 1)[-1], "journal", max_bytes=4096) for line in raw]
    return tuple(found), len(data), canonical.digest(raw[-1])


_HASHES: Mapping[str, tuple[str, Patch]] = {
    "state copies are not checked": ("state.", ((state, "unseal", _unsealed),)),
    "the floor is not checked": ("trust/floor", ((accepted, "unseal", _unsealed),)),
    "the active package is not checked at a start": ("store/", ((recovery, "is_sound", lambda *_: True),)),
    "files in the store are not checked": ("store/", ((package_reader, "_checked", _unchecked),)),
    "manifests in the store are not checked": ("store/", ((recovery, "load_folder", _any_manifest),)),
    "a known copy is not checked before it is used again": ("store/", ((installing, "is_sound", lambda *_: True),)),
    "items of the outbox are not checked": ("outbox/", ((Outbox, "_load", _unchecked_item),)),
    "the journal's chain is not checked": ("journal", ((journaling.Journal, "_read", _no_chain),)),
}
