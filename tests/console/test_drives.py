"""Removable drives, from recorded answers of each platform."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from pumpdeck_console.drives import Drive, choose_drive
from pumpdeck_console.drives.linux import Mount
from pumpdeck_console.drives.linux import drives_of as linux_of
from pumpdeck_console.drives.macos import drives_of as macos_of
from pumpdeck_console.drives.windows import Volume
from pumpdeck_console.drives.windows import drives_of as windows_of
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError


@pytest.fixture
def sys_block(tmp_path: Path) -> Path:
    """A laptop: NVMe inside, a card reader, a USB disk that says it is fixed, a stick unlocked with a passphrase."""
    devices, block = tmp_path / "devices", tmp_path / "block"
    block.mkdir()
    disks = {
        "nvme0n1": ("pci0000:00/nvme/nvme0", "0", ("nvme0n1p1", "nvme0n1p2")),
        "mmcblk0": ("pci0000:00/mmc_host/mmc0", "1", ("mmcblk0p1",)),
        "sdb": ("pci0000:00/usb2/2-1/host4/target4:0:0", "1", ("sdb1",)),
        "sdc": ("pci0000:00/usb1/1-3/host5/target5:0:0", "0", ("sdc1",)),
        "sdd": ("pci0000:00/usb1/1-4/host6/target6:0:0", "1", ("sdd1",)),
    }
    for name, (bus, removable, partitions) in disks.items():
        folder = devices / bus / "block" / name
        folder.mkdir(parents=True)
        (folder / "removable").write_text(f"{removable}\n")
        for partition in partitions:
            (folder / partition).mkdir()
            (folder / partition / "partition").write_text("1\n")
        (block / name).symlink_to(folder)
    for name, mapped, under in (("dm-0", "crypt-stick", "sdd1"), ("dm-1", "vg-home", "nvme0n1p2")):
        folder = devices / "virtual" / "block" / name
        (folder / "slaves" / under).mkdir(parents=True)
        (folder / "dm").mkdir()
        (folder / "dm" / "name").write_text(f"{mapped}\n")
        (folder / "removable").write_text("0\n")
        (block / name).symlink_to(folder)
    return block


MOUNTS = [
    Mount("/dev/nvme0n1p1", "/", "ext4", "rw,relatime"),
    Mount("/dev/mapper/vg-home", "/home", "ext4", "rw"),
    Mount("/dev/sdb1", "/media/ada/STICK", "vfat", "rw,nosuid,nodev"),
    Mount("/dev/sdb1", "/var/snap/again", "vfat", "rw"),
    Mount("/dev/mmcblk0p1", "/media/ada/CARD", "exfat", "ro,nosuid"),
    Mount("/dev/sdc1", "/run/media/ada/Backup Disk", "ext4", "rw"),
    Mount("/dev/mapper/crypt-stick", "/media/ada/VAULT", "ext4", "rw"),
    Mount("//server/share", "/mnt/share", "cifs", "rw"),
    Mount("/dev/loop3", "/snap/core", "squashfs", "ro"),
]


def test_linux(sys_block: Path) -> None:
    found = {drive.name: drive for drive in linux_of(sys_block, MOUNTS)}
    assert set(found) == {"STICK", "CARD", "Backup Disk", "VAULT"}
    assert found["STICK"].mount == "/media/ada/STICK"
    assert found["CARD"].is_read_only and not found["STICK"].is_read_only


def test_linux_without_anything_plugged_in(tmp_path: Path) -> None:
    assert linux_of(tmp_path, MOUNTS) == []


class RecordedKernel:
    """C: fixed, D: an empty card reader, E: a stick, F: a network drive, G: a locked card."""

    TYPES = {"C:\\": 3, "D:\\": 2, "E:\\": 2, "F:\\": 4, "G:\\": 2}
    VOLUMES = {
        "E:\\": Volume("KINGSTON", "FAT32", 0x000006),
        "G:\\": Volume("", "exFAT", 0x000006 | 0x00080000),
        "C:\\": Volume("System", "NTFS", 0x03E72EFF),
    }

    def logical_drives(self) -> int:
        return sum(1 << (ord(root[0]) - ord("A")) for root in self.TYPES)

    def drive_type(self, root: str) -> int:
        return self.TYPES[root]

    def volume(self, root: str) -> Volume | None:
        return self.VOLUMES.get(root)


def test_windows() -> None:
    found = windows_of(RecordedKernel())
    assert [(drive.name, drive.mount, drive.file_system, drive.is_read_only) for drive in found] == [
        ("KINGSTON", "E:\\", "FAT32", False),
        ("G:", "G:\\", "exFAT", True),
    ]
    assert choose_drive(found[:1]).device == "E:"
    assert choose_drive(found, "e:") == choose_drive(found, "E") == choose_drive(found, "kingston")


def disk(name: str, mount: str, *, removable: bool, **more: object) -> dict[str, object]:
    keys = {
        "DeviceIdentifier": name, "DeviceNode": f"/dev/{name}", "MountPoint": mount, "VolumeName": Path(mount).name,
        "RemovableMediaOrExternalDevice": removable, "Removable": removable, "Internal": not removable,
        "FilesystemType": "msdos", "TotalSize": 15_500_000_000, "WritableVolume": True, "SystemImage": False,
    }  # fmt: skip
    return {**keys, **more}


MACOS = {
    "disk0": disk("disk0", "", removable=False),
    "disk3s1s1": disk("disk3s1s1", "/", removable=False, FilesystemType="apfs"),
    "disk4": disk("disk4", "", removable=True),
    "disk4s1": disk("disk4s1", "/Volumes/STICK", removable=True),
    "disk5s1": disk("disk5s1", "/Volumes/CARD", removable=True, Internal=True, WritableVolume=False),
    "disk6s1": disk("disk6s1", "/Volumes/Installer", removable=True, SystemImage=True),
}


def recorded(words: Sequence[str]) -> bytes:
    if words[0] == "list":
        return plistlib.dumps({"AllDisks": list(MACOS), "VolumesFromDisks": ["STICK"]})
    return plistlib.dumps(MACOS[words[-1]])


def test_macos() -> None:
    found = macos_of(recorded)
    assert [(drive.name, drive.mount, drive.is_read_only) for drive in found] == [
        ("STICK", "/Volumes/STICK", False),
        ("CARD", "/Volumes/CARD", True),
    ]


def test_macos_without_an_answer() -> None:
    with pytest.raises(RefusedError, match="--to DIR"):
        macos_of(lambda _words: b"diskutil: not permitted")


STICK, CARD = Drive("STICK", "/media/ada/STICK", "/dev/sdb1"), Drive("CARD", "/media/ada/CARD", "/dev/sdc1")


def test_one_drive_is_taken_several_need_a_name() -> None:
    assert choose_drive([STICK]) == STICK
    assert choose_drive([STICK]).folder == Path("/media/ada/STICK/pumpdeck")
    assert choose_drive([STICK, CARD], "card") == choose_drive([STICK, CARD], "/dev/sdc1") == CARD
    with pytest.raises(ConflictError, match=r"STICK \(/media/ada/STICK\), CARD"):
        choose_drive([STICK, CARD])
    with pytest.raises(NotFoundError, match="no removable drive is mounted"):
        choose_drive([])
    with pytest.raises(NotFoundError, match="no such removable drive"):
        choose_drive([STICK], "usb")
    with pytest.raises(RefusedError, match="write-protected"):
        choose_drive([Drive("LOCKED", "/media/x", "/dev/sdd1", is_read_only=True)])
