"""Contrast over all themes, and no meaning by colour alone."""

from __future__ import annotations

import pytest
from rich.style import Style

from pumpdeck_console.operations.views import HEALTH_WORDS
from pumpdeck_console.tui.palette import (
    HEALTH_LABELS,
    HEALTH_SIGNS,
    HEALTH_SIGNS_ASCII,
    HEALTH_STYLES,
    PALETTES,
    choose_palette,
)


def luminance(style_colour: object) -> float:
    triplet = style_colour.get_truecolor()  # type: ignore[attr-defined]
    parts = [channel / 255 for channel in triplet]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(style: Style) -> float:
    assert style.color is not None
    assert style.bgcolor is not None
    light, dark = sorted((luminance(style.color), luminance(style.bgcolor)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("name", "least"), [("night", 4.5), ("high-contrast", 7.0)])
def test_text_is_readable(name: str, least: float) -> None:
    """WCAG 2: 4.5 for text, 3 for lines and bars; high-contrast keeps 7 for text."""
    for style_name, style in PALETTES[name].styles.items():
        wanted = 3.0 if style_name in ("rule", "line", "line2", "limit", "spark", "spark_over") else least
        assert contrast(style) >= wanted, style_name


def test_text_on_the_cursor_is_readable() -> None:
    for name in ("night", "high-contrast"):
        styles = PALETTES[name].styles
        for style_name in (*HEALTH_STYLES[:-1], "accent", "spark", "spark_over"):
            over = styles[style_name] + Style(bgcolor=styles["cursor"].bgcolor)
            assert contrast(over) >= (3.0 if style_name.startswith("spark") else 4.5), (name, style_name)


def test_every_palette_has_every_style() -> None:
    names = set(PALETTES["night"].styles)
    for palette in PALETTES.values():
        assert set(palette.styles) >= names - {"cursor_text"}, palette.name


def test_mono_uses_no_colour_at_all() -> None:
    for style in PALETTES["mono"].styles.values():
        assert style.color is None
        assert style.bgcolor is None


def test_ansi_16_leaves_colours_to_the_terminal() -> None:
    for style in PALETTES["ansi-16"].styles.values():
        for colour in (style.color, style.bgcolor):
            assert colour is None or colour.triplet is None


def test_every_health_has_its_own_sign_and_word() -> None:
    assert len(set(HEALTH_SIGNS)) == len(HEALTH_SIGNS) == len(HEALTH_WORDS) + 1
    assert len(set(HEALTH_SIGNS_ASCII)) == len(HEALTH_SIGNS_ASCII) == len(HEALTH_WORDS) + 1
    assert HEALTH_SIGNS_ASCII.isascii()
    assert len(set(HEALTH_LABELS)) == len(HEALTH_WORDS) + 1


def test_the_terminal_decides_when_nobody_asks() -> None:
    assert choose_palette(None, {"NO_COLOR": "1"}).name == "mono"
    assert choose_palette(None, {"NO_COLOR": ""}).name == "night"
    assert choose_palette(None, {"TERM": "linux"}).name == "ansi-16"
    assert choose_palette("high-contrast", {"NO_COLOR": "1"}).name == "high-contrast"
