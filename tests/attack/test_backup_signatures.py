"""A backup that somebody signed is what was signed, or nothing of it is used."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import pytest

from pumpdeck_console.operations.backups import backup, restore, verify_backup
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_packaging.backup import BackupFile, BackupFolder, BackupList
from pumpdeck_packaging.backup_word import WORD_PATH, sign_backup
from pumpdeck_packaging.signing import generate_key
from support.courier_fleet import courier_fleet


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
