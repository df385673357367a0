"""The filter of a list: the query language over what a query sees of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pumpdeck_fleet.core.query import parse_query
from pumpdeck_fleet.core.query_fields import TEXTS, Vocabulary

Mask = npt.NDArray[np.bool_]


def query_mask(facts: Sequence[Mapping[str, object]], text: str, known: Vocabulary, now_ms: int) -> Mask | None:
    """bool[n]: the rows that the query selects; ``None`` for the empty query. Raises: QuerySyntaxError."""
    if not text.strip():
        return None
    query = parse_query(text, known)
    return np.fromiter((query.matches(row, now_ms) for row in facts), dtype=bool, count=len(facts))


def text_facts(texts: Sequence[str]) -> tuple[dict[str, object], ...]:
    """Rows of a list that has no fields of its own, for ``TEXTS``: only words are of use."""
    return tuple({"text": text} for text in texts)


__all__ = ["TEXTS", "Mask", "query_mask", "text_facts"]
