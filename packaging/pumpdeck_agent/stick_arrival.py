"""A stick was plugged in: mount it so that nothing on it can act, look whether it is ours, take it in, unmount it.

This process may be root, because mounting needs that; what reads a byte of the stick is a child that runs as the agent's user.
The first mount is read-only: somebody's holiday photographs are neither written to nor even marked as used. Only a stick with a
whole bundle is mounted for writing. `nodev,nosuid,noexec` stand in both; no file system but FAT and exFAT is tried.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pumpdeck_agent.own_command import MAIN, own_command
from pumpdeck_fleet.core.errors import NotFoundError, UnreachableError, UsageError
from pumpdeck_fleet.core.ids import is_name

MOUNT_ROOT = Path("/run/pumpdeck-stick")
FILE_SYSTEMS = "vfat,exfat"
_SAFE = "nodev,nosuid,noexec"
_INSTALL_S = 1800.0
_LOOK_S = 60.0
_MOUNT_S = 60.0


class Mounter(Protocol):
    """Three steps that need root. Raises: UnreachableError."""

    def mount(self, device: str, place: Path) -> None:
        """Read-only."""
        ...

    def make_writable(self, place: Path) -> None: ...

    def unmount(self, place: Path) -> None: ...


Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[bytes]"]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, timeout=_MOUNT_S, check=False)


@dataclass(frozen=True, slots=True)
class SystemMounter:
    """mount(8), with the file's owner set to the agent's user: FAT knows no owners."""

    uid: int
    gid: int
    run: Run = _run

    def mount(self, device: str, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._do(["mount", "-t", FILE_SYSTEMS, "-o", self._options("ro"), "--", device, str(place)], device)

    def make_writable(self, place: Path) -> None:
        self._do(["mount", "-o", f"remount,{self._options('rw')}", "--", str(place)], str(place))

    def unmount(self, place: Path) -> None:
        self._do(["umount", "--", str(place)], str(place))

    def _options(self, way: str) -> str:
        return f"{way},{_SAFE},uid={self.uid},gid={self.gid},umask=077"

    def _do(self, command: Sequence[str], which: str) -> None:
        try:
            done = self.run(command)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnreachableError(f"{command[0]} did not end ({error})", which) from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-200:]
            raise UnreachableError(f"{command[0]} failed", which, found=said or f"status {done.returncode}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of a stick: `none` when it is not ours, else what `install-from` said; `exit_code` is that of the visit."""

    device: str
    outcome: str
    said: str
    exit_code: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ArrivalPlan:
    """How to serve a stick: where it is mounted, as whom it is read, which words call this agent."""

    root: Path
    mount_root: Path = MOUNT_ROOT
    uid: int = -1
    gid: int = -1
    agent: Sequence[str] = field(default_factory=lambda: own_command(MAIN))


def stick_arrived(device: str, plan: ArrivalPlan, mounter: Mounter) -> Arrival:
    """Serve the stick on this block device; a name such as `sdb1` is one too. It is unmounted whatever happens.

    Raises:
        UsageError: it is no name of a block device. UnreachableError: it cannot be mounted.
    """
    name = Path(device).name
    if not is_name(name.lower()) or device not in (name, f"/dev/{name}"):
        raise UsageError("is not the name of a block device", device, expected="such as /dev/sdb1")
    place = plan.mount_root / name
    mounter.mount(f"/dev/{name}", place)
    problem = ""
    try:
        bundle = _look(plan, place)
        if bundle is None:
            return Arrival(name, "none", "", 0)
        try:
            mounter.make_writable(place)
        except UnreachableError as error:
            # Its switch is on "lock": what it brings counts all the same, the answer has no place.
            problem = error.sentence()
        return _serve(plan, name, bundle, problem)
    finally:
        mounter.unmount(place)


def serve_mounted(folder: Path, plan: ArrivalPlan) -> Arrival:
    """Serve a stick that somebody else has mounted."""
    bundle = _look(plan, folder)
    return _serve(plan, folder.name, bundle, "") if bundle else Arrival(folder.name, "none", "", 0)


def _look(plan: ArrivalPlan, place: Path) -> Path | None:
    done = _as_user(plan, [*plan.agent, "find-bundle", str(place)], _LOOK_S)
    if done.returncode == NotFoundError.exit_code:
        return None
    if done.returncode:
        raise UnreachableError("the stick cannot be read", str(place), found=_last_line(done.stderr))
    found = place / done.stdout.decode("utf-8").strip()
    if found != place and found.parent != place:
        raise UnreachableError("the stick cannot be read", str(place), found="a strange answer")
    return found


def _serve(plan: ArrivalPlan, name: str, bundle: Path, problem: str) -> Arrival:
    done = _as_user(plan, [*plan.agent, "install-from", "--root", str(plan.root), str(bundle)], _INSTALL_S)
    said = done.stdout.decode("utf-8", "replace").strip()
    outcome = "served" if not done.returncode else "refused"
    return Arrival(name, outcome, said or _last_line(done.stderr), done.returncode, problem)


def _as_user(plan: ArrivalPlan, command: Sequence[str], wait_s: float) -> subprocess.CompletedProcess[bytes]:
    try:
        if plan.uid >= 0:
            return subprocess.run(
                command, capture_output=True, timeout=wait_s, check=False, user=plan.uid, group=plan.gid, extra_groups=()
            )
        return subprocess.run(command, capture_output=True, timeout=wait_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnreachableError("the stick took too long", command[-1], expected=f"within {wait_s:g} s") from error


def _last_line(data: bytes) -> str:
    return (data.decode("utf-8", "replace").strip().splitlines() or [""])[-1][-300:]
