"""The index of a set of wheels, `wheels.json`: read where they are fetched and where they are unpacked.

Standard library and core only.
"""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.ids import check_digest, check_name

WHEELS_FILE = "wheels.json"
WHEELS_FORMAT = 1
INDEX_MAX_BYTES = 64 * 1024
WHEEL_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wheel:
    """One library. `file` is its name in the folder, short enough for a stick; `wheel` the name its index gave it."""

    name: str
    version: str
    file: str
    wheel: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class WheelIndex:
    """`wheels.json`: which computers they are for, such as `aarch64-cp311`, and the wheels."""

    format: int
    target: str
    wheels: tuple[Wheel, ...]

    def __post_init__(self) -> None:
        if self.format != WHEELS_FORMAT:
            raise FormatError("has an unknown format", WHEELS_FILE, expected=WHEELS_FORMAT, found=self.format)
        check_name(self.target, f"{WHEELS_FILE}.target")
        for one in self.wheels:
            check_name(one.file, f"{WHEELS_FILE}.file")
            check_digest(one.digest, f"{WHEELS_FILE}.digest")


def parse_index(data: bytes) -> WheelIndex:
    """The index from its bytes. Raises: FormatError, TooLargeError."""
    return canonical.decode(WheelIndex, data, WHEELS_FILE, max_bytes=INDEX_MAX_BYTES)


def this_target(architecture: str, version: tuple[int, int]) -> str:
    """The target of a computer, as `wheels.json` names it."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(architecture.lower(), architecture.lower())
    return f"{machine}-cp{version[0]}{version[1]}"
