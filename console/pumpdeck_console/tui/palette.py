"""The console's own themes: one small set of named styles, used by every widget that draws lines.

Colour never carries meaning alone: every health has a sign and a word beside it. ``mono`` uses attributes only,
``ansi-16`` leaves the sixteen colours to the terminal, ``high-contrast`` keeps 7:1 against its background. The others take
their colours from the fixed part of the 256 (16 to 255): the same on nearly every terminal, and half the bytes of 24-bit
colours on a slow link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

from pumpdeck_console.operations.views import HEALTH_WORDS

from .terminal import has_few_colours, wants_no_colour

HEALTH_STYLES = ("ok", "drift", "no_model", "stale", "sensor", "alarm", "dim")
"""Style name by health code; the last (-1) is for a pump without facts."""

HEALTH_SIGNS = "●▲□○×◆ "
HEALTH_SIGNS_ASCII = "+^_?x! "
HEALTH_LABELS = (*(word.replace("_FAULT", "").replace("_", " ") for word in HEALTH_WORDS), "-")
"""Words short enough for a column; the full word stands in the detail pane."""


_ON_SURFACES = (*HEALTH_STYLES[:-1], "accent")
"""Styles that also exist over the panel and the bar background, as ``panel_ok`` and ``bar_ok``."""


@dataclass(frozen=True)
class Palette:
    """Named styles of one theme. ``cursor`` lies over a row and replaces its background."""

    name: str
    theme: Theme
    styles: Mapping[str, Style]
    uses_colour: bool = True
    tints_cursor: bool = False
    """Whether colours stay what they are on the cursor's row; else the whole row has the cursor's style."""

    def __getitem__(self, name: str) -> Style:
        return self.styles[name]


@dataclass(frozen=True)
class _Grounds:
    """Background colours by number."""

    main: int
    panel: int
    bar: int
    cursor: int


def _colour(number: int) -> Color:
    return Color.from_ansi(number)


def _hex(number: int) -> str:
    return Color.from_ansi(number).get_truecolor().hex


def _colours(grounds: _Grounds, numbers: Mapping[str, int]) -> dict[str, Style]:
    """Styles from colour numbers: ``numbers`` maps a style name to its foreground."""
    words = {name: _colour(number) for name, number in numbers.items()}
    background, panel, bar = _colour(grounds.main), _colour(grounds.panel), _colour(grounds.bar)
    cursor, black = _colour(grounds.cursor), _colour(16)
    styles = {name: Style(color=colour, bgcolor=background) for name, colour in words.items()}
    bold = {name: Style(color=words[name], bgcolor=background, bold=True) for name in ("alarm", "title")}
    text = words["text"]
    return (
        styles
        | bold
        | {
            "panel": Style(color=text, bgcolor=panel),
            "panel_dim": Style(color=words["dim"], bgcolor=panel),
            "panel_title": Style(color=words["title"], bgcolor=panel, bold=True),
            "panel_key": Style(color=words["accent"], bgcolor=panel, bold=True),
            "bar": Style(color=text, bgcolor=bar),
            "bar_dim": Style(color=words["dim"], bgcolor=bar),
            "bar_title": Style(color=words["title"], bgcolor=bar, bold=True),
            "bar_key": Style(color=words["accent"], bgcolor=bar, bold=True),
            "bar_on": Style(color=background, bgcolor=words["accent"], bold=True),
            **{f"panel_{name}": Style(color=words[name], bgcolor=panel, bold=name == "alarm") for name in _ON_SURFACES},
            **{f"bar_{name}": Style(color=words[name], bgcolor=bar, bold=name == "alarm") for name in _ON_SURFACES},
            "cursor": Style(color=words["cursor_text"], bgcolor=cursor, bold=True),
            "cursor_idle": Style(color=words["cursor_text"], bgcolor=panel, bold=True),
            "warn_bar": Style(color=black, bgcolor=words["drift"], bold=True),
            "error_bar": Style(color=black, bgcolor=words["alarm"], bold=True),
        }
    )


def _theme(name: str, grounds: _Grounds, numbers: Mapping[str, int]) -> Theme:
    words = {word: _hex(number) for word, number in numbers.items()}
    return Theme(
        name=name,
        primary=words["accent"],
        secondary=words["dim"],
        accent=words["accent"],
        warning=words["drift"],
        error=words["alarm"],
        success=words["ok"],
        foreground=words["text"],
        background=_hex(grounds.main),
        surface=_hex(grounds.panel),
        panel=_hex(grounds.panel),
    )


def _coloured(name: str, grounds: _Grounds, numbers: Mapping[str, int]) -> Palette:
    return Palette(name, _theme(name, grounds, numbers), _colours(grounds, numbers), tints_cursor=True)


NIGHT_NUMBERS = {
    "text": 252,
    "title": 231,
    "dim": 246,
    "rule": 242,
    "accent": 74,
    "alarm": 210,
    "sensor": 183,
    "stale": 250,
    "no_model": 111,
    "drift": 221,
    "ok": 78,
    "line": 74,
    "line2": 79,
    "limit": 174,
    "spark": 110,
    "spark_over": 209,
    "cursor_text": 231,
}
CONTRAST_NUMBERS = {
    "text": 231,
    "title": 231,
    "dim": 252,
    "rule": 249,
    "accent": 81,
    "alarm": 217,
    "sensor": 219,
    "stale": 253,
    "no_model": 153,
    "drift": 221,
    "ok": 84,
    "line": 117,
    "line2": 86,
    "limit": 217,
    "spark": 153,
    "spark_over": 215,
    "cursor_text": 231,
}


def _ansi_16() -> Palette:
    """Only the sixteen colours and the terminal's own default pair."""
    words = {
        "text": "default",
        "title": "default",
        "dim": "default",
        "rule": "bright_black",
        "accent": "bright_cyan",
        "alarm": "bright_red",
        "sensor": "bright_magenta",
        "stale": "white",
        "no_model": "bright_blue",
        "drift": "bright_yellow",
        "ok": "bright_green",
        "line": "bright_cyan",
        "line2": "bright_green",
        "limit": "bright_red",
        "spark": "cyan",
        "spark_over": "bright_red",
    }
    styles = {name: Style(color=colour) for name, colour in words.items()}
    styles |= {"alarm": Style(color="bright_red", bold=True), "title": Style(bold=True)}
    for surface in ("panel", "bar"):
        back = "default" if surface == "panel" else "blue"
        front = "default" if surface == "panel" else "bright_white"
        styles[surface] = Style(color=front, bgcolor=back)
        styles[f"{surface}_dim"] = Style(color=front, bgcolor=back)
        styles[f"{surface}_title"] = Style(color=front, bgcolor=back, bold=True)
        styles[f"{surface}_key"] = Style(color="bright_yellow", bgcolor=back, bold=True)
    styles |= {f"panel_{name}": styles[name] for name in _ON_SURFACES}
    styles |= {
        f"bar_{name}": Style(color="bright_white", bgcolor="blue", bold=name == "alarm") for name in _ON_SURFACES
    }
    styles |= {
        "bar_on": Style(color="black", bgcolor="bright_cyan", bold=True),
        "cursor": Style(color="black", bgcolor="bright_cyan", bold=True),
        "cursor_idle": Style(bold=True, underline=True),
        "warn_bar": Style(color="black", bgcolor="bright_yellow", bold=True),
        "error_bar": Style(color="black", bgcolor="bright_red", bold=True),
    }
    return Palette("ansi-16", _ansi_theme("ansi-16", "ansi_bright_cyan"), styles)


def _mono() -> Palette:
    """No colour at all: bold, reverse and underline on the terminal's own pair."""
    plain, bold, back = Style(), Style(bold=True), Style(reverse=True)
    styles = dict.fromkeys((*NIGHT_NUMBERS, "panel", "panel_dim", "bar", "bar_dim"), plain)
    styles |= dict.fromkeys(("title", "panel_title", "panel_key", "bar_title", "bar_key", "alarm", "spark_over"), bold)
    for surface in ("bar", "panel"):
        styles |= {f"{surface}_{name}": bold if name == "alarm" else plain for name in _ON_SURFACES}
    styles |= {"bar_on": Style(reverse=True, bold=True), "cursor": back, "cursor_idle": Style(underline=True)}
    styles |= {"warn_bar": Style(reverse=True, bold=True), "error_bar": Style(reverse=True, bold=True)}
    return Palette("mono", _ansi_theme("mono", "ansi_default"), styles, uses_colour=False)


_ANSI_VARIABLES = (
    "ansi-background",
    "ansi-foreground",
    "border",
    "border-blurred",
    "block-cursor-foreground",
    "block-cursor-background",
    "block-hover-background",
    "input-cursor-background",
    "input-cursor-foreground",
    "input-selection-background",
    "input-selection-foreground",
    "screen-selection-background",
    "screen-selection-foreground",
)
"""Variables that Textual's own styles ask an ANSI theme for."""


def _ansi_theme(name: str, accent: str) -> Theme:
    return Theme(
        name=name,
        primary=accent,
        secondary="ansi_default",
        accent=accent,
        warning="ansi_default",
        error="ansi_default",
        success="ansi_default",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        ansi=True,
        variables=dict.fromkeys(_ANSI_VARIABLES, "ansi_default"),
    )


NIGHT = _coloured("night", _Grounds(233, 234, 235, 17), NIGHT_NUMBERS)
HIGH_CONTRAST = _coloured("high-contrast", _Grounds(16, 233, 234, 18), CONTRAST_NUMBERS)
PALETTES: Mapping[str, Palette] = {p.name: p for p in (NIGHT, HIGH_CONTRAST, _ansi_16(), _mono())}


def choose_palette(asked: str | None, environ: Mapping[str, str]) -> Palette:
    """The palette asked for, else what the terminal can show: NO_COLOR gives ``mono``, few colours ``ansi-16``."""
    if asked is not None and asked in PALETTES:
        return PALETTES[asked]
    if wants_no_colour(environ):
        return PALETTES["mono"]
    if has_few_colours(environ):
        return PALETTES["ansi-16"]
    return NIGHT
