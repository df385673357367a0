"""Calls that only POSIX systems have: file locks between processes, limits on a child, the kernel's word on its clock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from pumpdeck_fleet.core.errors import BusyError, NotFoundError

_STEP_S = 0.02
_TIME_ERROR = 5


class FileLocks:
    """Locks between processes and threads; the kernel lets go of one when its holder dies."""

    @contextlib.contextmanager
    def hold(self, path: Path, wait_s: float) -> Iterator[None]:
        """Hold the lock at `path` during the block.

        Raises:
            BusyError: somebody else held it all the time.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise BusyError("is held by another process", str(path), hint="try again") from error
                    time.sleep(_STEP_S)
            yield
        finally:
            os.close(fd)


def become(command: list[str]) -> NoReturn:
    """This process goes on as that program, under the same process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def is_clock_synced() -> bool:
    """True only when the kernel says that its clock is disciplined by a time source."""
    import ctypes

    buffer = ctypes.create_string_buffer(512)  # struct timex, zeroed: ask, change nothing
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        status = libc.adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    return bool(0 <= status < _TIME_ERROR)


def limit_this_process(memory_bytes: int, cpu_s: int) -> None:
    """From here on this process may take so much more address space, and so much processor time; then the kernel ends it."""
    used = _address_space_bytes()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_in_fork(work: Callable[[], bytes], wall_s: float, max_bytes: int) -> tuple[bytes, int | None]:
    """What `work` gives, run in a fork of this process, and how it ended: 0, minus a signal, a status; None: out of time."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        status = 1
        try:
            data = work()[:max_bytes]
            while data:
                data = data[os.write(sink, data) :]
            status = 0
        finally:
            # Never back into the parent's code: its buffers and exit handlers are not this process's.
            os._exit(status)
    os.close(sink)
    data, in_time = _read_until(source, time.monotonic() + wall_s, max_bytes)
    os.close(source)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, wait_status = os.waitpid(child, 0)
    return data, os.waitstatus_to_exitcode(wait_status) if in_time else None


def _read_until(source: int, deadline: float, max_bytes: int) -> tuple[bytes, bool]:
    data = b""
    while True:
        ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return data, False
        piece = os.read(source, max_bytes)
        if not piece:
            return data, True
        data += piece


def resident_mb() -> float:
    """The most memory this process has had resident since it began its program, in MB."""
    return _status_kb("VmHWM") / 1024


def _address_space_bytes() -> int:
    return _status_kb("VmSize") * 1024


def _status_kb(field: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as stream:  # noqa: PTH123 - not a file of ours
            for line in stream:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if field == "VmHWM" else 0


def user_ids(user: str) -> tuple[int, int]:
    """User and group number of a user.

    Raises:
        NotFoundError: there is no such user.
    """
    try:
        found = pwd.getpwnam(user)
    except KeyError as error:
        raise NotFoundError("no such user", user, hint="name the user that the agent runs as") from error
    return found.pw_uid, found.pw_gid
