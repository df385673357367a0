"""What the agent needs of the computer it runs on, handed in as arguments: so one process can host many devices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.ports import FileSystem


class Locks(Protocol):
    """Locks between the processes that share a device's root folder."""

    def hold(self, path: Path, wait_s: float) -> AbstractContextManager[None]:
        """Hold the lock during the block.

        Raises:
            BusyError: somebody else held it all the time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Platform:
    """File system, clock, locks, and whether the time of day is proven."""

    fs: FileSystem
    clock: Clock
    locks: Locks
    is_clock_synced: Callable[[], bool]
