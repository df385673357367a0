"""Private keys that open encrypted returns, looked up like every other key (credentials.py) but in an ssh-agent: it only signs.

A key is an age identity: one line `AGE-SECRET-KEY-1..` in the keyring, a file that its passphrase opens (as `age -p` writes), or
a plain 0600 file where insecure storage is allowed. Keys opened stay open in this object; none is ever in the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pumpdeck_console.key_places import (
    INSECURE_WARNING,
    AskPassphrase,
    KeyPlaces,
    NotAllowedHereError,
    PlaceReport,
    Secret,
    SecretForm,
    SecretPlaces,
    Source,
    report_of,
)
from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_fleet.core.errors import TrustError, UnreachableError
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
_FORM = SecretForm(SECRET_MAX_BYTES, lambda data: data.startswith(AGE_MARK))


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
        self._secrets = SecretPlaces(places, fs, environ, _FORM, keyring)
        self._ask = ask_passphrase
        self._open: tuple[AgeIdentity, ...] | None = None

    def find(self) -> tuple[AgeIdentity, ...]:
        """Every key at hand of the first place that has one; empty when none has.

        Raises:
            TrustError: others can read a key file, or the passphrase is wrong.
            NotFoundError: the key file that was named is not there.
        """
        if self._open is not None:
            return self._open
        found: tuple[AgeIdentity, ...] = ()
        for look in self._looks(self._ask).values():
            try:
                found = look()
            except (UnreachableError, PassphraseNeededError, NotAllowedHereError):
                continue
            if found:
                break
        self._open = found
        return found

    def probe(self) -> tuple[PlaceReport, ...]:
        """What each place says, without asking for a passphrase."""
        return tuple(report_of(source, look, lambda _keys: "") for source, look in self._looks(None).items())

    def public(self) -> str:
        """The public half beside the key, without opening it; empty when there is none."""
        return self._secrets.public(RECIPIENT_KEY).split(" ")[0]

    def save(self, key: AgeIdentity, source: Source, passphrase: str = "") -> str:
        """Keep a new key; says why people should worry, or nothing.

        Raises:
            UsageError: no passphrase, insecure storage not allowed, or a place inside the workspace.
            TrustError: there is a recipient key already. UnreachableError: no real keyring.
        """
        self._secrets.check_file(source, passphrase)
        secret, is_protected = f"{key.secret}\n".encode("ascii"), source is Source.PROTECTED_FILE
        self._secrets.put(
            source, RECIPIENT_KEY, key.secret, lambda: encrypt_with_passphrase(secret, passphrase) if is_protected else secret
        )
        self._secrets.put_public(RECIPIENT_KEY, key.public)
        self._open = (key,)
        return READ_WARNING if source is Source.PLAIN_FILE else ""

    def _looks(self, ask: AskPassphrase | None) -> dict[Source, Callable[[], tuple[AgeIdentity, ...]]]:
        def kept(source: Source) -> Callable[[], tuple[AgeIdentity, ...]]:
            return lambda: _opened(self._secrets.look(source, RECIPIENT_KEY), ask)

        return {source: kept(source) for source in Source if source is not Source.SSH_AGENT}


def _opened(secret: Secret | None, ask: AskPassphrase | None) -> tuple[AgeIdentity, ...]:
    if secret is None:
        return ()
    data, where = secret.data, secret.where
    if not data.startswith(AGE_MARK):
        return parse_identities(data.decode("ascii", "replace"), where)
    # A keyring and a systemd credential stand for a person or a service: nobody is asked there.
    is_asked = secret.source in (Source.KEY_FILE, Source.PROTECTED_FILE)
    passphrase = ask(where) if ask and is_asked else None
    if passphrase is None:
        raise PassphraseNeededError("is protected by a passphrase", where)
    try:
        return parse_identities(decrypt_with_passphrase(data, passphrase, where).decode("ascii", "replace"), where)
    except WrongKeyError as error:
        raise TrustError("does not open with this passphrase", where) from error
