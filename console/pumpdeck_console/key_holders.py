"""Who holds which key of a site: words for people, beside the signed metadata and never part of it.

The metadata travels to every device and every stick; names of people have no business there. So they stand in
`trust/<site>/holders.json`, unsigned: they grant nothing, may be wrong, and may be erased.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

HOLDERS_FORMAT = 1
HOLDERS_NAME = "holders.json"
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """The person, medium or computer that holds a key. `ended_ms` is 0 while the key counts; `ended` says why it does not."""

    name: str
    since_ms: int
    ended_ms: int = 0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Holders:
    """`holders.json`: by key id, keys that have ended too.

    `first_seq`: every assignment signed since the last change of keys has at least this number, so a device's receipt for one of
    them says that it took that change; 0 where there was none.
    """

    format: int = HOLDERS_FORMAT
    keys: Mapping[str, Holder] = field(default_factory=dict)
    first_seq: int = 0


def read_holders(fs: FileSystem, folder: Path) -> Holders:
    """The holders of a site's keys; nobody is known where the file is absent.

    Raises:
        FormatError: the file was damaged.
    """
    try:
        data = fs.read_bytes(folder / HOLDERS_NAME, _MAX_BYTES)
    except FileNotFoundError:
        return Holders()
    found = canonical.decode(Holders, data, HOLDERS_NAME, max_bytes=_MAX_BYTES)
    if found.format != HOLDERS_FORMAT:
        raise FormatError("has an unknown format", HOLDERS_NAME, expected=HOLDERS_FORMAT, found=found.format)
    return found


def write_holders(fs: FileSystem, folder: Path, holders: Holders) -> None:
    """Replace the file whole."""
    fs.mkdir(folder)
    replace_file(fs, folder / HOLDERS_NAME, canonical.encode(holders))


def with_names(holders: Holders, names: Mapping[str, str], at_ms: int) -> Holders:
    """The holders with these names; a key that was known keeps its time."""
    keys = dict(holders.keys)
    for key_id, name in names.items():
        words = " ".join(name.split())[:80]
        old = keys.get(key_id)
        keys[key_id] = Holder(words, old.since_ms if old else at_ms) if words else Holder("", at_ms)
    return replace(holders, keys=keys)


def with_ended(holders: Holders, key_ids: Mapping[str, str], at_ms: int) -> Holders:
    """The holders after these keys (key id -> why) have ended."""
    keys = dict(holders.keys)
    for key_id, why in key_ids.items():
        old = keys.get(key_id, Holder("", 0))
        keys[key_id] = Holder(old.name, old.since_ms, at_ms, why)
    return replace(holders, keys=keys)
