"""Whether a folder lies on an encrypted disk, as far as this computer says so without being asked for rights. An adapter.

Linux: dm-crypt (LUKS) under the file system, by /sys; macOS: FileVault, by fdesetup; Windows: BitLocker, by manage-bde. What
cannot be found out is unknown, never a guess.
"""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_WAIT_S = 5.0
_MAX_DEPTH = 8
_ENCRYPTED_TYPES = ("ecryptfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs", "fuse.securefs")

Run = Callable[[Sequence[str]], str | None]
"""A program's output; None when it is not there, takes too long or says no."""


class DiskState(enum.StrEnum):
    """What is known."""

    ENCRYPTED = "encrypted"
    PLAIN = "not encrypted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DiskReport:
    """The state, and by which sign."""

    state: DiskState
    how: str


def disk_report(folder: Path, system: str = sys.platform, run: Run | None = None, root: Path = Path("/")) -> DiskReport:
    """What this computer says of the disk under `folder`; never raises. `root` stands for / of a Linux system."""
    ask = run or _run
    try:
        if system.startswith("linux"):
            return _linux(folder, root)
        if system == "darwin":
            return _macos(ask)
        if system == "win32":
            return _windows(folder, ask)
    except OSError as error:
        return DiskReport(DiskState.UNKNOWN, f"cannot be looked at ({error.strerror or error})")
    return DiskReport(DiskState.UNKNOWN, f"nobody taught this program to ask {system}")


def _linux(folder: Path, root: Path) -> DiskReport:
    mount = _mount_of(folder.resolve(), root)
    if mount is None:
        return DiskReport(DiskState.UNKNOWN, "its mount is not listed")
    number, kind, source = mount
    if kind in _ENCRYPTED_TYPES:
        return DiskReport(DiskState.ENCRYPTED, kind)
    block = root / "sys" / "dev" / "block" / number
    if not block.exists() and source.startswith("/dev/"):
        # btrfs and the like number their mounts by themselves; the source names the disk.
        block = root / "sys" / "class" / "block" / Path(os.path.realpath(root / source.lstrip("/"))).name
    if not block.exists():
        return DiskReport(DiskState.UNKNOWN, f"{kind} on {source} shows no disk")
    layer = _crypt_layer(block, _MAX_DEPTH)
    if layer:
        return DiskReport(DiskState.ENCRYPTED, f"dm-crypt ({layer})")
    # A drive that encrypts by itself, or the host of a virtual machine, cannot be seen from here.
    return DiskReport(DiskState.PLAIN, f"no dm-crypt under {source}")


def _mount_of(folder: Path, root: Path) -> tuple[str, str, str] | None:
    """Device number, type and source of the mount that holds the folder."""
    best: tuple[int, tuple[str, str, str]] | None = None
    for line in (root / "proc" / "self" / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, sign, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if not sign or len(fields) < 5 or len(more) < 2:
            continue
        point = Path(fields[4].replace("\\040", " ").replace("\\134", "\\"))
        # Of two mounts on one point the later one is seen.
        if folder.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), (fields[2], more[0], more[1]))
    return best[1] if best else None


def _crypt_layer(block: Path, depth: int) -> str:
    """LUKS or another kind when the block device, or every disk under it, is dm-crypt; else nothing."""
    uuid = block / "dm" / "uuid"
    if uuid.is_file():
        text = uuid.read_text(encoding="ascii", errors="replace").strip()
        if text.startswith("CRYPT-"):
            return text.split("-")[1]
    below = sorted((block / "slaves").iterdir()) if (block / "slaves").is_dir() else []
    if not below and (block / "partition").is_file() and (block.resolve().parent / "slaves").is_dir():
        below = sorted((block.resolve().parent / "slaves").iterdir())
    if not below or depth == 0:
        return ""
    found = [_crypt_layer(one.resolve(), depth - 1) for one in below]
    return found[0] if all(found) else ""


def _macos(ask: Run) -> DiskReport:
    said = ask(["fdesetup", "status"]) or ""
    if "FileVault is On" in said:
        return DiskReport(DiskState.ENCRYPTED, "FileVault")
    if "FileVault is Off" in said:
        return DiskReport(DiskState.PLAIN, "FileVault is off")
    return DiskReport(DiskState.UNKNOWN, "fdesetup does not say")


def _windows(folder: Path, ask: Run) -> DiskReport:
    drive = folder.resolve().drive or folder.drive
    said = ask(["manage-bde", "-status", drive]) if drive else None
    for line in (said or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Protection Status":
            is_on = value.strip() == "Protection On"
            return DiskReport(DiskState.ENCRYPTED if is_on else DiskState.PLAIN, f"BitLocker: {value.strip()}")
    return DiskReport(DiskState.UNKNOWN, f"manage-bde does not say for {drive or folder}; it asks for an administrator")


def _run(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
