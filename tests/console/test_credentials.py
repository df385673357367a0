"""Where keys are found, in which order, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console.credentials import Credentials, KeyPlaces, Source, write_key_file
from pumpdeck_console.key_making import RootPlace, make_root_keys, make_working_keys, read_root_keys, root_paths
from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_console.ssh_agent import SshAgent
from pumpdeck_fleet.core.errors import NotFoundError, TrustError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, key_id_of, load_key, sign_dsse, verify_dsse

FS = RealFileSystem()
posix = pytest.mark.skipif(sys.platform == "win32", reason="file modes and Unix sockets")


class MemoryBackend:
    """Stands for a desktop's keyring."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, name: str) -> str | None:
        return self.secrets.get((service, name))

    def set_password(self, service: str, name: str, secret: str) -> None:
        self.secrets[service, name] = secret


MemoryBackend.__module__ = "keyring.backends.SecretService"


class PlainBackend(MemoryBackend):
    """Stands for a keyring that keeps secrets in a plain file."""


PlainBackend.__module__ = "keyrings.alt.file"


def keyring(backend: Any = None, wait_s: float = 5.0) -> OsKeyring:
    def none_here() -> Any:
        raise UnreachableError("no real keyring here", "keyring")

    return OsKeyring(wait_s, (lambda: backend) if backend else none_here)


def credentials(folder: Path, **more: Any) -> Credentials:
    environ = more.pop("environ", {})
    ask = more.pop("ask", None)
    ring = more.pop("ring", None) or keyring()
    return Credentials(KeyPlaces(folder, "ws-1", **more), FS, environ, ask, ring)


def key_file(path: Path, passphrase: str = "") -> Ed25519Signer:
    key = generate_key()
    write_key_file(FS, path, key, passphrase)
    return key


@pytest.fixture
def agent_environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real ssh-agent."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent on this computer")
    socket = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    for _ in range(500):
        if socket.exists():
            break
        threading.Event().wait(0.01)
    yield {"SSH_AUTH_SOCK": str(socket)}
    process.terminate()
    process.wait()


def add_to_agent(environ: dict[str, str], path: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(path)], env={**os.environ, **environ}, check=True)


def test_every_place_is_found_in_the_order_of_the_design(tmp_path: Path) -> None:
    backend = MemoryBackend()
    folder, credential = tmp_path / "keys", tmp_path / "systemd"
    credential.mkdir()
    plain = key_file(folder / "deploy.key")
    first = credentials(folder, insecure_storage=True).find("deploy")
    assert (first.source, first.signer.key_id) == (Source.PLAIN_FILE, plain.key_id) and first.warning
    (folder / "deploy.key").unlink()
    protected = key_file(folder / "deploy.key", "correct horse")
    second = credentials(folder, ask=lambda _what: "correct horse").find("deploy")
    assert (second.source, second.signer.key_id, second.warning) == (Source.PROTECTED_FILE, protected.key_id, "")
    ring = generate_key()
    backend.secrets["pumpdeck", "ws-1/deploy"] = ring.private_pem().decode()
    third = credentials(folder, ring=keyring(backend)).find("deploy")
    assert (third.source, third.signer.key_id) == (Source.KEYRING, ring.key_id)
    systemd = generate_key()
    (credential / "pumpdeck.deploy").write_bytes(systemd.private_pem())
    environ = {"CREDENTIALS_DIRECTORY": str(credential)}
    fourth = credentials(folder, ring=keyring(backend), environ=environ).find("deploy")
    assert (fourth.source, fourth.signer.key_id) == (Source.SYSTEMD, systemd.key_id)
    given = key_file(tmp_path / "given.key")
    option = {"deploy": tmp_path / "given.key"}
    fifth = credentials(folder, ring=keyring(backend), environ=environ, key_files=option).find("deploy")
    assert (fifth.source, fifth.signer.key_id) == (Source.KEY_FILE, given.key_id)


@posix
def test_a_real_ssh_agent_signs_what_our_verifier_believes(tmp_path: Path, agent_environ: dict[str, str]) -> None:
    key = key_file(tmp_path / "given.key")
    other = key_file(tmp_path / "other.key")
    for path in ("other.key", "given.key"):
        add_to_agent(agent_environ, tmp_path / path)
    backend = MemoryBackend()
    backend.secrets["pumpdeck", "ws-1/deploy"] = generate_key().private_pem().decode()
    found = credentials(tmp_path / "keys", environ=agent_environ, ring=keyring(backend)).find("deploy", {key.key_id})
    assert found.source is Source.SSH_AGENT and key_id_of(found.public_pem) == key.key_id != other.key_id
    envelope = sign_dsse(b"{}", "a", found.signer)
    assert envelope == sign_dsse(b"{}", "a", key)
    assert verify_dsse(envelope, "a", {key.key_id: found.public_pem}, 4096) == b"{}"


@posix
def test_an_agent_without_our_key_is_passed_over(tmp_path: Path, agent_environ: dict[str, str]) -> None:
    key_file(tmp_path / "other.key")
    add_to_agent(agent_environ, tmp_path / "other.key")
    mine = credentials(tmp_path / "keys", insecure_storage=True, environ=agent_environ)
    key = make_working_keys(mine, Source.PLAIN_FILE)["ssh"]
    again = credentials(tmp_path / "keys", insecure_storage=True, environ=agent_environ)
    assert again.find("deploy").source is Source.PLAIN_FILE
    assert load_key(again.login().key_text.encode()).key_id == key.key_id


@posix
def test_without_a_key_of_our_own_ssh_uses_the_agent(tmp_path: Path, agent_environ: dict[str, str]) -> None:
    key_file(tmp_path / "other.key")
    add_to_agent(agent_environ, tmp_path / "other.key")
    login = credentials(tmp_path / "keys", environ=agent_environ).login()
    assert login.use_agent and login.key_text == ""


@posix
def test_an_agent_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    agent = SshAgent.from_environ({"SSH_AUTH_SOCK": str(tmp_path / "nobody")})
    assert agent is not None
    with pytest.raises(UnreachableError):
        agent.identities()


def test_a_given_file_with_another_key_is_refused_and_nothing_else_is_tried(tmp_path: Path) -> None:
    key_file(tmp_path / "given.key")
    wanted = key_file(tmp_path / "keys" / "deploy.key").key_id
    mine = credentials(tmp_path / "keys", insecure_storage=True, key_files={"deploy": tmp_path / "given.key"})
    with pytest.raises(TrustError, match="holds another key"):
        mine.find("deploy", {wanted})


def test_a_plain_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key")
    with pytest.raises(NotFoundError, match="not protected by a passphrase"):
        credentials(tmp_path).find("deploy")
    with pytest.raises(UsageError, match="not allowed"):
        credentials(tmp_path).save("release", generate_key(), Source.PLAIN_FILE)
    assert not (tmp_path / "release.key").exists()


@posix
def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key")
    (tmp_path / "deploy.key").chmod(0o640)
    with pytest.raises(TrustError, match="others can read"):
        credentials(tmp_path, insecure_storage=True).find("deploy")


@posix
def test_new_key_files_are_0600_from_the_start(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key")
    assert (tmp_path / "deploy.key").stat().st_mode & 0o777 == 0o600


def test_a_wrong_passphrase_is_asked_for_three_times(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key", "right")
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return "wrong"

    with pytest.raises(TrustError, match="passphrase"):
        credentials(tmp_path, ask=ask).find("deploy")
    assert len(asked) == 3
    with pytest.raises(NotFoundError, match="passphrase"):
        credentials(tmp_path).find("deploy")


def test_an_opened_key_is_not_asked_for_again(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key", "right")
    answers = iter(["right"])
    mine = credentials(tmp_path, ask=lambda _what: next(answers))
    assert mine.find("deploy").signer.key_id == mine.find("deploy").signer.key_id


def test_a_keyring_that_hangs_is_given_up(tmp_path: Path) -> None:
    released = threading.Event()

    class Hanging(MemoryBackend):
        def get_password(self, service: str, name: str) -> str | None:
            released.wait(30)
            return None

    Hanging.__module__ = "keyring.backends.SecretService"
    with pytest.raises(NotFoundError, match="did not answer in time"):
        credentials(tmp_path, ring=keyring(Hanging(), wait_s=0.05)).find("deploy")
    released.set()


def test_a_keyring_that_writes_plain_files_is_not_a_keyring(tmp_path: Path) -> None:
    backend = PlainBackend()
    mine = credentials(tmp_path, ring=keyring(backend))
    with pytest.raises(UnreachableError, match="no real keyring"):
        mine.save("deploy", generate_key(), Source.KEYRING)
    assert backend.secrets == {}


def test_what_is_saved_in_the_keyring_is_found_again_and_never_overwritten(tmp_path: Path) -> None:
    ring = keyring(MemoryBackend())
    key = generate_key()
    credentials(tmp_path, ring=ring).save("deploy", key, Source.KEYRING)
    assert credentials(tmp_path, ring=ring).find("deploy").signer.key_id == key.key_id
    with pytest.raises(TrustError, match="already"):
        credentials(tmp_path, ring=ring).save("deploy", generate_key(), Source.KEYRING)
    assert credentials(tmp_path, ring=ring).find("deploy").signer.key_id == key.key_id
    assert key_id_of((tmp_path / "deploy.pub").read_text(encoding="ascii")) == key.key_id
    assert not (tmp_path / "deploy.key").exists()


def test_keys_are_never_put_into_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    mine = credentials(workspace / "keys", insecure_storage=True, workspace=workspace)
    with pytest.raises(UsageError, match="workspace"):
        mine.save("deploy", generate_key(), Source.PLAIN_FILE)
    with pytest.raises(UsageError, match="workspace"):
        make_root_keys(FS, RootPlace(workspace / "root", ("a", "b", "c"), workspace=workspace))
    assert not workspace.exists()


def test_doctor_sees_every_place_without_being_asked_for_a_passphrase(tmp_path: Path) -> None:
    key_file(tmp_path / "deploy.key", "right")
    reports = {one.source: one for one in credentials(tmp_path, ask=pytest.fail).probe("deploy")}
    assert list(reports) == list(Source)
    assert reports[Source.PROTECTED_FILE].state == "found"
    assert reports[Source.KEYRING].state == "unavailable"
    assert reports[Source.PLAIN_FILE].state == "absent"


def test_root_keys_need_three_passphrases_and_open_with_two(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make_root_keys(FS, RootPlace(tmp_path))
    made = make_root_keys(FS, RootPlace(tmp_path, ("one", "two", "three")))
    with pytest.raises(TrustError, match="already"):
        make_root_keys(FS, RootPlace(tmp_path, ("one", "two", "three")))
    passphrases = dict(zip(map(str, root_paths(tmp_path)), ("one", "two", "three"), strict=True))
    root_paths(tmp_path)[1].unlink()
    found = read_root_keys(FS, tmp_path, passphrases.get)
    assert [key.key_id for key in found] == [made[0].key_id, made[2].key_id]
    root_paths(tmp_path)[0].unlink()
    with pytest.raises(NotFoundError, match="too few"):
        read_root_keys(FS, tmp_path, passphrases.get)


def test_a_secret_never_shows_in_a_representation(tmp_path: Path) -> None:
    key = key_file(tmp_path / "ssh.key")
    login = credentials(tmp_path, insecure_storage=True).login()
    secret = key.openssh_pem().decode().splitlines()[1]
    found = credentials(tmp_path, insecure_storage=True).find("ssh")
    assert secret not in repr(login) + repr(found) + repr(key)
