"""Encryption to age keys: the library's contract, bounds, and the errors people see."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, TooLargeError
from pumpdeck_packaging.age_box import (
    AGE_MARK,
    WrongKeyError,
    check_recipient,
    decrypt,
    decrypt_with_passphrase,
    encrypt,
    encrypt_with_passphrase,
    generate_identity,
    parse_identities,
    sealed_bytes_max,
)

ADA, GRACE = generate_identity(), generate_identity()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000])
def test_each_recipient_reads_it_and_its_size_is_foretold(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sealed = encrypt(data, [ADA.public, GRACE.public], "item")
    assert sealed.startswith(AGE_MARK) and len(sealed) <= sealed_bytes_max(size, 2)
    assert decrypt(sealed, [GRACE], "item", size) == decrypt(sealed, [ADA], "item", size) == data


def test_the_header_of_many_recipients_is_within_what_is_foretold() -> None:
    keys = [generate_identity().public for _ in range(16)]
    assert all(len(encrypt(b"x" * 100, keys, "item")) <= sealed_bytes_max(100) for _ in range(50))


def test_another_key_is_told_from_damage() -> None:
    sealed = encrypt(b"rows", [ADA.public], "item")
    with pytest.raises(WrongKeyError):
        decrypt(sealed, [GRACE], "item", 100)
    with pytest.raises(WrongKeyError):
        decrypt(sealed, [], "item", 100)
    with pytest.raises(FormatError):
        decrypt(b"plain", [ADA], "item", 100)


def test_every_flipped_byte_and_every_length_is_refused() -> None:
    sealed = encrypt(b"rows", [ADA.public], "item")
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for data in (*changed, *(sealed[:at] for at in range(len(sealed))), sealed + b"x"):
        with pytest.raises((DamagedError, WrongKeyError)):
            decrypt(data, [ADA], "item", 100)


def test_more_inside_than_allowed_is_refused() -> None:
    with pytest.raises(TooLargeError):
        decrypt(encrypt(bytes(2000), [ADA.public], "item"), [ADA], "item", 1000)
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        decrypt(encrypt(bytes(8 << 20), [ADA.public], "item"), [ADA], "item", 8 << 10)
    tracemalloc.stop()


def test_a_passphrase_file_is_not_a_question_of_keys() -> None:
    """An scrypt stanza would make the reader work for seconds: it is not tried with keys."""
    sealed = encrypt_with_passphrase(b"secret", "correct horse")
    with pytest.raises((DamagedError, WrongKeyError)):
        decrypt(sealed, [ADA], "item", 100)
    assert decrypt_with_passphrase(sealed, "correct horse", "file") == b"secret"
    with pytest.raises(WrongKeyError):
        decrypt_with_passphrase(sealed, "wrong", "file")


BENT = [ADA.public.upper(), ADA.public + " ", ADA.public[:-1] + ("p" if ADA.public[-1] == "q" else "q")]


@pytest.mark.parametrize("text", ["", "age1", *BENT, ADA.secret, "ssh-ed25519 A"], ids=lambda _: "key")
def test_what_is_no_public_key_is_named(text: str) -> None:
    with pytest.raises(FormatError):
        check_recipient(text, "recipient")


def test_an_identity_file_may_hold_comments_and_several_keys() -> None:
    text = f"# created: today\n{ADA.secret}\n\n{GRACE.secret}\n"
    assert parse_identities(text, "file") == (ADA, GRACE)
    for bad in ("", "# nothing\n", "AGE-SECRET-KEY-1XYZ"):
        with pytest.raises(FormatError):
            parse_identities(bad, "file")
    assert ADA.secret not in repr(ADA)


def test_without_the_library_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(NotFoundError, match="Install the wheel"):
        encrypt(b"x", [ADA.public], "item")
