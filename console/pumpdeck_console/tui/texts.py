"""Lines of a detail page: headings, labelled values that wrap, verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from .cells import Parts, clean, fit

VERDICT_STYLES = {"pass": "panel_ok", "ok": "panel_ok", "warn": "panel_drift", "refuse": "panel_alarm", "bad": "panel_alarm"}


def heading(text: str) -> list[Parts]:
    """An empty line and the heading of a part."""
    return [[], [(f" {text.upper()}", "panel_dim")]]


def wrapped(text: str, width: int, style: str = "panel", indent: int = 1) -> list[Parts]:
    """Text as lines that fit, none for no text."""
    room = max(width - indent - 1, 8)
    return [[(" " * indent + piece, style)] for piece in textwrap.wrap(clean(text), room)]


def pairs(rows: Sequence[tuple[str, str]], width: int, label: int = 0) -> list[Parts]:
    """A label and its value a line; long values go on below themselves."""
    label = label or min(20, max((len(word) for word, _ in rows), default=0) + 2)
    lines: list[Parts] = []
    for word, value in rows:
        pieces = textwrap.wrap(clean(value), max(width - label - 2, 8)) or ["-"]
        for number, piece in enumerate(pieces):
            lines.append([(fit("" if number else f" {word}", label + 1), "panel_dim"), (piece, "panel")])
    return lines


def verdicts(rows: Iterable[tuple[str, str, str]], width: int) -> list[Parts]:
    """(name, verdict, reason) rows: the verdict stands first, as a word and not as a colour alone."""
    lines: list[Parts] = []
    for name, verdict, reason in rows:
        lines.append([(f" {verdict:<7}", VERDICT_STYLES.get(verdict, "panel")), (name.replace("_", " "), "panel")])
        lines += wrapped(reason, width, "panel_dim", 8)
    return lines


def commands(rows: Sequence[tuple[str, str]], width: int) -> list[Parts]:
    """What to do and the exact command for it: commands are cut nowhere but between words."""
    lines: list[Parts] = []
    for what, line in rows:
        lines += wrapped(what, width, "panel_dim")
        pieces = textwrap.wrap(line, max(width - 5, 8), break_long_words=False, break_on_hyphens=False)
        for number, piece in enumerate(pieces):
            lines.append([(" $ " if not number else "     ", "panel_dim"), (piece, "panel_key")])
    return lines
