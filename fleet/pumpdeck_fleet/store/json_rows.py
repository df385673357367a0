"""Bodies of rows: canonical JSON of the core's frozen types, to and from text."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, FormatError

T = TypeVar("T")


def to_text(value: Any) -> str:
    """Canonical JSON as text."""
    return canonical.encode(value).decode("utf-8")


def from_text(cls: type[T], text: str, what: str) -> T:
    """A core type from a row's body.

    Raises:
        DamagedError: the body is not what this program wrote.
    """
    # Our own rows: size and depth were bounded when they came in, so the guard of the outer door is not paid again.
    try:
        return canonical.from_plain(cls, json.loads(text), what)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"a row of the store cannot be read ({error})", what) from error
    except FormatError as error:
        raise DamagedError("a row of the store cannot be read", what, found=error.sentence()) from error
