"""Run cache: results of training steps under keys that name everything they were made from. Losing it costs time, nothing else.

Results of one run lie together in a pack, an artifact named by its digest; `index.json` names the packs, newest
first. While a run works, what it has found is made durable in parts, packs of some hundred entries, so that a killed run
loses little; `flush` at the end of the run, or of the next one, gathers them in one pack. An entry is found only under its
exact key = hash(step, inputs, parameters, code, environment, seed), and only in a pack that still has its digest.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pumpdeck_fleet.core.canonical import digest, encode, parse_json
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

PACK_MAX_BYTES = 512 * 1024 * 1024
INDEX_MAX_BYTES = 65_536
KEEP_PACKS = 12
KEEP_PARTS = 400
PART_ENTRIES = 200
PART_BYTES = 4 * 1024 * 1024
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
        """Keep a result; a killed run loses the last few."""
        ...

    def checkpoint(self) -> None:
        """Make what was put durable now, because it took long."""
        ...

    def flush(self) -> None:
        """The run is over: make what was put durable."""
        ...


class NoCache:
    """Nothing is remembered: every step runs."""

    def get(self, key: str) -> bytes | None:  # noqa: ARG002 - the port's name
        return None

    def put(self, key: str, data: bytes) -> None:
        pass

    def checkpoint(self) -> None:
        pass

    def flush(self) -> None:
        pass


class FolderCache:
    """A cache in `<artifacts>/runs/`. A damaged pack or index counts as absent: the step runs again."""

    def __init__(self, artifacts: Path, fs: FileSystem) -> None:
        self._folder = artifacts / "runs"
        self._fs = fs
        self._found: dict[str, bytes] | None = None
        self._run: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._new_bytes = 0
        self._parts: set[str] = set()

    def get(self, key: str) -> bytes | None:
        if self._found is None:
            self._found = self._load()
        return self._new.get(key) or self._run.get(key) or self._found.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._new[key] = data
        self._new_bytes += len(data)
        if len(self._new) >= PART_ENTRIES or self._new_bytes >= PART_BYTES:
            self.checkpoint()

    def checkpoint(self) -> None:
        if not self._new:
            return
        name = self._write(self._new)
        packs, parts = self._names()
        self._write_index(packs, [name, *parts])
        self._parts.add(name)
        self._run.update(self._new)
        self._new, self._new_bytes = {}, 0

    def flush(self) -> None:
        if self._found is None:
            self._found = self._load()
        gathered = {**self._run, **self._new}
        if not gathered:
            return
        name = self._write(gathered)
        packs, parts = self._names()
        # Parts that this run neither wrote nor read belong to one that still works.
        left = [part for part in parts if part not in self._parts]
        self._write_index([name, *(old for old in packs if old != name)], left)
        for part in self._parts - {name}:
            self._drop(part)
        self._found.update(gathered)
        self._run, self._new, self._new_bytes, self._parts = {}, {}, 0, set()

    def _write(self, entries: dict[str, bytes]) -> str:
        pack = _pack(entries)
        name = digest(pack)
        self._fs.mkdir(self._folder)
        replace_file(self._fs, self._folder / name, pack)
        return name

    def _write_index(self, packs: list[str], parts: list[str]) -> None:
        """The index first, then what it no longer names: a cut in between leaves a file too many, never a name too many."""
        told: dict[str, Any] = {"format": _FORMAT, "packs": packs[:KEEP_PACKS]}
        if parts:
            told["parts"] = parts[:KEEP_PARTS]
        replace_file(self._fs, self._folder / "index.json", encode(told))
        for old in {*packs[KEEP_PACKS:], *parts[KEEP_PARTS:]} - {*packs[:KEEP_PACKS], *parts[:KEEP_PARTS]}:
            self._drop(old)

    def _drop(self, name: str) -> None:
        # Another run may have gathered the same part, or Windows may hold it open: a file too many costs space only.
        with suppress(OSError):
            self._fs.unlink(self._folder / name)

    def _names(self) -> tuple[list[str], list[str]]:
        """Packs and parts, newest first."""
        try:
            raw = self._fs.read_bytes(self._folder / "index.json", INDEX_MAX_BYTES)
            index = parse_json(raw, "run cache index", max_bytes=INDEX_MAX_BYTES)
        except (FileNotFoundError, DamagedError):
            return [], []
        if not (isinstance(index, dict) and index.get("format") == _FORMAT):
            return [], []
        return _texts(index.get("packs")), _texts(index.get("parts"))

    def _load(self) -> dict[str, bytes]:
        packs, parts = self._names()
        found: dict[str, bytes] = {}
        for name in reversed(packs):
            found.update(self._entries(name))
        for name in reversed(parts):
            # Left by a run that was cut, and gathered with what this one finds.
            self._run.update(self._entries(name))
            self._parts.add(name)
        return found

    def _entries(self, name: str) -> dict[str, bytes]:
        try:
            data = self._fs.read_bytes(self._folder / name, PACK_MAX_BYTES)
        except (FileNotFoundError, DamagedError):
            return {}
        return _unpack(data) if digest(data) == name else {}


def _texts(names: Any) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


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
