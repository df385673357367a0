"""Read a package that somebody handed us: bytes in, checked files out; and put them on a disk, and read them back.

Standard library and core only: the agent's scoring process loads its model through this module. Whether the package is the one
this device shall run is decided by `verify`, whose signed digest and unpacked length are arguments here.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, DigestMismatchError, FormatError, TooLargeError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging import ustar
from pumpdeck_packaging.manifest import (
    MANIFEST_MAX_BYTES,
    MANIFEST_NAME,
    MAX_FILES,
    PACKAGE_MAX_BYTES,
    UNPACKED_MAX_BYTES,
    Manifest,
    is_member_path,
    parse_manifest,
)

DICTIONARY_MIN_BYTES = 64 * 1024
DICTIONARY_MAX_BYTES = 16 * 1024 * 1024
# What liblzma needs beside the dictionary; measured below 100 KiB.
_DECODER_BYTES = 1024 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class PackageFiles:
    """A package whose every byte was checked against its manifest. `files` holds every member but the manifest."""

    manifest: Manifest
    manifest_bytes: bytes
    files: Mapping[str, bytes]

    @property
    def manifest_digest(self) -> str:
        """SHA-256 of the manifest: together with its list it stands for every byte of the package."""
        return canonical.digest(self.manifest_bytes)

    def members(self) -> dict[str, bytes]:
        """Every member, the manifest too."""
        return {MANIFEST_NAME: self.manifest_bytes, **self.files}


def dictionary_bytes(unpacked_bytes: int) -> int:
    """The LZMA2 dictionary for a tar of that length: the next power of two, within 64 KiB and 16 MiB."""
    size = DICTIONARY_MIN_BYTES
    while size < min(unpacked_bytes, DICTIONARY_MAX_BYTES):
        size *= 2
    return size


def read_package(data: bytes, *, expected_sha256: str, max_unpacked_bytes: int) -> PackageFiles:
    """The checked files of a package.

    `expected_sha256` and `max_unpacked_bytes` come from signed metadata. Nothing is unpacked before the digest holds, and never
    more than `max_unpacked_bytes` are in memory.

    Raises:
        TooLargeError: the package, or what it unpacks to, is larger than it may be.
        DigestMismatchError: these are not the promised bytes, or a member is not what the manifest says.
        FormatError: not a package; a link, device, strange name, duplicate, unlisted or missing member.
    """
    what = f"package {expected_sha256[:12]}"
    if len(data) > PACKAGE_MAX_BYTES:
        raise TooLargeError("is too large", what, expected=f"at most {PACKAGE_MAX_BYTES} bytes", found=len(data))
    found = canonical.digest(data)
    if found != expected_sha256:
        raise DigestMismatchError(
            "is not the promised package", what, expected=expected_sha256, found=found, hint="copy it again"
        )
    stream = _Inflater(data, min(max_unpacked_bytes, UNPACKED_MAX_BYTES), what)
    members = _read_members(stream, what)
    stream.finish()
    package = _checked(members, what)
    if stream.given != package.manifest.unpacked_bytes:
        raise FormatError(
            "unpacks to another length than its manifest says",
            what,
            expected=package.manifest.unpacked_bytes,
            found=stream.given,
        )
    return package


def unpack_to(fs: FileSystem, folder: Path, package: PackageFiles) -> None:
    """Write a checked package into a new folder: every file synced, then its folders. The caller renames the folder.

    Raises:
        ConflictError: the folder is already there.
        OSError: the disk failed; what was written is worth nothing.
    """
    if fs.exists(folder):
        raise ConflictError("the folder is already there", str(folder))
    fs.mkdir(folder)
    folders = {folder}
    for path, data in package.members().items():
        target = folder.joinpath(*path.split("/"))
        if target.parent not in folders:
            fs.mkdir(target.parent)
            folders.add(target.parent)
        handle = fs.open_write(target)
        try:
            handle.write(data)
            handle.fsync()
        finally:
            handle.close()
    for one in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        fs.fsync_dir(one)


def load_folder(fs: FileSystem, folder: Path, *, manifest_digest: str | None = None) -> PackageFiles:
    """Read an unpacked package back and check every byte of it against its manifest.

    With `manifest_digest` the manifest itself is checked too: this is how a staged copy is verified, and how a package is loaded
    for scoring.

    Raises:
        DamagedError: a file is missing, has grown, is not listed or differs.
    """
    what = f"unpacked package {folder.name[:12]}"
    try:
        members = {MANIFEST_NAME: fs.read_bytes(folder / MANIFEST_NAME, MANIFEST_MAX_BYTES)}
        manifest = parse_manifest(members[MANIFEST_NAME], f"{what} {MANIFEST_NAME}")
        for path, entry in manifest.files.items():
            members[path] = fs.read_bytes(folder.joinpath(*path.split("/")), entry.bytes)
        _check_no_stranger(fs, folder, manifest, what)
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror or error})", what) from error
    package = _checked(members, what, manifest)
    if manifest_digest is not None and package.manifest_digest != manifest_digest:
        raise DigestMismatchError(
            "has another manifest", what, expected=manifest_digest, found=package.manifest_digest
        )
    return package


def _check_no_stranger(fs: FileSystem, folder: Path, manifest: Manifest, what: str) -> None:
    inside: dict[str, set[str]] = {"": {MANIFEST_NAME}}
    for path in manifest.files:
        parent, _, name = path.rpartition("/")
        inside.setdefault(parent, set()).add(name)
        if parent:
            inside[""].add(parent)
    for parent, names in inside.items():
        strangers = set(fs.listdir(folder / parent if parent else folder)) - names
        if strangers:
            raise FormatError("holds a file that its manifest does not list", what, found=sorted(strangers)[0])


def _read_members(stream: _Inflater, what: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    last = ""
    for name, size, take in ustar.read(stream.take, what):
        if not is_member_path(name):
            raise FormatError("holds a name that a package must not hold", what, found=repr(name))
        if name <= last:
            raise FormatError("holds a member twice or out of order", what, found=repr(name))
        if len(members) > MAX_FILES:
            raise TooLargeError("holds too many members", what, expected=f"at most {MAX_FILES}")
        if size > stream.left:
            raise TooLargeError("unpacks to more than was signed", what, expected=stream.limit)
        members[name] = take(size)
        last = name
    return members


def _checked(members: dict[str, bytes], what: str, manifest: Manifest | None = None) -> PackageFiles:
    manifest_bytes = members.get(MANIFEST_NAME)
    if manifest_bytes is None:
        raise FormatError("holds no manifest", what)
    manifest = manifest or parse_manifest(manifest_bytes, f"{what} {MANIFEST_NAME}")
    files = {name: data for name, data in members.items() if name != MANIFEST_NAME}
    if set(files) != set(manifest.files):
        wrong = sorted(set(files) ^ set(manifest.files))[0]
        where = "an unlisted member" if wrong in files else "not all that its manifest lists"
        raise FormatError(f"holds {where}", what, found=repr(wrong))
    for name, data in files.items():
        entry = manifest.files[name]
        if len(data) != entry.bytes or canonical.digest(data) != entry.digest:
            raise DigestMismatchError(
                "differs from the manifest", f"{what} {name}", expected=entry.digest, found=canonical.digest(data)
            )
    return PackageFiles(manifest, manifest_bytes, files)


class _Inflater:
    """Hands out the bytes inside one xz stream, never more than `limit` in all, with bounded decoder memory."""

    def __init__(self, data: bytes, limit: int, what: str) -> None:
        self.limit = limit
        self.given = 0
        self._what = what
        self._source = memoryview(data)
        self._position = 0
        self._pending = b""
        self._decoder = lzma.LZMADecompressor(
            format=lzma.FORMAT_XZ, memlimit=dictionary_bytes(limit) + _DECODER_BYTES
        )

    @property
    def left(self) -> int:
        """How many bytes may still be handed out."""
        return self.limit - self.given

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            TooLargeError: that would be more than the limit, or the decoder would need too much memory.
            FormatError: the stream ends before, or is not xz.
        """
        if count > self.left:
            raise TooLargeError("unpacks to more than was signed", self._what, expected=f"at most {self.limit} bytes")
        parts, missing = [], count
        while missing:
            if not self._pending:
                self._pending = self._next_piece()
            part, self._pending = self._pending[:missing], self._pending[missing:]
            parts.append(part)
            missing -= len(part)
        self.given += count
        return b"".join(parts)

    def finish(self) -> None:
        """Check that the stream ends here and nothing follows it.

        Raises:
            TooLargeError: more bytes are inside.
            FormatError: the stream is cut, or something stands behind it.
        """
        while not self._pending and not self._decoder.eof:
            self._pending = self._next_piece(last=True)
        if self._pending:
            raise TooLargeError("unpacks to more than its archive holds", self._what)
        if self._decoder.unused_data or self._position < len(self._source):
            raise FormatError("has bytes behind its end", self._what)

    def _next_piece(self, *, last: bool = False) -> bytes:
        while not self._decoder.eof:
            chunk = b""
            if self._decoder.needs_input:
                chunk = bytes(self._source[self._position : self._position + _PIECE])
                self._position += len(chunk)
                if not chunk:
                    break
            try:
                piece = self._decoder.decompress(chunk, _PIECE)
            except lzma.LZMAError as error:
                if "emory" in str(error):
                    raise TooLargeError("needs too much memory to unpack", self._what) from error
                raise FormatError(f"is not a package ({error})", self._what, expected="one xz stream") from error
            if piece:
                return piece
        if last and self._decoder.eof:
            return b""
        raise FormatError("is cut short", self._what, hint="copy it again")
