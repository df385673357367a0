"""The simulator's sign of life: a small file that it replaces every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.ports import FileSystem

_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Heartbeat:
    """Who is alive, when, how far rows were fed, how many were scored, and which devices cannot score and why."""

    pid: int
    at_ms: int
    fed_ms: int
    scored_rows: int
    refusals: Mapping[str, str]


class HeartbeatFile:
    """The heartbeat of one simulator process, by name."""

    def __init__(self, fs: FileSystem, root: Path, name: str) -> None:
        self._fs = fs
        self.path = root / "heartbeats" / f"{check_name(name, 'simulator')}.json"

    def write(self, heartbeat: Heartbeat) -> None:
        """Replace the file."""
        self._fs.mkdir(self.path.parent)
        replace_file(self._fs, self.path, canonical.encode(heartbeat))

    def read(self) -> Heartbeat | None:
        """The last heartbeat; `None` when there is none that can be read."""
        try:
            data = self._fs.read_bytes(self.path, _MAX_BYTES)
            return canonical.decode(Heartbeat, data, str(self.path), max_bytes=_MAX_BYTES)
        except (FileNotFoundError, PumpdeckError):
            return None
