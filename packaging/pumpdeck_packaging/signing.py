"""Ed25519 keys and DSSE envelopes, through securesystemslib and cryptography: no cryptography of our own.

Never imported by the scoring process of the agent (docs/formats.md, DSSE payloads).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError, UsageError
from pumpdeck_fleet.core.ports import Signer

IN_TOTO_PAYLOAD_TYPE = "application/vnd.in-toto+json"
PRIVATE_KEY_MAX_BYTES = 16 * 1024
# Points of small order, sign bit left out (RFC 7748 section 6.1 on why, libsodium's list): under them a constant signature holds
# for many or all messages, so that whoever knows this can sign in the name of the person who brought the key.
_WEAK_POINTS = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
_OPENSSH_MARK = b"-----BEGIN OPENSSH PRIVATE KEY-----"


class PassphraseNeededError(TrustError):
    """The private key is protected and no passphrase, or a wrong one, was given."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that verifies: PEM text and its securesystemslib key id."""

    key_id: str
    pem: str


class Ed25519Signer:
    """A private key held in memory. It signs; its bytes leave only through `private_pem` and `openssh_pem`."""

    def __init__(self, signer: CryptoSigner, private_key: Ed25519PrivateKey) -> None:
        self._signer = signer
        self._private_key = private_key
        self.key_id: str = signer.public_key.keyid

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.key_id[:12]})"

    @property
    def public_pem(self) -> str:
        """The public half as PEM text (SubjectPublicKeyInfo)."""
        return _public_pem(self._private_key.public_key())

    @property
    def public(self) -> PublicKey:
        """The public half with its key id."""
        return PublicKey(self.key_id, self.public_pem)

    @property
    def openssh_public(self) -> str:
        """The public half as an OpenSSH line without comment: `ssh-ed25519 AAAA..`."""
        return openssh_line(self.public_pem)

    def sign(self, payload: bytes) -> bytes:
        """The 64-byte Ed25519 signature; the same payload always gives the same signature."""
        return bytes.fromhex(self._signer.sign(payload).signature)

    def private_pem(self, passphrase: bytes | None = None) -> bytes:
        """The private key as PKCS#8 PEM, encrypted when a passphrase is given. Write it only to a 0600 file or a keyring."""
        return self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase))

    def openssh_pem(self, passphrase: bytes | None = None) -> bytes:
        """The private key in OpenSSH format, encrypted (bcrypt) when a passphrase is given."""
        return self._private_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, _encryption(passphrase))


def generate_key() -> Ed25519Signer:
    """A new Ed25519 key from the operating system's randomness."""
    return _signer_of(Ed25519PrivateKey.generate())


def load_key(data: bytes, passphrase: bytes | None = None, *, what: str = "private key") -> Ed25519Signer:
    """A private key from PKCS#8 or OpenSSH PEM.

    Raises:
        PassphraseNeededError: it is protected and the passphrase is missing or wrong.
        FormatError: it is not an Ed25519 private key.
    """
    if len(data) > PRIVATE_KEY_MAX_BYTES:
        raise FormatError("is too large for a private key", what, found=f"{len(data)} bytes")
    load = load_ssh_private_key if data.lstrip().startswith(_OPENSSH_MARK) else load_pem_private_key
    if passphrase is None and is_protected(data):
        raise PassphraseNeededError("is protected by a passphrase", what)
    try:
        key = load(data, passphrase if is_protected(data) else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None and is_protected(data):
            raise PassphraseNeededError("does not open with this passphrase", what) from error
        raise FormatError("is not a private key that can be read", what, expected="PKCS#8 or OpenSSH PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError("is not an Ed25519 key", what, found=type(key).__name__)
    return _signer_of(key)


def is_protected(data: bytes) -> bool:
    """True when a private key in PEM form needs a passphrase."""
    if data.lstrip().startswith(_OPENSSH_MARK):
        body = b"".join(line for line in data.split(b"\n") if not line.startswith(b"-"))
        try:
            # openssh-key-v1: magic, then the cipher's name as the first string; "none" means not encrypted.
            start = base64.b64decode(body[:64])
        except binascii.Error:
            return False
        return start.startswith(b"openssh-key-v1\0") and start[19:23] != b"none"
    return b"ENCRYPTED" in data.split(b"\n", 1)[0]


def key_id_of(public_pem: str, what: str = "public key") -> str:
    """securesystemslib's key id of an Ed25519 public key.

    Raises:
        FormatError: it is not one.
    """
    return str(public_key_of(public_pem, what).keyid)


def public_key_of(public_pem: str, what: str = "public key") -> SSlibKey:
    """The verifying key from PEM text or an OpenSSH line (`ssh-ed25519 AAAA..`).

    Raises:
        FormatError: it is not an Ed25519 public key.
    """
    try:
        load = load_ssh_public_key if public_pem.startswith("ssh-") else load_pem_public_key
        key = load(public_pem.strip().encode("ascii"))
    except (ValueError, UnicodeEncodeError, UnsupportedAlgorithm) as error:
        raise FormatError("is not a public key that can be read", what, expected="PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise FormatError("is not an Ed25519 key", what, found=type(key).__name__)
    _check_strong(key, what)
    return SSlibKey.from_crypto(key)


def is_weak_key(raw: bytes) -> bool:
    """True for the 32 bytes of a public key that is no secret's: anybody can sign under it."""
    return len(raw) == 32 and raw[:-1] + bytes([raw[-1] & 0x7F]) in _WEAK_POINTS


def openssh_line(public_pem: str) -> str:
    """A public key as an OpenSSH line without comment: `ssh-ed25519 AAAA..`.

    Raises:
        FormatError: it is not an Ed25519 public key.
    """
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key_of(public_pem).keyval["public"]))
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def public_key_of_raw(raw: bytes, what: str = "public key") -> PublicKey:
    """The public key from its 32 raw bytes.

    Raises:
        FormatError: they are not a key.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise FormatError("is not an Ed25519 public key", what) from error
    _check_strong(key, what)
    return PublicKey(str(SSlibKey.from_crypto(key).keyid), _public_pem(key))


def pem_of_key(key: SSlibKey) -> str:
    """PEM text of a verifying key as it stands in TUF metadata (raw hex).

    Raises:
        FormatError: it is not an Ed25519 key.
    """
    try:
        found = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("is not an Ed25519 public key", str(key.keyid)[:12]) from error
    _check_strong(found, str(key.keyid)[:12])
    return _public_pem(found)


def sign_dsse(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """A DSSE envelope as canonical JSON; the same payload and key always give the same bytes."""
    envelope = Envelope(payload, payload_type, {})
    envelope.signatures[signer.key_id] = Signature(signer.key_id, signer.sign(envelope.pae()).hex())
    return canonical.encode(envelope.to_dict())


def add_dsse_signature(envelope: bytes, signer: Signer, max_bytes: int) -> bytes:
    """The envelope with one more signature; signatures stand in the order of their key ids, whoever signed first.

    Raises:
        TrustError: this key has signed it already.
        TooLargeError, FormatError: it is not an envelope.
    """
    parsed = _parse_envelope(canonical.parse_json(envelope, "signed envelope", max_bytes=max_bytes), "signed envelope")
    if signer.key_id in parsed.signatures:
        raise TrustError("has this key's signature already", "signed envelope", found=f"key {signer.key_id[:12]}")
    added = {**parsed.signatures, signer.key_id: Signature(signer.key_id, signer.sign(parsed.pae()).hex())}
    return canonical.encode(Envelope(parsed.payload, parsed.payload_type, dict(sorted(added.items()))).to_dict())


def signed_payload(envelope: bytes, payload_type: str, max_bytes: int) -> bytes:
    """What an envelope holds, with no signature looked at: for people to read, never to be believed.

    Raises:
        TooLargeError, FormatError: it is not an envelope of that type.
    """
    parsed = _parse_envelope(canonical.parse_json(envelope, "signed envelope", max_bytes=max_bytes), "signed envelope")
    if parsed.payload_type != payload_type:
        raise FormatError("holds another kind of payload", "signed envelope", expected=payload_type)
    return bytes(parsed.payload)


def verify_dsse(envelope: bytes, payload_type: str, public_keys: Mapping[str, str], max_bytes: int) -> bytes:
    """The payload of an envelope whose every signature is by one of `public_keys` (key id -> PEM) and holds.

    The envelope must be in the one form `sign_dsse` writes, so that equal meaning is equal bytes.

    Raises:
        TooLargeError, FormatError: it is not such an envelope.
        TrustError: wrong payload type, unknown key, or a signature that does not hold.
    """
    what = "signed envelope"
    plain = canonical.parse_json(envelope, what, max_bytes=max_bytes)
    parsed = _parse_envelope(plain, what)
    if canonical.encode(parsed.to_dict()) != envelope or list(parsed.signatures) != sorted(parsed.signatures):
        raise FormatError("is not in canonical form", what)
    if parsed.payload_type != payload_type:
        raise TrustError(
            "holds another kind of payload", what, expected=payload_type, found=parsed.payload_type[:80]
        )
    if not parsed.signatures:
        raise TrustError("carries no signature", what)
    for key_id, signature in parsed.signatures.items():
        pem = public_keys.get(key_id)
        if pem is None:
            known = ", ".join(sorted(known_id[:12] for known_id in public_keys)) or "no key at all"
            raise TrustError("is signed by an unknown key", what, expected=known, found=key_id[:12])
        _check_signature(pem, key_id, signature, parsed.pae())
    return bytes(parsed.payload)


def _parse_envelope(plain: object, what: str) -> Envelope:
    if not isinstance(plain, dict) or set(plain) != {"payload", "payloadType", "signatures"}:
        raise FormatError("is not a DSSE envelope", what, expected="payload, payloadType, signatures")
    signatures = plain["signatures"]
    strings = isinstance(plain["payload"], str) and isinstance(plain["payloadType"], str)
    if not strings or not isinstance(signatures, list) or len(signatures) > 8:
        raise FormatError("is not a DSSE envelope", what)
    for item in signatures:
        fields = isinstance(item, dict) and set(item) == {"keyid", "sig"}
        if not fields or not all(isinstance(value, str) for value in item.values()):
            raise FormatError("has a signature of unknown form", what)
    try:
        return Envelope.from_dict(plain)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("is not a DSSE envelope", what) from error


def _check_signature(pem: str, key_id: str, signature: Signature, pae: bytes) -> None:
    key = public_key_of(pem)
    if key.keyid != key_id:
        raise TrustError("is listed under another key's id", "public key", expected=key_id[:12], found=key.keyid[:12])
    try:
        key.verify_signature(signature, pae)
    except (UnverifiedSignatureError, VerificationError) as error:
        raise TrustError("signature does not hold", "signed envelope", found=f"key {key_id[:12]}") from error


def _signer_of(key: Ed25519PrivateKey) -> Ed25519Signer:
    return Ed25519Signer(CryptoSigner(key, SSlibKey.from_crypto(key.public_key())), key)


def _check_strong(key: Ed25519PublicKey, what: str) -> None:
    if is_weak_key(key.public_bytes(Encoding.Raw, PublicFormat.Raw)):
        raise FormatError("is a key under which anybody can sign", what, hint="make a new key")


def _public_pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _encryption(passphrase: bytes | None) -> BestAvailableEncryption | NoEncryption:
    if passphrase == b"":
        raise UsageError("an empty passphrase protects nothing", "private key")
    return BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
