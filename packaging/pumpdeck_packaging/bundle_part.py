"""One file of a bundle that is to go out, and what writing came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import DigestMismatchError


@dataclass(frozen=True, slots=True)
class BundlePart:
    """One file to go out; `load` gives its bytes when their turn has come. They need not be proven: `proven` does it, once."""

    path: str
    size: int
    digest: str
    load: Callable[[], bytes]

    def proven(self) -> bytes:
        """The bytes. Raises: DigestMismatchError: they are not those that were to go out."""
        data = self.load()
        if len(data) != self.size or digest_of(data) != self.digest:
            hint = "export again; when that does not help, build the package again"
            raise DigestMismatchError("changed while it was exported", self.path, expected=self.digest, hint=hint)
        return data


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
