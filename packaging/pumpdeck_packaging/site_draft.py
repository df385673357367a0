"""Metadata of a site signed at one moment and not written yet, so that it can be verified first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuf.api.metadata import TargetFile, Targets

from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_packaging.bundle_layout import (
    DEPLOY,
    DEPLOY_SLOTS,
    RELEASE,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    metadata_name,
)
from pumpdeck_packaging.site_keys import (
    SigningTime,
    SiteKeys,
    SiteSigners,
    leaf_of,
    root_of,
    sign_role,
    snapshot_of,
    targets_of,
    targets_with,
    timestamp_of,
)
from pumpdeck_packaging.site_words import NO_WORDS, SiteWords


class Draft:
    """Metadata files signed at one moment, not written yet."""

    def __init__(self, when: SigningTime, slot: int, words: SiteWords = NO_WORDS) -> None:
        """`words` go into every targets metadata that this draft signs."""
        self.when = when
        self._words = words
        self.files: dict[str, bytes] = {}
        self.lower: dict[str, tuple[int, bytes]] = {}
        self.root_version = 1
        self._slot = slot

    def next_version(self, highest: int) -> int:
        """The next version in this laptop's slot."""
        return (highest // DEPLOY_SLOTS + 1) * DEPLOY_SLOTS + self._slot

    def add_top(self, keys: SiteKeys, signers: SiteSigners, root_version: int, targets_version: int) -> None:
        """Sign root and targets."""
        self.root_version = root_version
        self.files[metadata_name(ROOT, root_version)] = sign_role(
            root_of(keys, root_version, self.when), signers.root
        )
        self._add_lower(TARGETS, targets_version, targets_of(keys, targets_version, self.when, self._words), [signers.targets])

    def add_words(self, targets: Targets, version: int, words: SiteWords, signer: Signer) -> None:
        """Sign the same targets role with other words."""
        self._add_lower(TARGETS, version, targets_with(targets, version, self.when, words), [signer])

    def add_release(self, version: int, targets: Mapping[str, TargetFile], signers: Sequence[Signer]) -> None:
        """Sign the release role."""
        self._add_lower(RELEASE, version, leaf_of(RELEASE, version, targets, self.when), signers)

    def publish(self, targets: Mapping[str, TargetFile], signer: Signer, version: int) -> None:
        """Sign deploy, and snapshot and timestamp over everything."""
        self._add_lower(DEPLOY, version, leaf_of(DEPLOY, version, targets, self.when), [signer])
        snapshot = sign_role(snapshot_of(version, self.lower, self.when), [signer])
        timestamp = timestamp_of(version, snapshot, self.root_version, self.when)
        self.files[metadata_name(SNAPSHOT, version)] = snapshot
        self.files[metadata_name(TIMESTAMP, version)] = sign_role(timestamp, [signer])

    def _add_lower(self, role: str, version: int, signed: Targets, signers: Sequence[Signer]) -> None:
        data = sign_role(signed, signers)
        self.lower[role] = (version, data)
        self.files[metadata_name(role, version)] = data


def slot_of(keys: SiteKeys, signer: Signer) -> int:
    """The slot of a laptop's key.

    Raises:
        TrustError: it is not a deploy key of this site.
    """
    for one in keys.deploy:
        if one.key.key_id == signer.key_id:
            return one.slot
    raise TrustError("is not a deploy key of this site", f"key {signer.key_id[:12]}")
