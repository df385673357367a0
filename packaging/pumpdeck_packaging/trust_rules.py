"""What TUF does not ask and Pumpdeck does: rules on keys, thresholds, delegations, slots and target paths of a site.

Each rule is here because TUF alone let the attack through in a trial; `tests/attack` names them one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Role, Root, Snapshot, Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError
from pumpdeck_fleet.core.ids import check_digest
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
    package_path,
    sealed_path,
)
from pumpdeck_packaging.manifest import PACKAGE_MAX_BYTES, UNPACKED_MAX_BYTES
from pumpdeck_packaging.metadata_form import MetadataForm
from pumpdeck_packaging.signing import is_weak_key

ROOT_MIN_THRESHOLD = 2
_RAW_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PackageWords:
    """Custom data of a released package: release version that introduced it, length of the tar, model version numbers."""

    release: int
    unpacked_bytes: int
    versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SealedWords:
    """Custom data of a package that is encrypted to its device: the same, and to which key."""

    release: int
    unpacked_bytes: int
    versions: Mapping[str, int]
    age_key: str


@dataclass(frozen=True, slots=True)
class AssignmentWords:
    """Custom data of an assignment target."""

    seq: int


@dataclass(frozen=True, slots=True)
class ReleasedPackage:
    """A package that the release role signed for one device.

    `sealed` is the digest of its ciphertext where it is encrypted, else empty; `bytes` is the length of what travels.
    """

    path: str
    sha256: str
    bytes: int
    words: PackageWords
    sealed: str = ""

    @property
    def stored_sha256(self) -> str:
        """The digest of what travels."""
        return self.sealed or self.sha256


def check_root(root: Root, name: str) -> None:
    """Each key id is the digest of its key, no key stands twice, the root threshold is at least two.

    Raises:
        TrustError: names what does not hold.
    """
    _check_keys(root.keys, name)
    for role_name, role in root.roles.items():
        _check_role(role_name, role, root.keys, name)
    if root.roles[ROOT].threshold < ROOT_MIN_THRESHOLD:
        raise TrustError("lets one person change all keys", name, expected=f"a threshold of {ROOT_MIN_THRESHOLD}")


def check_targets(targets: Targets, root: Root, name: str) -> None:
    """The top targets role delegates exactly to release and deploy, whose keys are apart, and names no target itself.

    Raises:
        TrustError: anything else.
    """
    delegations = targets.delegations
    if targets.targets:
        raise TrustError("names targets itself", name, expected="delegations only")
    if delegations is None or delegations.roles is None or tuple(delegations.roles) != (RELEASE, DEPLOY):
        raise TrustError("delegates otherwise", name, expected=f"{RELEASE} and {DEPLOY}")
    _check_keys(delegations.keys, name)
    for role_name, paths in ((RELEASE, RELEASE_PATHS), (DEPLOY, DEPLOY_PATHS)):
        role = delegations.roles[role_name]
        _check_role(role_name, role, delegations.keys, name)
        if role.paths != [paths] or role.path_hash_prefixes is not None or not role.terminating:
            raise TrustError(f"delegates other paths to {role_name}", name, expected=paths, found=role.paths)
    apart = set(delegations.roles[RELEASE].keyids)
    field = {*delegations.roles[DEPLOY].keyids, *root.roles[SNAPSHOT].keyids, *root.roles[TIMESTAMP].keyids}
    if apart & field:
        # A laptop that is stolen must not be able to introduce a model.
        raise TrustError("gives one key to both release and deploy", name, found=sorted(apart & field)[0][:12])


def check_leaf(role: Targets, name: str) -> None:
    """A delegated role delegates no further.

    Raises:
        TrustError: it does.
    """
    if role.delegations is not None:
        raise TrustError("delegates further", name, expected="targets only")


def check_snapshot(snapshot: Snapshot, name: str) -> None:
    """The snapshot lists exactly the three targets roles.

    Raises:
        TrustError: it lists others or lacks one.
    """
    expected = {f"{role}.json" for role in (TARGETS, RELEASE, DEPLOY)}
    if set(snapshot.meta) != expected:
        raise TrustError("lists other roles", name, expected=", ".join(sorted(expected)))


def check_slot(form: MetadataForm, signers: tuple[str, ...], slots: Mapping[str, int]) -> None:
    """A version of deploy, snapshot or timestamp stands in the slot of a key that signed it.

    Raises:
        TrustError: it stands in another laptop's slot.
    """
    mine = {slots[key_id] for key_id in signers if key_id in slots}
    if form.version % DEPLOY_SLOTS not in mine:
        raise TrustError(
            "has a version in another key's slot",
            form.name,
            expected=f"slot {sorted(mine)}",
            found=form.version % DEPLOY_SLOTS,
        )


def parse_slots(form: MetadataForm, targets: Targets) -> dict[str, int]:
    """Deploy slots by key id from the targets role.

    Raises:
        TrustError: a deploy key has none, a slot is out of range or given twice.
    """
    slots = form.own.deploy_slots or {}
    keys = set(targets.get_delegated_role(DEPLOY).keyids)
    fine = all(0 <= slot < DEPLOY_SLOTS for slot in slots.values()) and len(set(slots.values())) == len(slots)
    if not fine or not keys <= set(slots):
        raise TrustError("does not give each deploy key a slot of its own", form.name, expected="0-63, each once")
    return slots


def released_package(release: Targets, device: str, sha256: str) -> ReleasedPackage:
    """The package of that digest that the release role itself signed for that device.

    Only the release role's own targets are looked at: TUF's search does not say which role signed what it found.

    Raises:
        TrustError: not released for this device, or its entry contradicts its name.
        FormatError: its custom data has another form.
    """
    if sealed_path(device, sha256) in release.targets:
        return _sealed_package(release, device, sha256)
    path = package_path(device, sha256)
    target = release.targets.get(path)
    if target is None:
        raise TrustError("was not released for this device", f"package {sha256[:12]}", expected=f"a target {path}")
    if target.hashes != {"sha256": sha256}:
        raise TrustError("has a digest that contradicts its name", path, expected=sha256)
    words = canonical.from_plain(PackageWords, target.custom, f"{path}.custom")
    if not 0 < words.unpacked_bytes <= UNPACKED_MAX_BYTES or not 0 < target.length <= PACKAGE_MAX_BYTES:
        raise TrustError("has an impossible size", path, found=f"{target.length} / {words.unpacked_bytes}")
    return ReleasedPackage(path, sha256, target.length, words)


def _sealed_package(release: Targets, device: str, sha256: str) -> ReleasedPackage:
    path = sealed_path(device, sha256)
    target = release.targets[path]
    if set(target.hashes) != {"sha256"}:
        raise TrustError("has other digests than one", path, expected="sha256")
    sealed = check_digest(target.hashes["sha256"], path)
    words = canonical.from_plain(SealedWords, target.custom, f"{path}.custom")
    fits = 0 < words.unpacked_bytes <= UNPACKED_MAX_BYTES and 0 < target.length <= PACKAGE_MAX_BYTES
    if not fits or sealed == sha256:
        raise TrustError("has an impossible size or digest", path, found=f"{target.length} / {words.unpacked_bytes}")
    plain = PackageWords(words.release, words.unpacked_bytes, words.versions)
    return ReleasedPackage(path, sha256, target.length, plain, sealed)


def _check_role(role_name: str, role: Role, keys: Mapping[str, Key], name: str) -> None:
    known = [key_id for key_id in role.keyids if key_id in keys]
    if type(role.threshold) is not int or len(known) != len(role.keyids) or role.threshold > len(known):
        raise TrustError(f"cannot reach its own threshold for {role_name}", name, found=role.threshold)


def _check_keys(keys: Mapping[str, Key], name: str) -> None:
    for key_id, key in keys.items():
        public = key.keyval.get("public") if isinstance(key.keyval, dict) else None
        plain = set(key.keyval) == {"public"} and not key.unrecognized_fields
        if (key.keytype, key.scheme) != ("ed25519", "ed25519") or not isinstance(public, str) or not plain:
            raise TrustError("holds a key that is not plain Ed25519", name, found=key_id[:12])
        if _RAW_KEY.fullmatch(public) is None:
            raise TrustError("holds a key in an unusual spelling", name, found=key_id[:12])
        if is_weak_key(bytes.fromhex(public)):
            raise TrustError("holds a key under which anybody can sign", name, found=key_id[:12])
        # The id is the digest of the key, so one key cannot stand under two ids and count twice.
        if key_id != _computed_id(key):
            raise TrustError("holds a key under another id", name, found=key_id[:12])


def _computed_id(key: Key) -> str:
    plain = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    return canonical.digest(canonical.encode(plain))


def keys_of_role(holder: Root | Targets, role_name: str) -> dict[str, SSlibKey]:
    """Verifying keys of a role by key id.

    Raises:
        FormatError: a key is of an unknown kind.
    """
    found: dict[str, SSlibKey] = {}
    for key_id in holder.get_delegated_role(role_name).keyids:
        key = holder.get_key(key_id)
        if not isinstance(key, SSlibKey):
            raise FormatError("is a key of an unknown kind", key_id[:12])
        found[key_id] = key
    return found
