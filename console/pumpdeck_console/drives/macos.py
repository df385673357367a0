"""Removable drives on macOS: `diskutil list -plist` names the disks, `diskutil info -plist` tells each one's story.

`RemovableMediaOrExternalDevice` decides: a built-in card reader calls itself internal, and so does the system disk.
"""

from __future__ import annotations

import plistlib
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from pumpdeck_console.drives.drive import Drive
from pumpdeck_fleet.core.errors import RefusedError

TOOL = "/usr/sbin/diskutil"
_WAIT_S = 20.0


def macos_drives() -> list[Drive]:
    """The drives of this computer."""
    return drives_of(_ask)


def drives_of(ask: Callable[[Sequence[str]], bytes]) -> list[Drive]:
    """Mounted volumes that can be pulled out; `ask` runs `diskutil` with these words.

    Raises:
        RefusedError: its answer is no property list.
    """
    names = _answer(ask, ("list", "-plist")).get("AllDisks", ())
    found = []
    for name in names:
        info = _answer(ask, ("info", "-plist", str(name)))
        mount = str(info.get("MountPoint") or "")
        if not mount or not info.get("RemovableMediaOrExternalDevice") or info.get("SystemImage"):
            continue
        found.append(
            Drive(
                name=str(info.get("VolumeName") or name),
                mount=mount,
                device=str(info.get("DeviceNode") or name),
                file_system=str(info.get("FilesystemType") or ""),
                bytes=int(info.get("TotalSize") or info.get("Size") or 0),
                is_read_only=not info.get("WritableVolume", True),
            )
        )
    return found


def _ask(words: Sequence[str]) -> bytes:
    try:
        return subprocess.run([TOOL, *words], capture_output=True, check=False, timeout=_WAIT_S).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RefusedError(f"diskutil does not answer ({error})", "--drive", hint="name the folder with --to DIR") from error


def _answer(ask: Callable[[Sequence[str]], bytes], words: Sequence[str]) -> dict[str, Any]:
    try:
        found = plistlib.loads(ask(words))
    except (plistlib.InvalidFileException, ValueError) as error:
        raise RefusedError("diskutil gives no property list", " ".join(words), hint="name the folder with --to DIR") from error
    return found if isinstance(found, dict) else {}
