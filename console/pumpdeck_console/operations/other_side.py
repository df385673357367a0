"""Another workspace as sync reads it: a folder somebody works in, a backup, or a backup in one file. It is never written to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.backup_signing import signature_here
from pumpdeck_console.operations.vouching import Circle
from pumpdeck_console.wiring import FLEET_FILE, STORE_FILE, Workspace
from pumpdeck_fleet.core.errors import NotFoundError, TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.room import check_room
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_fleet.store.copying import copy_store
from pumpdeck_packaging.backup import FILES_MAX, SPARE_BYTES, BackupFolder, check_total, unpack

PEOPLES_FILES = ("fleet.toml", "policies.toml", "makers/*.toml", "pipelines/*.toml")
"""What people write: a difference is theirs to settle."""
_FILE_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OtherSide:
    """What sync needs of the other workspace. `store` is a copy of its store at one moment; `root` holds the other folders.

    `artifacts_bytes` are the lengths of its artifacts by digest, `files` the files that people write, by path. `workspace` is
    set when people work in that very folder. `signature` says who signed it as a whole.
    """

    root: Path
    store: Store
    artifacts: ArtifactStore
    artifacts_bytes: Mapping[str, int]
    files: Mapping[str, bytes]
    store_bytes: int
    workspace: Path | None = None
    signature: str = "A workspace that people work in: what gives authority in it is proven row by row."

    @property
    def trust(self) -> Path:
        return self.root / "trust"


@contextmanager
def open_other(workspace: Workspace, path: Path) -> Iterator[OtherSide]:
    """The other workspace at `path`, as long as the block lasts.

    Raises:
        NotFoundError: neither a workspace nor a backup is there. DamagedError: the backup is cut or altered.
        ConflictError: a newer Pumpdeck made its store. TooLargeError: no workspace is that large.
        RefusedError: this computer has no room for a copy of it.
    """
    with tempfile.TemporaryDirectory(prefix=".sync-", dir=workspace.root) as name:
        place = Path(name)
        if (path / FLEET_FILE).is_file():
            yield from _open_folder(workspace, path.resolve(), place)
        elif path.is_dir():
            yield from _open_backup(workspace, path, place)
        elif path.is_file():
            unpack(path, place / "unpacked")
            yield from _open_backup(workspace, place / "unpacked", place)
        else:
            raise NotFoundError("neither a workspace nor a backup is there", str(path))


def peoples_files(root: Path) -> dict[str, bytes]:
    """The files that people write in a workspace, by path."""
    fs = RealFileSystem()
    paths = sorted(path for pattern in PEOPLES_FILES for path in root.glob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): fs.read_bytes(path, _FILE_MAX_BYTES) for path in paths}


def _open_folder(workspace: Workspace, root: Path, place: Path) -> Iterator[OtherSide]:
    if not (root / STORE_FILE).is_file():
        raise NotFoundError("is a workspace without a store", str(root))
    size = (root / STORE_FILE).stat().st_size
    check_total(size, str(root / STORE_FILE))
    check_room(workspace.fs, place, size + SPARE_BYTES, "has no room for a copy of the other store")
    copy_store(root / STORE_FILE, place / STORE_FILE)
    artifacts = root / "artifacts"
    sizes = _artifact_sizes(artifacts)
    with Store.open(place / STORE_FILE, workspace.clock) as store:
        yield OtherSide(root, store, ArtifactStore(artifacts, workspace.fs), sizes, peoples_files(root), size, root)


def _artifact_sizes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in folder.glob("sha256/*/*"):
        if len(path.name) == 64:
            sizes[path.name] = path.stat().st_size
            if len(sizes) > FILES_MAX:
                raise TooLargeError("holds too many artifacts", str(folder), expected=f"at most {FILES_MAX}")
    check_total(sum(sizes.values()), str(folder))
    return sizes


def _open_backup(workspace: Workspace, folder: Path, place: Path) -> Iterator[OtherSide]:
    backup = BackupFolder(folder)
    listed = backup.read()
    if STORE_FILE not in listed.files:
        raise NotFoundError("holds a backup without a store", str(folder), expected=STORE_FILE, hint="use another backup")
    backup.verify(listed, lambda _bytes: None)
    root = place / "root"
    wanted = [path for path in listed.files if not path.startswith("artifacts/")]
    backup.copy_out(listed, root, wanted)
    signed = signature_here(Circle(workspace, root / "trust"), backup, listed).sentence
    sizes = {one.digest: one.bytes for path, one in listed.files.items() if path.startswith("artifacts/")}
    with Store.open(root / STORE_FILE, workspace.clock) as store:
        artifacts, size = ArtifactStore(backup.objects, workspace.fs), listed.files[STORE_FILE].bytes
        yield OtherSide(root, store, artifacts, sizes, peoples_files(root), size, signature=signed)
