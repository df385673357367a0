"""One file of a bundle that is to go out, and what writing came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_fleet.core.canonical import digest as digest_of


@dataclass(frozen=True, slots=True)
class BundlePart:
    """One file to go out; `load` gives its bytes when their turn has come."""

    path: str
    size: int
    digest: str
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What one export wrote: files and bytes that went out, and files that lay there already, whole."""

    id: str
    written: int
    written_bytes: int
    already: int


def bytes_part(path: str, data: bytes) -> BundlePart:
    """A part whose bytes are at hand."""
    return BundlePart(path, len(data), digest_of(data), lambda: data)
