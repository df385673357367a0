"""How the keys of sites stand: who holds which, until when, what a lost key has signed."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_console.key_holders import Holder
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.trust_changing import holders_of
from pumpdeck_console.operations.trust_rows import RoleKey
from pumpdeck_console.operations.workspace import expiry_warning_ms
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE, ROOT, SNAPSHOT, TIMESTAMP
from pumpdeck_packaging.site_keys import SiteKeys
from pumpdeck_packaging.trust_change import SiteBase, key_named, roles_of, signers_in, site_keys_of, unpublished

_FIELD_ROLES = (DEPLOY, SNAPSHOT, TIMESTAMP)


@dataclass(frozen=True, slots=True)
class SignedThing:
    """Something a key signed: a package or an assignment. `state` says how far it got."""

    site: str
    kind: str
    device: str
    package: str
    state: str


@operation("trust.keys", runs_in="reader")
def list_keys(workspace: Workspace, *, sites: Sequence[str] = ()) -> tuple[RoleKey, ...]:
    """Every key of every role of these sites, or of all that were founded."""
    names = tuple(sites) or tuple(site.id for site in workspace.fleet.sites if workspace.trust(site.id).exists)
    here = _keys_here(workspace)
    found: list[RoleKey] = []
    for site in names:
        base = workspace.trust(site).base()
        found += _site_rows(workspace, site, base, here)
    return tuple(found)


@operation("trust.signed_by", runs_in="reader")
def signed_by(workspace: Workspace, *, key: str, sites: Sequence[str] = ()) -> tuple[SignedThing, ...]:
    """What this key signed, as far as is known here: packages by their provenance, assignments where it signed the newest.

    Raises:
        NotFoundError: no site has such a key.
    """
    found: list[SignedThing] = []
    is_known = False
    for site in tuple(sites) or tuple(one.id for one in workspace.fleet.sites if workspace.trust(one.id).exists):
        base = workspace.trust(site).base()
        try:
            key_id = key_named(site_keys_of(base.site), key)
        except NotFoundError:
            continue
        is_known = True
        found += _packages_of(workspace, site, base, key_id)
        found += _assignments_of(workspace, site, base, key_id)
    if not is_known:
        raise NotFoundError("no site has such a key", key, hint="see: pumpdeck trust status")
    return tuple(found)


def _site_rows(workspace: Workspace, site: str, base: SiteBase, here: set[str]) -> list[RoleKey]:
    keys, forms, now_ms = site_keys_of(base.site), base.site.forms, workspace.clock.now_ms()
    known = holders_of(workspace, site).keys
    slots = {one.key.key_id: one.slot for one in keys.deploy}
    thresholds = {ROOT: keys.root_threshold, RELEASE: keys.release_threshold}
    asked = workspace.policies.trust.release_signers(site)
    rows = []
    for role, ids in roles_of(keys).items():
        form = base.release if role == RELEASE else forms[role]
        expires_ms = min(forms[one].expires_ms for one in _FIELD_ROLES) if role == DEPLOY else form.expires_ms
        warning = _warning(role, keys, expires_ms - now_ms, expires_ms, asked)
        for key_id in ids:
            holder = known.get(key_id, Holder("", 0))
            rows.append(
                RoleKey(
                    site=site,
                    role=role,
                    key_id=key_id,
                    holder=holder.name,
                    since_ms=holder.since_ms,
                    threshold=thresholds.get(role, 1),
                    keys=len(ids),
                    version=form.version,
                    expires_ms=expires_ms,
                    slot=slots.get(key_id) if role == DEPLOY else None,
                    is_here=key_id in here,
                    warning=warning,
                )
            )
    return rows


def _warning(role: str, keys: SiteKeys, left_ms: int, expires_ms: int, asked: int) -> str:
    words = []
    if left_ms <= 0:
        words.append(f"ran out on {format_ms(expires_ms)}")
    elif left_ms < expiry_warning_ms(role):
        words.append(f"runs out on {format_ms(expires_ms)}")
    if role == ROOT and len(keys.root) == keys.root_threshold:
        words.append("no spare key: if one is lost the root cannot be changed any more")
    if role == RELEASE and keys.release_threshold < asked:
        words.append(f"the policy asks for {asked} signatures, the metadata for {keys.release_threshold}")
    return "; ".join(words)


def _keys_here(workspace: Workspace) -> set[str]:
    """Ids of the keys whose public halves lie in this computer's key folder; nothing is opened."""
    return set(workspace.credentials.public_ids())


def _packages_of(workspace: Workspace, site: str, base: SiteBase, key_id: str) -> list[SignedThing]:
    unseen = set(unpublished(base))
    active = workspace.store.devices.active()
    assigned = base.site.trusted.delegated(DEPLOY).targets
    current = {path.split("/")[1]: workspace.trust(site).assignment(path.split("/")[1]) for path in assigned}
    signers, is_last = _provenance_signers(workspace, site), key_id in signers_in(base.release)
    found = []
    for path, target in sorted(base.released.items()):
        device, digest = path.split("/")[1], str(target.hashes["sha256"])
        if key_id not in signers.get(digest, ()) and not is_last:
            continue
        now = current.get(device)
        state = "released, no device was told of it" if path in unseen else "released"
        state = "assigned" if now is not None and now.package_sha256 == digest else state
        state = "runs on the device" if active.get(device) == digest else state
        found.append(SignedThing(site, "package", device, digest, state))
    return found


def _assignments_of(workspace: Workspace, site: str, base: SiteBase, key_id: str) -> list[SignedThing]:
    if key_id not in signers_in(base.site.forms[DEPLOY]):
        return []
    found = []
    for path in base.site.trusted.delegated(DEPLOY).targets:
        device = path.split("/")[1]
        one = workspace.trust(site).assignment(device)
        if one is None:
            continue
        answered = any(
            row.receipt.seq == one.seq and row.receipt.task == one.task for row in workspace.store.receipts.of(device)
        )
        state = "answered by a receipt" if answered else "no receipt yet"
        found.append(SignedThing(site, "assignment", device, one.package_sha256, state))
    return found


def _provenance_signers(workspace: Workspace, site: str) -> Mapping[str, set[str]]:
    """Key ids by package digest, from the provenance that was signed with each release; what cannot be read says nothing."""
    found: dict[str, set[str]] = {}
    for envelope in workspace.trust(site).provenance():
        try:
            plain = json.loads(envelope)
            ids = {one["keyid"] for one in plain["signatures"]}
            for subject in json.loads(b64decode(plain["payload"]))["subject"]:
                found.setdefault(str(subject["digest"]["sha256"]), set()).update(ids)
        except (ValueError, KeyError, TypeError, PumpdeckError):
            continue
    return found

