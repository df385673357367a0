"""A disk in memory that writes down every step it is asked for, so that each moment of a power cut can be looked at afterwards.

It is the FileSystem port the agent runs on, whole and exact; what a cut leaves of it is worked out by `losses` from its steps.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pumpdeck_fleet.core.errors import TooLargeError
from pumpdeck_fleet.core.ports import OpenFile

TOP = 0
Image = Mapping[tuple[str, ...], bytes | None]
"""Everything on a disk: bytes by path; None stands for a folder."""


class StepKind(enum.Enum):
    """What a step does. LINK (a new file) to RENAME change names, TRUNCATE and WRITE bytes; the syncs make them last."""

    LINK = "link"
    MKDIR = "mkdir"
    UNLINK = "unlink"
    RENAME = "rename"
    TRUNCATE = "truncate"
    WRITE = "write"
    FSYNC = "fsync"
    FSYNC_DIR = "fsync_dir"


@dataclass(frozen=True, slots=True)
class Step:
    """One step on numbered files and folders. `entry` is (folder, name); `target` where RENAME puts it."""

    kind: StepKind
    node: int
    path: str
    entry: tuple[int, str] = (TOP, "")
    target: tuple[int, str] = (TOP, "")
    offset: int = 0
    data: bytes = b""


Fault = Callable[[Step], None]
Forgotten = Callable[[Step], bool]


class RecordingDisk:
    """The FileSystem port over an image. `fault` is asked before each step and may raise; `forgotten` steps do nothing."""

    def __init__(self, image: Image | None = None, *, fault: Fault | None = None, forgotten: Forgotten | None = None) -> None:
        self.names: dict[tuple[int, str], int] = {}
        self.files: dict[int, bytes] = {}
        self.steps: list[Step] = []
        self.fault = fault
        self._forgotten = forgotten
        self._next = TOP
        for path, data in sorted((image or {}).items()):
            self._next += 1
            self.names[(self._walk(path[:-1]), path[-1])] = self._next
            if data is not None:
                self.files[self._next] = data

    def image(self) -> dict[tuple[str, ...], bytes | None]:
        """What is on the disk now."""
        return image_of(self.names, self.files)

    def do(self, step: Step) -> None:
        """Carry out one step and write it down."""
        if self.fault is not None:
            self._ask(self.fault, step)
        if self._forgotten is not None and self._forgotten(step):
            return
        self.steps.append(step)
        apply(step, self.names, self.files)

    def _ask(self, fault: Fault, step: Step) -> None:
        try:
            fault(step)
        except BaseException:
            if step.kind is StepKind.WRITE:
                # A disk that is full, or a cut, takes part of what was to be written.
                half = replace(step, data=step.data[: len(step.data) // 2])
                self.steps.append(half)
                apply(half, self.names, self.files)
            raise

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        entry = self._entry(path)
        node = self.names.get(entry)
        if node is None:
            node = self._make(StepKind.LINK, entry, path)
        elif node not in self.files:
            raise IsADirectoryError(str(path))
        elif truncate:
            self.do(Step(StepKind.TRUNCATE, node, str(path)))
        return _Handle(self, node, str(path))

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        data = self.files.get(self._find(path) or TOP)
        if data is None:
            raise FileNotFoundError(2, "No such file", str(path))
        if len(data) > max_bytes:
            raise TooLargeError("is too large", str(path))
        return data

    def exists(self, path: Path) -> bool:
        return self._find(path) is not None

    def size(self, path: Path) -> int:
        return len(self.read_bytes(path, 1 << 60))

    def listdir(self, path: Path) -> list[str]:
        folder = self._walk(path.parts)
        if folder in self.files:
            raise NotADirectoryError(20, "Not a directory", str(path))
        return sorted(name for place, name in self.names if place == folder)

    def mkdir(self, path: Path) -> None:
        place = TOP
        for number, name in enumerate(path.parts):
            if (place, name) not in self.names:
                self._make(StepKind.MKDIR, (place, name), Path(*path.parts[: number + 1]))
            place = self.names[(place, name)]

    def rename(self, source: Path, target: Path) -> None:
        entry, there = self._entry(source), self._entry(target)
        if entry not in self.names:
            raise FileNotFoundError(2, "No such file", str(source))
        taken = self.names.get(there)
        if taken is not None and taken not in self.files and self.listdir(target):
            raise OSError(39, "Directory not empty", str(target))
        self.do(Step(StepKind.RENAME, self.names[entry], str(target), entry, there))

    def unlink(self, path: Path) -> None:
        entry = self._entry(path)
        if entry in self.names:
            self.do(Step(StepKind.UNLINK, self.names[entry], str(path), entry))

    def remove_tree(self, path: Path) -> None:
        node = self._find(path)
        if node is None:
            return
        for name in self.listdir(path) if node not in self.files else ():
            self.remove_tree(path / name)
        self.unlink(path)

    def fsync_dir(self, path: Path) -> None:
        self.do(Step(StepKind.FSYNC_DIR, self._walk(path.parts), str(path)))

    def free_bytes(self, path: Path) -> int:
        del path
        return 1 << 40

    def _make(self, kind: StepKind, entry: tuple[int, str], path: Path) -> int:
        self._next += 1
        node = self._next
        self.do(Step(kind, node, str(path), entry))
        return node

    def _find(self, path: Path) -> int | None:
        place: int | None = TOP
        for name in path.parts:
            place = self.names.get((place, name)) if place is not None else None
        return place

    def _walk(self, parts: tuple[str, ...]) -> int:
        place = TOP
        for name in parts:
            if (place, name) not in self.names:
                raise FileNotFoundError(2, "No such folder", "/".join(parts))
            place = self.names[(place, name)]
        return place

    def _entry(self, path: Path) -> tuple[int, str]:
        return self._walk(path.parent.parts), path.name


class _Handle:
    def __init__(self, disk: RecordingDisk, node: int, path: str) -> None:
        self._disk, self._node, self._path, self._at = disk, node, path, 0

    def write(self, data: bytes) -> int:
        self._disk.do(Step(StepKind.WRITE, self._node, self._path, offset=self._at, data=bytes(data)))
        self._at += len(data)
        return len(data)

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def fsync(self) -> None:
        self._disk.do(Step(StepKind.FSYNC, self._node, self._path))

    def close(self) -> None:
        pass


def apply(step: Step, names: dict[tuple[int, str], int], files: dict[int, bytes]) -> None:
    """Change names and bytes as the step does."""
    kind = step.kind
    if kind is StepKind.LINK:
        names[step.entry] = step.node
        files.setdefault(step.node, b"")
    elif kind is StepKind.MKDIR:
        names[step.entry] = step.node
    elif kind is StepKind.UNLINK:
        names.pop(step.entry, None)
    elif kind is StepKind.RENAME:
        names.pop(step.entry, None)
        names[step.target] = step.node
    elif kind is StepKind.TRUNCATE:
        files[step.node] = b""
    elif kind is StepKind.WRITE:
        files[step.node] = written(files.get(step.node, b""), step.offset, step.data)


def written(old: bytes, offset: int, data: bytes) -> bytes:
    """A file's bytes after a write at that place."""
    before = old[:offset].ljust(offset, b"\0")
    return before + data + old[offset + len(data) :]


def image_of(names: Mapping[tuple[int, str], int], files: Mapping[int, bytes]) -> dict[tuple[str, ...], bytes | None]:
    """The tree under the top; what hangs on no folder is not there."""
    inside: dict[int, list[tuple[str, int]]] = {}
    for (place, name), node in names.items():
        inside.setdefault(place, []).append((name, node))

    image: dict[tuple[str, ...], bytes | None] = {}
    folders: list[tuple[int, tuple[str, ...]]] = [(TOP, ())]
    while folders:
        place, path = folders.pop()
        for name, node in inside.get(place, ()):
            here = (*path, name)
            image[here] = files.get(node)
            if node in inside:
                folders.append((node, here))
    return image
