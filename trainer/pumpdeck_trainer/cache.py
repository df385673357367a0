"""Run cache: results of training steps under keys that name everything they were made from. Losing it costs time, nothing else.

Results of one run lie together in a pack, an artifact named by its digest; `index.json` names the packs, newest
first. An entry is found only under its exact key = hash(step, inputs, parameters, code, environment, seed), and
only in a pack that still has its digest.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Protocol

from pumpdeck_fleet.core.canonical import digest, encode, parse_json
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

PACK_MAX_BYTES = 512 * 1024 * 1024
INDEX_MAX_BYTES = 65_536
KEEP_PACKS = 12
_FORMAT = 1
_MAGIC = b"PDRC1"


def run_key(step: str, **parts: Any) -> str:
    """The key of a step's result: SHA-256 over the step's name and everything that decides it."""
    return digest(encode({"step": step, **parts}))


class RunCache(Protocol):
    """What the pipeline asks of a cache."""

    def get(self, key: str) -> bytes | None:
        """The result stored under exactly this key, or None."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep a result until `flush`."""
        ...

    def flush(self) -> None:
        """Make what was put durable."""
        ...


class NoCache:
    """Nothing is remembered: every step runs."""

    def get(self, key: str) -> bytes | None:  # noqa: ARG002 - the port's name
        return None

    def put(self, key: str, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass


class FolderCache:
    """A cache in `<artifacts>/runs/`. A damaged pack or index counts as absent: the step runs again."""

    def __init__(self, artifacts: Path, fs: FileSystem) -> None:
        self._folder = artifacts / "runs"
        self._fs = fs
        self._found: dict[str, bytes] | None = None
        self._new: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        if self._found is None:
            self._found = self._load()
        return self._new.get(key) or self._found.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._new[key] = data

    def flush(self) -> None:
        if not self._new:
            return
        pack = _pack(self._new)
        name = digest(pack)
        self._fs.mkdir(self._folder)
        replace_file(self._fs, self._folder / name, pack)
        names = [name, *(old for old in self._names() if old != name)]
        replace_file(self._fs, self._folder / "index.json", encode({"format": _FORMAT, "packs": names[:KEEP_PACKS]}))
        for old in names[KEEP_PACKS:]:
            self._fs.unlink(self._folder / old)
        self._found = {**(self._found or {}), **self._new}
        self._new = {}

    def _names(self) -> list[str]:
        try:
            raw = self._fs.read_bytes(self._folder / "index.json", INDEX_MAX_BYTES)
            index = parse_json(raw, "run cache index", max_bytes=INDEX_MAX_BYTES)
        except (FileNotFoundError, DamagedError):
            return []
        packs = index.get("packs") if isinstance(index, dict) and index.get("format") == _FORMAT else None
        return [name for name in packs if isinstance(name, str)] if isinstance(packs, list) else []

    def _load(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in reversed(self._names()):
            try:
                data = self._fs.read_bytes(self._folder / name, PACK_MAX_BYTES)
            except (FileNotFoundError, DamagedError):
                continue
            if digest(data) == name:
                found.update(_unpack(data))
        return found


def _pack(entries: dict[str, bytes]) -> bytes:
    """Magic, then key (32 bytes), length (4 bytes, little-endian) and data of each entry, by key."""
    parts = [_MAGIC]
    for key in sorted(entries):
        parts += [bytes.fromhex(key), struct.pack("<I", len(entries[key])), entries[key]]
    return b"".join(parts)


def _unpack(data: bytes) -> dict[str, bytes]:
    """The entries of a pack whose digest has been checked."""
    entries, offset = {}, len(_MAGIC)
    while offset + 36 <= len(data):
        (size,) = struct.unpack_from("<I", data, offset + 32)
        entries[data[offset : offset + 32].hex()] = data[offset + 36 : offset + 36 + size]
        offset += 36 + size
    return entries
