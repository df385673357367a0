"""Unpack the wheels of the compiled libraries into a folder of their own, named by the digest of their index.

Standard library and core only: this runs on a device before it has any of them. Wheels are zip archives of plain files; they are
not installed by pip, which a device need not have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.room import check_room
from pumpdeck_packaging.wheel_index import Wheel, WheelIndex
from pumpdeck_packaging.zip_reader import read_zip, unpacked_bytes

UNPACKED_MAX_BYTES = 512 * 1024 * 1024


def unpack_libraries(fs: FileSystem, folder: Path, index: WheelIndex, read: Callable[[Wheel], bytes]) -> None:
    """Unpack all wheels into `folder`, which is there whole or not at all; `read` hands out the bytes of one wheel.

    Raises:
        DigestMismatchError: a wheel is not what the index says. DamagedError: it holds what no wheel may hold.
        RefusedError: the disk has no room.
    """
    if fs.exists(folder):
        return
    beside = folder.with_name(folder.name + ".part")
    fs.remove_tree(beside)
    fs.mkdir(beside)
    made = {beside}
    for one in index.wheels:
        data = read(one)
        if len(data) != one.bytes or canonical.digest(data) != one.digest:
            raise DigestMismatchError("is not the wheel its index names", one.file, expected=one.digest)
        _check_room(fs, beside, one, data)
        for name, content in read_zip(data, one.file, UNPACKED_MAX_BYTES, _is_library):
            path = beside.joinpath(*name.parts)
            made |= _make(fs, beside, path.parent, made)
            _write(fs, path, content)
    for made_folder in sorted(made, reverse=True):
        fs.fsync_dir(made_folder)
    fs.rename(beside, folder)
    fs.fsync_dir(folder.parent)


def _check_room(fs: FileSystem, folder: Path, wheel: Wheel, data: bytes) -> None:
    wanted = unpacked_bytes(data, wheel.file)
    if wanted <= UNPACKED_MAX_BYTES:  # more is refused when it is read
        check_room(fs, folder, wanted, "the disk has no room for this", wheel.file)


def _is_library(name: str) -> bool:
    # Programs and headers beside the library: nothing of the agent calls them.
    return not name.partition("/")[0].endswith(".data")


def _make(fs: FileSystem, top: Path, folder: Path, made: set[Path]) -> set[Path]:
    new = {one for one in (folder, *folder.parents) if one.is_relative_to(top)} - made
    if new:
        fs.mkdir(folder)
    return new


def _write(fs: FileSystem, path: Path, content: bytes) -> None:
    handle = fs.open_write(path)
    try:
        handle.write(content)
        handle.fsync()
    finally:
        handle.close()
