"""Packages on their way in: chunks at fixed offsets in `incoming/<sha256>.part`, sealed to `incoming/<sha256>`.

What is there is known by hash, never by size: a cut may leave a file of the right length with holes in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.platform_port import Platform
from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.room import check_room
from pumpdeck_fleet.core.rpc import CHUNK_BYTES

BLOB_MAX_BYTES = 64 * 1024 * 1024
_HASH_BYTES = 32
_MAX_PARTS = 4


@dataclass(frozen=True, slots=True)
class Missing:
    """What a device still lacks of one blob: runs of chunks as (first, count)."""

    complete: bool
    runs: tuple[tuple[int, int], ...]


class Incoming:
    """The incoming folder of one device."""

    def __init__(
        self, platform: Platform, layout: Layout, limits: AgentLimits, is_installed: Callable[[str], bool]
    ) -> None:
        self._fs = platform.fs
        self._locks = platform.locks
        self._layout = layout
        self._limits = limits
        self._is_installed = is_installed

    def missing(self, digest: str, size: int, hashes: bytes) -> Missing:
        """Which chunks of the blob are not here yet, by their hashes.

        Raises:
            FormatError: hashes and size do not fit each other.
            TooLargeError: the blob is over the limit.
            RefusedError: the disk has no room for it.
        """
        check_digest(digest, "blob")
        _check_size(digest, size)
        count = -(-size // CHUNK_BYTES)
        if len(hashes) != count * _HASH_BYTES:
            raise FormatError("has the wrong number of chunk hashes", digest, expected=count, found=len(hashes) / _HASH_BYTES)
        if self._is_here(digest):
            return Missing(True, ())
        self._make_room(digest, size)
        part = self._read(self._part(digest))
        lacking = [
            i
            for i in range(count)
            if bytes.fromhex(digest_of(part[i * CHUNK_BYTES : min((i + 1) * CHUNK_BYTES, size)]))
            != hashes[i * _HASH_BYTES : (i + 1) * _HASH_BYTES]
        ]
        return Missing(False, _runs(lacking))

    def write_chunk(self, digest: str, index: int, data: bytes) -> None:
        """Put one chunk at its place; not synced before `seal`.

        Raises:
            FormatError: no such place, or the chunk has an impossible length.
        """
        check_digest(digest, "blob")
        if not 0 <= index < BLOB_MAX_BYTES // CHUNK_BYTES or not 0 < len(data) <= CHUNK_BYTES:
            raise FormatError("is not a chunk", digest, expected=f"1-{CHUNK_BYTES} bytes", found=f"{index}: {len(data)}")
        with self._alone():
            if self._is_here(digest):
                return
            handle = self._fs.open_write(self._part(digest), truncate=False)
            try:
                handle.seek(index * CHUNK_BYTES)
                handle.write(data)
            finally:
                handle.close()

    def seal(self, digest: str, size: int) -> None:
        """Check the whole blob, sync it and give it its final name. Repeating it is harmless.

        Raises:
            NotFoundError: nothing of it is here.
            DigestMismatchError: it is not what its name says; it was removed.
        """
        check_digest(digest, "blob")
        _check_size(digest, size)
        with self._alone():
            if not self._is_here(digest):
                self._seal(digest, size)

    def _seal(self, digest: str, size: int) -> None:
        path = self._part(digest)
        if not self._fs.exists(path):
            raise NotFoundError("nothing of this was sent", digest, hint="send its chunks first")
        data = self._read(path)
        if len(data) != size or digest_of(data) != digest:
            self._fs.unlink(path)
            raise DigestMismatchError("is not what its name says", digest, found=digest_of(data), hint="send it again")
        handle = self._fs.open_write(path, truncate=False)
        try:
            handle.fsync()
        finally:
            handle.close()
        self._fs.rename(path, self._layout.incoming / digest)
        self._fs.fsync_dir(self._layout.incoming)

    def read(self, digest: str) -> bytes:
        """The sealed blob.

        Raises:
            NotFoundError: it was never sealed here.
            DigestMismatchError: the disk damaged it since.
        """
        path = self._layout.incoming / check_digest(digest, "blob")
        try:
            data = self._fs.read_bytes(path, BLOB_MAX_BYTES)
        except FileNotFoundError as error:
            raise NotFoundError("the package is not on the device", digest, hint="push it first") from error
        if digest_of(data) != digest:
            self._fs.unlink(path)
            raise DigestMismatchError("was damaged on the device's disk", digest, hint="push it again")
        return data

    def has(self, digest: str) -> bool:
        """True when the sealed blob is here."""
        return self._fs.exists(self._layout.incoming / check_digest(digest, "blob"))

    def clear(self) -> None:
        """Forget every whole package: what was committed stands in the store. One that is still on its way in stays."""
        self.forget({name for name in self._fs.listdir(self._layout.incoming) if not name.endswith(".part")})

    def forget(self, digests: Collection[str]) -> None:
        """Remove these packages, whole or in part: they stand in the store, or failed for good."""
        for name in self._fs.listdir(self._layout.incoming):
            if name.removesuffix(".part") in digests:
                self._fs.unlink(self._layout.incoming / name)

    def _alone(self) -> AbstractContextManager[None]:
        # A console and a stick may bring the same package: one must not make anew what the other has just sealed.
        return self._locks.hold(self._layout.incoming.with_name("incoming.lock"), self._limits.lock_wait_s)

    def _part(self, digest: str) -> Path:
        return self._layout.incoming / f"{digest}.part"

    def _is_here(self, digest: str) -> bool:
        return self.has(digest) or self._is_installed(digest)

    def _read(self, path: Path) -> bytes:
        try:
            return self._fs.read_bytes(path, BLOB_MAX_BYTES)
        except FileNotFoundError:
            return b""
        except TooLargeError:
            self._fs.unlink(path)
            return b""

    def _make_room(self, digest: str, size: int) -> None:
        parts = [n for n in self._fs.listdir(self._layout.incoming) if n.endswith(".part") and n != f"{digest}.part"]
        for name in parts[: max(0, len(parts) - _MAX_PARTS + 1)]:
            self._fs.unlink(self._layout.incoming / name)
        # The package, its unpacked copy and the working space of both.
        wanted = 3 * size + self._limits.keep_free_bytes
        check_room(self._fs, self._layout.incoming, wanted, "the disk has no room for this", digest)


def _check_size(digest: str, size: int) -> None:
    if not 0 < size <= BLOB_MAX_BYTES:
        raise TooLargeError("is empty or too large", digest, expected=f"1-{BLOB_MAX_BYTES} bytes", found=f"{size} bytes")


def _runs(indexes: list[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return tuple(runs)
