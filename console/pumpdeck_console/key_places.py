"""The places where private keys of any kind are kept, looked at in one order: key-file option, systemd credential, keyring, a
file that a passphrase protects, and a plain 0600 file only where insecure storage is allowed. What a secret means is for its
reader.

A secret is never an argument, never logged and never in the workspace.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, TrustError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.signing import PassphraseNeededError

INSECURE_WARNING = "the key is kept without a passphrase: who copies the file can sign"
_WINDOWS = sys.platform == "win32"
_Found = TypeVar("_Found")

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
class PlaceReport:
    """What one place says about one key: `found`, `absent`, `unavailable` or `refused`, and why."""

    source: Source
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """The bytes that one place holds, not opened yet."""

    source: Source
    where: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretForm:
    """One kind of secret: how long it may be, and how a file that a passphrase protects is told from a plain one."""

    max_bytes: int
    is_protected: Callable[[bytes], bool]


class SecretPlaces:
    """Reads and writes secrets of one form by name, place by place. An ssh-agent hands out none and is not asked here."""

    def __init__(
        self, places: KeyPlaces, fs: FileSystem, environ: Mapping[str, str], form: SecretForm, keyring: OsKeyring | None = None
    ) -> None:
        self.places = places
        self.fs = fs
        self._environ = environ
        self._form = form
        self._keyring = keyring or OsKeyring()

    def look(self, source: Source, name: str) -> Secret | None:
        """What that place holds under that name.

        Raises:
            NotFoundError: the key file that was named is not there. NotAllowedHereError: a plain file where none is allowed.
            TrustError: others can read the file. UnreachableError: there is no real keyring.
        """
        if source is Source.KEY_FILE:
            return self._from_option(name)
        if source is Source.SYSTEMD:
            return self._from_systemd(name)
        if source is Source.KEYRING:
            secret = self._keyring.get(self._keyring_name(name))
            where = f"keyring {self._keyring_name(name)}"
            return None if secret is None else Secret(source, where, secret.encode("ascii", "replace"))
        return self._from_folder(source, name)

    def put(self, source: Source, name: str, text: str, file_bytes: Callable[[], bytes]) -> str:
        """Keep a new secret: `text` in the keyring, or `file_bytes` in a new 0600 file; where it is now.

        Raises:
            UsageError: this program puts no keys there. TrustError: there is a key of that name.
            UnreachableError: no real keyring.
        """
        if source is Source.KEYRING:
            where = f"keyring {self._keyring_name(name)}"
            if self._keyring.get(self._keyring_name(name)) is not None:
                raise TrustError("there is a key already", where)
            self._keyring.put(self._keyring_name(name), text)
            return where
        if source not in (Source.PROTECTED_FILE, Source.PLAIN_FILE):
            raise UsageError("keys cannot be put there by this program", str(source))
        put_new_file(self.fs, self.private_path(name), file_bytes())
        return str(self.private_path(name))

    def check_file(self, source: Source, passphrase: str) -> None:
        """Raises: UsageError: no passphrase for a protected file, no plain files allowed, or a place inside the workspace."""
        if source is Source.PROTECTED_FILE and not passphrase:
            raise UsageError("needs a passphrase", "protected key file")
        if source is Source.PLAIN_FILE and not self.places.insecure_storage:
            raise UsageError("plain key files are not allowed here", "key", hint="add --insecure-storage to allow them")
        if source in (Source.PROTECTED_FILE, Source.PLAIN_FILE):
            check_outside(self.places.folder, self.places.workspace)

    def put_public(self, name: str, line: str) -> None:
        """The public half beside the key, whatever place holds the private one."""
        self.fs.mkdir(self.places.folder)
        replace_file(self.fs, self.public_path(name), f"{line} {name}\n".encode("ascii"))

    def public(self, name: str) -> str:
        """What stands in the public file, without its end; empty when there is none."""
        path = self.public_path(name)
        return self.fs.read_bytes(path, self._form.max_bytes).decode("ascii", "replace").strip() if self.fs.exists(path) else ""

    def private_path(self, name: str) -> Path:
        return self.places.folder / f"{name}.key"

    def public_path(self, name: str) -> Path:
        return self.places.folder / f"{name}.pub"

    def _keyring_name(self, name: str) -> str:
        return f"{self.places.owner}/{name}"

    def _from_option(self, name: str) -> Secret | None:
        path = self.places.key_files.get(name)
        if path is None:
            return None
        check_mode(path)
        try:
            return Secret(Source.KEY_FILE, str(path), self.fs.read_bytes(path, self._form.max_bytes))
        except FileNotFoundError as error:
            raise NotFoundError("no such key file", str(path)) from error

    def _from_systemd(self, name: str) -> Secret | None:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        path = Path(folder) / f"pumpdeck.{name}" if folder else None
        if path is None or not self.fs.exists(path):
            return None
        # systemd mounts this folder for one service only; its modes are systemd's business.
        return Secret(Source.SYSTEMD, str(path), self.fs.read_bytes(path, self._form.max_bytes))

    def _from_folder(self, source: Source, name: str) -> Secret | None:
        path = self.private_path(name)
        if not self.fs.exists(path):
            return None
        check_mode(path)
        data = self.fs.read_bytes(path, self._form.max_bytes)
        if self._form.is_protected(data) != (source is Source.PROTECTED_FILE):
            return None
        if source is Source.PLAIN_FILE and not self.places.insecure_storage:
            raise NotAllowedHereError(
                "is not protected by a passphrase", str(path), hint="add --insecure-storage to use it all the same"
            )
        return Secret(source, str(path), data)


def report_of(source: Source, look: Callable[[], _Found | None], where: Callable[[_Found], str]) -> PlaceReport:
    """What one place says, whatever it says; `look` asks for no passphrase."""
    try:
        found = look()
    except PassphraseNeededError as error:
        return PlaceReport(source, "found", error.what)
    except UnreachableError as error:
        return PlaceReport(source, "unavailable", error.what)
    except (PumpdeckError, OSError) as error:
        return PlaceReport(source, "refused", str(error))
    return PlaceReport(source, "found", where(found)) if found else PlaceReport(source, "absent")


def put_new_file(fs: FileSystem, path: Path, data: bytes) -> None:
    """Write a secret as a new 0600 file. Raises: TrustError: there is a file already; a key is never overwritten."""
    if fs.exists(path):
        raise TrustError("there is a key already", str(path), hint="move it away first")
    fs.mkdir(path.parent)
    replace_file(fs, path, data)


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
