"""Which rows of a fleet view are shown: sites, kinds of site, and the filter as a callable.

The console takes a ``Selector``; ``select_words`` is the plain one that every workspace can use.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pumpdeck_console.operations.views import HEALTH_WORDS, FleetView, Words

Mask = npt.NDArray[np.bool_]
Selector = Callable[[FleetView, str], Mask]
"""(view, filter text) -> bool[n]. Raises QueryError for a text that is no query (yet): the old filter stays.

Called on the event loop for every key of the filter, so it must be fast, and once per new view on a reader thread, where
it may prepare what it keeps for that view.
"""


def site_mask(view: FleetView, site: str) -> Mask:
    """bool[n]: pumps of one site."""
    try:
        code = view.sites.words.index(site)
    except ValueError:
        return np.zeros(len(view), dtype=bool)
    return np.asarray(view.sites.codes == code)


def kind_mask(view: FleetView, kind: str) -> Mask:
    """bool[n]: pumps of sites of one kind."""
    codes = [code for code, site_kind in enumerate(view.site_kinds) if site_kind == kind]
    return np.isin(view.sites.codes, codes)


def select_words(view: FleetView, text: str) -> Mask:
    """bool[n]: pumps in which every word of ``text`` occurs in tag, site, type, maker, device or health."""
    mask = np.ones(len(view), dtype=bool)
    for word in text.lower().split():
        mask &= _holding(view, word)
    return mask


def _holding(view: FleetView, word: str) -> Mask:
    found = np.fromiter((word in tag.lower() for tag in view.tags), dtype=bool, count=len(view))
    for column in (view.sites, view.types, view.makers, view.devices):
        found |= _words_holding(column, word)
    codes = [code for code, health in enumerate(HEALTH_WORDS) if health.lower().startswith(word)]
    return np.asarray(found | np.isin(view.health, codes))


def _words_holding(column: Words, word: str) -> Mask:
    return np.isin(column.codes, [code for code, text in enumerate(column.words) if word in text.lower()])
