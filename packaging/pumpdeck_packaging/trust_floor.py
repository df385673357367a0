"""What a device never goes below: its own fsynced numbers, kept apart from the metadata, which is only a cache beside them.

Standard library and core only, so that the agent's serving process can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError

FLOOR_FORMAT = 1
FLOOR_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class FloorEntry:
    """The highest number accepted and the keys that signed it. It counts as long as one of those keys is still trusted."""

    number: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustFloor:
    """`seq` is the last accepted assignment, `assignment` the digest of its bytes; `roles` holds the version of each role."""

    format: int = FLOOR_FORMAT
    seq: FloorEntry = FloorEntry(0, ())
    assignment: str = ""
    roles: Mapping[str, FloorEntry] = field(default_factory=dict)


def parse_floor(data: bytes, what: str = "trust floor") -> TrustFloor:
    """A floor from its bytes.

    Raises:
        DamagedError: it is not one; the device must not guess it.
    """
    floor = canonical.decode(TrustFloor, data, what, max_bytes=FLOOR_MAX_BYTES)
    if floor.format != FLOOR_FORMAT:
        raise FormatError("has an unknown format", what, expected=FLOOR_FORMAT, found=floor.format)
    return floor


def encode_floor(floor: TrustFloor) -> bytes:
    """The canonical bytes of a floor."""
    return canonical.encode(floor)
