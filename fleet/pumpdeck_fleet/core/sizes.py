"""Sizes for people: the one place that turns a number of bytes into words."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB")


def size_words(count: float) -> str:
    """A number of bytes with a decimal unit: `940 B`, `12.4 kB`, `81.0 GB`."""
    if round(count) < 1000:
        return f"{count:.0f} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1000
        # What would be written as 1000.0 belongs to the next unit.
        if round(amount, 1) < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount:.1f} {_UNITS[-1]}"
