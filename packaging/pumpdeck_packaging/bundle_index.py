"""What stands where on a stick, and `bundle.json`, the list that says that a bundle is whole.

The list is unsigned and grants nothing: it tells a cut copy from a finished one and a bad block from an attack. What may run is
decided by TUF metadata, what is believed by device signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.ids import check_digest, check_name, is_name

BUNDLE_FORMAT = 1
INDEX_NAME = "bundle.json"
MARK_NAME = "bundle.id"
TRIAL_NAME = "pumpdeck-trial-"
"""How every file of a stick's trial begins; what a cut trial left is no reason to refuse a folder."""
SITES, RETURNS = "sites", "returns"
METADATA, ASSIGN, PACKAGES, KEPT = "metadata", "assign", "packages", "kept"
SITE_PARTS = (METADATA, ASSIGN, PACKAGES, KEPT)

INDEX_MAX_BYTES = 8 * 1024 * 1024
MARK_MAX_BYTES = 1024
MAX_FILES = 20_000
MAX_SITES = 256
FILE_MAX_BYTES = (1 << 32) - 1


# What Windows, macOS and Linux leave on every stick, and in every folder somebody looks into, without being asked.
_OF_THE_SYSTEM = frozenset(
    {
        "system volume information", "$recycle.bin", "desktop.ini", "thumbs.db", "indexervolumeguid", "wpsettings.dat",
        ".spotlight-v100", ".fseventsd", ".trashes", ".temporaryitems", ".documentrevisions-v100", ".ds_store", ".apdisk",
        "lost+found", ".directory",
    }
)  # fmt: skip


def is_of_the_system(name: str) -> bool:
    """True for names that an operating system wrote: `._x` is macOS's note on a file `x` of a stick that knows no such notes."""
    lower = name.lower()
    return lower in _OF_THE_SYSTEM or lower.startswith(("._", ".trash-"))


@dataclass(frozen=True, slots=True)
class BundleFile:
    """Length and digest of one file of a bundle."""

    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class BundleIndex:
    """`bundle.json`: `files` by path, with `/` between the parts. `id` is the name of the stick."""

    format: int
    id: str
    sites: tuple[str, ...]
    files: Mapping[str, BundleFile]


@dataclass(frozen=True, slots=True)
class BundleMark:
    """`bundle.id`, written first: this folder belongs to Pumpdeck, and to that workspace."""

    format: int
    id: str
    workspace: str


def parse_index(data: bytes) -> BundleIndex:
    """The list from its bytes.

    Raises:
        FormatError, TooLargeError: it is not one, or names something outside the bundle.
    """
    index = canonical.decode(BundleIndex, data, INDEX_NAME, max_bytes=INDEX_MAX_BYTES)
    if index.format != BUNDLE_FORMAT:
        raise FormatError("has an unknown format", INDEX_NAME, expected=BUNDLE_FORMAT, found=index.format)
    check_name(index.id, f"{INDEX_NAME}.id")
    if len(index.files) > MAX_FILES or len(index.sites) > MAX_SITES or len(set(index.sites)) != len(index.sites):
        raise FormatError("names too much, or a site twice", INDEX_NAME, expected=f"at most {MAX_FILES} files")
    for site in index.sites:
        check_name(site, f"{INDEX_NAME}.sites")
    for path, file in index.files.items():
        _check_path(path, index.sites)
        check_digest(file.digest, f"{INDEX_NAME} {path}")
        if not 0 <= file.bytes <= FILE_MAX_BYTES:
            raise FormatError("has an impossible length", f"{INDEX_NAME} {path}", found=file.bytes)
    return index


def parse_mark(data: bytes) -> BundleMark:
    """The mark from its bytes.

    Raises:
        FormatError, TooLargeError: it is not one.
    """
    mark = canonical.decode(BundleMark, data, MARK_NAME, max_bytes=MARK_MAX_BYTES)
    if mark.format != BUNDLE_FORMAT:
        raise FormatError("has an unknown format", MARK_NAME, expected=BUNDLE_FORMAT, found=mark.format)
    check_name(mark.id, f"{MARK_NAME}.id")
    return mark


def metadata_file(site: str, name: str) -> str:
    """Where a site's metadata file stands in a bundle."""
    return f"{SITES}/{site}/{METADATA}/{name}"


def assignment_file(site: str, device: str) -> str:
    """Where a device's assignment stands in a bundle."""
    return f"{SITES}/{site}/{ASSIGN}/{device}"


def package_file(site: str, sha256: str) -> str:
    """Where a package stands in a bundle: its digest alone is 64 characters, as long as a name may be."""
    return f"{SITES}/{site}/{PACKAGES}/{sha256}"


def kept_file(site: str, device: str) -> str:
    """Where the word stands that a device's earlier return is safe."""
    return f"{SITES}/{site}/{KEPT}/{device}"


def place_of(folder: Path, path: str) -> Path:
    """A path of the list under the bundle's folder."""
    return folder.joinpath(*PurePosixPath(path).parts)


def _check_path(path: str, sites: tuple[str, ...]) -> None:
    parts = path.split("/")
    is_ours = len(parts) == 4 and parts[0] == SITES and parts[1] in sites and parts[2] in SITE_PARTS
    if not is_ours or not is_name(parts[3]):
        expected = f"{SITES}/<site>/<{' | '.join(SITE_PARTS)}>/<name>"
        raise FormatError("names a path that is not of a bundle", INDEX_NAME, expected=expected, found=repr(path[:120]))
