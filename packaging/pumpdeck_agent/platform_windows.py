"""The same names on Windows, for simulation only: real devices run Linux. What Windows cannot do says so by doing nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from pumpdeck_fleet.core.errors import BusyError, UsageError

_STEP_S = 0.02


class FileLocks:
    """A lock is a file that only its holder can make; Windows removes it when its handle closes, also when the holder dies."""

    @contextlib.contextmanager
    def hold(self, path: Path, wait_s: float) -> Iterator[None]:
        """Hold the lock at `path` during the block.

        Raises:
            BusyError: somebody else held it all the time.
        """
        deadline = time.monotonic() + wait_s
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_TEMPORARY", 0)
        while True:
            try:
                fd = os.open(path, flags, 0o600)
                break
            except (FileExistsError, PermissionError) as error:
                if time.monotonic() >= deadline:
                    raise BusyError("is held by another process", str(path), hint="try again") from error
                time.sleep(_STEP_S)
        try:
            yield
        finally:
            os.close(fd)


def become(command: list[str]) -> NoReturn:
    """End with a defect: no agent on Windows stands in slots, so there is nothing to become."""
    raise SystemExit(f"cannot become {command[:1]} on Windows")


def is_clock_synced() -> bool:
    """Unknown here, so no."""
    return False


def limit_this_process(memory_bytes: int, cpu_s: int) -> None:
    """Windows has no such limits for a process on itself; the parent's clock still ends a trial that hangs."""
    del memory_bytes, cpu_s


def run_in_fork(work: Callable[[], bytes], wall_s: float, max_bytes: int) -> tuple[bytes, int | None]:
    """Windows cannot fork: the work runs here and nothing bounds it."""
    del wall_s
    return work()[:max_bytes], 0


def resident_mb() -> float:
    """Not measured here."""
    return 0.0


def user_ids(user: str) -> tuple[int, int]:
    """Windows has no such numbers.

    Raises:
        UsageError: always.
    """
    raise UsageError("cannot change the user on this system", "--user", found=user)
