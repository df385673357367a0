"""A bundle as a device reads it: whole or not at all, every file once, into memory, before anything is decided on it."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.bundle_index import (
    INDEX_MAX_BYTES,
    INDEX_NAME,
    METADATA,
    SITES,
    BundleIndex,
    parse_index,
    place_of,
)
from pumpdeck_packaging.bundle_layout import MAX_ROOTS, METADATA_MAX_BYTES, parse_metadata_name

_ROLES_BESIDE_ROOT = 5


class BundleReader:
    """Reads files that `bundle.json` names. OSError passes through: use inside `stick_errors`."""

    def __init__(self, fs: FileSystem, folder: Path) -> None:
        """Read the list.

        Raises:
            NotFoundError: there is no bundle, or its export was cut off.
            DamagedError: the list does not follow its format.
        """
        self._fs = fs
        self._folder = folder
        try:
            data = fs.read_bytes(folder / INDEX_NAME, INDEX_MAX_BYTES)
        except FileNotFoundError as error:
            hint = "a bundle that was cut off has no such file: export it again"
            raise NotFoundError("holds no whole bundle", str(folder), expected=INDEX_NAME, hint=hint) from error
        self.index: BundleIndex = parse_index(data)

    def has(self, path: str) -> bool:
        """True when the list names it."""
        return path in self.index.files

    def read(self, path: str, max_bytes: int) -> bytes:
        """The bytes of a file, as the list describes them.

        Raises:
            NotFoundError: the list does not name it, or it is gone.
            TooLargeError, DigestMismatchError: it is not what the list says.
        """
        listed = self.index.files.get(path)
        if listed is None:
            raise NotFoundError("is not in this bundle", path)
        if listed.bytes > max_bytes:
            raise TooLargeError("is too large", path, expected=f"at most {max_bytes} bytes", found=listed.bytes)
        try:
            data = self._fs.read_bytes(place_of(self._folder, path), listed.bytes)
        except FileNotFoundError as error:
            raise NotFoundError("is gone from the stick", path, hint="export the bundle again") from error
        if len(data) != listed.bytes or digest_of(data) != listed.digest:
            raise DigestMismatchError("was damaged on the stick", path, hint="export the bundle again")
        return data

    def metadata(self, site: str) -> dict[str, bytes]:
        """The site's trust metadata by file name; empty when the bundle is not for that site.

        Raises:
            DamagedError: too many files, or one that is none of metadata.
        """
        start = f"{SITES}/{site}/{METADATA}/"
        paths = [path for path in sorted(self.index.files) if path.startswith(start)]
        if len(paths) > MAX_ROOTS + _ROLES_BESIDE_ROOT:
            raise DamagedError("holds too many metadata files", site, found=len(paths))
        names = [path[len(start) :] for path in paths]
        limits = [METADATA_MAX_BYTES[parse_metadata_name(name).role] for name in names]
        return {name: self.read(path, limit) for name, path, limit in zip(names, paths, limits, strict=True)}
