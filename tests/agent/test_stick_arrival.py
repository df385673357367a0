"""A stick that is plugged in: looked at read-only, served as the agent's user, unmounted whatever happens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pumpdeck_agent.stick_arrival import Arrival, ArrivalPlan, SystemMounter, serve_mounted, stick_arrived
from pumpdeck_agent.stick_places import find_bundle
from pumpdeck_agent.stick_units import RULE_FILE, UNIT_FILE, StickService, rule_text, unit_text, write_units
from pumpdeck_fleet.core.errors import NotFoundError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.bundle_stick import real_stick
from support.devices import Bench, package
from support.sticks import export_to, parts_for

SERVICE = StickService(("/opt/pumpdeck/pumpdeck-agent",), Path("/var/lib/pumpdeck-agent"), "pumpdeck")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def put_bundle(bench: Bench, folder: Path) -> None:
    built = package()
    export_to(real_stick(folder), parts_for(bench.assign(built), built))


def plan(bench: Bench, tmp_path: Path) -> ArrivalPlan:
    return ArrivalPlan(bench.root, tmp_path / "mounts")


class FolderMounter:
    """Shows a folder where the stick would be mounted, and writes down what it was asked."""

    def __init__(self, stick: Path, *, is_locked: bool = False) -> None:
        self.stick, self.is_locked = stick, is_locked
        self.steps: list[str] = []

    def mount(self, device: str, place: Path) -> None:
        self.steps.append(f"mount {device}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.stick)

    def make_writable(self, place: Path) -> None:
        self.steps.append("make writable")
        if self.is_locked:
            raise UnreachableError("mount failed", str(place), found="write-protected")

    def unmount(self, place: Path) -> None:
        self.steps.append("unmount")
        place.unlink()


def test_a_stick_with_a_bundle_is_served(bench: Bench, tmp_path: Path) -> None:
    put_bundle(bench, tmp_path / "stick" / "pumpdeck")
    mounter = FolderMounter(tmp_path / "stick")
    found = stick_arrived("/dev/sdb1", plan(bench, tmp_path), mounter)
    assert (found.outcome, found.exit_code) == ("served", 0), found.said
    assert mounter.steps == ["mount /dev/sdb1", "make writable", "unmount"]
    assert "You may pull" in (tmp_path / "stick/pumpdeck/returns/gannet-d1/report.txt").read_text()
    assert json.loads(found.said)["outcome"] == "committed", found.said


def test_another_persons_stick_is_never_made_writable(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "stick" / "photos").mkdir(parents=True)
    (tmp_path / "stick" / "photos" / "beach.jpg").write_bytes(b"beach")
    mounter = FolderMounter(tmp_path / "stick")
    assert stick_arrived("sdb1", plan(bench, tmp_path), mounter) == Arrival("sdb1", "none", "", 0)
    assert mounter.steps == ["mount /dev/sdb1", "unmount"]


def test_a_locked_stick_still_brings_what_it_brings(bench: Bench, tmp_path: Path) -> None:
    put_bundle(bench, tmp_path / "stick")
    mounter = FolderMounter(tmp_path / "stick", is_locked=True)
    found = stick_arrived("sdb1", plan(bench, tmp_path), mounter)
    assert "write-protected" in found.problem
    assert bench.status()["seq"] > 0
    assert mounter.steps[-1] == "unmount"


def test_it_is_unmounted_when_the_agent_fails(bench: Bench, tmp_path: Path) -> None:
    put_bundle(bench, tmp_path / "stick")
    mounter = FolderMounter(tmp_path / "stick")
    broken = ArrivalPlan(bench.root, tmp_path / "mounts", agent=["/nonexistent/agent"])
    with pytest.raises(OSError, match="agent"):
        stick_arrived("sdb1", broken, mounter)
    assert mounter.steps[-1] == "unmount"


@pytest.mark.parametrize("name", ["/dev/../etc", "sdb1;reboot", "/dev/sdb1 -o suid", "-o", "", "/etc/passwd", "/dev/mapper/x"])
def test_only_names_of_block_devices_are_mounted(bench: Bench, tmp_path: Path, name: str) -> None:
    mounter = FolderMounter(tmp_path)
    with pytest.raises(UsageError):
        stick_arrived(name, plan(bench, tmp_path), mounter)
    assert mounter.steps == []


def test_where_a_bundle_stands(bench: Bench, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with pytest.raises(NotFoundError):
        find_bundle(stick)
    put_bundle(bench, stick / "pumpdeck")
    assert find_bundle(stick) == "pumpdeck"
    (stick / "a-link").symlink_to(stick / "pumpdeck")
    assert find_bundle(stick) == "pumpdeck"
    (stick / "pumpdeck" / "bundle.json").unlink()
    with pytest.raises(NotFoundError):
        find_bundle(stick)
    put_bundle(bench, stick / "pumpdeck")
    (stick / "pumpdeck").rename(tmp_path / "elsewhere")
    (stick / "a-link").unlink()
    (stick / "a-link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError):
        find_bundle(stick)


def test_what_mount_is_asked(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, b"", b"")

    mounter = SystemMounter(1001, 1002, run)
    place = tmp_path / "sdb1"
    mounter.mount("/dev/sdb1", place)
    mounter.make_writable(place)
    mounter.unmount(place)
    options = "nodev,nosuid,noexec,uid=1001,gid=1002,umask=077"
    assert asked == [
        ["mount", "-t", "vfat,exfat", "-o", f"ro,{options}", "--", "/dev/sdb1", str(place)],
        ["mount", "-o", f"remount,rw,{options}", "--", str(place)],
        ["umount", "--", str(place)],
    ]
    failing = SystemMounter(0, 0, lambda command: subprocess.CompletedProcess(command, 32, b"", b"wrong fs type"))
    with pytest.raises(UnreachableError, match="wrong fs type"):
        failing.mount("/dev/sdb1", place)


def test_the_script_serves_a_mounted_stick(bench: Bench, tmp_path: Path) -> None:
    """What the unit starts, as a plain process, on a stick that is mounted already."""
    put_bundle(bench, tmp_path / "stick" / "pumpdeck")
    command = [sys.executable, "-m", "pumpdeck_agent.main", "stick-arrived", "--root", str(bench.root)]
    done = subprocess.run(
        [*command, "--mounted", str(tmp_path / "stick")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "served"
    assert serve_mounted(tmp_path / "stick", plan(bench, tmp_path)).exit_code == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # The program must be there: systemd-analyze looks for it.
    text = unit_text(StickService(("/bin/true",), Path("/var/lib/pumpdeck-agent"), "root"))
    unit = tmp_path / UNIT_FILE.replace("@", "@sdb1")
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    wrong = [line for line in done.stderr.splitlines() if "pumpdeck-stick" in line]
    assert wrong == [] and done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("udevadm") is None, reason="udevadm is not installed here")
def test_udev_takes_the_rule(tmp_path: Path) -> None:
    rule = tmp_path / RULE_FILE
    rule.write_text(rule_text(), encoding="utf-8")
    done = subprocess.run(["udevadm", "verify", str(rule)], capture_output=True, text=True, timeout=60, check=False)
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this udevadm cannot verify rules")
    assert done.returncode == 0, done.stderr


def test_the_rule_names_sticks_and_the_unit() -> None:
    (rule,) = [line for line in rule_text().splitlines() if not line.startswith("#")]
    words = [word.strip() for word in rule.split(", ")]
    assert 'ENV{ID_BUS}=="usb"' in words and 'ENV{ID_FS_TYPE}=="vfat|exfat"' in words
    assert words[-1] == 'ENV{SYSTEMD_WANTS}+="pumpdeck-stick@%k.service"'


def test_the_files_are_written_whole_and_strange_words_are_refused(tmp_path: Path) -> None:
    written = write_units(RealFileSystem(), tmp_path, SERVICE)
    assert set(written) == {RULE_FILE, UNIT_FILE}
    text = (tmp_path / "etc/systemd/system" / UNIT_FILE).read_text(encoding="utf-8")
    assert "ExecStart=/opt/pumpdeck/pumpdeck-agent stick-arrived --root /var/lib/pumpdeck-agent --user pumpdeck" in text
    for word in ("/opt/my agent", "/opt/%n", "/opt/$HOME", 'a"b', ""):
        with pytest.raises(UsageError):
            unit_text(StickService((word,), Path("/var/lib/x"), "pumpdeck"))
