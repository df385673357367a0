"""The frame before the first: painted before Textual is imported, from figures kept by the last run.

Standard library only: importing this and painting costs about a millisecond. It looks like the real frame to come and
says "as of" and "loading", so nobody takes old figures for new ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .terminal import has_few_colours, wants_no_colour

if TYPE_CHECKING:
    from pumpdeck_console.operations.views import FleetView

MAX_BYTES = 64 * 1024
KEPT_ROWS = 60
ENTER = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
LEAVE = "\x1b[?1049l\x1b[?25h"


@dataclass(frozen=True, slots=True)
class Cached:
    """Figures of the last frame."""

    as_of: str
    counts: tuple[tuple[str, int], ...]
    """(health, pumps), worst first."""
    rows: tuple[tuple[str, str, str], ...]
    """(health, tag, site), worst first."""


NOTHING = Cached("", (), ())


def load_cached(path: Path | None) -> Cached:
    """The figures kept at ``path``; nothing at all if there are none or they cannot be read."""
    if path is None:
        return NOTHING
    try:
        with path.open("rb") as stream:
            raw = json.loads(stream.read(MAX_BYTES))
        counts = tuple((str(word), int(count)) for word, count in raw["counts"])
        rows = tuple((str(health), str(tag), str(site)) for health, tag, site in raw["rows"])
        return Cached(str(raw["as_of"]), counts, rows)
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING


def cached_bytes(view: FleetView, as_of: str) -> bytes:
    """What ``load_cached`` reads, from the newest fleet view."""
    from pumpdeck_console.operations.views import HEALTH_WORDS, health_counts, health_word  # deferred: needs numpy

    counts = health_counts(view)
    worst = sorted(range(len(view)), key=lambda row: -int(view.health[row]))[:KEPT_ROWS]
    kept = {
        "as_of": as_of,
        "counts": [[HEALTH_WORDS[i], counts[i]] for i in reversed(range(len(HEALTH_WORDS))) if counts[i]],
        "rows": [[health_word(int(view.health[row])), view.tags[row], view.sites[row]] for row in worst],
    }
    return json.dumps(kept, ensure_ascii=False).encode("utf-8")


def frame_lines(title: str, cached: Cached, width: int, height: int) -> list[str]:
    """The frame as plain lines, none wider than ``width``."""
    counts = "   ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in cached.counts)
    as_of = f"as of {cached.as_of}, " if cached.as_of else ""
    lines = [f" Pumpdeck  {title}   {as_of}loading ...", f" {counts}", f" {'HEALTH':<14}{'PUMP':<12}SITE"]
    for health, tag, site in cached.rows[: max(0, height - 4)]:
        lines.append(f" {health.replace('_', ' '):<14}{tag:<12}{site}")
    return [_plain(line)[: max(0, width - 1)] for line in lines[:height]]


def paint(out: TextIO, lines: Sequence[str], environ: Mapping[str, str]) -> None:
    """Paint the lines on the alternate screen; two header lines on a bar, the rest dimmed."""
    bar, dim, off = "\x1b[48;5;236m", "\x1b[38;5;245m", "\x1b[0m"
    if wants_no_colour(environ):
        bar, dim = "\x1b[7m", ""
    elif has_few_colours(environ):
        bar, dim = "\x1b[97;44m", ""
    rows = [f"{bar if i < 2 else dim}{line}\x1b[K{off}" for i, line in enumerate(lines)]
    out.write(ENTER + "\r\n".join(rows))
    out.flush()


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else "·" for char in text)
