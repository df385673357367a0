"""Fingerprints as words: the same bytes give the same words, other bytes give others, a person may shorten them."""

from __future__ import annotations

import pytest

from pumpdeck_fleet.core import words
from pumpdeck_fleet.core.errors import TrustError

ROOT = b"root metadata"


def test_the_words_of_a_fingerprint_never_change() -> None:
    assert words.fingerprint_words(b"") == " ".join(
        words._WORDS[byte] for byte in bytes.fromhex("e3b0c44298fc1c149afbf4c8")
    )
    assert len(words.fingerprint_words(ROOT).split()) == 12


def test_no_two_words_begin_alike() -> None:
    assert len({word[:4] for word in words._WORDS}) == len(words._WORDS) == 256


def test_a_person_may_shorten_and_shout() -> None:
    found = words.fingerprint_words(ROOT)
    assert words.is_same_words(found, ", ".join(word[:4].upper() for word in found.split()))
    assert words.is_same_words(found, "\n".join(found.split()))


def test_other_or_fewer_words_are_refused() -> None:
    """A root of another fleet, or a person who reads only the first line."""
    found = words.fingerprint_words(ROOT)
    for told in ("", found.rsplit(" ", 1)[0], words.fingerprint_words(b"another"), found + " acid", "a " * 12):
        with pytest.raises(TrustError, match="paper"):
            words.check_words(found, told, "root")
