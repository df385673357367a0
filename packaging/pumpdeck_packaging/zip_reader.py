"""Read a zip from outside into memory: what it says of itself is not believed. Standard library and core only."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from pumpdeck_fleet.core.errors import DamagedError, FormatError, TooLargeError

MAX_FILES = 20_000
# bz2 and xz members are unpacked in one step, however long what comes out is; no wheel and no agent has them.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_zip(
    data: bytes, what: str, max_bytes: int, is_wanted: Callable[[str], bool] = lambda _name: True
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and bytes of each wanted file. Everything is looked at before the first is unpacked.

    Raises:
        DamagedError: it is cut, or no zip. TooLargeError: it unpacks to more than `max_bytes`, or holds too many files.
        FormatError: a name leads out of the folder, stands there twice or is a folder too; a member is packed in another way.
    """
    with _translated(what), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [one for one in archive.infolist() if not one.filename.endswith("/") and is_wanted(one.filename)]
        wanted = sum(entry.file_size for entry in entries)
        if wanted > max_bytes or len(entries) > MAX_FILES:
            raise TooLargeError("unpacks to too much", what, expected=f"at most {max_bytes} bytes", found=wanted)
        places = [_place(entry, what) for entry in entries]
        folders = {parent for place in places for parent in place.parents}
        if len(set(places)) != len(places) or not folders.isdisjoint(places):
            raise FormatError("holds a name twice", what)
        for place, entry in zip(places, entries, strict=True):
            yield place, _unpacked(archive, entry, what)


def unpacked_bytes(data: bytes, what: str) -> int:
    """What it says it unpacks to; `read_zip` holds it to that. Raises: DamagedError: it is cut, or no zip."""
    with _translated(what), zipfile.ZipFile(io.BytesIO(data)) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _place(entry: zipfile.ZipInfo, what: str) -> PurePosixPath:
    place = PurePosixPath(entry.filename)
    is_bad = not place.parts or place.is_absolute() or ".." in place.parts
    if is_bad or any(sign in entry.filename for sign in "\\\0:") or entry.filename.startswith("/"):
        raise FormatError("holds a file outside its folder", what, found=repr(entry.filename[:80]))
    if entry.compress_type not in _PACKINGS or entry.flag_bits & 1:
        expected, found = "stored or deflate, not encrypted", repr(entry.filename[:80])
        raise FormatError("holds a file packed in another way", what, expected=expected, found=found)
    return place


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> bytes:
    with _translated(what), archive.open(entry) as stream:
        return stream.read(entry.file_size)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """`zipfile` names only some of what it falls over."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise DamagedError(f"is not a whole archive ({error})"[:200], what) from error
