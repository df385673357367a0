"""Text that is safe and exactly as wide as asked: the smallest parts from which lines are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

SPARK_BLOCKS = " ▁▁▂▃▄▅▆▇"
"""By level; the full block is left out, so that bars of neighbouring lines do not run together."""
SPARK_ASCII = " .:-=+*#@"

Parts = Sequence[tuple[str, str]]
"""(text, style name) pairs of one line, left to right."""


def clean(text: str) -> str:
    """``text`` without anything a terminal could obey: control characters become ``·``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "·" for char in text)


def fit(text: str, width: int, align: str = "left") -> str:
    """``text`` cleaned and cut or padded to exactly ``width`` cells; a cut text ends in ``…``."""
    if width <= 0:
        return ""
    text = clean(text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    pad = " " * (width - length)
    return pad + text if align == "right" else text + pad


def strip_of(parts: Iterable[tuple[str, Style]], width: int, fill: Style) -> Strip:
    """A strip of exactly ``width`` cells; neighbours of one style become one segment, the rest is ``fill``."""
    segments: list[Segment] = []
    text, style, used = "", fill, 0
    for piece, piece_style in parts:
        if not piece:
            continue
        length = len(piece) if piece.isascii() else cell_len(piece)
        if used + length > width:
            piece, length = set_cell_size(piece, width - used), width - used
        if piece_style is style or piece_style == style:
            text += piece
        else:
            if text:
                segments.append(Segment(text, style))
            text, style = piece, piece_style
        used += length
        if used >= width:
            break
    if used < width:
        rest = " " * (width - used)
        if style == fill:
            text += rest
        else:
            segments.append(Segment(text, style))
            text, style = rest, fill
    if text:
        segments.append(Segment(text, style))
    return Strip(segments, width)


def sides(left: Parts, right: Parts, width: int, gap_style: str) -> list[tuple[str, str]]:
    """``left`` and ``right`` at their ends of a line; ``right`` is left out when it does not fit beside ``left``."""
    used = sum(cell_len(text) for text, _ in left)
    tail = sum(cell_len(text) for text, _ in right)
    if used + tail + 1 > width:
        return list(left)
    return [*left, (" " * (width - used - tail), gap_style), *right]


def number(value: float, digits: int = 2) -> str:
    """A number for people, ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 1e7:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def quantity(value: float, unit: str) -> str:
    """A value with about four digits and its unit, ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def age(then_ms: int, now_ms: int) -> str:
    """How long ago, in at most four characters: ``now``, ``12 m``, ``3 h``, ``41 d``; ``-`` for never."""
    if then_ms < 0:
        return "-"
    minutes = max(0, now_ms - then_ms) // 60_000
    if minutes < 1:
        return "now"
    if minutes < 100:
        return f"{minutes} m"
    if minutes < 100 * 60:
        return f"{minutes // 60} h"
    return f"{min(minutes // 1440, 999)} d"


def clock_text(at_ms: int, seconds: bool = True) -> str:
    """Time of day in UTC, ``14:02:11``; ``--:--`` for never."""
    if at_ms < 0:
        return "--:--"
    second = at_ms // 1000 % 86_400
    hours_minutes = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return f"{hours_minutes}:{second % 60:02d}" if seconds else hours_minutes


def progress_bar(part: float, width: int, glyphs: str) -> str:
    """A bar of ``width`` cells filled to ``part`` (0 to 1)."""
    part = 0.0 if math.isnan(part) else min(1.0, max(0.0, part))
    full = round(part * width)
    on, off = ("#", "-") if glyphs == "ascii" else ("━", "╌")
    return on * full + off * (width - full)
