"""Facts of a device, from what a kernel of each kind writes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_agent.facts import Computer, DeviceFacts, device_facts
from pumpdeck_fleet.core.files import RealFileSystem
from support.devices import Bench

ARM = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimddp\n\nprocessor\t: 1\nHardware\t: BCM2711\n",
    "proc/meminfo": "MemTotal:        3884112 kB\nMemFree: 1 kB\n",
    "proc/sys/kernel/osrelease": "6.1.0-rpi7\n",
    "etc/os-release": 'NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/kernel/security/lsm": "lockdown,capability,apparmor",
    "sys/class/tpm/tpm0/tpm_version_major": "2\n",
    "run/.containerenv": "",
}


def facts(system: Path, programs: tuple[str, ...] = ()) -> DeviceFacts:
    computer = Computer(
        "aarch64", "linux", "3.11.2", "1.18.0", ("CPUExecutionProvider",), True, lambda name: name if name in programs else None
    )
    return device_facts(RealFileSystem(), system, system, computer)


def test_an_arm_device(tmp_path: Path) -> None:
    for name, text in ARM.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = facts(tmp_path, ("podman", "runc"))
    assert (found.cores, found.memory_mb, found.processor) == (2, 3793, "BCM2711")
    assert found.simd == ("asimd", "asimddp")
    assert (found.tpm, found.security_modules) == ("2", ("lockdown", "capability", "apparmor"))
    assert (found.container_engines, found.container, found.selinux_enforcing) == (("podman", "runc"), True, None)
    assert (found.distribution, found.kernel) == ("Debian GNU/Linux 12 (bookworm)", "6.1.0-rpi7")


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert (found.cores, found.memory_mb, found.tpm, found.simd, found.container) == (0, 0, "", (), False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "tpm0").touch()
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1", encoding="ascii")
    found = facts(tmp_path)
    assert (found.tpm, found.selinux_enforcing) == ("unknown", True)


@pytest.mark.parametrize(
    ("uuids", "expected"),
    [
        ({"253:1/dm/uuid": "LVM-x", "253:1/slaves/dm-0/dm/uuid": "CRYPT-LUKS2-ab-root"}, True),
        ({"253:1/dm/uuid": "CRYPT-LUKS2-ab-root"}, True),
        ({"253:1/dm/uuid": "LVM-x", "253:1/slaves/sda2/size": "1"}, False),
        ({}, None),
    ],
)
def test_an_encrypted_disk_is_seen_through_the_volumes_on_it(tmp_path: Path, uuids: dict[str, str], expected: object) -> None:
    here = tmp_path / "var" / "agent"
    here.mkdir(parents=True)
    files = {f"sys/dev/block/{name}": text for name, text in uuids.items()}
    files["proc/self/mountinfo"] = f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 253:1 / {tmp_path}/var rw - ext4 /dev/dm-1 rw\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    computer = Computer("x86_64", "linux", "3.11", "1", (), True, lambda name: None)
    assert device_facts(RealFileSystem(), tmp_path, here, computer).disk_encrypted is expected


@pytest.mark.skipif(sys.platform != "linux", reason="asks a Linux kernel")
def test_the_command_says_what_this_computer_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    command = [sys.executable, "-m", "pumpdeck_agent.main", "facts", "--root", str(bench.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["architecture"] == platform.machine()
    assert said["cores"] == os.cpu_count()
    assert "CPUExecutionProvider" in said["execution_providers"]
    assert said["memory_mb"] > 100
