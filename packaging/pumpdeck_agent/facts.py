"""What this computer is: building, profiling and the choice of a payload go by these facts. Never guessed; unknown is empty.

Everything comes from the kernel's files under `system` (`/` on a device) and from the arguments: a test can hand in any computer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import FileSystem

FACTS_FORMAT = 1
_FILE_MAX_BYTES = 1024 * 1024
# Volumes on volumes on disks: more than any computer stacks.
_VOLUMES_MAX = 32
# What numeric libraries choose their code by.
_SIMD_X86 = ("sse4_2", "avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "fma")
_SIMD = (*_SIMD_X86, "neon", "asimd", "asimddp", "asimdhp", "sve")
_ENGINES = ("docker", "podman", "nerdctl", "runc", "bwrap")


@dataclass(frozen=True, slots=True)
class Computer:
    """What the running interpreter knows: architecture and system as `platform` says them, where programs are found."""

    architecture: str
    system: str
    python: str
    runtime: str
    providers: tuple[str, ...]
    is_clock_synced: bool
    find_program: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The answer of `pumpdeck-agent facts`. `tpm`: version of the first one, empty: none. `container`: it runs inside one.

    `disk_encrypted`: the root folder lies on an encrypted volume (dm-crypt); None where the kernel does not say.
    """

    format: int
    architecture: str
    system: str
    distribution: str
    kernel: str
    python: str
    processor: str
    cores: int
    simd: tuple[str, ...]
    memory_mb: int
    runtime: str
    execution_providers: tuple[str, ...]
    tpm: str
    security_modules: tuple[str, ...]
    selinux_enforcing: bool | None
    container_engines: tuple[str, ...]
    container: bool
    clock_synced: bool
    free_bytes: int
    disk_encrypted: bool | None = None


def device_facts(fs: FileSystem, system: Path, root: Path, computer: Computer) -> DeviceFacts:
    """All facts. `root`: the device's root folder, for the room beside it."""
    read = _Reader(fs, system)
    info = _fields(read.text("proc/cpuinfo"), ":")
    flags = set((info.get("flags") or info.get("Features") or "").split())
    enforcing = read.text("sys/fs/selinux/enforce").strip()
    return DeviceFacts(
        format=FACTS_FORMAT,
        architecture=computer.architecture,
        system=computer.system,
        distribution=_fields(read.text("etc/os-release"), "=").get("PRETTY_NAME", "").strip('"'),
        kernel=read.text("proc/sys/kernel/osrelease").strip(),
        python=computer.python,
        processor=info.get("model name") or info.get("Model") or info.get("Hardware") or "",
        cores=read.text("proc/cpuinfo").count("\nprocessor") + int(read.text("proc/cpuinfo").startswith("processor")),
        simd=tuple(name for name in _SIMD if name in flags),
        memory_mb=int((_fields(read.text("proc/meminfo"), ":").get("MemTotal") or "0 kB").split()[0]) // 1024,
        runtime=computer.runtime,
        execution_providers=computer.providers,
        tpm=_tpm(read),
        security_modules=tuple(name for name in read.text("sys/kernel/security/lsm").strip().split(",") if name),
        selinux_enforcing=enforcing == "1" if enforcing else None,
        container_engines=tuple(name for name in _ENGINES if computer.find_program(name) is not None),
        container=read.exists(".dockerenv") or read.exists("run/.containerenv"),
        clock_synced=computer.is_clock_synced,
        free_bytes=fs.free_bytes(root),
        disk_encrypted=_is_encrypted(read, root),
    )


class _Reader:
    """Small files of the kernel; one that is not there, or not for us, is empty."""

    def __init__(self, fs: FileSystem, system: Path) -> None:
        self._fs = fs
        self._system = system

    def text(self, path: str) -> str:
        try:
            return self._fs.read_bytes(self._system / path, _FILE_MAX_BYTES).decode("utf-8", "replace")
        except (OSError, PumpdeckError):
            return ""

    def exists(self, path: str) -> bool:
        return self._fs.exists(self._system / path)

    def names(self, path: str) -> list[str]:
        try:
            return self._fs.listdir(self._system / path)
        except OSError:
            return []


def _tpm(read: _Reader) -> str:
    version = read.text("sys/class/tpm/tpm0/tpm_version_major").strip()
    if version:
        return version
    return "unknown" if read.exists("dev/tpmrm0") or read.exists("dev/tpm0") else ""


def _is_encrypted(read: _Reader, root: Path) -> bool | None:
    """Whether the block device under the folder, or one that it is made of, is encrypted."""
    mounts: dict[str, str] = {}
    for line in read.text("proc/self/mountinfo").splitlines():
        words = line.split()
        if len(words) > 4:
            # The last mount at a place hides those before it.
            mounts[words[4]] = words[2]
    above = [str(one) for one in (root, *root.parents) if str(one) in mounts]
    if not above:
        return None
    waiting, is_known = [f"sys/dev/block/{mounts[above[0]]}"], False
    for _ in range(_VOLUMES_MAX):
        if not waiting:
            break
        place = waiting.pop()
        is_known = is_known or read.exists(place)
        if read.text(f"{place}/dm/uuid").startswith("CRYPT-"):
            return True
        waiting += [f"{place}/slaves/{name}" for name in read.names(f"{place}/slaves")]
    return False if is_known else None


def _fields(text: str, mark: str) -> dict[str, str]:
    """`name <mark> value` lines; the first of a name counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(mark)
        if separator:
            found.setdefault(name.strip(), value.strip())
    return found
