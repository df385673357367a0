"""A backup: every file of a workspace by content, and one list of them, written last.

    backup.json                  {format, workspace, made_ms, heads, files: {path: {bytes, digest}}}
    objects/sha256/ab/<digest>   the bytes

The same folder may be used again and again: what is there by content is not written twice, and until the new list is
written the old one counts. The list is not signed; private keys never lie in a workspace, so none are in here.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import (
    ConflictError,
    DamagedError,
    DigestMismatchError,
    FormatError,
    NotFoundError,
    TooLargeError,
)
from pumpdeck_fleet.core.files import RealFileSystem, open_plain, read_plain, replace_file
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.room import check_room, standing_folder
from pumpdeck_fleet.core.sizes import size_words

BACKUP_FORMAT = 1
BACKUP_NAME = "backup.json"
LIST_MAX_BYTES = 64 * 1024 * 1024
FILES_MAX = 1_000_000
TOTAL_MAX_BYTES = 1 << 40
"""All files of a backup together, as a restore writes them; one object that is named often counts as often."""
SPARE_BYTES = 16 * 1024 * 1024
"""What must stay free behind it: folders, and the store's own work."""
_PIECE_BYTES = 1 << 20
_OBJECT = re.compile(r"objects/sha256/([0-9a-f]{2})/([0-9a-f]{64})")

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file of a backup."""

    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class BackupHead:
    """Where an audit chain stood when the backup was made."""

    position: int
    digest: str


@dataclass(frozen=True, slots=True)
class BackupList:
    """`backup.json`."""

    format: int
    workspace: str
    made_ms: int
    heads: Mapping[str, BackupHead]
    files: Mapping[str, BackupFile]

    @property
    def total_bytes(self) -> int:
        return sum(one.bytes for one in self.files.values())


class BackupFolder:
    """The objects and the list of one backup folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fs = RealFileSystem()

    @property
    def objects(self) -> Path:
        """The root of an artifact store that holds every file by its digest."""
        return self.folder / "objects"

    @property
    def exists(self) -> bool:
        """True when a finished backup lies here."""
        return (self.folder / BACKUP_NAME).is_file()

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest stand."""
        return self.objects / "sha256" / digest[:2] / digest

    def put(self, source: Path, on_bytes: OnBytes) -> tuple[BackupFile, bool]:
        """Take in a file, read once; what it is, and whether it was new here.

        Raises:
            NotFoundError: it is gone. DamagedError: a disk failed.
        """
        beside = self.folder / "incoming.part"
        self._fs.mkdir(self.folder)
        try:
            found = _copy(source, beside, on_bytes)
        except FileNotFoundError as error:
            raise NotFoundError("is gone", str(source), hint="make the backup again") from error
        except OSError as error:
            raise DamagedError(f"cannot be copied ({error.strerror or error})", str(source)) from error
        target = self.path(found.digest)
        if target.is_file() and target.stat().st_size == found.bytes:
            beside.unlink()
            return found, False
        self._fs.mkdir(target.parent)
        self._fs.rename(beside, target)
        self._fs.fsync_dir(target.parent)
        return found, True

    def holds(self, digest: str, size: int) -> bool:
        """True when bytes of that name and length are here; `verify` proves them."""
        path = self.path(digest)
        return path.is_file() and path.stat().st_size == size

    def finish(self, listed: BackupList) -> int:
        """Write the list, which makes the backup count; then drop what no list names any more. How many objects were dropped."""
        replace_file(self._fs, self.folder / BACKUP_NAME, canonical.encode(listed))
        wanted = {one.digest for one in listed.files.values()}
        old = [path for path in self.objects.rglob("*") if path.is_file() and path.name not in wanted]
        for path in old:
            path.unlink()
        return len(old)

    def read(self) -> BackupList:
        """The list.

        Raises:
            NotFoundError: no finished backup lies here. FormatError: the list is not one. DamagedError: it names a bad path.
        """
        try:
            data = read_plain(self.folder / BACKUP_NAME, LIST_MAX_BYTES)
        except FileNotFoundError as error:
            hint = "was it finished? Make it again with: pumpdeck backup"
            raise NotFoundError("holds no backup", str(self.folder), expected=BACKUP_NAME, hint=hint) from error
        listed = canonical.decode(BackupList, data, str(self.folder / BACKUP_NAME), max_bytes=LIST_MAX_BYTES)
        if listed.format != BACKUP_FORMAT:
            raise FormatError("has an unknown format", BACKUP_NAME, expected=BACKUP_FORMAT, found=listed.format)
        if len(listed.files) > FILES_MAX:
            raise TooLargeError("names too many files", BACKUP_NAME, expected=FILES_MAX, found=len(listed.files))
        for path, one in listed.files.items():
            check_path(path)
            check_digest(one.digest, path)
            if one.bytes < 0:
                raise FormatError("has an impossible length", path, found=one.bytes)
        check_total(listed.total_bytes, str(self.folder))
        return listed

    def verify(self, listed: BackupList, on_bytes: OnBytes) -> None:
        """Read everything again and compare.

        Raises:
            DamagedError: names the first file that is missing, cut or altered.
        """
        proven: set[str] = set()
        for path, one in sorted(listed.files.items()):
            if one.digest in proven:
                continue
            found = self._digest(path, one, on_bytes)
            if found != one:
                raise DigestMismatchError(
                    "a file of the backup is damaged", path, expected=one.digest, found=found.digest, hint="use another backup"
                )
            proven.add(one.digest)

    def _digest(self, path: str, one: BackupFile, on_bytes: OnBytes) -> BackupFile:
        try:
            return _copy(self.path(one.digest), None, on_bytes, one.bytes)
        except FileNotFoundError as error:
            raise DamagedError("a file of the backup is missing", path, hint="use another backup") from error
        except OSError as error:
            raise DamagedError(f"the disk failed ({error.strerror or error})", path, hint="use another backup") from error

    def copy_out(self, listed: BackupList, target: Path, paths: Iterable[str]) -> None:
        """Write files of a verified backup below `target`, each proven once more on its way.

        Raises:
            RefusedError: the disk has no room for them; nothing was written. DamagedError: a file is not what the list says, or
                two of them have one name on this disk.
        """
        paths = tuple(paths)
        wanted = sum(listed.files[path].bytes for path in paths)
        check_room(self._fs, standing_folder(target), wanted + SPARE_BYTES, "has no room for this backup")
        for path in paths:
            one = listed.files[path]
            place = target / check_path(path)
            if place.exists():
                # Seen where the disk takes two names that differ by case for one: neither file may take the other's place.
                hint = "restore it on a disk that tells them apart"
                raise DamagedError("two files of the backup have one name on this disk", path, hint=hint)
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(place.name + ".part")
            if _copy(self.path(one.digest), beside, lambda _bytes: None, one.bytes) != one:
                raise DigestMismatchError("a file of the backup changed while it was read", path, expected=one.digest)
            self._fs.rename(beside, place)
            self._fs.fsync_dir(place.parent)


def check_path(path: str) -> PurePosixPath:
    """A path that stays below the folder it is read into, on every system.

    Raises:
        FormatError: it does not.
    """
    parts = path.split("/")
    bad = not path or len(path) > 400 or any(part in ("", ".", "..") or part[-1] in " ." for part in parts)
    if bad or any(ord(sign) < 32 or sign in '\\:*?"<>|' for sign in path):
        raise FormatError("is not a safe path", BACKUP_NAME, found=repr(path[:80]))
    return PurePosixPath(path)


def check_total(total_bytes: int, which: str) -> None:
    """Raises: TooLargeError: no workspace is that large; it is refused before any of it is read."""
    if total_bytes > TOTAL_MAX_BYTES:
        most = f"at most {size_words(TOTAL_MAX_BYTES)}"
        raise TooLargeError("holds too many bytes", which, expected=most, found=size_words(total_bytes))


def _copy(source: Path, target: Path | None, on_bytes: OnBytes, max_bytes: int = TOTAL_MAX_BYTES) -> BackupFile:
    """Read a file once, piece by piece, into `target` if there is one; durable when this returns. Of one that is longer than
    `max_bytes` a piece more is read, and not the rest."""
    digest, size = hashlib.sha256(), 0
    out = target.open("wb") if target is not None else None
    try:
        with open_plain(source) as stream:
            while size <= max_bytes and (piece := stream.read(_PIECE_BYTES)):
                digest.update(piece)
                size += len(piece)
                on_bytes(len(piece))
                if out is not None:
                    out.write(piece)
        if out is not None:
            out.flush()
            os.fsync(out.fileno())
    finally:
        if out is not None:
            out.close()
    return BackupFile(size, digest.hexdigest())


def pack(folder: Path, target: Path) -> None:
    """One tar of a finished backup folder, the list first.

    Raises:
        ConflictError: something else lies at `target`. RefusedError: no room for it.
    """
    listed = BackupFolder(folder).read()
    if target.exists() and not tarfile.is_tarfile(target):
        raise ConflictError("is there already and no backup", str(target), hint="choose another name")
    check_room(RealFileSystem(), target.parent, listed.total_bytes + SPARE_BYTES, "has no room for this backup", str(target))
    beside = target.with_name(target.name + ".part")
    with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder / BACKUP_NAME, BACKUP_NAME, recursive=False)
        for digest in sorted({one.digest for one in listed.files.values()}):
            tar.add(BackupFolder(folder).path(digest), f"objects/sha256/{digest[:2]}/{digest}", recursive=False)
    with beside.open("r+b") as written:
        os.fsync(written.fileno())
    RealFileSystem().rename(beside, target)
    RealFileSystem().fsync_dir(target.parent)


def unpack(source: Path, folder: Path) -> None:
    """A tar made by `pack`, into an empty folder; only regular files of the expected names come out.

    Raises:
        DamagedError: it is cut, no tar, or holds something else. TooLargeError: no backup is that large.
        RefusedError: the disk of `folder` has no room for it; nothing was written.
    """
    try:
        with open_plain(source) as file:
            # No member is sparse, so all of them together are never longer than the file.
            size = os.fstat(file.fileno()).st_size
            check_total(size, str(source))
            check_room(RealFileSystem(), standing_folder(folder), size + SPARE_BYTES, "has no room for this backup")
            _unpack(file, source, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DamagedError(f"is no whole backup ({error})", str(source), hint="copy it again") from error


def _unpack(file: BinaryIO, source: Path, folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for number, member in enumerate(_members(tar)):
            if number > FILES_MAX:
                raise TooLargeError("holds too many files", str(source))
            stream = tar.extractfile(member)
            if stream is None:
                raise FormatError("holds something that is no file", str(source), found=repr(member.name[:80]))
            place = folder / check_path(member.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as out:
                while piece := stream.read(_PIECE_BYTES):
                    out.write(piece)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    seen: set[str] = set()
    while (member := tar.next()) is not None:
        name = member.name
        found = _OBJECT.fullmatch(name)
        is_object = found is not None and found[2].startswith(found[1])
        # A sparse member is "regular" to tarfile and unfolds to any length it says: a letter of 10 kB would fill the disk.
        is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        if not is_plain or name in seen or not (name == BACKUP_NAME or is_object):
            raise FormatError("holds something that belongs to no backup", "backup", found=repr(name[:80]))
        seen.add(name)
        yield member
