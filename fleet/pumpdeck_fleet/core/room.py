"""Is there room? Asked before the first byte is written, never found out in the middle."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.sizes import size_words


def check_room(fs: FileSystem, folder: Path, wanted_bytes: int, what: str, which: str = "") -> None:
    """Nothing, where the disk of `folder` has room for so many bytes. `which` is what has no room, else the folder itself.

    Raises:
        RefusedError: it has not.
    """
    free = fs.free_bytes(folder)
    if free < wanted_bytes:
        wanted = f"{size_words(wanted_bytes)} free"
        raise RefusedError(what, which or str(folder), expected=wanted, found=size_words(free), hint="make room there")


def standing_folder(path: Path) -> Path:
    """The nearest folder on the way up from `path` that is there: whose disk it is that a new path would be on.

    Raises:
        NotFoundError: none, as with a drive letter that nothing is plugged into.
    """
    found = next((one for one in (path, *path.parents) if one.is_dir()), None)
    if found is None:
        raise NotFoundError("there is no such drive", str(path), hint="is it plugged in?")
    return found
