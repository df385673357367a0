"""Where a demo lives: the workspace, and beside it the folder of what would stand elsewhere in a real fleet."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.wiring import FLEET_FILE
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.core.errors import ConflictError, FormatError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

MARK_NAME = "demo.json"
MARK_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How large the sample fleet is, and the seed of everything random in it."""

    sites: int = 12
    devices_per_site: int = 5
    pumps_per_device: int = 4
    seed: int = 1


@dataclass(frozen=True, slots=True)
class DemoMark:
    """What a demo folder says of itself. `is_made` is false while it is being made: such a one is begun anew.

    `is_ready` says that the console may open at once. `end_ms` is the time of the last row of the history. `processes` are
    the devices whose agent is a process of its own.
    """

    format: int
    workspace: str
    size: DemoSize
    end_ms: int
    processes: tuple[str, ...] = ()
    spooled: dict[str, int] | None = None
    is_made: bool = False
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class DemoHome:
    """The folders of one demo. Private keys and devices stand beside the workspace, never in it."""

    workspace: Path

    @property
    def beside(self) -> Path:
        """What would be elsewhere: people's keys, the devices, the files that sites hand over."""
        return self.workspace.with_name(self.workspace.name + "-demo")

    @property
    def keys(self) -> Path:
        return self.beside / "keys"

    @property
    def simulation(self) -> Path:
        return self.beside / "simulation"

    @property
    def history(self) -> Path:
        return self.beside / "history"

    @property
    def mark_path(self) -> Path:
        return self.beside / MARK_NAME

    def read_mark(self, fs: FileSystem) -> DemoMark | None:
        """What the folder says of itself; None where there is no demo.

        Raises:
            FormatError: it is damaged.
        """
        if not fs.exists(self.mark_path):
            return None
        data = fs.read_bytes(self.mark_path, MARK_MAX_BYTES)
        mark = canonical.decode(DemoMark, data, str(self.mark_path), max_bytes=MARK_MAX_BYTES)
        if mark.format != 1:
            raise FormatError("is of another format", str(self.mark_path), expected=1, found=mark.format)
        return mark

    def write_mark(self, fs: FileSystem, mark: DemoMark) -> None:
        """Say what this folder is."""
        fs.mkdir(self.beside)
        replace_file(fs, self.mark_path, canonical.encode(mark))

    def is_whole(self, mark: DemoMark | None, fs: FileSystem) -> bool:
        """True when the demo was made to the end and its workspace still stands."""
        return mark is not None and mark.is_made and fs.exists(self.workspace / FLEET_FILE)

    def make_room(self, fs: FileSystem) -> None:
        """Remove what is left of a demo that is not whole; leave everything else alone.

        Raises:
            ConflictError: the folder is a workspace of somebody else.
        """
        mark = self.read_mark(fs)
        if mark is None:
            if fs.exists(self.workspace / FLEET_FILE) or fs.exists(self.beside):
                raise ConflictError(
                    "is in use by something that is not a demo", str(self.workspace), hint="name another folder with -w"
                )
            return
        if self.is_whole(mark, fs):
            raise ConflictError("holds a finished demo", str(self.workspace), hint="remove it first")
        for folder in (self.workspace, self.beside):
            if folder.exists():
                shutil.rmtree(folder)


def last_hour_ms(now_ms: int) -> int:
    """The last full hour: where the history of a new demo ends, so that runs within an hour give the same bytes."""
    return now_ms - now_ms % HOUR_MS
