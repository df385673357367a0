"""Sticks for tests: a bundle for one device of a bench, on a real folder or on a disk in memory, and sticks that misbehave."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TooLargeError
from pumpdeck_fleet.core.ports import FileSystem, OpenFile
from pumpdeck_packaging.agent_wheels import WheelSet, read_wheels
from pumpdeck_packaging.bundle import BundlePart, WriteReport, bytes_part, claim, write_bundle
from pumpdeck_packaging.bundle_index import assignment_file, metadata_file, package_file
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.package import BuiltPackage

WORKSPACE = "ws-test"


def stick_on(fs: FileSystem, folder: Path) -> Stick:
    """A stick on any file system; what is read back is what the file system gives."""
    return Stick(fs, folder, fs.read_bytes)


def parts_for(
    files: dict[str, bytes], built: BuiltPackage, device: str = "gannet-d1", site: str = "gannet"
) -> list[BundlePart]:
    """What an export writes for one device, from the files that an `assign` request would carry."""
    metadata = [bytes_part(metadata_file(site, name), data) for name, data in files.items() if name != "assign.json"]
    assignment = bytes_part(assignment_file(site, device), files["assign.json"])
    return [*metadata, assignment, bytes_part(package_file(site, built.sha256), built.data)]


def export_to(
    stick: Stick, parts: list[BundlePart], before_index: Callable[[], None] = lambda: None, **more: Any
) -> WriteReport:
    """Claim and write."""
    name = claim(stick, WORKSPACE, "b-0123456789ab")
    return write_bundle(stick, name, parts, before_index=before_index, on_progress=lambda *_: None, **more)


def wheel_of(members: Mapping[str, str]) -> bytes:
    """A wheel with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def wheel_folder(home: Path, target: str, data: bytes = b"") -> WheelSet:
    """A folder of one wheel, as `collect_wheels` leaves it; the same again when it is there."""
    place = home / target
    if not place.exists():
        place.mkdir(parents=True)
        data = data or wheel_of({"heron/__init__.py": "VALUE = 7"})
        (place / "heron-1.0.whl").write_bytes(data)
        one = {
            "name": "heron", "version": "1.0", "file": "heron-1.0.whl", "wheel": "heron-1.0-py3-none-any.whl", "bytes": len(data),
            "digest": canonical.digest(data),
        }  # fmt: skip
        (place / "wheels.json").write_bytes(canonical.encode({"format": 1, "target": target, "wheels": [one]}))
    return read_wheels(place)


class ForwardingFileSystem:
    """Passes everything on to another file system; what misbehaves overrides a method."""

    def __init__(self, inner: FileSystem) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class ReadOnlyDisk(ForwardingFileSystem):
    """A stick whose switch is on "lock"."""

    def _no(self, *_arguments: Any, **_more: Any) -> Any:
        raise OSError(30, "Read-only file system")

    open_write = rename = unlink = mkdir = fsync_dir = _no


class FullDisk(ForwardingFileSystem):
    """A stick that has room for so many bytes more, whatever it says."""

    def __init__(self, inner: FileSystem, room: int, said: int | None = None) -> None:
        super().__init__(inner)
        self.room = room
        self.said = said

    def free_bytes(self, path: Path) -> int:
        return self.room if self.said is None else self.said

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        return _CountedFile(self, self.inner.open_write(path, truncate=truncate))


class _CountedFile:
    def __init__(self, disk: FullDisk, inner: OpenFile) -> None:
        self._disk, self._inner = disk, inner

    def write(self, data: bytes) -> int:
        fits = data[: self._disk.room]
        self._inner.write(fits)
        self._disk.room -= len(fits)
        if len(fits) < len(data):
            raise OSError(28, "No space left on device")
        return len(data)

    def seek(self, offset: int) -> int:
        return self._inner.seek(offset)

    def fsync(self) -> None:
        self._inner.fsync()

    def close(self) -> None:
        self._inner.close()


class LyingDisk(ForwardingFileSystem):
    """A stick sold as larger than it is: behind its real end it says yes and keeps nothing."""

    def __init__(self, inner: FileSystem, room: int) -> None:
        super().__init__(inner)
        self._kept: dict[str, bool] = {}
        self._room = room

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        return _LostFile(self, path, self.inner.open_write(path, truncate=truncate))

    def take(self, count: int) -> bool:
        self._room -= count
        return self._room >= 0


class _LostFile:
    def __init__(self, disk: LyingDisk, path: Path, inner: OpenFile) -> None:
        self._disk, self._inner = disk, inner

    def write(self, data: bytes) -> int:
        self._inner.write(data if self._disk.take(len(data)) else bytes(len(data)))
        return len(data)

    def seek(self, offset: int) -> int:
        return self._inner.seek(offset)

    def fsync(self) -> None:
        self._inner.fsync()

    def close(self) -> None:
        self._inner.close()


class PulledDisk(ForwardingFileSystem):
    """A stick that is pulled at a step: from then on every call fails with EIO, as the kernel has it."""

    _CHANGES = frozenset({"open_write", "read_bytes", "rename", "unlink", "mkdir", "fsync_dir", "listdir", "exists", "size"})

    def __init__(self, inner: FileSystem, pulled_at: int | None) -> None:
        super().__init__(inner)
        self.pulled_at = pulled_at
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in self._CHANGES:
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            self._step()
            answer = found(*arguments, **more)
            return _PulledFile(self, answer) if name == "open_write" else answer

        return call

    def _step(self) -> None:
        if self.pulled_at is not None and self.steps >= self.pulled_at:
            raise OSError(5, "Input/output error")
        self.steps += 1


class _PulledFile:
    def __init__(self, disk: PulledDisk, inner: OpenFile) -> None:
        self._disk, self._inner = disk, inner

    def write(self, data: bytes) -> int:
        if self._disk.pulled_at is not None and self._disk.steps >= self._disk.pulled_at:
            self._inner.write(data[: len(data) // 2])
        self._disk._step()
        return self._inner.write(data)

    def seek(self, offset: int) -> int:
        return self._inner.seek(offset)

    def fsync(self) -> None:
        self._disk._step()
        self._inner.fsync()

    def close(self) -> None:
        self._inner.close()


__all__ = [
    "FullDisk",
    "LyingDisk",
    "PulledDisk",
    "ReadOnlyDisk",
    "TooLargeError",
    "export_to",
    "parts_for",
    "stick_on",
    "wheel_folder",
    "wheel_of",
]
