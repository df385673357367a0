"""How keys stand, as plain rows: lists, screens and the command line show these. Nothing here needs cryptography."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoleKey:
    """One key of one role of one site. `threshold` of the role's `keys` must sign; `is_here`: it is kept on this computer.

    `warning` is empty or says what will bind, long before it does. `slot` only for deploy keys.
    """

    site: str
    role: str
    key_id: str
    holder: str
    since_ms: int
    threshold: int
    keys: int
    version: int
    expires_ms: int
    slot: int | None
    is_here: bool
    warning: str


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """One reader of one site; `name` is empty for a site whose returns are plain. `is_mine`: its key is this workspace's."""

    site: str
    name: str
    key: str
    is_mine: bool
    plain: bool


@dataclass(frozen=True, slots=True)
class Exposure:
    """A device that is not known to have taken the newest keys of its site. `root` and `targets` are what it has, 0 unknown."""

    device: str
    site: str
    root: int
    targets: int
    needs_root: int
    needs_targets: int
    link: str


@dataclass(frozen=True, slots=True)
class RetiredLine:
    """A device whose last key has ended; `receipts` stay as history."""

    device: str
    site: str
    key_id: str
    enrolled_ms: int
    ended_ms: int
    ended: str
    receipts: int


@dataclass(frozen=True, slots=True)
class KeysView:
    """Keys site by site, those that need attention first; readers of returns; retired devices; devices behind.

    `unfounded` names sites without a repository, `damaged` (site, sentence) pairs of those that do not verify.
    """

    as_of_ms: int
    keys: tuple[RoleKey, ...] = ()
    readers: tuple[RecipientRow, ...] = ()
    retired: tuple[RetiredLine, ...] = ()
    behind: tuple[Exposure, ...] = ()
    unfounded: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
