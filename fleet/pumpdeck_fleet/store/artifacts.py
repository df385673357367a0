"""Content-addressed files: ONNX graphs, packages, snapshots, run records, cards. A name is the SHA-256 of the bytes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError
from pumpdeck_fleet.core.files import place_file, replace_file
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.ports import FileSystem

ARTIFACT_MAX_BYTES = 1 << 30
_MANY = 64
_THREADS = 32


class ArtifactStore:
    """Files under `<root>/sha256/<first two digits>/<digest>`; written whole, never changed."""

    def __init__(self, root: Path, fs: FileSystem) -> None:
        self._root = root
        self._fs = fs

    def put(self, data: bytes) -> str:
        """The digest under which the bytes stand now, durably."""
        digest = canonical.digest(data)
        path = self.path(digest)
        if self._stands(path, data):
            return digest
        if not self._fs.exists(path.parent):
            self._fs.mkdir(path.parent)
            self._fs.fsync_dir(path.parent.parent)
        replace_file(self._fs, path, data)
        return digest

    def put_all(self, items: Iterable[bytes]) -> list[str]:
        """`put` for many, in their order: durable when it returns, not one by one.

        A model of 5,000 pumps has 10,000 small files. To sync each by itself and its folder after it takes minutes; many at once
        share the disk's syncs, and a folder is synced once.
        """
        named = [(canonical.digest(data), data) for data in items]
        paths = {self.path(digest): data for digest, data in named}
        new = {path: data for path, data in paths.items() if not self._stands(path, data)}
        folders = sorted({path.parent for path in new})
        for folder in folders:
            self._fs.mkdir(folder)
        if folders:
            self._fs.fsync_dir(folders[0].parent)
        pool = ThreadPoolExecutor(_THREADS if len(new) >= _MANY else 1)
        try:
            # Through a list: what a thread raises is raised here.
            list(pool.map(lambda one: place_file(self._fs, *one), new.items()))
            list(pool.map(self._fs.fsync_dir, folders))
        finally:
            pool.shutdown(cancel_futures=True)
        return [digest for digest, _ in named]

    def _stands(self, path: Path, data: bytes) -> bool:
        # Read back, not believed: putting an artifact again heals one that was altered.
        return self._fs.exists(path) and self._fs.size(path) == len(data) and self._fs.read_bytes(path, len(data)) == data

    def get(self, digest: str) -> bytes:
        """The bytes, proven to be those of the digest.

        Raises:
            NotFoundError: there are none.
            DamagedError: the file was altered.
        """
        data = self.get_unproven(digest)
        found = canonical.digest(data)
        if found != digest:
            raise DamagedError("an artifact was altered", str(self.path(digest)), expected=digest, found=found)
        return data

    def get_unproven(self, digest: str) -> bytes:
        """The bytes under that name, for whoever proves what he takes: hashing a large export twice costs a third of its time.

        Raises:
            NotFoundError: there are none.
        """
        try:
            return self._fs.read_bytes(self.path(digest), ARTIFACT_MAX_BYTES)
        except FileNotFoundError as error:
            raise NotFoundError("no such artifact", digest, hint="bring it from another workspace or build it again") from error

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest stand, if they are there.

        Raises:
            FormatError: not a digest.
        """
        check_digest(digest, "artifact")
        return self._root / "sha256" / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """True when a file of that name is there; `get` proves it."""
        return self._fs.exists(self.path(digest))
