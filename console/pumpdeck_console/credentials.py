"""Where private keys live, looked up in one order, first hit wins: key-file option, systemd credential, ssh-agent, keyring,
passphrase-protected file, and a plain 0600 file only where insecure storage is allowed.

A secret is never an argument, never logged and never in the workspace. `probe` says where each key would be found (`doctor`).
"""

from __future__ import annotations

import enum
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_console.ssh_agent import AgentSigner, SshAgent
from pumpdeck_fleet.core.errors import (
    FormatError,
    NotFoundError,
    PumpdeckError,
    TrustError,
    UnreachableError,
    UsageError,
)
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.ports import FileSystem, Signer
from pumpdeck_packaging.signing import (
    PRIVATE_KEY_MAX_BYTES,
    Ed25519Signer,
    PassphraseNeededError,
    is_protected,
    key_id_of,
    load_key,
    openssh_line,
)

INSECURE_WARNING = "the key is kept without a passphrase: who copies the file can sign"
_TRIES = 3
_WINDOWS = sys.platform == "win32"

AskPassphrase = Callable[[str], str | None]
"""Called with what the passphrase is for; None when there is nobody to ask."""


class NotAllowedHereError(TrustError):
    """A key is there, but the settings do not allow to use it as it is kept."""


class Source(enum.StrEnum):
    """The places, in the order in which they are looked at."""

    KEY_FILE = "key file"
    SYSTEMD = "systemd credential"
    SSH_AGENT = "ssh-agent"
    KEYRING = "keyring"
    PROTECTED_FILE = "protected file"
    PLAIN_FILE = "plain file"


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """Where to look. `owner` keeps the keys of two workspaces apart in one keyring; `workspace` must never hold a key."""

    folder: Path
    owner: str
    key_files: Mapping[str, Path] = field(default_factory=dict)
    insecure_storage: bool = False
    workspace: Path | None = None


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that can sign, and where it was found. `warning` is empty or a sentence that every status repeats."""

    name: str
    source: Source
    where: str
    signer: Signer
    public_pem: str
    warning: str = ""

    @property
    def openssh_public(self) -> str:
        """The public half as an OpenSSH line: what a device's `authorized_keys` holds."""
        return openssh_line(self.public_pem)


@dataclass(frozen=True, slots=True)
class FoundLogin:
    """What SSH logs in with: the text of an OpenSSH private key, or the keys of the ssh-agent."""

    source: Source
    where: str
    key_text: str = field(default="", repr=False)
    use_agent: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What one place says about one key: `found`, `absent`, `unavailable` or `refused`, and why."""

    source: Source
    state: str
    detail: str = ""


class Credentials:
    """Finds and keeps private keys of one person on this computer. Keys opened with a passphrase stay open in this object."""

    def __init__(
        self,
        places: KeyPlaces,
        fs: FileSystem,
        environ: Mapping[str, str],
        ask_passphrase: AskPassphrase | None = None,
        keyring: OsKeyring | None = None,
    ) -> None:
        self._places = places
        self._fs = fs
        self._environ = environ
        self._ask = ask_passphrase
        self._keyring = keyring or OsKeyring()
        self._open: dict[str, FoundKey] = {}

    def find(self, name: str, wanted: Collection[str] = ()) -> FoundKey:
        """The first key of that name, in the order of `Source`. With `wanted`, one of these key ids.

        Raises:
            NotFoundError: no place has it; the hint says what each of them answered.
            TrustError: a given key file holds another key, others can read a key, or the passphrase is wrong.
        """
        check_name(name, "key name")
        found = self._open.get(name)
        if found is not None and (not wanted or found.signer.key_id in wanted):
            return found
        answers = []
        for source, look in self._looks().items():
            try:
                key = look(name, self._expected(name, wanted))
            except (UnreachableError, PassphraseNeededError, NotAllowedHereError) as error:
                answers.append(f"{source}: {error.what}")
                continue
            if key is None:
                continue
            if wanted and key.signer.key_id not in wanted:
                if source is Source.KEY_FILE:
                    raise TrustError(
                        "holds another key", key.where, expected=_short(wanted), found=key.signer.key_id[:12]
                    )
                answers.append(f"{source}: holds another key ({key.signer.key_id[:12]})")
                continue
            self._open[name] = key
            return key
        tried = "; ".join(answers) or "no place has it"
        raise NotFoundError("no private key", name, expected=_short(wanted), found=tried, hint=self._hint(name))

    def other_names(self, role: str) -> tuple[str, ...]:
        """Names of further keys of a role that were made on this computer, `release-2` and so on, the newest first."""
        given = {name for name in self._places.key_files if name.startswith(f"{role}-")}
        here = self._fs.listdir(self._places.folder) if self._fs.exists(self._places.folder) else []
        kept = {name.removesuffix(".pub") for name in here if re.fullmatch(rf"{re.escape(role)}-[0-9]{{1,3}}\.pub", name)}
        return tuple(sorted(given | kept, key=lambda name: (len(name), name), reverse=True))

    def public_ids(self) -> dict[str, str]:
        """Names by key id of the keys whose public halves lie in the key folder; no private key is opened."""
        here = self._fs.listdir(self._places.folder) if self._fs.exists(self._places.folder) else []
        found = {}
        for name in sorted(here):
            if name.endswith(".pub"):
                for key_id in self._expected(name.removesuffix(".pub"), ()):
                    found[key_id] = name.removesuffix(".pub")
        return found

    def new_name(self, role: str) -> str:
        """The name that the next key of a role gets here: the role itself while there is none."""
        if not self._fs.exists(self._public_path(role)) and not self._fs.exists(self._private_path(role)):
            return role
        numbers = [int(name.rpartition("-")[2]) for name in self.other_names(role) if name.rpartition("-")[2].isdecimal()]
        return f"{role}-{max(numbers, default=1) + 1}"

    def login(self, name: str = "ssh") -> FoundLogin:
        """What SSH logs in to devices with.

        Raises:
            As `find`.
        """
        for given in (Source.KEY_FILE, Source.SYSTEMD):
            key = self._looks()[given](name, frozenset())
            if key is not None:
                return _login_of(key)
        if not self._fs.exists(self._public_path(name)) and (agent := SshAgent.from_environ(self._environ)):
            # No key of our own was ever made here: the person's agent is what they log in with everywhere else.
            try:
                if agent.identities():
                    return FoundLogin(Source.SSH_AGENT, "ssh-agent", use_agent=True)
            except UnreachableError:
                pass
        return _login_of(self.find(name))

    def probe(self, name: str) -> tuple[PlaceReport, ...]:
        """What each place says, without asking for a passphrase."""
        reports = []
        for source, look in self._looks(quiet=True).items():
            try:
                key = look(name, self._expected(name, ()))
            except PassphraseNeededError as error:
                reports.append(PlaceReport(source, "found", error.what))
            except UnreachableError as error:
                reports.append(PlaceReport(source, "unavailable", error.what))
            except (PumpdeckError, OSError) as error:
                reports.append(PlaceReport(source, "refused", str(error)))
            else:
                reports.append(PlaceReport(source, "found" if key else "absent", key.where if key else ""))
        return tuple(reports)

    def save(self, name: str, key: Ed25519Signer, source: Source, passphrase: str = "") -> FoundKey:
        """Keep a new key in the keyring, in a protected file or, where that is allowed, in a plain 0600 file.

        The public half goes beside it as `<name>.pub`.

        Raises:
            UsageError: no passphrase for a protected file, insecure storage not allowed, or a place inside the workspace.
            TrustError: there is a key of that name already.
            UnreachableError: no real keyring.
        """
        check_name(name, "key name")
        path = self._private_path(name)
        if source is Source.KEYRING:
            if self._keyring.get(self._keyring_name(name)) is not None:
                raise TrustError("there is a key already", f"keyring {self._keyring_name(name)}")
            self._keyring.put(self._keyring_name(name), key.private_pem().decode("ascii"))
            where = f"keyring {self._keyring_name(name)}"
        elif source in (Source.PROTECTED_FILE, Source.PLAIN_FILE):
            self._check_file_source(source, passphrase)
            write_key_file(self._fs, path, key, passphrase)
            where = str(path)
        else:
            raise UsageError("keys cannot be put there by this program", str(source))
        self._fs.mkdir(self._places.folder)
        replace_file(self._fs, self._public_path(name), f"{key.openssh_public} {name}\n".encode("ascii"))
        warning = INSECURE_WARNING if source is Source.PLAIN_FILE else ""
        self._open[name] = FoundKey(name, source, where, key, key.public_pem, warning)
        return self._open[name]

    def _check_file_source(self, source: Source, passphrase: str) -> None:
        if source is Source.PROTECTED_FILE and not passphrase:
            raise UsageError("needs a passphrase", "protected key file")
        if source is Source.PLAIN_FILE and not self._places.insecure_storage:
            raise UsageError("plain key files are not allowed here", "key", hint="add --insecure-storage to allow them")
        check_outside(self._places.folder, self._places.workspace)

    def _looks(self, *, quiet: bool = False) -> dict[Source, Callable[[str, Collection[str]], FoundKey | None]]:
        ask = None if quiet else self._ask
        return {
            Source.KEY_FILE: lambda name, _wanted: self._from_option(name, ask),
            Source.SYSTEMD: lambda name, _wanted: self._from_systemd(name),
            Source.SSH_AGENT: self._from_agent,
            Source.KEYRING: lambda name, _wanted: self._from_keyring(name),
            Source.PROTECTED_FILE: lambda name, _wanted: self._from_folder(name, True, ask),
            Source.PLAIN_FILE: lambda name, _wanted: self._from_folder(name, False, ask),
        }

    def _from_option(self, name: str, ask: AskPassphrase | None) -> FoundKey | None:
        path = self._places.key_files.get(name)
        if path is None:
            return None
        try:
            data = self._read(path)
        except FileNotFoundError as error:
            raise NotFoundError("no such key file", str(path)) from error
        key = _opened(data, str(path), ask)
        warning = "" if is_protected(data) else INSECURE_WARNING
        return FoundKey(name, Source.KEY_FILE, str(path), key, key.public_pem, warning)

    def _from_systemd(self, name: str) -> FoundKey | None:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        path = Path(folder) / f"pumpdeck.{name}" if folder else None
        if path is None or not self._fs.exists(path):
            return None
        # systemd mounts this folder for one service only; its modes are systemd's business.
        key = load_key(self._fs.read_bytes(path, PRIVATE_KEY_MAX_BYTES), what=str(path))
        return FoundKey(name, Source.SYSTEMD, str(path), key, key.public_pem)

    def _from_agent(self, name: str, wanted: Collection[str]) -> FoundKey | None:
        agent = SshAgent.from_environ(self._environ)
        if agent is None or not wanted:
            return None
        for identity in agent.identities():
            if identity.key_id in wanted:
                signer = AgentSigner(agent, identity)
                where = f"ssh-agent ({identity.comment})" if identity.comment else "ssh-agent"
                return FoundKey(name, Source.SSH_AGENT, where, signer, identity.public_pem)
        return None

    def _from_keyring(self, name: str) -> FoundKey | None:
        where = self._keyring_name(name)
        secret = self._keyring.get(where)
        if secret is None:
            return None
        key = load_key(secret.encode("ascii", "replace"), what=f"keyring {where}")
        return FoundKey(name, Source.KEYRING, f"keyring {where}", key, key.public_pem)

    def _from_folder(self, name: str, protected: bool, ask: AskPassphrase | None) -> FoundKey | None:
        path = self._private_path(name)
        if not self._fs.exists(path):
            return None
        data = self._read(path)
        if is_protected(data) != protected:
            return None
        if not protected and not self._places.insecure_storage:
            raise NotAllowedHereError(
                "is not protected by a passphrase", str(path), hint="add --insecure-storage to use it all the same"
            )
        key = _opened(data, str(path), ask)
        source = Source.PROTECTED_FILE if protected else Source.PLAIN_FILE
        return FoundKey(name, source, str(path), key, key.public_pem, "" if protected else INSECURE_WARNING)

    def _read(self, path: Path) -> bytes:
        check_mode(path)
        return self._fs.read_bytes(path, PRIVATE_KEY_MAX_BYTES)

    def _expected(self, name: str, wanted: Collection[str]) -> Collection[str]:
        """Key ids to look for in an agent: those asked for, else the key whose public half lies in the key folder."""
        path = self._public_path(name)
        if wanted or not self._fs.exists(path):
            return wanted
        try:
            return {key_id_of(self._fs.read_bytes(path, PRIVATE_KEY_MAX_BYTES).decode("ascii", "replace"))}
        except FormatError:
            return ()

    def _private_path(self, name: str) -> Path:
        return self._places.folder / f"{name}.key"

    def _public_path(self, name: str) -> Path:
        return self._places.folder / f"{name}.pub"

    def _keyring_name(self, name: str) -> str:
        return f"{self._places.owner}/{name}"

    def _hint(self, name: str) -> str:
        return f"give it with --key-file {name}=PATH, or make keys with: pumpdeck trust init"


def write_key_file(fs: FileSystem, path: Path, key: Ed25519Signer, passphrase: str = "") -> None:
    """Write a private key in OpenSSH format as a new 0600 file, protected when a passphrase is given.

    Raises:
        TrustError: there is a file already; a key is never overwritten.
    """
    if fs.exists(path):
        raise TrustError("there is a key already", str(path), hint="move it away first")
    fs.mkdir(path.parent)
    replace_file(fs, path, key.openssh_pem(passphrase.encode("utf-8") if passphrase else None))


def read_key_file(fs: FileSystem, path: Path, ask: AskPassphrase | None) -> Ed25519Signer:
    """A private key from a file, asking for its passphrase when it has one.

    Raises:
        NotFoundError: no such file. TrustError: others can read it, or the passphrase is wrong.
    """
    check_mode(path)
    try:
        data = fs.read_bytes(path, PRIVATE_KEY_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("no such key file", str(path)) from error
    return _opened(data, str(path), ask)


def check_mode(path: Path) -> None:
    """Refuse a key file that others can read or that belongs to someone else. On Windows access lists decide, not modes.

    Raises:
        TrustError: group or others may read it.
    """
    if _WINDOWS or not path.exists():
        return
    found = path.stat()
    if found.st_mode & 0o077:
        raise TrustError(
            "others can read this key", str(path), expected="mode 0600", found=f"{found.st_mode & 0o777:04o}"
        )
    if found.st_uid not in (0, os.getuid()):
        raise TrustError(
            "belongs to somebody else", str(path), expected=f"uid {os.getuid()}", found=f"uid {found.st_uid}"
        )


def check_outside(folder: Path, workspace: Path | None) -> None:
    """Refuse a key folder inside the workspace: workspaces are copied, backed up and kept in git.

    Raises:
        UsageError: it is inside.
    """
    if workspace is not None and folder.resolve().is_relative_to(workspace.resolve()):
        raise UsageError("keys must not lie in the workspace", str(folder), hint="name another folder")


def _opened(data: bytes, where: str, ask: AskPassphrase | None) -> Ed25519Signer:
    if not is_protected(data):
        return load_key(data, what=where)
    if ask is None:
        raise PassphraseNeededError("is protected by a passphrase", where)
    for left in reversed(range(_TRIES)):
        passphrase = ask(where)
        if passphrase is None:
            break
        try:
            return load_key(data, passphrase.encode("utf-8"), what=where)
        except PassphraseNeededError as error:
            if not left:
                raise TrustError("does not open with this passphrase", where, found=f"{_TRIES} tries") from error
    raise PassphraseNeededError("is protected by a passphrase and nobody was there to give it", where)


def _login_of(key: FoundKey) -> FoundLogin:
    if isinstance(key.signer, Ed25519Signer):
        return FoundLogin(key.source, key.where, key.signer.openssh_pem().decode("ascii"), warning=key.warning)
    return FoundLogin(key.source, key.where, use_agent=True)


def _short(key_ids: Collection[str]) -> str | None:
    return ", ".join(sorted(key_id[:12] for key_id in key_ids)) or None
