"""Keys and DSSE envelopes."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TooLargeError, TrustError, UsageError
from pumpdeck_packaging.signing import (
    PassphraseNeededError,
    generate_key,
    is_protected,
    key_id_of,
    load_key,
    openssh_line,
    public_key_of_raw,
    sign_dsse,
    verify_dsse,
)

KEY = generate_key()
KEYS = {KEY.key_id: KEY.public_pem}


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
@pytest.mark.parametrize("kind", ["private_pem", "openssh_pem"])
def test_a_key_reads_back_from_both_formats(kind: str, passphrase: bytes | None) -> None:
    data = getattr(KEY, kind)(passphrase)
    assert is_protected(data) == (passphrase is not None)
    assert load_key(data, passphrase).key_id == KEY.key_id == key_id_of(KEY.public_pem)
    if passphrase:
        for wrong in (None, b"wrong"):
            with pytest.raises(PassphraseNeededError):
                load_key(data, wrong)
        assert KEY.private_pem().split(b"\n")[1] not in data


def test_an_empty_passphrase_is_not_taken_for_protection() -> None:
    with pytest.raises(UsageError):
        KEY.private_pem(b"")


def test_other_kinds_of_keys_are_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(FormatError, match="Ed25519"):
        load_key(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(FormatError, match="Ed25519"):
        key_id_of(public)
    for junk in (b"", b"junk", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"x" * 20_000):
        with pytest.raises(FormatError):
            load_key(junk)


def test_a_public_key_has_one_id_in_every_spelling() -> None:
    line = openssh_line(KEY.public_pem)
    assert line == KEY.openssh_public and line.startswith("ssh-ed25519 ")
    raw = Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    one = public_key_of_raw(raw)
    assert key_id_of(one.pem) == key_id_of(openssh_line(one.pem) + " a comment") == one.key_id
    assert key_id_of(line) == KEY.key_id


def test_an_envelope_is_believed_for_its_type_and_its_keys_only() -> None:
    envelope = sign_dsse(b"{}", "application/a", KEY)
    other = generate_key()
    with pytest.raises(TrustError, match="another kind"):
        verify_dsse(envelope, "application/b", KEYS, 4096)
    for keys in ({}, {other.key_id: other.public_pem}, {KEY.key_id: other.public_pem}):
        with pytest.raises(TrustError):
            verify_dsse(envelope, "application/a", keys, 4096)
    with pytest.raises(TooLargeError):
        verify_dsse(envelope, "application/a", KEYS, 10)


def test_an_envelope_has_one_form() -> None:
    plain = json.loads(sign_dsse(b"{}", "a", KEY))
    signature = plain["signatures"][0]
    bent = [
        {**plain, "signatures": []},
        {**plain, "signatures": [signature, signature]},
        {**plain, "signatures": [{**signature, "extra": 1}]},
        {**plain, "signatures": [{**signature, "sig": 7}]},
        {**plain, "signatures": signature},
        {**plain, "payload": plain["payload"].rstrip("=") + "\n"},
        {**plain, "extra": 1},
        [plain],
    ]
    for value in bent:
        with pytest.raises((FormatError, TrustError)):
            verify_dsse(canonical.encode(value), "a", KEYS, 4096)
    with pytest.raises(FormatError, match="canonical"):
        verify_dsse(json.dumps(plain).encode(), "a", KEYS, 4096)
