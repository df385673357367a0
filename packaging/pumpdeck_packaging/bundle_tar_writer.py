"""Write a bundle, or a device's answer, as one tar: reproducible, read back before it gets its name.

The same files give the same bytes. A file of that name is replaced only when it is a bundle of the same workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import ConflictError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem, OpenFile, Progress
from pumpdeck_fleet.core.room import check_room
from pumpdeck_packaging import ustar
from pumpdeck_packaging.bundle_index import (
    BUNDLE_FORMAT,
    INDEX_NAME,
    MARK_MAX_BYTES,
    MARK_NAME,
    SITES,
    BundleFile,
    BundleIndex,
    BundleMark,
    parse_index,
    parse_mark,
)
from pumpdeck_packaging.bundle_part import BundlePart, WriteReport
from pumpdeck_packaging.bundle_stick import StickFailedError, stick_errors
from pumpdeck_packaging.bundle_tar import FileSource, TarSource, read_members

SPARE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TarPlace:
    """Where a tar goes, and how it is read back."""

    fs: FileSystem
    path: Path
    open: Callable[[Path], TarSource]


def real_place(path: Path) -> TarPlace:
    """The place on this computer."""
    return TarPlace(RealFileSystem(), path, FileSource)


def tar_id(parts: Sequence[BundlePart]) -> str:
    """The name of a bundle in one file: the same for the same content."""
    return "b-" + digest_of(canonical.encode({part.path: part.digest for part in parts}))[:12]


def write_bundle_tar(
    place: TarPlace,
    workspace: str,
    parts: Sequence[BundlePart],
    *,
    before_index: Callable[[], None],
    on_progress: Progress,
) -> WriteReport:
    """Write these parts into one file. `before_index` is called when all of them lie there, proven, and the file is none yet.

    The list names those below `sites/`; an agent beside them proves itself, as on a stick.

    Raises:
        RefusedError: another file has that name, or no room. ConflictError: another workspace's bundle has it.
        StickFailedError: the disk failed; a file of that name is what it was.
    """
    name = tar_id(parts)
    listed = [part for part in parts if part.path.startswith(f"{SITES}/")]
    index = BundleIndex(
        BUNDLE_FORMAT,
        name,
        tuple(sorted({part.path.split("/")[1] for part in listed})),
        {part.path: BundleFile(part.size, part.digest) for part in listed},
    )
    data = canonical.encode(index)
    parse_index(data)
    mark = canonical.encode(BundleMark(BUNDLE_FORMAT, name, workspace))
    beside = place.path.with_name(place.path.name + ".part")
    for path in (place.path, beside):
        check_ours(place, path, workspace)
    total = sum(part.size for part in parts)
    with stick_errors(place.path):
        _check_room(place, total)
        handle = place.fs.open_write(beside)
        tar = _Tar(handle)
        try:
            tar.add(MARK_NAME, mark)
            done = 0
            on_progress("write the file", 0, total)
            for part in sorted(parts, key=lambda one: one.path):
                tar.add(part.path, part.proven())
                done += part.size
                on_progress("write the file", done, total)
            handle.fsync()
            _prove(place, beside, tar, {part.path: part.digest for part in parts})
            before_index()
            tar.add(INDEX_NAME, data)
            tar.end()
        finally:
            handle.close()
        _prove(place, beside, tar, {INDEX_NAME: digest_of(data), MARK_NAME: digest_of(mark)})
        place.fs.rename(beside, place.path)
        place.fs.fsync_dir(place.path.parent)
    return WriteReport(name, len(parts), total, 0)


def write_answer_tar(place: TarPlace, mark: bytes, files: Mapping[str, bytes]) -> None:
    """Write what a device answers to a bundle in one file; `mark` is the bundle's own, so that the office knows which.

    Raises:
        RefusedError: a file of that name is there and is no answer to the same bundle. StickFailedError: the disk failed.
    """
    workspace = parse_mark(mark).workspace
    _check_no_bundle(place)
    beside = place.path.with_name(place.path.name + ".part")
    for path in (place.path, beside):
        check_ours(place, path, workspace)
    with stick_errors(place.path):
        handle = place.fs.open_write(beside)
        tar = _Tar(handle)
        try:
            tar.add(MARK_NAME, mark)
            for name in sorted(files):
                tar.add(name, files[name])
            tar.end()
        finally:
            handle.close()
        _prove(place, beside, tar, {path: digest_of(data) for path, data in files.items()})
        place.fs.rename(beside, place.path)
        place.fs.fsync_dir(place.path.parent)


def check_ours(place: TarPlace, path: Path, workspace: str) -> None:
    """A name may be taken when nothing has it, or a bundle of the same workspace does, be it cut off.

    Raises:
        RefusedError, ConflictError.
    """
    with stick_errors(path):
        if not place.fs.exists(path):
            return
        source = place.open(path)
        try:
            found, is_cut = _mark_of(source), _is_cut(source, workspace)
        finally:
            source.close()
    if is_cut:
        return
    if found is None:
        expected = "a new name, or an earlier bundle"
        raise RefusedError("is another file", str(path), expected=expected, hint="name another file")
    if found.workspace != workspace:
        hint = "name another file"
        raise ConflictError(
            "holds a bundle of another workspace", str(path), expected=workspace, found=found.workspace, hint=hint
        )


def _check_no_bundle(place: TarPlace) -> None:
    with stick_errors(place.path):
        if not place.fs.exists(place.path):
            return
        source = place.open(place.path)
        try:
            members = read_members(source, place.path.name)
        except PumpdeckError:
            return
        finally:
            source.close()
    if INDEX_NAME in members:
        raise RefusedError("is a bundle and not an answer", str(place.path), hint="name another file with --answer")


def _mark_of(source: TarSource) -> BundleMark | None:
    try:
        name, size = ustar.parse_header(source.read_at(0, ustar.BLOCK).ljust(ustar.BLOCK, b"\0"), "tar")
        return parse_mark(source.read_at(ustar.BLOCK, size)) if name == MARK_NAME and size <= MARK_MAX_BYTES else None
    except PumpdeckError:
        return None


def _is_cut(source: TarSource, workspace: str) -> bool:
    """True for what is left of a bundle whose writing ended within its first member."""
    mark = canonical.encode(BundleMark(BUNDLE_FORMAT, tar_id(()), workspace))
    start = ustar.header(MARK_NAME, len(mark))
    return source.size < ustar.BLOCK + len(mark) and start.startswith(source.read_at(0, min(source.size, ustar.BLOCK)))


def _check_room(place: TarPlace, total: int) -> None:
    wanted = total + total // 50 + SPARE_BYTES
    check_room(place.fs, place.path.parent, wanted, "has no room for this bundle", str(place.path))


def _prove(place: TarPlace, path: Path, tar: _Tar, digests: Mapping[str, str]) -> None:
    source = place.open(path)
    try:
        for name, digest in digests.items():
            if digest_of(source.read_at(*tar.members[name])) != digest:
                raise StickFailedError("the disk gives back other bytes than were written", name, hint="use another one")
    finally:
        source.close()


class _Tar:
    """Members in the order in which they come; knows where each one stands."""

    def __init__(self, handle: OpenFile) -> None:
        self._handle = handle
        self._at = 0
        self.members: dict[str, tuple[int, int]] = {}

    def add(self, path: str, data: bytes) -> None:
        self._handle.write(ustar.header(path, len(data)))
        self.members[path] = (self._at + ustar.BLOCK, len(data))
        self._handle.write(data)
        self._handle.write(bytes(ustar.padded(len(data)) - len(data)))
        self._at += ustar.BLOCK + ustar.padded(len(data))

    def end(self) -> None:
        self._handle.write(bytes(-(-(self._at + ustar.BLOCK) // ustar.RECORD) * ustar.RECORD - self._at))
        self._handle.fsync()
