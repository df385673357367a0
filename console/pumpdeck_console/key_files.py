"""Private keys that sign, as files in OpenSSH format: written once, opened with their passphrase."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_console.key_places import AskPassphrase, check_mode, put_new_file
from pumpdeck_fleet.core.errors import NotFoundError, TrustError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.signing import (
    PRIVATE_KEY_MAX_BYTES,
    Ed25519Signer,
    PassphraseNeededError,
    is_protected,
    load_key,
)

_TRIES = 3


def key_file_bytes(key: Ed25519Signer, passphrase: str = "") -> bytes:
    """A private key in OpenSSH format, protected when a passphrase is given."""
    return key.openssh_pem(passphrase.encode("utf-8") if passphrase else None)


def write_key_file(fs: FileSystem, path: Path, key: Ed25519Signer, passphrase: str = "") -> None:
    """Write a private key in OpenSSH format as a new 0600 file, protected when a passphrase is given.

    Raises:
        TrustError: there is a file already; a key is never overwritten.
    """
    put_new_file(fs, path, key_file_bytes(key, passphrase))


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
    return open_key(data, str(path), ask)


def open_key(data: bytes, where: str, ask: AskPassphrase | None) -> Ed25519Signer:
    """The key in these bytes; three passphrases are asked for at most.

    Raises:
        PassphraseNeededError: nobody was there to give it. TrustError: it does not open.
    """
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
