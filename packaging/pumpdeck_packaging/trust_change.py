"""Change who may sign at a site: edits of keys in, the metadata that has to be signed anew out. Nothing is signed here.

root says who root, targets and the laptops are; targets says who releases and who deploys. So a laptop stands in both, a release
key in targets alone, and a release that a departed key signed must be signed again by those who stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError, UsageError
from pumpdeck_packaging.bundle_layout import DEPLOY, DEPLOY_SLOTS, RELEASE, ROOT, TARGETS
from pumpdeck_packaging.metadata_form import MetadataForm
from pumpdeck_packaging.people import people_in, person_of_key
from pumpdeck_packaging.signing import PublicKey, pem_of_key
from pumpdeck_packaging.site_keys import DeployKey, SigningTime, SiteKeys, check_site_keys, leaf_of, root_of, targets_of
from pumpdeck_packaging.site_words import words_of
from pumpdeck_packaging.trust_rules import keys_of_role, parse_slots
from pumpdeck_packaging.verify import VerifiedSite

KEY_ROLES = (ROOT, TARGETS, RELEASE, DEPLOY)
"""Roles that people hold keys of; a deploy key also signs snapshot and timestamp."""

Signed = Root | Targets


@dataclass(frozen=True, slots=True)
class KeyEdit:
    """One change of one role. `remove` are key ids; `threshold` None leaves it.

    `people` says whose keys are whose, person by key id, of new keys and of others.
    """

    role: str
    add: tuple[PublicKey, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None
    people: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SiteBase:
    """What a change starts from: the verified site, and the newest release, which no snapshot may name yet."""

    site: VerifiedSite
    release: MetadataForm
    released: Mapping[str, TargetFile]


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is signed anew besides what the keys demand.

    `all_roles` gives root, targets and release a new life though no key changes; `drop_unpublished` leaves out what was released
    but never given to a device, because the key that signed it is lost.
    """

    all_roles: bool = False
    drop_unpublished: bool = False


def site_keys_of(site: VerifiedSite) -> SiteKeys:
    """The public keys of every role as the site's metadata has them."""
    root, targets = site.trusted.root, site.trusted.targets
    slots = parse_slots(site.forms[TARGETS], targets)
    deploy = keys_of_role(targets, DEPLOY)
    return SiteKeys(
        root=_public(keys_of_role(root, ROOT)),
        targets=_public(keys_of_role(root, TARGETS))[0],
        release=_public(keys_of_role(targets, RELEASE)),
        deploy=tuple(DeployKey(key, slots[key.key_id]) for key in _public(deploy)),
        root_threshold=root.get_delegated_role(ROOT).threshold,
        release_threshold=targets.get_delegated_role(RELEASE).threshold,
        people=people_in(site.trusted.targets),
    )


def roles_of(keys: SiteKeys) -> dict[str, tuple[str, ...]]:
    """Key ids by role."""
    return {
        ROOT: tuple(key.key_id for key in keys.root),
        TARGETS: (keys.targets.key_id,),
        RELEASE: tuple(key.key_id for key in keys.release),
        DEPLOY: tuple(one.key.key_id for one in keys.deploy),
    }


def edited_keys(keys: SiteKeys, edits: Sequence[KeyEdit]) -> SiteKeys:
    """The keys after all edits. A key is named by its digest, so another encoding of it is the same key.

    Raises:
        NotFoundError: a key to be removed is not of that role.
        ConflictError: a key to be added is there already, in whatever role.
        RefusedError: too few keys would be left.
        UsageError: no such role.
    """
    for edit in edits:
        if edit.role not in KEY_ROLES:
            raise UsageError("is no role that holds keys", edit.role, expected=", ".join(KEY_ROLES))
        for key_id in edit.remove:
            if key_id not in roles_of(keys)[edit.role]:
                known = ", ".join(one[:12] for one in roles_of(keys)[edit.role])
                raise NotFoundError(f"is not a {edit.role} key of this site", f"key {key_id[:12]}", expected=known)
    removed = {(edit.role, key_id) for edit in edits for key_id in edit.remove}
    _check_new(keys, edits, removed)
    for edit in edits:
        keys = _named(_edited(keys, edit), edit)
    try:
        check_site_keys(keys)
    except UsageError as error:
        hint = "put another key in its place in the same change"
        raise RefusedError(error.what, error.which, expected=error.expected, found=error.found, hint=hint) from error
    return keys


def key_named(keys: SiteKeys, text: str, role: str = "") -> str:
    """The whole key id that `text` begins, among the keys of `role` or of all roles.

    Raises:
        NotFoundError: none. ConflictError: several.
    """
    held = roles_of(keys)
    known = {key_id for name in ([role] if role else KEY_ROLES) for key_id in held[name]}
    found = sorted(key_id for key_id in known if text and key_id.startswith(text.lower()))
    if not found:
        raise NotFoundError("no such key at this site", text or "key", expected=", ".join(sorted(k[:12] for k in known)))
    if len(found) > 1:
        raise ConflictError("names several keys", text, found=", ".join(key_id[:12] for key_id in found))
    return found[0]


def person_named(keys: SiteKeys, text: str) -> str:
    """The person `text` means: a person of this site, or whoever holds the key that it begins.

    Raises:
        NotFoundError: nobody. ConflictError: several keys.
    """
    if text in keys.people.values():
        return text
    key_id = key_named(keys, text)
    return keys.people.get(key_id) or person_of_key(key_id)


def parts_to_sign(base: SiteBase, keys: SiteKeys, when: SigningTime, renewal: Renewal) -> dict[str, Signed]:
    """The metadata that has to be signed anew so that `keys` are the site's keys, by role, the lower roles last.

    Raises:
        RefusedError: nothing would change.
    """
    before = site_keys_of(base.site)
    top = (before.root, before.root_threshold, before.targets, before.deploy)
    parts: dict[str, Signed] = {}
    if renewal.all_roles or top != (keys.root, keys.root_threshold, keys.targets, keys.deploy):
        parts[ROOT] = root_of(keys, base.site.forms[ROOT].version + 1, when)
    delegated = (before.targets, before.release, before.release_threshold, before.deploy, before.people)
    form = base.site.forms[TARGETS]
    if renewal.all_roles or delegated != (keys.targets, keys.release, keys.release_threshold, keys.deploy, keys.people):
        parts[TARGETS] = targets_of(keys, form.version + 1, when, words_of(form))
    if not parts:
        raise RefusedError("nothing would change", base.site.forms[ROOT].own.site)
    if renewal.all_roles or renewal.drop_unpublished or not _is_release_held(base.release, keys):
        published = base.site.trusted.delegated(RELEASE).targets
        targets = published if renewal.drop_unpublished else base.released
        parts[RELEASE] = leaf_of(RELEASE, base.release.version + 1, targets, when)
    return parts


def signers_in(form: MetadataForm) -> tuple[str, ...]:
    """The ids of the keys that signed a metadata file; whether they hold is asked where it is verified."""
    return tuple(Metadata.from_bytes(form.data).signatures)


def unpublished(base: SiteBase) -> tuple[str, ...]:
    """Target paths that were released and that no snapshot names: no device was ever told of them."""
    return tuple(sorted(set(base.released) - set(base.site.trusted.delegated(RELEASE).targets)))


def _is_release_held(form: MetadataForm, keys: SiteKeys) -> bool:
    # Every signature must hold, so one of a departed key spoils the file though enough others are there.
    signed, held = set(signers_in(form)), {key.key_id for key in keys.release}
    return signed <= held and len(signed) >= keys.release_threshold


def _check_new(keys: SiteKeys, edits: Sequence[KeyEdit], removed: Collection[tuple[str, str]]) -> None:
    stays = {
        key_id: role for role, ids in roles_of(keys).items() for key_id in ids if (role, key_id) not in removed
    }
    for edit in edits:
        for key in edit.add:
            if key.key_id in stays:
                raise ConflictError(
                    f"is a {stays[key.key_id]} key of this site already",
                    f"key {key.key_id[:12]}",
                    expected="a key of its own for each person and role",
                    hint="make a new key",
                )
            if (edit.role, key.key_id) in removed:
                raise ConflictError("is removed and added at once", f"key {key.key_id[:12]}")
            stays[key.key_id] = edit.role


def _edited(keys: SiteKeys, edit: KeyEdit) -> SiteKeys:
    if edit.role == TARGETS:
        if edit.threshold not in (None, 1) or len(edit.add) != 1 or edit.remove not in ((), (keys.targets.key_id,)):
            raise UsageError("has one key, which can only be replaced", TARGETS, expected="one new key, threshold 1")
        return replace(keys, targets=edit.add[0])
    if edit.role == DEPLOY:
        if edit.threshold not in (None, 1):
            raise UsageError("is signed by one laptop", DEPLOY, expected="threshold 1", found=edit.threshold)
        return replace(keys, deploy=_deploy_after(keys.deploy, edit))
    if edit.role == ROOT:
        root = (*(key for key in keys.root if key.key_id not in edit.remove), *edit.add)
        return replace(keys, root=root, root_threshold=edit.threshold or keys.root_threshold)
    release = (*(key for key in keys.release if key.key_id not in edit.remove), *edit.add)
    return replace(keys, release=release, release_threshold=edit.threshold or keys.release_threshold)


def _named(keys: SiteKeys, edit: KeyEdit) -> SiteKeys:
    """The same keys, and whose they are; keys that left belong to nobody here."""
    held = {*roles_of(keys)[RELEASE], *roles_of(keys)[DEPLOY]}
    people = {**keys.people, **edit.people}
    return replace(keys, people={key_id: person for key_id, person in people.items() if key_id in held})


def _deploy_after(deploy: tuple[DeployKey, ...], edit: KeyEdit) -> tuple[DeployKey, ...]:
    # A slot that is given up now stays empty in this change: a thief may go on making versions in it.
    used = {one.slot for one in deploy}
    free = [slot for slot in range(DEPLOY_SLOTS) if slot not in used]
    if len(free) < len(edit.add):
        raise RefusedError("has no free slot for another laptop", DEPLOY, expected=f"at most {DEPLOY_SLOTS}")
    kept = tuple(one for one in deploy if one.key.key_id not in edit.remove)
    return (*kept, *(DeployKey(key, slot) for key, slot in zip(edit.add, free, strict=False)))


def _public(keys: Mapping[str, SSlibKey]) -> tuple[PublicKey, ...]:
    return tuple(PublicKey(key_id, pem_of_key(key)) for key_id, key in keys.items())
