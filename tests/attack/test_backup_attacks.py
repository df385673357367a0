"""A backup or a proposal from strange hands: nothing outside is written, nothing unfolds, nothing waits for ever."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from pumpdeck_console.operations.backups import backup, restore, verify_backup
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.trust_changing import read_proposal
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import DamagedError, FormatError, PumpdeckError, TrustError
from pumpdeck_packaging.backup import BACKUP_NAME, BackupFile, BackupFolder, BackupList, unpack
from pumpdeck_packaging.backup_word import WORD_PATH, sign_backup
from pumpdeck_packaging.signing import generate_key
from support.ceremony import tree
from support.courier_fleet import courier_fleet
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


def rewritten(folder: BackupFolder, listed: BackupList, path: str, data: bytes | None) -> None:
    """The backup with one file changed, added or left out, and a list that says so: whole and canonical, as a forger makes it."""
    files = dict(listed.files)
    if data is None:
        del files[path]
    else:
        digest = hashlib.sha256(data).hexdigest()
        folder.path(digest).parent.mkdir(parents=True, exist_ok=True)
        folder.path(digest).write_bytes(data)
        files[path] = BackupFile(len(data), digest)
    folder.finish(dataclasses.replace(listed, files=files))


@pytest.mark.parametrize(
    "how", ["swapped store", "a file more", "a file less", "another backup's word", "strange key", "other heads"]
)
def test_a_signed_backup_is_what_was_signed(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapped store, truncated or grown manifest, the signature of another backup or of a strange key, other chain heads."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    fleet = courier_fleet(tmp_path / "fleet")
    first, second = tmp_path / "first", tmp_path / "backup"
    assert backup(fleet.workspace, to=str(first)).not_signed == ""
    backup(fleet.workspace, to=str(second))
    whole = verify_backup(second, clock=fleet.clock)
    assert whole.key_id == fleet.workspace.signing_key("deploy", "gannet").signer.key_id
    assert set(whole.roots) == {site.id for site in fleet.workspace.fleet.sites} and whole.person.startswith("p-")
    folder = BackupFolder(second)
    listed = folder.read()
    old = BackupFolder(first)
    if how == "swapped store":
        rewritten(folder, listed, "pumpdeck.db", old.path(old.read().files["pumpdeck.db"].digest).read_bytes())
    elif how == "a file more":
        rewritten(folder, listed, "agent/evil.pyz", b"evil")
    elif how == "a file less":
        rewritten(folder, listed, "policies.toml", None)
    elif how == "another backup's word":
        rewritten(folder, listed, WORD_PATH, old.path(old.read().files[WORD_PATH].digest).read_bytes())
    elif how == "strange key":
        bare = dataclasses.replace(listed, files={path: one for path, one in listed.files.items() if path != WORD_PATH})
        rewritten(folder, listed, WORD_PATH, sign_backup(bare, generate_key()))
    else:
        heads = {chain: dataclasses.replace(head, position=head.position - 1) for chain, head in listed.heads.items()}
        folder.finish(dataclasses.replace(listed, heads=heads))
    with pytest.raises(TrustError):
        verify_backup(second, clock=fleet.clock)
    with pytest.raises(TrustError):
        restore(second, tmp_path / "new", clock=fleet.clock)
    assert not (tmp_path / "new").exists()
    with restored(first, tmp_path / "other", fleet.clock) as other:
        before = other.store.audit.head()
        with pytest.raises(TrustError):
            sync(other, folder=str(second))
        assert other.store.audit.head() == before
    fleet.workspace.close()


def restored(folder: Path, root: Path, clock: FixedClock) -> Workspace:
    restore(folder, root, clock=clock)
    return open_workspace(root, clock=clock)


def test_a_stripped_signature_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripped: the word was taken out and the list made anew; then nobody signed it, and that is what people read."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    fleet = courier_fleet(tmp_path / "fleet")
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    folder = BackupFolder(tmp_path / "backup")
    rewritten(folder, folder.read(), WORD_PATH, None)
    found = verify_backup(tmp_path / "backup", clock=fleet.clock)
    assert (found.key_id, found.person) == ("", "") and "nobody signed it" in found.signature
    assert "nobody signed it" in restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock).signature
    fleet.workspace.close()
