"""A stick is a stranger's file system: this adapter follows no link on it, waits for no pipe, opens no device.

Every step from the bundle's folder down is opened by itself (`openat`, O_NOFOLLOW), so that what is checked is what is opened. On
Windows, which has no such call, each part is looked at before the path is used. POSIX calls of this package stand here only.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core.errors import FormatError, TooLargeError, UnreachableError
from pumpdeck_fleet.core.files import RealFileSystem, patiently
from pumpdeck_fleet.core.ports import FileSystem, OpenFile

if sys.platform == "darwin":
    import fcntl

_HAS_DIR_FD = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECT = getattr(os, "O_DIRECT", 0) if hasattr(os, "preadv") else 0
_ALIGNED = 4096
_BLOCK_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024 * 1024
MAX_NAMES = 20_000
REREADS_MEDIUM = hasattr(os, "posix_fadvise") or sys.platform == "darwin"
"""True where `reread_bytes` reads past the system's cache. On Windows it does not: a stick that lies is told by its trial alone
when the cache is smaller than what was written.
"""


class StickFailedError(UnreachableError):
    """The stick failed: pulled, full, write-protected, worn out. What it held before still counts; try again."""


@contextmanager
def stick_errors(folder: Path) -> Iterator[None]:
    """Every OSError inside is the stick's, with its own text.

    Raises:
        StickFailedError.
    """
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error) or type(error).__name__
        raise StickFailedError(f"the stick failed ({text})", str(folder), hint="check the stick and try again") from error


@dataclass(frozen=True, slots=True)
class Stick:
    """A bundle's folder, how it is written, and how it is read back (past the cache where the system can)."""

    fs: FileSystem
    folder: Path
    reread: Callable[[Path, int], bytes]


def real_stick(folder: Path) -> Stick:
    """The stick whose bundle stands, or shall stand, in that folder."""
    fs = StickFileSystem(folder)
    return Stick(fs, folder, fs.reread_bytes)


def write_proven(stick: Stick, path: Path, data: bytes, what: str) -> None:
    """Write a file beside its name, sync it, read it back and only then give it its name. The folder is not synced yet.

    Raises:
        StickFailedError: what comes back is not what was written.
        OSError: the stick failed; use inside `stick_errors`.
    """
    beside = path.with_name(path.name + ".part")
    handle = stick.fs.open_write(beside)
    try:
        handle.write(data)
        handle.fsync()
    finally:
        handle.close()
    try:
        is_same = stick.reread(beside, len(data)) == data
    except TooLargeError:
        is_same = False
    if not is_same:
        raise StickFailedError("the stick gives back other bytes than were written", what, hint="use another stick")
    stick.fs.rename(beside, path)


def read_whole(fd: int, most: int) -> bytes:
    """Everything up to the end, or `most` bytes. Fewer bytes than were asked for are not the end; none are."""
    parts, left = [], most
    while left > 0 and (part := os.read(fd, min(left, _READ_BYTES))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_dropped(fd: int, most: int) -> bytes:
    _pass_cache(fd)
    return read_whole(fd, most)


def read_direct(fd: int, most: int) -> bytes:
    """As `read_whole`, from a file opened with O_DIRECT: whole blocks into memory that lies on a page.

    Raises:
        OSError: EINVAL where the file system cannot do this.
    """
    if not _DIRECT:
        return _read_dropped(fd, most)
    parts, filled = [], 0
    with mmap.mmap(-1, _BLOCK_BYTES) as block:
        while filled < most and (count := os.preadv(fd, [block], filled)):
            parts.append(block[: min(count, most - filled)])
            filled += count
            if count % _ALIGNED:
                # The end of the file: from here nothing can be asked for in whole blocks.
                break
    return parts[0] if len(parts) == 1 else b"".join(parts)


class StickFileSystem(RealFileSystem):
    """The port beneath one folder, which a person named; nothing below it is trusted. Of its parent only the sync is offered."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        """A new, empty file in the place of whatever had that name. `truncate` must stand."""
        if not truncate:
            raise NotImplementedError("a stick's files are written whole")
        with self._at(path) as (folder, name):
            # Removed, not emptied: the name may be a link or a device node by now.
            with suppress(FileNotFoundError):
                patiently(lambda: os.unlink(name, dir_fd=folder))
            return _StickFile(os.open(name, _MAKE | getattr(os, "O_BINARY", 0), 0o644, dir_fd=folder))

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        return self._read(path, max_bytes)

    def reread_bytes(self, path: Path, max_bytes: int) -> bytes:
        """As `read_bytes`, from the medium and not from the cache, where the system offers that."""
        try:
            return self._read(path, max_bytes, _DIRECT, read_direct)
        except OSError as error:
            # This file system, or one of its files, cannot be read past the cache: then without what the cache holds of it.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        return self._read(path, max_bytes, 0, _read_dropped)

    def _read(
        self, path: Path, max_bytes: int, flags: int = 0, read: Callable[[int, int], bytes] = read_whole
    ) -> bytes:
        with self._at(path) as (folder, name):
            try:
                fd = os.open(name, _READ | flags | getattr(os, "O_BINARY", 0), dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise FormatError("is a link", str(path)) from error
                raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FormatError("is not a plain file", str(path))
            if found.st_size > max_bytes:
                raise TooLargeError("is too large", str(path), expected=f"at most {max_bytes} bytes", found=found.st_size)
            data = read(fd, max_bytes + 1)
        finally:
            os.close(fd)
        if len(data) > max_bytes:
            raise TooLargeError("is longer than it said", str(path), expected=f"at most {max_bytes} bytes")
        return data

    def exists(self, path: Path) -> bool:
        if path == self._root:
            return path.is_dir()
        try:
            with self._at(path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: Path) -> int:
        with self._at(path) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size

    def listdir(self, path: Path) -> list[str]:
        names: list[str] = []
        with self._folder(path) as folder, os.scandir(folder if _HAS_DIR_FD else path) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > MAX_NAMES:
                    raise TooLargeError("holds too many names", str(path), expected=f"at most {MAX_NAMES}")
        return sorted(names)

    def mkdir(self, path: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        here = self._root
        for part in path.relative_to(self._root).parts:
            here = here / part
            with self._at(here) as (folder, name), suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=folder)
        with self._folder(path):
            pass

    def rename(self, source: Path, target: Path) -> None:
        if not _HAS_DIR_FD:
            self._check_parts(source)
            self._check_parts(target)
            super().rename(source, target)
            return
        with self._at(source) as (old, old_name), self._at(target) as (new, new_name):
            os.replace(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)

    def unlink(self, path: Path) -> None:
        with suppress(FileNotFoundError), self._at(path) as (folder, name):
            patiently(lambda: os.unlink(name, dir_fd=folder))

    def remove_tree(self, path: Path) -> None:
        raise NotImplementedError("nothing on a stick is removed as a tree")

    def fsync_dir(self, path: Path) -> None:
        if path == self._root.parent:
            super().fsync_dir(path)
            return
        if not _HAS_DIR_FD:
            return
        with self._folder(path) as folder, suppress_unsupported():
            os.fsync(folder if folder is not None else -1)

    @contextmanager
    def _at(self, path: Path) -> Iterator[tuple[int | None, str]]:
        """The open folder of a path and the name in it; without such calls, None and the whole path, looked at part by part."""
        if not _HAS_DIR_FD:
            self._check_parts(path)
            yield None, str(path)
            return
        with self._folder(path.parent) as folder:
            yield folder, path.name

    @contextmanager
    def _folder(self, path: Path) -> Iterator[int | None]:
        parts = path.relative_to(self._root).parts
        if not _HAS_DIR_FD:
            self._check_parts(path)
            yield None
            return
        here = os.open(self._root, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for part in parts:
                inner = _open_folder(part, here, path)
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def _check_parts(self, path: Path) -> None:
        here = self._root
        for part in path.relative_to(self._root).parts:
            here = here / part
            if here.is_symlink() or getattr(here, "is_junction", lambda: False)():
                raise FormatError("is a link", str(here))


def _pass_cache(fd: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
    elif hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def suppress_unsupported() -> Iterator[None]:
    """Some file systems cannot sync a folder; nothing better exists there."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _open_folder(name: str, folder: int, path: Path) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        # A link gives one or the other, by system.
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise FormatError("is a link or not a folder", f"{name} of {path}") from error
        raise


class _StickFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

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
            fd, self._fd = self._fd, -1
            os.close(fd)
