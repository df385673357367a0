"""A backup or a proposal from strange hands: nothing outside is written, nothing unfolds, nothing waits for ever."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from pumpdeck_console.operations.backups import backup, restore
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.trust_changing import read_proposal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import DamagedError, FormatError, PumpdeckError, RefusedError, TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.backup import BACKUP_NAME, SPARE_BYTES, BackupFolder, pack, unpack
from support.ceremony import tree
from support.small_fleet import NOW_MS, small_workspace

OBJECT = "objects/sha256/aa/" + "a" * 64


def letter(path: Path, *members: tarfile.TarInfo) -> Path:
    """A tar of these members, each with as many bytes as it says."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 4) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.size = kind, size if kind == tarfile.REGTYPE else 0
    found.linkname = "../../evil" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return found


def refused(source: Path, tmp_path: Path) -> None:
    """Turned down, and nothing but an empty folder or honest beginnings came of it."""
    target = tmp_path / "out" / "deep"
    with pytest.raises((FormatError, DamagedError)):
        unpack(source, target)
    assert all(path.startswith("deep/") for path in tree(tmp_path / "out")) if (tmp_path / "out").exists() else True
    assert sum(map(len, tree(target).values())) < 1000 if target.exists() else True


def test_a_sparse_member_does_not_unfold(tmp_path: Path) -> None:
    """Sparse: 10 kB by mail that would become 3 GB on the laptop's disk when somebody syncs with it."""
    bomb = member(OBJECT)
    bomb.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": OBJECT,
                        "GNU.sparse.size": str(3 * 10**9), "GNU.sparse.map": "0,4"}  # fmt: skip
    refused(letter(tmp_path / "bomb.tar", bomb), tmp_path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]
)
def test_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    """Symlink, hard link, device file, FIFO, folder."""
    refused(letter(tmp_path / "a.tar", member(OBJECT, kind)), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "objects/sha256/../../evil", "objects/sha256/aa/con",
     "objects/sha256/aa/NUL.txt", "OBJECTS/sha256/aa/x",
     "objects\\sha256\\aa\\x", "objects/sha256/AA/" + "A" * 64, "objects/sha256/bb/" + "a" * 64,
     "backup.json.part", "pumpdeck.db"],
)  # fmt: skip
def test_foreign_names(tmp_path: Path, name: str) -> None:
    """`..`, absolute, backslash, reserved names, case-fold twins, an object in the folder of another."""
    refused(letter(tmp_path / "a.tar", member(name)), tmp_path)


def test_a_name_twice(tmp_path: Path) -> None:
    """The list is read first and written over afterwards."""
    refused(letter(tmp_path / "a.tar", member(BACKUP_NAME), member(BACKUP_NAME)), tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    """FIFO: in the place of a backup, of its list, of an object, of a proposal; none is waited for."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = tmp_path / "backup"
    folder.mkdir()
    os.mkfifo(folder / BACKUP_NAME)
    for attempt in (lambda: unpack(pipe, tmp_path / "o"), BackupFolder(folder).read, lambda: read_proposal(pipe)):
        with pytest.raises(FormatError, match="not a plain file"):
            attempt()


@pytest.mark.parametrize("how", ["tampered", "truncated", "longer", "zero-length", "symlink", "gone"])
def test_a_bent_backup_is_neither_restored_nor_synced(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tampered, truncated, longer, zero-length, or a symlink in the place of an object: refused, and the workspace as before."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    workspace = small_workspace(tmp_path / "mine")
    other = small_workspace(tmp_path / "other")
    backup(other, to=str(tmp_path / "backup"))
    other.close()
    for victim in [path for path in (tmp_path / "backup" / "objects").rglob("*") if path.is_file()]:
        data = victim.read_bytes()
        bent = {
            "tampered": data[:-1] + bytes([data[-1] ^ 1]) if data else b"x",
            "truncated": data[:-1],
            "longer": data + b"\0",
            "zero-length": b"",
        }
        victim.unlink()
        if how == "symlink":
            victim.symlink_to("/dev/zero")
        elif how != "gone":
            victim.write_bytes(bent[how])
    before = (workspace.store.audit.head(), tree(tmp_path / "mine" / "artifacts"))
    with pytest.raises(PumpdeckError):
        sync(workspace, folder=str(tmp_path / "backup"))
    assert (workspace.store.audit.head(), tree(tmp_path / "mine" / "artifacts")) == before
    with pytest.raises(PumpdeckError):
        restore(tmp_path / "backup", tmp_path / "new", clock=FixedClock(NOW_MS))
    assert not (tmp_path / "new" / "pumpdeck.db").exists()
    workspace.close()


def listed_anew(folder: Path, change: dict[str, object]) -> None:
    """The backup's list with other files in it, as an attacker would write it: it is not signed."""
    path = folder / BACKUP_NAME
    listed = json.loads(path.read_bytes())
    path.write_bytes(canonical.encode(listed | {"files": listed["files"] | change}))


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    """A backup of another workspace, in a folder."""
    other = small_workspace(tmp_path / "other")
    backup(other, to=str(tmp_path / "backup"))
    other.close()
    return tmp_path / "backup"


def test_one_object_under_many_names_does_not_fill_the_disk(tmp_path: Path, honest: Path) -> None:
    """Copy bomb: one object of 2 GB that the list names 600 times would be 1.2 TB on the disk of whoever restores it."""
    one = {"bytes": 2_000_000_000, "digest": "a" * 64}
    listed_anew(honest, {f"artifacts/sha256/aa/{number:064x}": one for number in range(600)})
    with pytest.raises(TooLargeError, match="too many bytes"):
        restore(honest, tmp_path / "new", clock=FixedClock(NOW_MS))
    workspace = small_workspace(tmp_path / "mine")
    head = workspace.store.audit.head()
    with pytest.raises(TooLargeError, match="too many bytes"):
        sync(workspace, folder=str(honest))
    assert workspace.store.audit.head() == head
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.restoring").exists()


def test_a_negative_length_buys_no_room(tmp_path: Path, honest: Path) -> None:
    """Lengths below nothing would bring the total under every limit."""
    listed_anew(honest, {"artifacts/sha256/aa/" + "a" * 64: {"bytes": -(1 << 50), "digest": "a" * 64}})
    with pytest.raises(FormatError, match="impossible length"):
        restore(honest, tmp_path / "new", clock=FixedClock(NOW_MS))
    assert not (tmp_path / "new").exists()


def test_an_object_longer_than_its_list_says_is_not_read_to_its_end(tmp_path: Path, honest: Path) -> None:
    """Sparse: an object of 1 TB in the place of one of a few bytes; a megabyte of it is read."""
    victim = min((path for path in (honest / "objects").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as stream:
        stream.truncate(1 << 40)
    read: list[int] = []
    folder = BackupFolder(honest)
    with pytest.raises(DamagedError, match="damaged"):
        folder.verify(folder.read(), read.append)
    assert sum(read) < 64 * 1024 * 1024


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, honest: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Restore and sync look for room first: refused, and nothing of it lies there."""
    source = honest
    if form == "tar":
        source = tmp_path / "backup.tar"
        pack(honest, source)
    workspace = small_workspace(tmp_path / "mine")
    before, head = tree(tmp_path / "mine" / "artifacts"), workspace.store.audit.head()
    monkeypatch.setattr(RealFileSystem, "free_bytes", lambda _self, _path: 1000)
    with pytest.raises(RefusedError, match="no room"):
        restore(source, tmp_path / "new", clock=FixedClock(NOW_MS))
    with pytest.raises(RefusedError, match="no room"):
        sync(workspace, folder=str(source))
    assert (tree(tmp_path / "mine" / "artifacts"), workspace.store.audit.head()) == (before, head)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("new", ".restore"))]
    assert not list((tmp_path / "mine").glob(".sync-*"))


def test_a_full_disk_is_noticed_before_another_workspace_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side is a folder that somebody works in: its artifacts do not fit."""
    workspace, other = small_workspace(tmp_path / "mine"), small_workspace(tmp_path / "other")
    other.artifacts.put(b"x" * 100_000)
    other.close()
    head = workspace.store.audit.head()
    # Enough for the copy of the other store, not for the artifact.
    monkeypatch.setattr(RealFileSystem, "free_bytes", lambda _self, path: 1 << 40 if ".sync-" in str(path) else SPARE_BYTES)
    with pytest.raises(RefusedError, match="what the other side brings"):
        sync(workspace, folder=str(tmp_path / "other"))
    assert workspace.store.audit.head() == head and not tree(tmp_path / "mine" / "artifacts")


def test_two_names_that_this_disk_takes_for_one_lose_no_file(
    tmp_path: Path, honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case-fold twins: on Windows and macOS the second file would take the place of the first, unnoticed."""
    fleet_file = BackupFolder(honest).read().files["fleet.toml"]
    listed_anew(honest, {"Fleet.toml": {"bytes": fleet_file.bytes, "digest": fleet_file.digest}})
    real = Path.exists

    def is_one_name(path: Path) -> bool:
        return real(path) or (path.name == "fleet.toml" and real(path.with_name("Fleet.toml")))

    monkeypatch.setattr(Path, "exists", is_one_name)
    folder = BackupFolder(honest)
    with pytest.raises(DamagedError, match="one name on this disk"):
        folder.copy_out(folder.read(), tmp_path / "out", sorted(folder.read().files))
    assert not (tmp_path / "out" / "fleet.toml").is_file()
