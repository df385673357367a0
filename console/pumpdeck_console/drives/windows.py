"""Removable drives on Windows: drive letters whose type is "removable", with a medium in them.

An external hard disk calls itself fixed there and is left out: name it with `--to`.
"""

from __future__ import annotations

import string
from typing import Any, NamedTuple, Protocol

from pumpdeck_console.drives.drive import Drive

DRIVE_REMOVABLE = 2
FILE_READ_ONLY_VOLUME = 0x00080000


class Volume(NamedTuple):
    """What `GetVolumeInformationW` says of a medium."""

    label: str
    file_system: str
    flags: int


class Kernel(Protocol):
    """The three questions that Windows answers."""

    def logical_drives(self) -> int:
        """One bit a letter, A first."""
        ...

    def drive_type(self, root: str) -> int: ...

    def volume(self, root: str) -> Volume | None:
        """None when no medium lies in the drive."""
        ...


def windows_drives() -> list[Drive]:
    """The drives of this computer."""
    return drives_of(_Kernel32())


def drives_of(kernel: Kernel) -> list[Drive]:
    """Removable letters with a medium."""
    found = []
    bits = kernel.logical_drives()
    for place, letter in enumerate(string.ascii_uppercase):
        root = f"{letter}:\\"
        if not bits >> place & 1 or kernel.drive_type(root) != DRIVE_REMOVABLE:
            continue
        volume = kernel.volume(root)
        if volume is not None:
            is_read_only = bool(volume.flags & FILE_READ_ONLY_VOLUME)
            found.append(Drive(volume.label or f"{letter}:", root, f"{letter}:", volume.file_system, is_read_only=is_read_only))
    return found


class _Kernel32:
    """The answers of this computer, through ctypes."""

    def __init__(self) -> None:
        import ctypes  # deferred: only this needs it

        self._ctypes = ctypes
        # By name: the other platforms' ctypes has no such attribute.
        self._call: Any = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009
        # An empty card reader must not open a window that asks for a disk.
        self._call.SetErrorMode(0x0001)

    def logical_drives(self) -> int:
        return int(self._call.GetLogicalDrives())

    def drive_type(self, root: str) -> int:
        return int(self._call.GetDriveTypeW(self._ctypes.c_wchar_p(root)))

    def volume(self, root: str) -> Volume | None:
        label = self._ctypes.create_unicode_buffer(261)
        name = self._ctypes.create_unicode_buffer(261)
        flags = self._ctypes.c_uint32(0)
        done = self._call.GetVolumeInformationW(
            self._ctypes.c_wchar_p(root), label, 261, None, None, self._ctypes.byref(flags), name, 261
        )
        return Volume(label.value, name.value, flags.value) if done else None
