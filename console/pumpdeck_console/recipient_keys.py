"""Private keys that open encrypted returns, looked up like every other key (credentials.py) but in an ssh-agent: it only signs.

A key is an age identity: one line `AGE-SECRET-KEY-1..` in the keyring, a file that its passphrase opens (as `age -p` writes), or
a plain 0600 file where insecure storage is allowed. Keys opened stay open in this object; none is ever in the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pumpdeck_console.credentials import (
    INSECURE_WARNING,
    AskPassphrase,
    KeyPlaces,
    NotAllowedHereError,
    PlaceReport,
    Source,
    check_mode,
    check_outside,
)
from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, TrustError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.age_box import (
    AGE_MARK,
    SECRET_MAX_BYTES,
    AgeIdentity,
    WrongKeyError,
    decrypt_with_passphrase,
    encrypt_with_passphrase,
    parse_identities,
)
from pumpdeck_packaging.signing import PassphraseNeededError

RECIPIENT_KEY = "recipient"
READ_WARNING = INSECURE_WARNING.replace("sign", "read returns")

_Look = Callable[[AskPassphrase | None], tuple[AgeIdentity, ...]]


class RecipientKeys:
    """Finds and keeps the recipient key of one workspace on this computer."""

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
        self._open: tuple[AgeIdentity, ...] | None = None
        self._path = places.folder / f"{RECIPIENT_KEY}.key"
        self._name = f"{places.owner}/{RECIPIENT_KEY}"

    def find(self) -> tuple[AgeIdentity, ...]:
        """Every key at hand of the first place that has one; empty when none has.

        Raises:
            TrustError: others can read a key file, or the passphrase is wrong.
            NotFoundError: the key file that was named is not there.
        """
        if self._open is not None:
            return self._open
        found: tuple[AgeIdentity, ...] = ()
        for look in self._looks().values():
            try:
                found = look(self._ask)
            except (UnreachableError, PassphraseNeededError, NotAllowedHereError):
                continue
            if found:
                break
        self._open = found
        return found

    def probe(self) -> tuple[PlaceReport, ...]:
        """What each place says, without asking for a passphrase."""
        reports = []
        for source, look in self._looks().items():
            try:
                found = look(None)
            except PassphraseNeededError as error:
                reports.append(PlaceReport(source, "found", error.what))
            except UnreachableError as error:
                reports.append(PlaceReport(source, "unavailable", error.what))
            except (PumpdeckError, OSError) as error:
                reports.append(PlaceReport(source, "refused", str(error)))
            else:
                reports.append(PlaceReport(source, "found" if found else "absent"))
        return tuple(reports)

    def public(self) -> str:
        """The public half beside the key, without opening it; empty when there is none."""
        path = self._path.with_suffix(".pub")
        if not self._fs.exists(path):
            return ""
        return self._fs.read_bytes(path, SECRET_MAX_BYTES).decode("ascii", "replace").split(" ")[0].strip()

    def save(self, key: AgeIdentity, source: Source, passphrase: str = "") -> str:
        """Keep a new key; says why people should worry, or nothing.

        Raises:
            UsageError: no passphrase, insecure storage not allowed, or a place inside the workspace.
            TrustError: there is a recipient key already. UnreachableError: no real keyring.
        """
        secret = f"{key.secret}\n".encode("ascii")
        if source is Source.KEYRING:
            if self._keyring.get(self._name) is not None:
                raise TrustError("there is a key already", f"keyring {self._name}")
            self._keyring.put(self._name, key.secret)
        elif source in (Source.PROTECTED_FILE, Source.PLAIN_FILE):
            self._check_file(source, passphrase)
            protected = source is Source.PROTECTED_FILE
            self._fs.mkdir(self._places.folder)
            replace_file(self._fs, self._path, encrypt_with_passphrase(secret, passphrase) if protected else secret)
        else:
            raise UsageError("keys cannot be put there by this program", str(source))
        self._fs.mkdir(self._places.folder)
        replace_file(self._fs, self._path.with_suffix(".pub"), f"{key.public} {RECIPIENT_KEY}\n".encode("ascii"))
        self._open = (key,)
        return READ_WARNING if source is Source.PLAIN_FILE else ""

    def _check_file(self, source: Source, passphrase: str) -> None:
        if source is Source.PROTECTED_FILE and not passphrase:
            raise UsageError("needs a passphrase", "protected key file")
        if source is Source.PLAIN_FILE and not self._places.insecure_storage:
            raise UsageError("plain key files are not allowed here", "key", hint="add --insecure-storage to allow them")
        check_outside(self._places.folder, self._places.workspace)
        if self._fs.exists(self._path):
            raise TrustError("there is a key already", str(self._path), hint="move it away first")

    def _looks(self) -> dict[Source, _Look]:
        return {
            Source.KEY_FILE: self._from_option,
            Source.SYSTEMD: lambda _ask: self._from_systemd(),
            Source.KEYRING: lambda _ask: self._from_keyring(),
            Source.PROTECTED_FILE: lambda ask: self._from_folder(True, ask),
            Source.PLAIN_FILE: lambda ask: self._from_folder(False, ask),
        }

    def _from_option(self, ask: AskPassphrase | None) -> tuple[AgeIdentity, ...]:
        path = self._places.key_files.get(RECIPIENT_KEY)
        if path is None:
            return ()
        check_mode(path)
        try:
            data = self._fs.read_bytes(path, SECRET_MAX_BYTES)
        except FileNotFoundError as error:
            raise NotFoundError("no such key file", str(path)) from error
        return _opened(data, str(path), ask)

    def _from_systemd(self) -> tuple[AgeIdentity, ...]:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            return ()
        # systemd mounts this folder for one service only; its modes are systemd's business.
        path = Path(folder) / f"pumpdeck.{RECIPIENT_KEY}"
        return _opened(self._fs.read_bytes(path, SECRET_MAX_BYTES), str(path), None) if self._fs.exists(path) else ()

    def _from_keyring(self) -> tuple[AgeIdentity, ...]:
        secret = self._keyring.get(self._name)
        return parse_identities(secret, f"keyring {self._name}") if secret else ()

    def _from_folder(self, protected: bool, ask: AskPassphrase | None) -> tuple[AgeIdentity, ...]:
        if not self._fs.exists(self._path):
            return ()
        check_mode(self._path)
        data = self._fs.read_bytes(self._path, SECRET_MAX_BYTES)
        if data.startswith(AGE_MARK) != protected:
            return ()
        if not protected and not self._places.insecure_storage:
            raise NotAllowedHereError(
                "is not protected by a passphrase", str(self._path), hint="add --insecure-storage to use it all the same"
            )
        return _opened(data, str(self._path), ask)


def _opened(data: bytes, where: str, ask: AskPassphrase | None) -> tuple[AgeIdentity, ...]:
    if not data.startswith(AGE_MARK):
        return parse_identities(data.decode("ascii", "replace"), where)
    passphrase = ask(where) if ask else None
    if passphrase is None:
        raise PassphraseNeededError("is protected by a passphrase", where)
    try:
        return parse_identities(decrypt_with_passphrase(data, passphrase, where).decode("ascii", "replace"), where)
    except WrongKeyError as error:
        raise TrustError("does not open with this passphrase", where) from error
