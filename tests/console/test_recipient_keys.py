"""Where a recipient key is found, in which order, and what is refused."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console.credentials import KeyPlaces, Source
from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_console.recipient_keys import RecipientKeys
from pumpdeck_fleet.core.errors import NotFoundError, TrustError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.age_box import generate_identity

KEY, OTHER = generate_identity(), generate_identity()
posix = pytest.mark.skipif(sys.platform == "win32", reason="file modes")


class MemoryBackend:
    """Stands for a desktop's keyring."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, name: str) -> str | None:
        return self.secrets.get((service, name))

    def set_password(self, service: str, name: str, secret: str) -> None:
        self.secrets[service, name] = secret


MemoryBackend.__module__ = "keyring.backends.SecretService"


def keys(
    folder: Path, *, backend: Any = None, environ: dict[str, str] | None = None, ask: Any = None, **more: Any
) -> RecipientKeys:
    def none_here() -> Any:
        raise UnreachableError("no real keyring here", "keyring")

    places = KeyPlaces(folder / "keys", "ws-1", workspace=folder / "workspace", **more)
    keyring = OsKeyring(5.0, (lambda: backend) if backend else none_here)
    return RecipientKeys(places, RealFileSystem(), environ or {}, ask, keyring)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert keys(tmp_path).find() == ()
    assert {place.state for place in keys(tmp_path).probe()} == {"absent", "unavailable"}


def test_a_keyring_keeps_it(tmp_path: Path) -> None:
    backend = MemoryBackend()
    assert keys(tmp_path, backend=backend).save(KEY, Source.KEYRING) == ""
    assert keys(tmp_path, backend=backend).find() == (KEY,)
    assert keys(tmp_path).public() == KEY.public
    assert not any(KEY.secret in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(TrustError, match="a key already"):
        keys(tmp_path, backend=backend).save(OTHER, Source.KEYRING)
    assert keys(tmp_path, backend=backend).find() == (KEY,)


@posix
def test_a_plain_file_is_0600_and_used_only_where_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        keys(tmp_path).save(KEY, Source.PLAIN_FILE)
    assert "without a passphrase" in keys(tmp_path, insecure_storage=True).save(KEY, Source.PLAIN_FILE)
    path = tmp_path / "keys" / "recipient.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys(tmp_path, insecure_storage=True).find() == (KEY,)
    assert keys(tmp_path).find() == ()
    path.chmod(0o644)
    with pytest.raises(TrustError, match="others can read"):
        keys(tmp_path, insecure_storage=True).find()


def test_a_protected_file_asks_for_its_passphrase(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="passphrase"):
        keys(tmp_path).save(KEY, Source.PROTECTED_FILE)
    keys(tmp_path).save(KEY, Source.PROTECTED_FILE, "correct horse")
    assert KEY.secret.encode() not in (tmp_path / "keys" / "recipient.key").read_bytes()
    asked: list[str] = []
    found = keys(tmp_path, ask=lambda what: asked.append(what) or "correct horse")
    assert found.find() == found.find() == (KEY,) and len(asked) == 1
    assert keys(tmp_path).find() == ()
    assert "found" in {place.state for place in keys(tmp_path).probe()}
    with pytest.raises(TrustError, match="does not open"):
        keys(tmp_path, ask=lambda _: "wrong").find()


def test_a_named_file_and_systemd_come_first(tmp_path: Path) -> None:
    backend = MemoryBackend()
    keys(tmp_path, backend=backend).save(KEY, Source.KEYRING)
    given = tmp_path / "given.key"
    given.write_text(f"# from the safe\n{OTHER.secret}\n", encoding="ascii")
    given.chmod(0o600)
    assert keys(tmp_path, backend=backend, key_files={"recipient": given}).find() == (OTHER,)
    (tmp_path / "pumpdeck.recipient").write_text(OTHER.secret, encoding="ascii")
    assert keys(tmp_path, backend=backend, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).find() == (OTHER,)
    with pytest.raises(NotFoundError, match="no such key file"):
        keys(tmp_path, key_files={"recipient": tmp_path / "gone"}).find()


def test_a_key_never_goes_into_the_workspace(tmp_path: Path) -> None:
    places = KeyPlaces(tmp_path / "workspace" / "keys", "ws-1", insecure_storage=True, workspace=tmp_path / "workspace")
    with pytest.raises(UsageError, match="workspace"):
        RecipientKeys(places, RealFileSystem(), {}).save(KEY, Source.PLAIN_FILE)
    assert not (tmp_path / "workspace").exists()
