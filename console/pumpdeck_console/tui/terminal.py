"""What a terminal can show, told from its environment. Standard library only: the frame before the first needs it."""

from __future__ import annotations

from collections.abc import Mapping

GLYPHS = ("braille", "block", "ascii")
FEW_COLOURS = frozenset({"linux", "xterm-16color", "ansi", "vt220", "screen.linux"})
"""Values of TERM for terminals that show sixteen colours at most."""
FEW_GLYPHS = frozenset({"linux", "dumb", "vt220"})


def wants_no_colour(environ: Mapping[str, str]) -> bool:
    """Whether NO_COLOR is set to anything (no-color.org)."""
    return bool(environ.get("NO_COLOR"))


def has_few_colours(environ: Mapping[str, str]) -> bool:
    """Whether the sixteen colours are all there is."""
    return environ.get("TERM", "") in FEW_COLOURS


def choose_glyphs(asked: str, environ: Mapping[str, str], encoding: str, platform: str) -> str:
    """What the terminal can most likely show: ascii without UTF-8, no braille on the Linux console and old Windows."""
    if asked in GLYPHS:
        return asked
    if "utf" not in encoding.lower() or environ.get("TERM") in FEW_GLYPHS:
        return "ascii"
    if platform == "win32" and not environ.get("WT_SESSION"):
        return "block"
    return "braille"
