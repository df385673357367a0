"""Words of progress: how much, how fast, how long still."""

from __future__ import annotations

from pumpdeck_console.cli.byte_progress import rate_words, span_words


def test_speed_and_time_left() -> None:
    assert rate_words(16_000_000, 80_000_000, 2.0) == "16.0 MB of 80.0 MB, 8.0 MB/s, 8 s left"
    assert rate_words(16_000_000, 80_000_000, 0.2) == "16.0 MB of 80.0 MB"
    assert rate_words(0, 80_000_000, 9.0) == "0 B of 80.0 MB"
    assert rate_words(5, 0, 9.0) == ""


def test_spans() -> None:
    assert [span_words(one) for one in (0.4, 89, 100, 5400, 7800)] == ["0 s", "89 s", "2 min", "1 h 30 min", "2 h 10 min"]
