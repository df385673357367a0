"""The file system port on a real disk, whole-file replacement and bounded reads."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.core.ports import FileSystem, OpenFile

_WINDOWS = sys.platform == "win32"
_RETRY_S = 2.0


def read_at_most(stream: BinaryIO, max_bytes: int, what: str) -> bytes:
    """The rest of `stream`, when it is not longer than `max_bytes`.

    Raises:
        TooLargeError: it is longer; at most `max_bytes + 1` bytes were read.
    """
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError("is too large", what, expected=f"at most {max_bytes} bytes")
    return data


def open_plain(path: Path) -> BinaryIO:
    """A plain file from outside, opened to be read: nothing waits for a pipe, nothing reads a device without end.

    Raises:
        FormatError: it is something else.
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError("is not a plain file", str(path))
    return os.fdopen(fd, "rb")


def read_plain(path: Path, max_bytes: int) -> bytes:
    """The bytes of a plain file from outside. Raises: FormatError, TooLargeError, OSError."""
    with open_plain(path) as stream:
        return read_at_most(stream, max_bytes, str(path))


def replace_file(fs: FileSystem, path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`: after a cut at any moment it holds the old bytes or the new ones, whole.

    Order: write beside, sync, rename, sync the folder. Two writers of one path at once are not promised anything.
    """
    place_file(fs, path, data)
    fs.fsync_dir(path.parent)


def place_file(fs: FileSystem, path: Path, data: bytes) -> None:
    """`replace_file` for who places many: what it wrote lasts only when the folder has been synced as well."""
    beside = path.with_name(path.name + ".part")
    handle = fs.open_write(beside)
    try:
        handle.write(data)
        handle.fsync()
    finally:
        handle.close()
    fs.rename(beside, path)


def patiently(work: Callable[[], None]) -> None:
    """Do it; on Windows once more for 2 s while a virus scanner or an indexer holds the name. Raises: what `work` raises."""
    deadline = time.monotonic() + _RETRY_S
    while True:
        try:
            work()
            return
        except PermissionError:
            if not _WINDOWS or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class _RealFile:
    def __init__(self, path: Path, truncate: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if truncate else 0) | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        return len(data)

    def seek(self, offset: int) -> int:
        return os.lseek(self._fd, offset, os.SEEK_SET)

    def fsync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_UNKNOWN_BYTES = (1 << 53) - 1


class RealFileSystem:
    """The port on the computer's own disk. On Windows folder sync is skipped and a locked name is tried for 2 s."""

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        return _RealFile(path, truncate)

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        with path.open("rb") as stream:
            return read_at_most(stream, max_bytes, str(path))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def listdir(self, path: Path) -> list[str]:
        return sorted(entry.name for entry in path.iterdir())

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        patiently(lambda: os.replace(source, target))  # noqa: PTH105 - Path.replace hands back a path

    def unlink(self, path: Path) -> None:
        patiently(lambda: path.unlink(missing_ok=True))

    def remove_tree(self, path: Path) -> None:
        # What is gone after a first, half-way attempt is no reason to fail at the second.
        patiently(lambda: shutil.rmtree(path, ignore_errors=False) if path.exists() else None)

    def fsync_dir(self, path: Path) -> None:
        if _WINDOWS:
            return
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        except OSError as error:
            # Some network and FUSE file systems cannot sync a folder; nothing better exists there.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        usage = shutil.disk_usage(path)
        # Some drivers of sticks say nothing of their size: then writing tells, as it does on a full one.
        return usage.free if usage.total else _UNKNOWN_BYTES
