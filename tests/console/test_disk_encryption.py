"""What the computer says of its disks, on systems made of files and of programs' words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pumpdeck_console.disk_encryption import DiskState, disk_report

posix = pytest.mark.skipif(sys.platform == "win32", reason="the paths of a Linux system")


class Linux:
    """/sys and /proc of a computer, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc" / "self").mkdir(parents=True)
        (root / "sys" / "dev" / "block").mkdir(parents=True)
        (root / "sys" / "class" / "block").mkdir(parents=True)
        self.mounts: list[str] = []

    def block(self, name: str, number: str, *, uuid: str = "", under: tuple[str, ...] = ()) -> None:
        place = self.root / "sys" / "devices" / name
        (place / "slaves").mkdir(parents=True)
        if uuid:
            (place / "dm").mkdir()
            (place / "dm" / "uuid").write_text(f"{uuid}\n", encoding="ascii")
        for one in under:
            (place / "slaves" / one).symlink_to(self.root / "sys" / "devices" / one)
        (self.root / "sys" / "dev" / "block" / number).symlink_to(place)
        (self.root / "sys" / "class" / "block" / name).symlink_to(place)

    def mount(self, point: str, number: str, kind: str = "ext4", source: str = "/dev/x") -> None:
        self.mounts.append(f"36 35 {number} / {point} rw,noatime - {kind} {source} rw")
        (self.root / "proc" / "self" / "mountinfo").write_text("\n".join(self.mounts) + "\n", encoding="utf-8")

    def state(self, folder: Path) -> tuple[DiskState, str]:
        report = disk_report(folder, "linux", root=self.root)
        return report.state, report.how


@pytest.fixture
def linux(tmp_path: Path) -> Linux:
    return Linux(tmp_path / "root")


@posix
def test_luks_under_lvm_is_seen(linux: Linux, tmp_path: Path) -> None:
    linux.block("sda2", "8:2")
    linux.block("dm-0", "253:0", uuid="CRYPT-LUKS2-0123-luks", under=("sda2",))
    linux.block("dm-1", "253:1", uuid="LVM-abc", under=("dm-0",))
    linux.mount("/", "253:1")
    assert linux.state(tmp_path) == (DiskState.ENCRYPTED, "dm-crypt (LUKS2)")


@posix
def test_a_volume_with_one_open_disk_is_not_encrypted(linux: Linux, tmp_path: Path) -> None:
    linux.block("sda2", "8:2")
    linux.block("sdb1", "8:17")
    linux.block("dm-0", "253:0", uuid="CRYPT-LUKS2-0123-luks", under=("sda2",))
    linux.block("dm-1", "253:1", uuid="LVM-abc", under=("dm-0", "sdb1"))
    linux.mount("/", "253:1")
    assert linux.state(tmp_path)[0] is DiskState.PLAIN


@posix
def test_the_mount_of_the_workspace_counts_not_the_one_of_the_system(linux: Linux, tmp_path: Path) -> None:
    linux.block("sda2", "8:2")
    linux.block("dm-0", "253:0", uuid="CRYPT-PLAIN-x", under=("sda2",))
    linux.mount("/", "8:2", source="/dev/sda2")
    assert linux.state(tmp_path)[0] is DiskState.PLAIN
    linux.mount(str(tmp_path.resolve()), "253:0")
    assert linux.state(tmp_path / "workspace") == (DiskState.ENCRYPTED, "dm-crypt (PLAIN)")


@posix
def test_what_shows_no_disk_is_unknown(linux: Linux, tmp_path: Path) -> None:
    linux.mount("/", "0:50", kind="overlay", source="overlay")
    assert linux.state(tmp_path)[0] is DiskState.UNKNOWN
    linux.mount("/", "0:51", kind="fuse.gocryptfs", source="/home/ada/.cipher")
    assert linux.state(tmp_path) == (DiskState.ENCRYPTED, "fuse.gocryptfs")


@posix
def test_btrfs_is_found_by_its_source(linux: Linux, tmp_path: Path) -> None:
    linux.block("dm-0", "253:0", uuid="CRYPT-LUKS1-x")
    (linux.root / "dev" / "mapper").mkdir(parents=True)
    (linux.root / "dev" / "dm-0").touch()
    (linux.root / "dev" / "mapper" / "home").symlink_to(linux.root / "dev" / "dm-0")
    linux.mount("/", "0:30", kind="btrfs", source="/dev/mapper/home")
    assert linux.state(tmp_path) == (DiskState.ENCRYPTED, "dm-crypt (LUKS1)")


def test_a_linux_without_proc_is_unknown(tmp_path: Path) -> None:
    assert disk_report(tmp_path, "linux", root=tmp_path / "nothing").state is DiskState.UNKNOWN


@pytest.mark.parametrize(
    ("system", "said", "state"),
    [
        ("darwin", "FileVault is On.\n", DiskState.ENCRYPTED),
        ("darwin", "FileVault is Off.\n", DiskState.PLAIN),
        ("darwin", None, DiskState.UNKNOWN),
        ("freebsd14", "", DiskState.UNKNOWN),
    ],
)
def test_what_other_systems_say(tmp_path: Path, system: str, said: str | None, state: DiskState) -> None:
    assert disk_report(tmp_path, system, run=lambda _: said).state is state


class DriveC(type(Path())):  # type: ignore[misc]
    """A folder on drive C:."""

    @property
    def drive(self) -> str:
        return "C:"

    def resolve(self, strict: bool = False) -> DriveC:
        return self


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Volume C: [OS]\n    Conversion Status: Fully Encrypted\n    Protection Status: Protection On\n", DiskState.ENCRYPTED),
        ("Volume C: [OS]\n    Protection Status:    Protection Off\n", DiskState.PLAIN),
        ("Volume C: [OS]\n    Schutzstatus:         Der Schutz ist aktiviert.\n", DiskState.UNKNOWN),
        (None, DiskState.UNKNOWN),
    ],
)
def test_what_bitlocker_says(said: str | None, state: DiskState) -> None:
    asked: list[list[str]] = []

    def run(command: object) -> str | None:
        asked.append(list(command))  # type: ignore[call-overload]
        return said

    assert disk_report(DriveC("workspace"), "win32", run=run).state is state
    assert asked == [["manage-bde", "-status", "C:"]]


def test_this_computer_is_asked_without_harm(tmp_path: Path) -> None:
    assert disk_report(tmp_path).how
