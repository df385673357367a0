"""Stores with a fixed clock and fixed chance."""

from __future__ import annotations

import itertools
from pathlib import Path

from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.store import Store

T0 = 1_767_225_600_000


def open_store(folder: Path, *, now_ms: int = T0, first: int = 1) -> Store:
    """The store of that folder, made when it is new; new identities count up from `first`."""
    numbers = itertools.count(first)
    return Store.open(
        folder / "pumpdeck.db", FixedClock(now_ms), create=True, new_hex=lambda size: f"{next(numbers):0{size * 2}x}"
    )
