"""What a power cut may leave of a disk, by three models of a file system.

- `kill`: only the process is gone. Every finished step stands; a write may have come half way.
- `journal`: names last in the order they were changed, up to any point behind the last sync; unsynced bytes are there, old,
  empty, torn or zeros. A sync of anything makes all earlier names last, as ext4 does.
- `weak`: any subset of the unsynced changes of names, each file's unsynced bytes as above. A sync makes last only what it names.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import replace

from pumpdeck_sample.drills.disk import Image, RecordingDisk, Step, StepKind, apply, image_of

_NAMES = (StepKind.LINK, StepKind.MKDIR, StepKind.UNLINK, StepKind.RENAME)


class Model(enum.StrEnum):
    """A model of a file system."""

    KILL = "kill"
    JOURNAL = "journal"
    WEAK = "weak"


class Fate(enum.Enum):
    """What becomes of a file's unsynced bytes."""

    NEW = "new"
    OLD = "old"
    EMPTY = "empty"
    TORN = "torn"
    ZEROS = "zeros"


class Medium:
    """The disk between two steps: what is there now, and what of it is sure to last."""

    def __init__(self, start: Image) -> None:
        disk = RecordingDisk(start)
        self._names, self._files = disk.names, disk.files
        self._safe_files = dict(self._files)
        self._journal_names, self._weak_names = dict(self._names), dict(self._names)
        self._journal: list[Step] = []
        self._weak: list[Step] = []
        self._cut_off: set[int] = set()

    def apply(self, step: Step) -> None:
        """The step was finished."""
        apply(step, self._names, self._files)
        if step.kind in _NAMES:
            self._journal.append(step)
            self._weak.append(step)
        elif step.kind is StepKind.TRUNCATE:
            self._cut_off.add(step.node)
        elif step.kind in (StepKind.FSYNC, StepKind.FSYNC_DIR):
            self._sync(step)

    def images(self, model: Model, next_step: Step | None, chance: random.Random, most: int) -> Iterator[Image]:
        """What a cut here may leave; for `weak` every subset when there are at most `most` of them, else that many by chance."""
        if model is Model.KILL:
            yield image_of(self._names, self._files)
            if next_step is not None and next_step.kind is StepKind.WRITE:
                half = replace(next_step, data=next_step.data[: len(next_step.data) // 2])
                files = dict(self._files)
                apply(half, {}, files)
                yield image_of(self._names, files)
            return
        for names in self._journal_choices() if model is Model.JOURNAL else self._weak_choices(chance, most):
            yield from self._with_bytes(names, chance)

    def _sync(self, step: Step) -> None:
        for pending in self._journal:
            apply(pending, self._journal_names, {})
        self._journal.clear()
        if step.kind is StepKind.FSYNC:
            self._safe_files[step.node] = self._files.get(step.node, b"")
            self._cut_off.discard(step.node)
            return
        kept = []
        for pending in self._weak:
            if step.node in (pending.entry[0], pending.target[0] if pending.kind is StepKind.RENAME else -1):
                apply(pending, self._weak_names, {})
            else:
                kept.append(pending)
        self._weak = kept

    def _journal_choices(self) -> Iterator[dict[tuple[int, str], int]]:
        names = dict(self._journal_names)
        yield dict(names)
        for pending in self._journal:
            apply(pending, names, {})
            yield dict(names)

    def _weak_choices(self, chance: random.Random, most: int) -> Iterator[dict[tuple[int, str], int]]:
        count = len(self._weak)
        everything = range(1 << count) if 1 << count <= most else None
        picks = everything if everything is not None else (chance.getrandbits(count) for _ in range(most))
        for pick in picks:
            names = dict(self._weak_names)
            for place, pending in enumerate(self._weak):
                if pick >> place & 1:
                    apply(pending, names, {})
            yield names

    def _with_bytes(self, names: dict[tuple[int, str], int], chance: random.Random) -> Iterator[Image]:
        linked = set(names.values())
        unsure = [
            node
            for node, data in self._files.items()
            if node in linked and (data != self._safe_files.get(node, b"") or node in self._cut_off)
        ]
        for fate in Fate if unsure else (Fate.NEW,):
            yield image_of(names, self._files | {node: self._left(node, fate) for node in unsure})
        if len(unsure) > 1:
            mixed = {node: self._left(node, chance.choice(tuple(Fate))) for node in unsure}
            yield image_of(names, self._files | mixed)

    def _left(self, node: int, fate: Fate) -> bytes:
        new, old = self._files[node], self._safe_files.get(node, b"")
        # What was synced and not cut off since stays, whatever becomes of the bytes written over or behind it.
        base = b"" if node in self._cut_off else old
        if fate is Fate.NEW:
            return new
        if fate is Fate.OLD:
            return old
        if fate is Fate.EMPTY:
            return base
        if fate is Fate.ZEROS:
            return base + bytes(max(0, len(new) - len(base)))
        same = next((i for i, (a, b) in enumerate(zip(base, new, strict=False)) if a != b), min(len(base), len(new)))
        middle = (same + len(new)) // 2
        return new[:middle] + base[middle:]
