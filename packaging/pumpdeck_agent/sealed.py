"""Bytes with their digest on a line before them, so that a damaged disk is noticed where nothing else would tell."""

from __future__ import annotations

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError


def seal(body: bytes) -> bytes:
    """The digest, a line end, the body."""
    return canonical.digest(body).encode("ascii") + b"\n" + body


def unseal(data: bytes, what: str) -> bytes:
    """The body.

    Raises:
        DigestMismatchError: it was cut or altered.
    """
    digest, newline, body = data.partition(b"\n")
    if not newline or canonical.digest(body).encode("ascii") != digest:
        raise DigestMismatchError("is cut or altered", what)
    return body
