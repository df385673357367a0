"""Where exported tables and pictures go: whole files, named by screen and time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem


@dataclass(frozen=True)
class Exports:
    """A folder for exports; it is made when the first file is written."""

    fs: FileSystem
    folder: Path

    def write(self, screen: str, kind: str, text: str, at_ms: int) -> Path:
        """Write ``text`` as ``<screen>-<time>.<kind>``, UTF-8 with plain line ends. Raises: OSError."""
        stamp = format_ms(at_ms // 1000 * 1000).replace(":", "").replace("-", "")
        path = self.folder / f"pumpdeck-{screen}-{stamp}.{kind}"
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.fs, path, text.encode("utf-8"))
        return path
