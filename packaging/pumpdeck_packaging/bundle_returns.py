"""A device's return on a stick: `returns/<device>/`, one file an item, named by its digest, and `return.json`, signed, last."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.ids import check_digest, check_name, is_name
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import ReturnItem
from pumpdeck_packaging.bundle_index import RETURNS, is_of_the_system
from pumpdeck_packaging.bundle_stick import Stick, write_proven

RETURN_NAME = "return.json"
PAGE_NAME = "report.txt"
ENVELOPE_MAX_BYTES = 1024 * 1024
ITEM_MAX_BYTES = 4 * 1024 * 1024
MAX_ITEMS = 3000
"""So many entries of an index, base64 in its envelope, stay under `ENVELOPE_MAX_BYTES`."""


def return_folder(folder: Path, device: str) -> Path:
    """Where a device's return stands under the bundle's folder."""
    return folder / RETURNS / check_name(device, "device")


class ReturnWriter:
    """Writes a return file by file: the one before counts until `finish`, and what it does not share goes after that.

    OSError passes through: use inside `stick_errors`.
    """

    def __init__(self, stick: Stick, device: str) -> None:
        self._stick = stick
        self._folder = _make_folder(stick, device)
        self._here = set(stick.fs.listdir(self._folder))
        self._kept = {RETURN_NAME, PAGE_NAME}

    def put(self, name: str, data: bytes) -> None:
        """One file, named by its digest; one that is there already, whole, stays.

        Raises:
            StickFailedError: the stick gives back other bytes.
        """
        self._kept.add(name)
        if name not in self._here or not _is_there(self._stick, self._folder / name, data):
            write_proven(self._stick, self._folder / name, data, name)

    def keep(self, name: str, size: int) -> bool:
        """True when the file of that digest and length lies here whole from an earlier visit; then it stays."""
        path = self._folder / name
        try:
            if name not in self._here or digest_of(self._stick.reread(path, size)) != name:
                return False
        except DamagedError:
            return False
        self._kept.add(name)
        return True

    def finish(self, envelope: bytes) -> None:
        """Let the files count, and remove those of the return before.

        Raises:
            StickFailedError: the stick gives back other bytes.
        """
        self._stick.fs.fsync_dir(self._folder)
        write_proven(self._stick, self._folder / RETURN_NAME, envelope, RETURN_NAME)
        self._stick.fs.fsync_dir(self._folder)
        for name in sorted(self._here - self._kept):
            if _is_item_name(name.removesuffix(".part")):
                self._stick.fs.unlink(self._folder / name)


def write_page(stick: Stick, device: str, text: str) -> None:
    """The page for people beside the return. OSError: use inside `stick_errors`."""
    folder = _make_folder(stick, device)
    write_proven(stick, folder / PAGE_NAME, text.encode("utf-8"), PAGE_NAME)
    stick.fs.fsync_dir(folder)


def names_on(stick: Stick, device: str) -> frozenset[str]:
    """The files in a device's return, whole or not. OSError: use inside `stick_errors`."""
    folder = return_folder(stick.folder, device)
    return frozenset(stick.fs.listdir(folder)) if stick.fs.exists(folder) else frozenset()


def returned_devices(fs: FileSystem, folder: Path) -> tuple[list[str], list[str]]:
    """Names of devices with a return, and names under `returns/` that cannot be a device's."""
    try:
        names = [name for name in fs.listdir(folder / RETURNS) if not is_of_the_system(name)]
    except FileNotFoundError:
        return [], []
    return [name for name in names if is_name(name)], [name for name in names if not is_name(name)]


def read_envelope(fs: FileSystem, folder: Path, device: str) -> bytes:
    """The signed index of a device's return, still to be verified.

    Raises:
        NotFoundError: the device did not finish writing it.
        DamagedError: it cannot be one.
    """
    try:
        return fs.read_bytes(return_folder(folder, device) / RETURN_NAME, ENVELOPE_MAX_BYTES)
    except FileNotFoundError as error:
        hint = "the stick was pulled too early: take it to the device again"
        raise NotFoundError("its return is not finished", device, expected=RETURN_NAME, hint=hint) from error


def read_item(fs: FileSystem, folder: Path, device: str, item: ReturnItem) -> bytes:
    """The bytes of an item that a verified index names.

    Raises:
        NotFoundError, DamagedError: they are gone, or longer than the index says.
    """
    which = f"{item.kind} {item.digest[:12]} of {device}"
    if not 0 <= item.bytes <= ITEM_MAX_BYTES:
        raise TooLargeError("is too large", which, expected=f"at most {ITEM_MAX_BYTES} bytes", found=item.bytes)
    return read_named(fs, folder, device, item.digest, item.bytes)


def read_named(fs: FileSystem, folder: Path, device: str, digest: str, max_bytes: int) -> bytes:
    """A file of a return by the digest that is its name; whether it holds these bytes is for the caller to see.

    Raises:
        NotFoundError, DamagedError: it is gone, or longer than it may be.
    """
    path = return_folder(folder, device) / check_digest(digest, "return item")
    try:
        return fs.read_bytes(path, max_bytes)
    except FileNotFoundError as error:
        which = f"{digest[:12]} of {device}"
        raise NotFoundError("is gone from the stick", which, hint="take the stick to the device again") from error


def _make_folder(stick: Stick, device: str) -> Path:
    folder = return_folder(stick.folder, device)
    stick.fs.mkdir(folder)
    for made_in in (stick.folder, folder.parent):
        stick.fs.fsync_dir(made_in)
    return folder


def _is_there(stick: Stick, path: Path, data: bytes) -> bool:
    try:
        return stick.reread(path, len(data)) == data
    except DamagedError:
        return False


def _is_item_name(name: str) -> bool:
    return name in (RETURN_NAME, PAGE_NAME) or (len(name) == 64 and is_name(name))
