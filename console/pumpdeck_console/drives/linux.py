"""Removable drives on Linux: what the kernel says of block devices, joined with what is mounted.

A USB disk often says `removable = 0`; what hangs on a USB bus counts as removable all the same. A drive that is unlocked with a
passphrase (LUKS) shows up as a mapped device: the disks under it decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pumpdeck_console.drives.drive import Drive

SYS_BLOCK = Path("/sys/block")


class Mount(NamedTuple):
    """One mounted file system, as psutil tells it."""

    device: str
    mountpoint: str
    fstype: str
    opts: str


def linux_drives() -> list[Drive]:
    """The drives of this computer."""
    import psutil  # deferred: only this needs it

    mounts = [Mount(one.device, one.mountpoint, one.fstype, one.opts) for one in psutil.disk_partitions(all=False)]
    return drives_of(SYS_BLOCK, mounts)


def drives_of(sys_block: Path, mounts: Iterable[Mount]) -> list[Drive]:
    """The removable ones among these mounts, each device once, at its first mount."""
    found: dict[str, Drive] = {}
    for mount in mounts:
        disk = _block_name(sys_block, mount.device)
        if disk and mount.device not in found and is_removable(sys_block, disk):
            label = Path(mount.mountpoint).name or Path(mount.device).name
            options = mount.opts.split(",")
            found[mount.device] = Drive(label, mount.mountpoint, mount.device, mount.fstype, is_read_only="ro" in options)
    return list(found.values())


def is_removable(sys_block: Path, disk: str) -> bool:
    """True for what can be pulled out; for a mapped device, when all that lies under it can."""
    folder = sys_block / disk
    slaves = sorted(path.name for path in (folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
    if slaves:
        return all(is_removable(sys_block, _disk_of(sys_block, slave) or "-") for slave in slaves)
    try:
        if (folder / "removable").read_text(encoding="ascii").strip() == "1":
            return True
        return any(part.startswith("usb") and part[3:].isdigit() for part in folder.resolve().parts)
    except OSError:
        return False


def _block_name(sys_block: Path, device: str) -> str:
    """The whole disk, or the mapped device, of a device node; empty when it is no block device."""
    name = Path(device).name
    if device.startswith("/dev/mapper/"):
        for folder in sys_block.glob("dm-*"):
            try:
                if (folder / "dm" / "name").read_text(encoding="utf-8").strip() == name:
                    return folder.name
            except OSError:
                continue
        return ""
    return _disk_of(sys_block, name) if device.startswith("/dev/") else ""


def _disk_of(sys_block: Path, name: str) -> str:
    if (sys_block / name).exists():
        return name
    parents = [folder.parent.name for folder in sys_block.glob(f"*/{name}") if (folder / "partition").exists()]
    return parents[0] if parents else ""
