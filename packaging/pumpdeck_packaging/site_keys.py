"""Who may sign what at a site, and the signed metadata that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_packaging.bundle_layout import (
    DEPLOY,
    DEPLOY_PATHS,
    DEPLOY_SLOTS,
    RELEASE,
    RELEASE_PATHS,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)
from pumpdeck_packaging.metadata_form import OWN_FIELD
from pumpdeck_packaging.people import PEOPLE_FIELD, people_fields
from pumpdeck_packaging.signing import PublicKey, public_key_of
from pumpdeck_packaging.site_words import NO_WORDS, SiteWords
from pumpdeck_packaging.trust_rules import ROOT_MIN_THRESHOLD
from pumpdeck_packaging.tuf_adapter import reference_time, signature_of


@dataclass(frozen=True, slots=True)
class DeployKey:
    """A field laptop's key and the slot its metadata versions stand in, so that two laptops never make the same version."""

    key: PublicKey
    slot: int


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """The public keys of a site's roles. The deploy keys also sign snapshot and timestamp.

    `people` says whose release and deploy keys are whose, person by key id; what is left out nobody has said.
    """

    root: tuple[PublicKey, ...]
    targets: PublicKey
    release: tuple[PublicKey, ...]
    deploy: tuple[DeployKey, ...]
    root_threshold: int = ROOT_MIN_THRESHOLD
    release_threshold: int = 1
    people: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SiteSigners:
    """The private keys that found a site: at least the threshold of root, targets, release, and one deploy key."""

    root: tuple[Signer, ...]
    targets: Signer
    release: tuple[Signer, ...]
    deploy: Signer


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how many days a signature is meant. Devices whose clock is not proven only warn when it is over."""

    root_days: int = 1095
    targets_days: int = 1095
    release_days: int = 730
    field_days: int = 180


@dataclass(frozen=True, slots=True)
class SigningTime:
    """The site, the moment of signing and how long it is meant: what every role's metadata says of itself."""

    site: str
    now_ms: int
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    def expires(self, days: int) -> datetime:
        """When a signature made now runs out."""
        return reference_time(self.now_ms + days * DAY_MS)

    def words(self, **more: Any) -> dict[str, Any]:
        """The field that Pumpdeck adds to the signed part."""
        return {OWN_FIELD: {"site": self.site, "signed_ms": self.now_ms, **more}}


def check_site_keys(keys: SiteKeys) -> None:
    """Check numbers and that no key does two people's work.

    Raises:
        UsageError: too few root keys, a slot given twice or out of range, a key in two roles.
    """
    root = [key.key_id for key in keys.root]
    if len(set(root)) != len(root) or not ROOT_MIN_THRESHOLD <= keys.root_threshold <= len(root):
        raise UsageError("needs at least two different root keys", "site keys", found=f"{len(set(root))} keys")
    release = {key.key_id for key in keys.release}
    deploy = {one.key.key_id for one in keys.deploy}
    if len(release) != len(keys.release) or not 1 <= keys.release_threshold <= len(release):
        raise UsageError("cannot reach the release threshold", "site keys", expected=keys.release_threshold)
    slots = [one.slot for one in keys.deploy]
    fine = all(0 <= slot < DEPLOY_SLOTS for slot in slots)
    if not slots or not fine or len(set(slots)) != len(slots) or len(deploy) != len(slots):
        raise UsageError("needs a slot of its own for each deploy key", "site keys", expected="0-63, each once")
    if release & deploy:
        raise UsageError("gives one key to both release and deploy", "site keys", found=sorted(release & deploy)[0][:12])
    held = [*root, keys.targets.key_id, *release, *deploy]
    if twice := sorted({key_id for key_id in held if held.count(key_id) > 1}):
        raise UsageError("gives one key to two roles", "site keys", expected="a key of its own for each", found=twice[0][:12])


def root_of(keys: SiteKeys, version: int, when: SigningTime) -> Root:
    """The root role: keys of the top roles."""
    field_ids = [one.key.key_id for one in keys.deploy]
    roles = {
        ROOT: Role([key.key_id for key in keys.root], keys.root_threshold),
        TARGETS: Role([keys.targets.key_id], 1),
        SNAPSHOT: Role(field_ids, 1),
        TIMESTAMP: Role(list(field_ids), 1),
    }
    used = (*keys.root, keys.targets, *(one.key for one in keys.deploy))
    return Root(
        version, None, when.expires(when.lifetimes.root_days), _keys(used), roles, True, when.words()
    )


def targets_of(keys: SiteKeys, version: int, when: SigningTime, words: SiteWords = NO_WORDS) -> Targets:
    """The top targets role: delegations to release and deploy, the deploy slots, and what the site says beside its keys."""
    deploy = [one.key for one in keys.deploy]
    roles = {
        RELEASE: DelegatedRole(
            RELEASE, [key.key_id for key in keys.release], keys.release_threshold, True, [RELEASE_PATHS]
        ),
        DEPLOY: DelegatedRole(DEPLOY, [key.key_id for key in deploy], 1, True, [DEPLOY_PATHS]),
    }
    slots = {one.key.key_id: one.slot for one in keys.deploy}
    return Targets(
        version,
        None,
        when.expires(when.lifetimes.targets_days),
        {},
        Delegations(_keys((*keys.release, *deploy)), roles),
        when.words(deploy_slots=slots)
        | words.fields()
        | people_fields(keys.people, {*slots, *(key.key_id for key in keys.release)}),
    )


def targets_with(targets: Targets, version: int, when: SigningTime, words: SiteWords) -> Targets:
    """The same keys and slots, signed anew with other words."""
    slots = targets.unrecognized_fields[OWN_FIELD]["deploy_slots"]
    people = {name: value for name, value in targets.unrecognized_fields.items() if name == PEOPLE_FIELD}
    fields = when.words(deploy_slots=slots) | words.fields() | people
    return Targets(version, None, when.expires(when.lifetimes.targets_days), {}, targets.delegations, fields)


def leaf_of(role: str, version: int, targets: Mapping[str, TargetFile], when: SigningTime) -> Targets:
    """A delegated role that names targets."""
    days = when.lifetimes.release_days if role == RELEASE else when.lifetimes.field_days
    return Targets(version, None, when.expires(days), dict(targets), None, when.words())


def snapshot_of(version: int, files: Mapping[str, tuple[int, bytes]], when: SigningTime) -> Snapshot:
    """The snapshot over targets, release and deploy, given as role -> (version, bytes)."""
    meta = {f"{role}.json": MetaFile.from_data(number, data, ["sha256"]) for role, (number, data) in files.items()}
    return Snapshot(version, None, when.expires(when.lifetimes.field_days), meta, when.words())


def timestamp_of(version: int, snapshot: bytes, root_version: int, when: SigningTime) -> Timestamp:
    """The timestamp over a snapshot of the same version, made when `root_version` was the newest root."""
    meta = MetaFile.from_data(version, snapshot, ["sha256"])
    return Timestamp(version, None, when.expires(when.lifetimes.field_days), meta, when.words(root=root_version))


def sign_role(signed: Root | Targets | Snapshot | Timestamp, signers: Sequence[Signer]) -> bytes:
    """The metadata file: canonical bytes with one signature a signer."""
    metadata: Metadata[Any] = Metadata(signed)
    payload = metadata.signed_bytes
    for signer in signers:
        metadata.signatures[signer.key_id] = signature_of(signer.key_id, signer.sign(payload))
    return canonical.encode(metadata.to_dict())


def _keys(keys: Sequence[PublicKey]) -> dict[str, Key]:
    return {key.key_id: public_key_of(key.pem) for key in keys}
