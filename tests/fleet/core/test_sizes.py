"""Sizes read as people say them, whatever their magnitude."""

from __future__ import annotations

import pytest

from pumpdeck_fleet.core.sizes import size_words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (8_000_000, "8.0 MB"),
        (80_983_800_000, "81.0 GB"),
        (2_000_000_000_000, "2.0 TB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_a_size_is_written_in_the_unit_that_fits(count: float, words: str) -> None:
    assert size_words(count) == words
