"""The client workflow of the TUF specification (section 5) over any repository, by the trusted set a device verifies with.

A device asks more than the specification does (`metadata_form`, `trust_rules`) and takes less: no network, its own clock rule.
This module leaves our rules out and judges expiry strictly, so that an outside suite can test the core both share. Nothing on
the device's own path uses it. No I/O: what fetches and what stores are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from tuf.api.metadata import Root, TargetFile, Targets

from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, NotFoundError, TrustError
from pumpdeck_packaging.bundle_layout import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from pumpdeck_packaging.tuf_adapter import SameVersionError, plain_set, translated

MAX_ROOT_ROTATIONS = 256
MAX_DELEGATIONS = 32
# What is read of a role whose length nobody signed for yet.
_UNSIGNED_MAX_BYTES = {ROOT: 512_000, TIMESTAMP: 16_384, SNAPSHOT: 2_000_000}
_TARGETS_MAX_BYTES = 5_000_000

Fetch = Callable[[str, int], bytes | None]
"""Path below the metadata or target base and most bytes wanted -> the bytes, or None where the repository has none."""


class MetadataStore(Protocol):
    """The client's own copies, by role name."""

    def read(self, role: str) -> bytes | None:
        """The kept bytes, or None."""
        ...

    def write(self, role: str, data: bytes) -> None:
        """Keep verified bytes, whole or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class FoundTarget:
    """A target that a trusted role describes, and the path to fetch it by."""

    file: TargetFile
    path: str

    def check(self, data: bytes) -> None:
        """Compare bytes with the signed length and hashes.

        Raises:
            DigestMismatchError: they differ.
        """
        with translated(self.file.path):
            self.file.verify_length_and_hashes(data)


class SpecClient:
    """One run of the workflow: `refresh` once, then `find` any number of targets."""

    def __init__(self, store: MetadataStore, fetch_metadata: Fetch, now_ms: int) -> None:
        """Start from the root in the store.

        Raises:
            NotFoundError: there is none.
            TrustError, FormatError: it does not verify by itself.
        """
        kept = store.read(ROOT)
        if kept is None:
            raise NotFoundError("is missing", "root.json", hint="run init first")
        self._set = plain_set(kept, "root.json", now_ms)
        self._store = store
        self._fetch = fetch_metadata

    def refresh(self) -> None:
        """Bring the top roles up to date (5.3 to 5.6). What verified is kept even if a later role does not.

        Raises:
            PumpdeckError: a role is missing, expired, older than the kept one or not signed as it must be.
        """
        self._follow_roots()
        self._load_timestamp()
        self._load_snapshot()
        self._load_targets(TARGETS, ROOT)

    def find(self, target_path: str) -> FoundTarget:
        """Search delegations in pre-order, depth first (5.7); at most 32 roles are looked at.

        Raises:
            NotFoundError: no trusted role describes the path.
            PumpdeckError: a delegated role on the way does not verify.
        """
        waiting = [(TARGETS, ROOT)]
        visited: set[str] = set()
        while waiting and len(visited) <= MAX_DELEGATIONS:
            role, delegator = waiting.pop()
            if role in visited:
                continue
            targets = self._load_targets(role, delegator)
            found = targets.targets.get(target_path)
            if found is not None:
                return FoundTarget(found, self._fetch_path(found))
            visited.add(role)
            children, is_terminating = _children(targets, target_path)
            if is_terminating:
                waiting.clear()
            waiting += [(child, role) for child in reversed(children)]
        raise NotFoundError("is described by no trusted role", target_path)

    def _follow_roots(self) -> None:
        for _ in range(MAX_ROOT_ROTATIONS):
            version = self._set.root.version + 1
            data = self._fetch(f"{version}.root.json", _UNSIGNED_MAX_BYTES[ROOT])
            if data is None:
                return
            with translated(f"{version}.root.json", version):
                self._set.update_root(data)
            self._store.write(ROOT, data)

    def _load_timestamp(self) -> None:
        self._try_kept(TIMESTAMP, self._set.update_timestamp)
        data = self._must_fetch("timestamp.json", _UNSIGNED_MAX_BYTES[TIMESTAMP])
        try:
            with translated("timestamp.json"):
                self._set.update_timestamp(data)
        except SameVersionError:
            return
        self._store.write(TIMESTAMP, data)

    def _load_snapshot(self) -> None:
        if self._try_kept(SNAPSHOT, lambda data: self._set.update_snapshot(data, trusted=True)):
            return
        named = self._set.timestamp.snapshot_meta
        name = self._versioned(SNAPSHOT, named.version)
        data = self._must_fetch(name, named.length or _UNSIGNED_MAX_BYTES[SNAPSHOT])
        with translated(name):
            self._set.update_snapshot(data)
        self._store.write(SNAPSHOT, data)

    def _load_targets(self, role: str, delegator: str) -> Targets:
        if not self._set.contains(role, delegator) and not self._try_kept(
            role, lambda data: self._set.update_delegated_targets(data, role, delegator)
        ):
            named = self._set.snapshot.meta.get(f"{role}.json")
            if named is None:
                raise TrustError("is delegated to, but stands in no snapshot", role)
            name = self._versioned(role, named.version)
            data = self._must_fetch(name, named.length or _TARGETS_MAX_BYTES)
            with translated(name):
                self._set.update_delegated_targets(data, role, delegator)
            self._store.write(role, data)
        loaded = self._set[role]
        if not isinstance(loaded, Targets):
            raise TrustError("is not a targets role", role)
        return loaded

    def _try_kept(self, role: str, update: Callable[[bytes], object]) -> bool:
        """Whether the kept copy still stands; one that does not is fetched anew, after guarding against rollback."""
        kept = self._store.read(role)
        if kept is None:
            return False
        try:
            with translated(role):
                update(kept)
        except (TrustError, DamagedError):
            return False
        return True

    def _must_fetch(self, name: str, max_bytes: int) -> bytes:
        data = self._fetch(name, max_bytes)
        if data is None:
            raise NotFoundError("is missing in the repository", name)
        return data

    def _versioned(self, role: str, version: int) -> str:
        name = f"{quote(role, '')}.json"
        return f"{version}.{name}" if self._set.root.consistent_snapshot else name

    def _fetch_path(self, target: TargetFile) -> str:
        folder, slash, name = target.path.rpartition("/")
        root: Root = self._set.root
        if root.consistent_snapshot:
            name = f"{next(iter(target.hashes.values()))}.{name}"
        return f"{folder}{slash}{name}"


def download(client: SpecClient, target_path: str, fetch_target: Fetch, kept: bytes | None) -> bytes | None:
    """The verified bytes of a target, or None when `kept` already is them.

    Raises:
        NotFoundError: no trusted role, or no server, has it.
        DigestMismatchError: what was served is not what was signed for.
    """
    found = client.find(target_path)
    if kept is not None and _is_the_target(found, kept):
        return None
    data = fetch_target(found.path, found.file.length)
    if data is None:
        raise NotFoundError("is missing in the repository", target_path)
    found.check(data)
    return data


def _is_the_target(found: FoundTarget, data: bytes) -> bool:
    try:
        found.check(data)
    except DigestMismatchError:
        return False
    return True


def _children(targets: Targets, target_path: str) -> tuple[list[str], bool]:
    """The roles that `targets` trusts with the path, in order, up to and with a terminating one."""
    names: list[str] = []
    if targets.delegations is not None:
        for name, is_terminating in targets.delegations.get_roles_for_target(target_path):
            names.append(name)
            if is_terminating:
                return names, True
    return names, False
