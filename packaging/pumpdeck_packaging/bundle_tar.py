"""A bundle in one file that travels by mail, and the answer to it: the stick's own layout as a narrow tar.

`TarBundle` is a file system in which the tar's members can be read and new files are kept in memory: what reads a stick reads a
tar as well. Every header is exactly one that `ustar` writes, every name one that a bundle has; so there is no link, no device, no
`..`, no name twice and no member that is longer than the file, and nothing is ever unpacked onto a disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.files import open_plain
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_fleet.core.ports import FileSystem, OpenFile
from pumpdeck_packaging import ustar
from pumpdeck_packaging.agent_on_stick import AGENT_FOLDER
from pumpdeck_packaging.bundle_index import INDEX_NAME, MARK_NAME, MAX_FILES, RETURNS, SITE_PARTS, SITES
from pumpdeck_packaging.bundle_stick import Stick

TAR_MAX_BYTES = 4 * 1024 * 1024 * 1024
MAX_MEMBERS = MAX_FILES + 2
ANSWER_MAX_BYTES = 128 * 1024 * 1024
"""What one device may say in one answer, and more than its return ever takes."""


class TarSource(Protocol):
    """The bytes of a tar; the same open file all the time, so that nobody puts another one in its place."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, count: int) -> bytes:
        """Exactly these bytes, or fewer at the end of the file."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A tar on a disk, read past the cache where the system can."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            NotFoundError, FormatError: it is not there, or not a plain file.
        """
        try:
            self._stream: BinaryIO = open_plain(path)
        except FileNotFoundError as error:
            raise NotFoundError("is not there", str(path), expected="a folder, or a bundle in one file") from error
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.size = os.fstat(self._stream.fileno()).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        self._stream.seek(offset)
        parts, left = [], count
        while left > 0 and (piece := self._stream.read(left)):
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)

    def close(self) -> None:
        self._stream.close()


def is_bundle_path(path: str) -> bool:
    """True for the paths that may stand in a tar of a bundle or of an answer."""
    if path in (MARK_NAME, INDEX_NAME):
        return True
    parts = path.split("/")
    if not all(is_name(part) for part in parts):
        return False
    is_site = len(parts) == 4 and parts[0] == SITES and parts[2] in SITE_PARTS
    # Agents before the one that travels in letters refuse these: such a letter is for devices with a newer one, or none.
    is_agent = parts[0] == AGENT_FOLDER and 2 <= len(parts) <= 4
    return is_site or is_agent or (len(parts) == 3 and parts[0] == RETURNS)


def read_members(source: TarSource, what: str) -> dict[str, tuple[int, int]]:
    """Offset and length of each member by path; nothing but headers was read.

    Raises:
        FormatError, TooLargeError: not such a tar: foreign headers or names, a name twice, a cut or a longer file.
    """
    if source.size > TAR_MAX_BYTES:
        raise TooLargeError("is too large", what, expected=f"at most {TAR_MAX_BYTES} bytes", found=source.size)
    members: dict[str, tuple[int, int]] = {}
    at = 0
    while True:
        block = source.read_at(at, ustar.BLOCK)
        if len(block) < ustar.BLOCK:
            raise FormatError("is cut off", what, hint="copy it again")
        at += ustar.BLOCK
        if not any(block):
            break
        path, size = ustar.parse_header(block, what)
        if not is_bundle_path(path):
            raise FormatError("holds a name that is not of a bundle", what, found=repr(path[:120]))
        if path in members:
            raise FormatError("holds a name twice", what, found=path)
        if len(members) >= MAX_MEMBERS:
            raise TooLargeError("holds too many files", what, expected=f"at most {MAX_MEMBERS}")
        if at + size > source.size:
            raise FormatError("is cut off", what, found=path, hint="copy it again")
        members[path] = (at, size)
        at += ustar.padded(size)
    end = -(-(at + ustar.BLOCK) // ustar.RECORD) * ustar.RECORD
    if source.size != end or any(source.read_at(at, end - at)):
        raise FormatError("has another end than it should have", what, expected=f"{end} bytes", found=source.size)
    return members


class TarBundle:
    """The port over a tar: reads its members, keeps what is written in memory. Paths are those below `root`."""

    def __init__(self, source: TarSource, root: Path, free_bytes: int = 0) -> None:
        """Read the headers. Raises: FormatError, TooLargeError."""
        self._source = source
        self._root = root
        self._free = min(free_bytes, ANSWER_MAX_BYTES)
        self._members = read_members(source, root.name)
        self._written: dict[str, bytes] = {}
        self._made: set[str] = set()

    @property
    def written(self) -> Mapping[str, bytes]:
        """What was written since, by path."""
        return dict(self._written)

    def stick(self) -> Stick:
        """The same as a stick."""
        return Stick(self, self._root, self.read_bytes)

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        name = self._name(path)
        if name in self._written:
            data = self._written[name]
            if len(data) > max_bytes:
                raise TooLargeError("is too large", name, expected=f"at most {max_bytes} bytes", found=len(data))
            return data
        if name not in self._members:
            raise FileNotFoundError(2, "no such file in the tar", name)
        offset, size = self._members[name]
        if size > max_bytes:
            raise TooLargeError("is too large", name, expected=f"at most {max_bytes} bytes", found=size)
        data = self._source.read_at(offset, size)
        if len(data) != size:
            raise DamagedError("is cut off", name, hint="copy it again")
        return data

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        if not truncate:
            raise NotImplementedError("a bundle's files are written whole")
        return _MemoryFile(self, self._name(path))

    def keep(self, name: str, data: bytes) -> None:
        """Hold a written file.

        Raises:
            OSError: there is no room for it.
        """
        if sum(map(len, self._written.values())) + len(data) > max(self._free, 0):
            raise OSError(28, "No space left for an answer")
        self._written[name] = data

    def exists(self, path: Path) -> bool:
        name = self._name(path)
        return not name or name in self._made or name in self._members or name in self._written or bool(self._inside(name))

    def size(self, path: Path) -> int:
        name = self._name(path)
        if name in self._written:
            return len(self._written[name])
        if name not in self._members:
            raise FileNotFoundError(2, "no such file in the tar", name)
        return self._members[name][1]

    def listdir(self, path: Path) -> list[str]:
        name = self._name(path)
        found = self._inside(name)
        if not found and name and name not in self._made:
            raise FileNotFoundError(2, "no such folder in the tar", name)
        return sorted(found)

    def mkdir(self, path: Path) -> None:
        """Folders are no members of a tar; they are where files are."""
        self._made.add(self._name(path))

    def rename(self, source: Path, target: Path) -> None:
        self._written[self._name(target)] = self._written.pop(self._name(source))

    def unlink(self, path: Path) -> None:
        self._written.pop(self._name(path), None)

    def remove_tree(self, path: Path) -> NoReturn:
        raise NotImplementedError(f"nothing in a tar is removed as a tree: {path}")

    def fsync_dir(self, path: Path) -> None:
        """Nothing to sync before the answer is written."""

    def free_bytes(self, path: Path) -> int:  # noqa: ARG002 - the port's signature
        return self._free - sum(map(len, self._written.values()))

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _name(self, path: Path) -> str:
        return "/".join(path.relative_to(self._root).parts)

    def _inside(self, folder: str) -> set[str]:
        start = f"{folder}/" if folder else ""
        names = (*self._members, *self._written)
        return {name[len(start) :].split("/")[0] for name in names if name.startswith(start)}


def open_tar(path: Path, fs: FileSystem) -> TarBundle:
    """The tar in that file; the caller closes it.

    Raises:
        NotFoundError, FormatError, TooLargeError.
    """
    source = FileSource(path)
    try:
        return TarBundle(source, path, fs.free_bytes(path.parent))
    except BaseException:
        source.close()
        raise


class _MemoryFile:
    def __init__(self, bundle: TarBundle, name: str) -> None:
        self._bundle, self._name = bundle, name
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def seek(self, offset: int) -> NoReturn:
        raise NotImplementedError(f"a bundle's files are written in order, not from {offset}")

    def fsync(self) -> None:
        self._bundle.keep(self._name, b"".join(self._parts))

    def close(self) -> None:
        self._parts.clear()
