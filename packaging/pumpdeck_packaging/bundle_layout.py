"""Names and limits of the files of a site's trust repository, the same on disk, on a stick and in an `assign` request."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import FormatError

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
RELEASE, DEPLOY = "release", "deploy"
ROLES = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS, RELEASE, DEPLOY)

ASSIGNMENT_NAME = "assign.json"
RELEASE_PATHS = "models/*/*"
DEPLOY_PATHS = "assign/*"
DEPLOY_SLOTS = 64
SEALED_SUFFIX = ".tar.xz.age"

METADATA_MAX_BYTES = {
    ROOT: 64 * 1024,
    TIMESTAMP: 16 * 1024,
    SNAPSHOT: 16 * 1024,
    TARGETS: 64 * 1024,
    RELEASE: 4 * 1024 * 1024,
    DEPLOY: 2 * 1024 * 1024,
}
MAX_ROOTS = 256

_METADATA_NAME = re.compile(r"([1-9][0-9]{0,15})\.(root|snapshot|targets|release|deploy)\.json")


@dataclass(frozen=True, slots=True)
class MetadataName:
    """Role and version of a metadata file; the version is 0 for `timestamp.json`, whose name carries none."""

    role: str
    version: int


def metadata_name(role: str, version: int) -> str:
    """The file name of a role's metadata: `3.root.json`, `timestamp.json`."""
    return f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{version}.{role}.json"


def parse_metadata_name(name: str) -> MetadataName:
    """Role and version from a file name.

    Raises:
        FormatError: it is not the name of a metadata file.
    """
    if name == f"{TIMESTAMP}.json":
        return MetadataName(TIMESTAMP, 0)
    match = _METADATA_NAME.fullmatch(name)
    if match is None:
        raise FormatError("is not the name of a metadata file", repr(name[:80]), expected="such as 2.root.json")
    return MetadataName(match[2], int(match[1]))


def package_path(device: str, sha256: str) -> str:
    """The target path of a device's package."""
    return f"models/{device}/{sha256}.tar.xz"


def sealed_path(device: str, sha256: str) -> str:
    """The target path of a package that is encrypted to its device; `sha256` is of the package inside."""
    return f"models/{device}/{sha256}{SEALED_SUFFIX}"


def assignment_path(device: str) -> str:
    """The target path of a device's assignment."""
    return f"assign/{device}"
