"""A laptop that was left in a helicopter: what its workspace holds is said, and no key or passphrase is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.recipients import make_recipient_key
from pumpdeck_console.operations.workspace import doctor
from pumpdeck_console.wiring import KeyOptions, open_workspace
from pumpdeck_fleet.core.errors import UsageError
from support.courier_fleet import courier_fleet

MARKS = (b"PRIVATE KEY-----", b"AGE-SECRET-KEY-1", b"openssh-key-v1")
PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


def secrets_in(folder: Path, secrets: list[bytes]) -> list[str]:
    """Files under the folder with a private key or one of these secrets."""
    needles = [*MARKS, *secrets]
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.name for path in paths if any(one in path.read_bytes() for one in needles)]


def test_no_key_and_no_passphrase_is_in_the_workspace(tmp_path: Path) -> None:
    """After a whole round trip with every key made: database, trust, artifacts, returns, settings, locks."""
    yard = courier_fleet(tmp_path, is_plain=False, is_confidential=True)
    yard.start()
    export_bundle(yard.workspace, to=str(tmp_path / "stick"))
    yard.visit(yard.devices[0].id)
    assert intake_bundle(yard.workspace, folder=str(tmp_path / "stick")).problems == ()
    made = sorted(path.stem for path in (tmp_path / "keys").rglob("*.key"))
    assert {"deploy", "recipient", "release", "ssh", "targets"} <= set(made)
    raw = [path.read_bytes().strip() for path in (tmp_path / "keys").rglob("*.key")]
    assert secrets_in(tmp_path / "keys", []) != []
    assert secrets_in(tmp_path / "workspace", raw) == []
    assert secrets_in(tmp_path / "stick", raw) == []
    yard.workspace.close()


def test_a_passphrase_stays_in_nobodys_file(tmp_path: Path) -> None:
    """The recipient key behind a passphrase: neither is in the workspace, and the key file does not open without it."""
    yard = courier_fleet(tmp_path)
    yard.workspace.close()
    with open_workspace(tmp_path / "workspace", keys=KeyOptions()) as workspace:
        public, _ = make_recipient_key(workspace, Source.PROTECTED_FILE, PASSPHRASE)
        (one,) = workspace.recipient_keys.find()
        assert one.public == public
    secrets = [PASSPHRASE.encode(), one.secret.encode()]
    assert secrets_in(tmp_path / "workspace", secrets) == []
    assert not any(secret in path.read_bytes() for path in (tmp_path / "keys").rglob("recipient*") for secret in secrets)


def test_a_key_folder_in_the_workspace_is_refused(tmp_path: Path) -> None:
    """Somebody would like to have it all in one place: refused, and nothing is written."""
    yard = courier_fleet(tmp_path)
    settings = yard.workspace.root / "settings.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("mine", "x"), encoding="utf-8")
    places = yard.workspace.root / "keys"
    text = f'format = 1\n\n[keys]\nfolder = "{places.as_posix()}"\ninsecure_storage = true\n'
    settings.write_text(text, encoding="utf-8")
    yard.workspace.forget_settings()
    with pytest.raises(UsageError, match="must not lie in the workspace"):
        make_recipient_key(yard.workspace, Source.PLAIN_FILE)
    assert not places.exists()
    yard.workspace.close()


def test_doctor_says_how_the_disk_is_and_who_can_read_returns(tmp_path: Path) -> None:
    """In words, also when it cannot tell."""
    yard = courier_fleet(tmp_path, is_plain=False)
    found = {one.what: one for one in doctor(yard.workspace)}
    assert found["disk"].found.split(":")[0] in ("encrypted", "not encrypted", "unknown")
    assert found["disk"].verdict == ("ok" if found["disk"].found.startswith("encrypted") else "warn")
    assert found["recipients"].verdict == "ok" and "2 sites are encrypted" in found["recipients"].found
    (tmp_path / "keys" / "mine" / "recipient.pub").unlink()
    found = {one.what: one for one in doctor(yard.workspace)}
    assert "cannot read the returns" in found["recipients"].found
    yard.workspace.close()
