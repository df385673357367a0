"""What a removable drive is, and which one a person means."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError

FOLDER = "pumpdeck"
"""The bundle's folder on a drive that also holds other people's files."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A removable drive that is mounted. `name` is what a person types: the label, else the letter or the device.

    `bytes` and `free_bytes` are 0 where the system does not say.
    """

    name: str
    mount: str
    device: str
    file_system: str = ""
    bytes: int = 0
    free_bytes: int = 0
    is_read_only: bool = False

    @property
    def folder(self) -> Path:
        """Where the bundle goes."""
        return Path(self.mount) / FOLDER


def find_drives() -> tuple[Drive, ...]:
    """The removable drives that are mounted now, by name.

    Raises:
        RefusedError: this platform is not known here.
    """
    if sys.platform == "win32":
        from pumpdeck_console.drives.windows import windows_drives  # deferred: one platform is enough

        found = windows_drives()
    elif sys.platform == "darwin":
        from pumpdeck_console.drives.macos import macos_drives  # deferred: one platform is enough

        found = macos_drives()
    elif sys.platform.startswith("linux"):
        from pumpdeck_console.drives.linux import linux_drives  # deferred: psutil

        found = linux_drives()
    else:
        raise RefusedError("cannot find removable drives", sys.platform, hint="name the folder with --to DIR")
    return tuple(sorted(map(_measured, found), key=lambda drive: drive.name))


def choose_drive(drives: Sequence[Drive], wanted: str = "") -> Drive:
    """The drive a person means: the only one there is, or the one of that label, letter, device or mount.

    Raises:
        NotFoundError: none. ConflictError: several, and no name tells them apart. RefusedError: it is write-protected.
    """
    word = wanted.strip().rstrip("/\\:").lower()
    matches = [drive for drive in drives if not word or word in _names(drive)]
    known = ", ".join(f"{drive.name} ({drive.mount})" for drive in drives) or "none"
    if not matches:
        what = "no such removable drive" if word else "no removable drive is mounted"
        raise NotFoundError(what, wanted or "--drive", found=known, hint="plug it in, or name a folder with --to DIR")
    if len(matches) > 1:
        hint = "name one: --drive NAME" if not word else "name it by its mount or its letter"
        raise ConflictError("several removable drives are mounted", wanted or "--drive", found=known, hint=hint)
    if matches[0].is_read_only:
        raise RefusedError("is write-protected", matches[0].name, hint="move its switch, or use another drive")
    return matches[0]


def file_system_of(path: Path) -> str:
    """What the system calls the file system that a standing path lies on, such as `vfat`; empty where it does not say."""
    import psutil  # deferred: only sticks ask

    where = path.resolve()
    mounts = [one for one in psutil.disk_partitions(all=True) if where.is_relative_to(one.mountpoint)]
    nearest = max(mounts, key=lambda one: len(Path(one.mountpoint).parts), default=None)
    return str(nearest.fstype) if nearest else ""


def _names(drive: Drive) -> set[str]:
    mount = Path(drive.mount)
    texts = (drive.name, drive.mount, mount.name, mount.drive, drive.device, Path(drive.device).name)
    return {text.rstrip("/\\:").lower() for text in texts if text}


def _measured(drive: Drive) -> Drive:
    try:
        usage = shutil.disk_usage(drive.mount)
    except OSError:
        return drive
    return replace(drive, bytes=drive.bytes or usage.total, free_bytes=usage.free)
