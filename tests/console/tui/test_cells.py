from __future__ import annotations

import pytest
from rich.style import Style

from pumpdeck_console.tui.cells import age, clock_text, fit, number, progress_bar, quantity, sides, strip_of


@pytest.mark.parametrize("width", range(9))
@pytest.mark.parametrize("text", ["", "P-101A", "ポンプ101", "a\x1b[31mred", "é" * 20])
def test_fitted_text_has_exactly_the_asked_width(text: str, width: int) -> None:
    strip = strip_of([(fit(text, width), Style())], width, Style())
    assert sum(segment.cell_length for segment in strip) == width


def test_no_control_character_reaches_the_terminal() -> None:
    """A tag or a device's reason may hold an escape sequence; it must be shown, not obeyed."""
    assert "\x1b" not in fit("\x1b]0;owned\x07P-1", 20)


def test_a_cut_text_says_so() -> None:
    assert fit("progressive_cavity", 8) == "progres…"
    assert fit("12.5", 6, "right") == "  12.5"


def test_missing_figures_are_a_dash() -> None:
    assert number(float("nan")) == quantity(float("nan"), "bar") == age(-1, 0) == "-"
    assert clock_text(-1) == "--:--"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "now"), (59, "now"), (60, "1 m"), (5_999, "99 m"), (6_000, "1 h"), (400_000, "4 d"), (-5, "now")]
)
def test_age(seconds: int, shown: str) -> None:
    assert age(1_000_000_000, 1_000_000_000 + seconds * 1000) == shown


def test_quantities_keep_about_four_digits() -> None:
    assert quantity(7.123, "mm/s") == "7.12 mm/s"
    assert quantity(143.9, "bar") == "143.9 bar"
    assert quantity(2950.4, "rpm") == "2950 rpm"


def test_bars() -> None:
    assert progress_bar(0.5, 4, "ascii") == "##--"
    assert progress_bar(float("nan"), 4, "ascii") == "----"
    assert progress_bar(7.0, 4, "braille") == "━━━━"


def test_the_right_side_gives_way() -> None:
    assert sides([("left", "text")], [("right", "text")], 6, "bar") == [("left", "text")]
    assert "".join(text for text, _ in sides([("left", "text")], [("right", "text")], 12, "bar")) == "left   right"
