"""A disk in memory that forgets what was not synced, and loses power at any step one asks for.

A file's bytes last once its handle was synced, a name once its folder was synced; nothing else is promised, and each survivor
of a cut is one of the states that a real file system may leave behind (`Loss`).
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_fleet.core.errors import TooLargeError
from pumpdeck_fleet.core.ports import OpenFile


class PowerCut(BaseException):
    """The power is gone. Not an Exception: no handler of the program may catch it."""


class Loss(enum.Enum):
    """What a cut takes of that which was not synced."""

    ALL = "all"
    NOTHING = "nothing"
    BYTES = "bytes only: names are there, files are empty or old"
    NAMES = "names only: bytes are there, under the old names"
    SOME = "some of both, by chance"


@dataclass(eq=False)
class _File:
    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)


class _Handle:
    def __init__(self, disk: ForgetfulDisk, file: _File) -> None:
        self._disk, self._file, self._at = disk, file, 0

    def write(self, data: bytes) -> int:
        if self._disk.is_last_step():
            data = data[: len(data) // 2]
        end = self._at + len(data)
        if len(self._file.now) < self._at:
            self._file.now.extend(bytes(self._at - len(self._file.now)))
        self._file.now[self._at : end] = data
        self._at = end
        self._disk.step()
        return len(data)

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def fsync(self) -> None:
        self._disk.step()
        self._file.synced = bytes(self._file.now)

    def close(self) -> None:
        pass


class ForgetfulDisk:
    """The FileSystem port on such a disk. `cut_at`: the step (from 0) at which the power goes; None: never."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at = cut_at
        self.steps = 0
        self._top = _Folder()

    def step(self) -> None:
        """One step that changes the disk; the power may go here."""
        if self.steps == self.cut_at:
            raise PowerCut(self.steps)
        self.steps += 1

    def is_last_step(self) -> bool:
        return self.steps == self.cut_at

    def sync_all(self) -> None:
        """Everything that is there lasts: where a test begins."""
        self.steps, self.cut_at = 0, None
        _sync(self._top)

    def after_cut(self, loss: Loss, seed: int = 0) -> ForgetfulDisk:
        """The disk as it is found when the power is back; all that survived is synced."""
        found = ForgetfulDisk()
        found._top = _survivor(self._top, loss, random.Random(seed))
        return found

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        folder, name = self._parent(path)
        file = folder.now.get(name)
        if file is None or truncate:
            self.step()
        if file is None:
            file = folder.now[name] = _File()
        if not isinstance(file, _File):
            raise IsADirectoryError(str(path))
        if truncate:
            file.now = bytearray()
        return _Handle(self, file)

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        file = self._find(path)
        if not isinstance(file, _File):
            raise FileNotFoundError(str(path))
        if len(file.now) > max_bytes:
            raise TooLargeError("is too large", str(path))
        return bytes(file.now)

    def exists(self, path: Path) -> bool:
        return self._find(path) is not None

    def size(self, path: Path) -> int:
        return len(self.read_bytes(path, 1 << 60))

    def listdir(self, path: Path) -> list[str]:
        return sorted(self._folder(path).now)

    def mkdir(self, path: Path) -> None:
        here = self._top
        for part in path.parts:
            if part not in here.now:
                self.step()
                here.now[part] = _Folder()
            inner = here.now[part]
            if not isinstance(inner, _Folder):
                raise FileExistsError(str(path))
            here = inner

    def rename(self, source: Path, target: Path) -> None:
        self.step()
        old, name = self._parent(source)
        new, new_name = self._parent(target)
        if name not in old.now:
            raise FileNotFoundError(str(source))
        moved = old.now.pop(name)
        there = new.now.get(new_name)
        if isinstance(there, _Folder) and there.now:
            raise OSError(39, "Directory not empty", str(target))
        new.now[new_name] = moved

    def unlink(self, path: Path) -> None:
        folder, name = self._parent(path)
        if name in folder.now:
            self.step()
            del folder.now[name]

    def remove_tree(self, path: Path) -> None:
        self.unlink(path)

    def fsync_dir(self, path: Path) -> None:
        self.step()
        folder = self._folder(path)
        folder.synced = dict(folder.now)

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def spoil(self, path: Path) -> None:
        """Flip a bit in the middle of a file, as a bad block would."""
        file = self._find(path)
        assert isinstance(file, _File)
        file.now[len(file.now) // 2] ^= 1
        file.synced = bytes(file.now)

    def _find(self, path: Path) -> _File | _Folder | None:
        here: _File | _Folder | None = self._top
        for part in path.parts:
            here = here.now.get(part) if isinstance(here, _Folder) else None
        return here

    def _folder(self, path: Path) -> _Folder:
        found = self._find(path)
        if not isinstance(found, _Folder):
            raise FileNotFoundError(str(path))
        return found

    def _parent(self, path: Path) -> tuple[_Folder, str]:
        return self._folder(path.parent), path.name


def _sync(folder: _Folder) -> None:
    folder.synced = dict(folder.now)
    for inner in folder.now.values():
        if isinstance(inner, _Folder):
            _sync(inner)
        else:
            inner.synced = bytes(inner.now)


def _survivor(folder: _Folder, loss: Loss, chance: random.Random) -> _Folder:
    keeps_names = loss in (Loss.NOTHING, Loss.BYTES)
    if loss is Loss.SOME:
        entries = dict(folder.synced)
        for name in {*folder.now, *folder.synced}:
            if chance.random() < 0.5:
                entries.pop(name, None)
                if name in folder.now:
                    entries[name] = folder.now[name]
    else:
        entries = folder.now if keeps_names else folder.synced
    found = _Folder()
    for name, inner in entries.items():
        if isinstance(inner, _Folder):
            found.now[name] = _survivor(inner, loss, chance)
            continue
        keeps_bytes = loss in (Loss.NOTHING, Loss.NAMES) or (loss is Loss.SOME and chance.random() < 0.5)
        data = bytes(inner.now) if keeps_bytes else inner.synced
        found.now[name] = _File(bytearray(data), data)
    found.synced = dict(found.now)
    return found
