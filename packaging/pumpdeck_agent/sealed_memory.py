"""What this device has encrypted so far: ciphertext differs every time, so a second visit could not tell what lies there.

`sealed.json` holds digests alone, and losing it costs the writing of a whole return, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_agent.config import Layout
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.sealed_return import SealedFile

MEMORY_FORMAT = 1
MEMORY_NAME = "sealed.json"
MEMORY_MAX_BYTES = 4 * 1024 * 1024
STICKS = 4
"""Of so many sticks, which take turns, it is known what lies on them."""

Known = Mapping[str, tuple[SealedFile, ...]]


@dataclass(frozen=True, slots=True)
class SealedMemory:
    """`files` by the digest of the item inside, the newest first; all of them for exactly these readers."""

    format: int
    readers: str
    files: Known


def known_files(fs: FileSystem, layout: Layout, readers: Mapping[str, str]) -> Known:
    """What was encrypted to exactly these readers; nothing when they changed, or the memory is lost."""
    try:
        data = fs.read_bytes(layout.root / MEMORY_NAME, MEMORY_MAX_BYTES)
        memory = canonical.decode(SealedMemory, data, MEMORY_NAME, max_bytes=MEMORY_MAX_BYTES)
    except (OSError, PumpdeckError):
        return {}
    return memory.files if (memory.format, memory.readers) == (MEMORY_FORMAT, _digest(readers)) else {}


def remember(fs: FileSystem, layout: Layout, readers: Mapping[str, str], known: Known, put: Mapping[str, SealedFile]) -> None:
    """Keep where the items of this return are now; what no return holds any more is forgotten."""
    files = {item: (file, *(old for old in known.get(item, ()) if old != file))[:STICKS] for item, file in put.items()}
    if files != known:
        replace_file(fs, layout.root / MEMORY_NAME, canonical.encode(SealedMemory(MEMORY_FORMAT, _digest(readers), files)))


def _digest(readers: Mapping[str, str]) -> str:
    return canonical.digest(canonical.encode(dict(sorted(readers.items()))))
