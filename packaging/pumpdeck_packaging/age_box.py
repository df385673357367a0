"""age with X25519 keys, through pyrage: what is encrypted to whom, and back. The one importer of pyrage.

pyrage is loaded when something is encrypted or decrypted and not before: the scoring process and plain sites never need it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, TooLargeError, TrustError

AGE_MARK = b"age-encryption.org/v1\n"
SECRET_MARK = "AGE-SECRET-KEY-1"
SECRET_MAX_BYTES = 16 * 1024
_HEADER_BYTES = 2048
_PER_RECIPIENT_BYTES = 128
_CHUNK_BYTES = 64 * 1024
_TAG_BYTES = 16
_NO_KEY = "No matching keys"


class WrongKeyError(TrustError):
    """Encrypted, but to none of the keys at hand."""


@dataclass(frozen=True, slots=True)
class AgeIdentity:
    """A private key that opens what was encrypted to `public` (`age1..`). `secret` is its one line; never log it."""

    public: str
    secret: str = field(repr=False)


def generate_identity() -> AgeIdentity:
    """A new X25519 key from the operating system's randomness."""
    made = _pyrage().x25519.Identity.generate()
    return AgeIdentity(str(made.to_public()), str(made))


def parse_identities(text: str, what: str) -> tuple[AgeIdentity, ...]:
    """The private keys of an age identity file; lines that start with `#` are passed over.

    Raises:
        FormatError: a line is no such key, or there is none.
    """
    lines = [line.strip() for line in text.splitlines()]
    found = tuple(_identity(line, what) for line in lines if line and not line.startswith("#"))
    if not found:
        raise FormatError("holds no age key", what, expected=f"{SECRET_MARK}..")
    return found


def check_recipient(text: str, what: str) -> str:
    """A public key as it stands, when it is one.

    Raises:
        FormatError: it is not an age X25519 public key.
    """
    age = _pyrage()
    try:
        if str(age.x25519.Recipient.from_str(text)) == text:
            return text
    except age.RecipientError:
        pass
    raise FormatError("is not an age public key", what, expected="age1.. of 62 characters", found=repr(text[:70]))


def encrypt(data: bytes, recipients: Sequence[str], what: str) -> bytes:
    """Bytes that each of the recipients can open, and nobody else; other bytes every time.

    Raises:
        FormatError: a recipient is not an age public key, or there is none.
    """
    if not recipients:
        raise FormatError("has nobody who could read it", what, expected="a recipient")
    age = _pyrage()
    keys = [age.x25519.Recipient.from_str(check_recipient(one, what)) for one in recipients]
    return bytes(age.encrypt(data, keys))


def decrypt(data: bytes, identities: Sequence[AgeIdentity], what: str, max_bytes: int) -> bytes:
    """What was encrypted to one of these keys, whole and unaltered; never more than `max_bytes`.

    Raises:
        WrongKeyError: to none of them.
        TooLargeError: more is inside.
        DamagedError: cut, altered or not age at all.
    """
    if len(data) > sealed_bytes_max(max_bytes):
        raise TooLargeError("is too large", what, expected=f"at most {max_bytes} bytes inside", found=len(data))
    if not data.startswith(AGE_MARK):
        raise FormatError("is not encrypted with age", what)
    age = _pyrage()
    out = _Bounded(max_bytes, what)
    try:
        keys = [age.x25519.Identity.from_str(one.secret) for one in identities]
        age.decrypt_io(io.BytesIO(data), out, keys)
    except age.DecryptError as error:
        if _NO_KEY in str(error):
            raise WrongKeyError("is encrypted to other keys", what) from error
        raise DamagedError(f"cannot be decrypted ({error})", what, hint="it was cut or altered: copy it again") from error
    except (OSError, ValueError) as error:
        raise DamagedError("cannot be decrypted", what, hint="it was cut or altered: copy it again") from error
    return out.whole()


def encrypt_with_passphrase(data: bytes, passphrase: str) -> bytes:
    """A key file that only the passphrase opens (scrypt, as `age -p` writes it)."""
    return bytes(_pyrage().passphrase.encrypt(data, passphrase))


def decrypt_with_passphrase(data: bytes, passphrase: str, what: str) -> bytes:
    """The inside of such a file.

    Raises:
        WrongKeyError: not this passphrase.
    """
    age = _pyrage()
    try:
        return bytes(age.passphrase.decrypt(data, passphrase))
    except age.DecryptError as error:
        raise WrongKeyError("does not open with this passphrase", what) from error


def sealed_bytes_max(plain_bytes: int, recipients: int = 16) -> int:
    """The most that so many bytes become when they are encrypted: header, and a tag for each 64 KiB."""
    return plain_bytes + _HEADER_BYTES + recipients * _PER_RECIPIENT_BYTES + (plain_bytes // _CHUNK_BYTES + 1) * _TAG_BYTES


class _Bounded:
    """A sink that refuses what is above its limit while it is written."""

    def __init__(self, max_bytes: int, what: str) -> None:
        self._parts: list[bytes] = []
        self._left = max_bytes
        self._what = what
        self._max_bytes = max_bytes

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError("holds too much", self._what, expected=f"at most {self._max_bytes} bytes")
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def whole(self) -> bytes:
        return b"".join(self._parts)


def _identity(line: str, what: str) -> AgeIdentity:
    age = _pyrage()
    try:
        found = age.x25519.Identity.from_str(line)
    except age.IdentityError as error:
        raise FormatError("is not an age private key", what, expected=f"{SECRET_MARK}..") from error
    return AgeIdentity(str(found.to_public()), line)


def _pyrage() -> Any:
    try:
        import pyrage  # deferred: neither the scoring process nor a plain site may need it
    except ImportError as error:
        hint = "install the wheel pyrage that comes with the agent"
        raise NotFoundError("the library that encrypts is not installed here", "pyrage", hint=hint) from error
    return pyrage
