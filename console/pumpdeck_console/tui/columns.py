"""Columns that most lists have: a text, a count, how long ago, a state with its sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .cells import Parts, age, fit
from .virtual_table import Column


def text_column(
    key: str, title: str, width: int, texts: Sequence[str], style: str | Sequence[str] = "text", **more: Any
) -> Column:
    """Texts, ``-`` where there is none, sorted by alphabet; ``style`` is one for all or one a row, ``more`` as in ``Column``."""

    def draw(row: int, cells: int) -> Parts:
        look = style if isinstance(style, str) else style[row]
        return [(fit(texts[row] or "-", cells, more.get("align", "left")), look)]

    return Column(key, title, width, draw, **{"sort_keys": (rank(texts),), **more})


def count_column(key: str, title: str, width: int, counts: Sequence[int], style: str = "text", **more: Any) -> Column:
    """Whole numbers, the highest first when it is sorted."""
    return text_column(key, title, width, [f"{count:,}" for count in counts], style, align="right", descending_first=True,
                       sort_keys=(np.array(counts, dtype=np.int64),), **more)  # fmt: skip


def age_column(key: str, title: str, times_ms: Sequence[int], now_ms: int, **more: Any) -> Column:
    """How long ago, the newest first; 0 and less are never."""
    texts = [age(at_ms if at_ms > 0 else -1, now_ms) for at_ms in times_ms]
    newest_first = np.array([-at_ms for at_ms in times_ms], dtype=np.int64)
    return text_column(key, title, max(5, len(title) + 1), texts, align="right", **{"sort_keys": (newest_first,), **more})


def sign_column(
    key: str, title: str, width: int, states: Sequence[tuple[str, str, str, str]], glyphs: str, **more: Any
) -> Column:
    """States as (sign, ascii sign, word, style): never a colour alone."""
    texts = [f"{plain if glyphs == 'ascii' else sign} {word}" for sign, plain, word, _style in states]
    return text_column(key, title, width, texts, [state[3] for state in states], **more)


def rank(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Place of each text in alphabetical order; empty ones last."""
    place = {text: number for number, text in enumerate(sorted(set(texts), key=lambda text: (not text, text)))}
    return np.array([place[text] for text in texts], dtype=np.int64)
