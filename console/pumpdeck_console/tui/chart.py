"""Charts made of characters: min-max envelopes in braille, half blocks or ascii, with limit lines.

``envelope`` and ``draw_chart`` are pure. Any size works, down to 1x1: what does not fit is left out. An envelope keeps
every peak however many rows fall into one column, so a one-minute spike in a day still shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .cells import Parts, fit

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DOTS: dict[str, tuple[int, int]] = {"braille": (2, 4), "block": (1, 2), "ascii": (1, 1)}
"""Dots per cell (across, down) by glyph mode."""

_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)
_BLOCKS = " ▀▄█"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What one chart shows."""

    at_ms: Times
    """int64[n], rising."""
    values: Floats
    """float32[n]; NaN leaves a gap."""
    start_ms: int
    end_ms: int
    limits: tuple[float, ...] = ()
    """Values at which a limit line is drawn; NaN is no line."""
    over: float = float("nan")
    """Cells wholly above this value are drawn in the alarm style."""
    style: str = "line"
    always: tuple[float, ...] = ()
    """Values the axis must reach, however far from the data."""


def envelope(series: Series, columns: int) -> tuple[Floats, Floats]:
    """Lowest and highest value per column over [start_ms, end_ms], float32[columns] each; NaN where no row falls."""
    low = np.full(columns, np.nan, dtype=np.float32)
    high = low.copy()
    span = series.end_ms - series.start_ms
    if columns < 1 or span <= 0 or not len(series.at_ms):
        return low, high
    known = np.isfinite(series.values) & (series.at_ms >= series.start_ms) & (series.at_ms <= series.end_ms)
    at, values = series.at_ms[known], series.values[known]
    if not len(at):
        return low, high
    column = np.minimum((at - series.start_ms) * columns // span, columns - 1)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    low[column[first]] = np.minimum.reduceat(values, first)
    high[column[first]] = np.maximum.reduceat(values, first)
    return low, high


def value_range(low: Floats, high: Floats, limits: Sequence[float], always: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value the axis must show. A limit is shown when it is not too far from the data."""
    if not np.isfinite(low).any():
        shown = [limit for limit in limits if np.isfinite(limit)]
        return (min(0.0, *shown), max(1.0, *shown)) if shown else (0.0, 1.0)
    bottom, top = float(np.nanmin(low)), float(np.nanmax(high))
    for value in always:
        if np.isfinite(value):
            bottom, top = min(bottom, value), max(top, value)
    reach = max(top - bottom, abs(top) * 0.02, 1e-6)
    for limit in limits:
        if np.isfinite(limit) and bottom - reach <= limit <= top + reach:
            bottom, top = min(bottom, limit), max(top, limit)
    reach = max(top - bottom, abs(top) * 0.02, 1e-6)
    floor = bottom - 0.04 * reach
    return (0.0 if floor < 0.0 <= bottom else floor), top + 0.04 * reach


def dot_matrix(low: Floats, high: Floats, bounds: tuple[float, float], rows: int) -> Bools:
    """bool[rows, columns]: which dots the envelope covers; neighbouring columns are joined without a gap."""
    bottom, top = bounds
    scale = (rows - 1) / (top - bottom) if rows > 1 else 0.0
    known = np.isfinite(high)
    upper = np.where(known, np.rint((top - np.nan_to_num(high)) * scale), rows).astype(np.int64)
    lower = np.where(known, np.rint((top - np.nan_to_num(low)) * scale), -1).astype(np.int64)
    both = known[1:] & known[:-1]
    rises = both & (lower[1:] < upper[:-1] - 1)
    falls = both & (upper[1:] > lower[:-1] + 1)
    joined_lower, joined_upper = lower.copy(), upper.copy()
    joined_lower[1:][rises] = upper[:-1][rises] - 1
    joined_upper[1:][falls] = lower[:-1][falls] + 1
    row = np.arange(rows).reshape(-1, 1)
    return (row >= joined_upper) & (row <= joined_lower)


def draw_chart(series: Series, width: int, height: int, glyphs: str) -> list[Parts]:
    """``height`` lines of exactly ``width`` cells: axis labels where there is room, envelope, limit lines."""
    if width < 1 or height < 1:
        return []
    axis = 8 if width >= 28 else 0
    across, down = DOTS[glyphs]
    plot = width - axis
    low, high = envelope(series, plot * across)
    bounds = value_range(low, high, series.limits, series.always)
    dots = dot_matrix(low, high, bounds, height * down)
    text = _glyph_rows(dots, plot, height, glyphs)
    filled: Bools = np.asarray(dots.reshape(height, down, plot, across).any(axis=(1, 3)))
    limit_rows = _limit_rows(series.limits, bounds, height)
    over_rows = _over_rows(series.over, bounds, height)
    labels = _axis_labels(bounds, height, axis, glyphs)
    lines: list[Parts] = []
    for y in range(height):
        style = "alarm" if y < over_rows else series.style
        cells = _line_cells(text[y], filled[y], y in limit_rows, style, glyphs)
        lines.append([(labels[y], "dim"), *cells] if axis else cells)
    return lines


def time_axis(start_ms: int, end_ms: int, alarms: Sequence[tuple[int, int]], width: int, glyphs: str) -> Parts:
    """One line under charts: how far back it reaches, with alarm intervals marked."""
    axis = 8 if width >= 28 else 0
    plot, span = width - axis, end_ms - start_ms
    marks = np.zeros(max(plot, 0), dtype=bool)
    for start, end in alarms:
        if span > 0 and end >= start_ms and start <= end_ms:
            first = max(0, (start - start_ms) * plot // span)
            marks[first : max(first, min(plot - 1, (end - start_ms) * plot // span)) + 1] = True
    hours = max(1, round(span / 3_600_000))
    left, middle, right = f"-{hours} h", f"-{hours / 2:g} h", "now"
    rule = "-" if glyphs == "ascii" else "─"
    words = list(rule * max(plot, 0))
    taken = np.zeros(max(plot, 0), dtype=bool)
    for at, word in ((0, left), (plot // 2 - len(middle) // 2, middle), (plot - len(right), right)):
        if at >= 0 and at + len(word) <= plot and not taken[at : at + len(word)].any() and plot >= 24:
            words[at : at + len(word)] = word
            taken[at : at + len(word)] = True
    mark = "!" if glyphs == "ascii" else "▔"
    cells = [(" " * axis, "dim")]
    for x, char in enumerate(words):
        cells.append((mark, "alarm") if marks[x] and not taken[x] else (char, "dim" if taken[x] else "rule"))
    return _merged(cells)


def _glyph_rows(dots: Bools, plot: int, height: int, glyphs: str) -> list[str]:
    across, down = DOTS[glyphs]
    cells = dots.reshape(height, down, plot, across)
    if glyphs == "braille":
        codes = np.einsum("ydxa,da->yx", cells.astype(np.int32), _BRAILLE) + 0x2800
        return ["".join(map(chr, row)).replace("\u2800", " ") for row in codes.tolist()]
    if glyphs == "block":
        index = cells[:, 0, :, 0].astype(np.int8) + 2 * cells[:, 1, :, 0].astype(np.int8)
        return ["".join(_BLOCKS[i] for i in row) for row in index.tolist()]
    return ["".join("*" if on else " " for on in row) for row in cells[:, 0, :, 0].tolist()]


def _line_cells(text: str, filled: Bools, is_limit: bool, style: str, glyphs: str) -> Parts:
    if not is_limit:
        return [(text, style)]
    rule = "-" if glyphs == "ascii" else "╌"
    return _merged([(char, style) if on else (rule, "limit") for char, on in zip(text, filled.tolist(), strict=True)])


def _merged(cells: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    merged: list[tuple[str, str]] = []
    for text, style in cells:
        if merged and merged[-1][1] == style:
            merged[-1] = (merged[-1][0] + text, style)
        else:
            merged.append((text, style))
    return merged


def _limit_rows(limits: Sequence[float], bounds: tuple[float, float], height: int) -> set[int]:
    bottom, top = bounds
    inside = [limit for limit in limits if bottom <= limit <= top]
    return {min(height - 1, int((top - limit) / (top - bottom) * height)) for limit in inside}


def _over_rows(over: float, bounds: tuple[float, float], height: int) -> int:
    """How many rows from the top lie wholly above ``over``."""
    bottom, top = bounds
    if not np.isfinite(over) or over >= top:
        return 0
    return min(height, int((top - max(over, bottom)) / (top - bottom) * height))


def _axis_labels(bounds: tuple[float, float], height: int, width: int, glyphs: str) -> list[str]:
    if not width:
        return [""] * height
    bar = "|" if glyphs == "ascii" else "│"
    tick = "+" if glyphs == "ascii" else "┤"
    labels = [" " * (width - 1) + bar] * height
    wanted = {0: bounds[1], height - 1: bounds[0]} if height > 1 else {0: bounds[1]}
    for y, value in wanted.items():
        labels[y] = fit(_tick_text(value, bounds[1] - bounds[0]), width - 2, "right") + " " + tick
    return labels


def _tick_text(value: float, span: float) -> str:
    digits = 0 if span >= 100 else 1 if span >= 5 else 2 if span >= 0.2 else 3
    text = f"{value:.{digits}f}"
    return text if len(text) <= 6 else f"{value:.3g}"
