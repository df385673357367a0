"""Where on a stick the bundle stands: at its top, or in one folder of it. Nothing is believed yet, nothing is written."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_packaging.bundle_index import INDEX_NAME, MARK_NAME
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import StickFileSystem, stick_errors

MAX_FOLDERS = 256


def find_bundle(mount: Path) -> str:
    """The name of the folder that holds a whole bundle; empty when the mount itself does.

    Raises:
        NotFoundError: none. StickFailedError: the stick failed.
    """
    fs = StickFileSystem(mount)
    with stick_errors(mount):
        names = fs.listdir(mount)
        if _is_bundle(mount):
            return ""
        # Folders with strange names, links among them, are other people's.
        for name in [name for name in names if is_name(name)][:MAX_FOLDERS]:
            if (mount / name).is_dir() and not (mount / name).is_symlink() and _is_bundle(mount / name):
                return name
    raise NotFoundError("holds no whole bundle", str(mount), expected=f"{INDEX_NAME} and {MARK_NAME}")


def _is_bundle(folder: Path) -> bool:
    fs = StickFileSystem(folder)
    if not fs.exists(folder / MARK_NAME):
        return False
    try:
        BundleReader(fs, folder)
    except PumpdeckError:
        return False
    return True
