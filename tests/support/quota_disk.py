"""A real disk with a quota: a write that would go beyond it fails with ENOSPC after half of its bytes, as real ones do."""

from __future__ import annotations

import errno
from pathlib import Path

from pumpdeck_fleet.core.ports import OpenFile
from support.devices import UnsyncedFileSystem


class QuotaFileSystem(UnsyncedFileSystem):
    """`quota_bytes`: what all files below `root` may take together; None: no limit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.quota_bytes: int | None = None
        self.refused = 0

    def used_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        handle = super().open_write(path, truncate=truncate)
        write = handle.write

        def bounded(data: bytes) -> int:
            if self.quota_bytes is not None and self.used_bytes() + len(data) > self.quota_bytes:
                room = max(0, self.quota_bytes - self.used_bytes())
                write(data[: min(room, len(data) // 2)])
                self.refused += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        handle.write = bounded  # type: ignore[method-assign]
        return handle
