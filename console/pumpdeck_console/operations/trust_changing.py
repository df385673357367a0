"""Changing who may sign: plan, propose, sign, publish. One file travels between the people whose signatures it needs.

Nothing weakens by itself: without the threshold of root keys nothing at the root changes any more (docs/trust.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_console.key_holders import Holders, read_holders, with_ended, with_names, write_holders
from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem, read_plain, replace_file
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE, ROOT, TARGETS
from pumpdeck_packaging.people import people_in, person_of_key
from pumpdeck_packaging.signing import PublicKey, key_id_of, pem_of_key, public_key_of
from pumpdeck_packaging.site_keys import SiteKeys
from pumpdeck_packaging.trust_change import (
    KEY_ROLES,
    KeyEdit,
    Renewal,
    edited_keys,
    key_named,
    parts_to_sign,
    person_named,
    roles_of,
    site_keys_of,
)
from pumpdeck_packaging.trust_proposal import (
    PROPOSAL_MAX_BYTES,
    Lack,
    OpenedSite,
    Proposal,
    SiteProposal,
    check_time,
    encode_proposal,
    lacks,
    make_proposal,
    merge_proposals,
    open_site,
    parse_proposal,
    propose,
    sign_proposal,
)
from pumpdeck_packaging.trust_rules import keys_of_role


@dataclass(frozen=True, slots=True)
class NewKey:
    """A public key (PEM or OpenSSH line) that shall come in, and who holds it. An empty `role` is that of the request.

    `person` is a person or the beginning of one of their keys; empty: the holder of that name, else somebody new.
    """

    text: str
    holder: str
    role: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What people ask for. `sites` empty means every founded site where it applies; `remove` names key ids by their beginning.

    `is_lost`: the removed keys are in strange hands; what they released and no device was told of is left out.
    `people` says of keys that stay whose they are: beginning of a key id -> a person, or the beginning of another key of theirs.
    """

    role: str = ""
    add: tuple[NewKey, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None
    sites: tuple[str, ...] = ()
    reason: str = ""
    is_lost: bool = False
    is_renewal: bool = False
    people: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One line of a plan: `+`, `-` or `=` a key of a role, or `!` words."""

    site: str
    sign: str
    role: str
    key_id: str
    holder: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class ProposalView:
    """A proposal for people: what changes, what is lacking, its words. `roots` are the words of each site's root before."""

    id: str
    words: str
    purpose: str
    good_until_ms: int
    sites: tuple[str, ...]
    roots: Mapping[str, str]
    lines: tuple[KeyLine, ...]
    lacks: tuple[Lack, ...]
    holders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PublishReport:
    """Sites whose trust changed now, with the root version that counts, and those that had it already."""

    published: Mapping[str, int]
    already: tuple[str, ...]


def holders_of(workspace: Workspace, site: str) -> Holders:
    """Who holds the keys of a site."""
    return read_holders(workspace.fs, workspace.trust_path / site)


def make_change(workspace: Workspace, request: ChangeRequest) -> Proposal:
    """The unsigned proposal of a change; nothing is written.

    Raises:
        NotFoundError, ConflictError, RefusedError: a key is not there, is there already, or too few would be left.
    """
    sites, names, gone = [], {}, set()
    for site in _sites(workspace, request):
        base = workspace.trust(site).base()
        keys = site_keys_of(base.site)
        edits = _with_people(workspace, site, keys, request, _edits(keys, request))
        if not edits and not request.is_renewal:
            continue
        after = edited_keys(keys, edits)
        drops = request.is_lost and any(edit.role == RELEASE and edit.remove for edit in edits)
        renewal = Renewal(request.is_renewal, drops)
        sites.append(propose(base, parts_to_sign(base, after, workspace.trust(site).signing_time(), renewal)))
        known = holders_of(workspace, site).keys
        names.update({key_id: known[key_id].name for ids in roles_of(keys).values() for key_id in ids if key_id in known})
        gone |= {key_id for edit in edits for key_id in edit.remove}
    if not sites:
        raise NotFoundError("no site has such a key", ", ".join(request.remove) or "trust", hint="see: pumpdeck trust status")
    names |= {key_id_of(new.text.strip()): new.holder for new in request.add}
    purpose = request.reason or ("renewal" if request.is_renewal else "change of keys")
    return make_proposal(sites, purpose, {key: name for key, name in names.items() if name}, workspace.clock.now_ms())


def view_proposal(proposal: Proposal) -> ProposalView:
    """What a proposal says, from the file alone: a holder may have no workspace."""
    lines: list[KeyLine] = []
    roots = {}
    for one in proposal.sites:
        opened = open_site(one)
        roots[one.site] = _root_words(one)
        lines += _lines(opened, proposal.holders)
    return ProposalView(
        proposal.id, proposal.words, proposal.purpose, proposal.good_until_ms,
        tuple(one.site for one in proposal.sites), roots, tuple(lines), lacks(proposal), proposal.holders,
    )  # fmt: skip


def read_proposal(path: Path) -> Proposal:
    """The proposal in a file.

    Raises:
        NotFoundError: no such file. DamagedError, TrustError: it is none, or was altered.
    """
    try:
        data = read_plain(path, PROPOSAL_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(path)) from error
    return parse_proposal(data, path.name)


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Write a proposal to a file, whole or not at all."""
    replace_file(RealFileSystem(), path.absolute(), encode_proposal(proposal))


def sign_with_own_keys(workspace: Workspace, proposal: Proposal, roles: Sequence[str] = (TARGETS, RELEASE)) -> Proposal:
    """The proposal signed by the keys of this computer that it still needs. Keys that are not here are passed over."""
    for role in roles:
        wanted = {key_id for lack in lacks(proposal) if lack.role == role for key_id in lack.keys}
        signer = _own_signer(workspace, role, wanted) if wanted else None
        if signer is not None:
            proposal = sign_proposal(proposal, [signer], workspace.clock.now_ms())[0]
    return proposal


def publish_proposals(workspace: Workspace, proposals: Sequence[Proposal]) -> PublishReport:
    """Put a change into force at its sites under this computer's deploy key, audited. Repeating goes on where it stopped.

    Raises:
        TrustError, RefusedError: signatures are lacking, it ran out, or this laptop is not among the deploy keys after it.
        ConflictError: a site has moved on since it was proposed.
    """
    proposal = merge_proposals(proposals)
    check_time(proposal, workspace.clock.now_ms())
    if found := lacks(proposal):
        which = f"proposal {proposal.id[:12]}"
        raise RefusedError("is not signed by enough people", which, expected=_lack_words(found, proposal))
    published, already = {}, []
    for one in proposal.sites:
        if _is_published(workspace, one):
            already.append(one.site)
            continue
        published[one.site] = _publish_site(workspace, proposal, one)
    return PublishReport(published, tuple(already))


@operation("trust.name", runs_in="worker")
def name_holder(workspace: Workspace, *, site: str, key: str, holder: str) -> str:
    """Write down who holds a key; the whole key id. Raises: NotFoundError, ConflictError: no such key, or several."""
    folder = workspace.trust_path / workspace.fleet.site(site).id
    key_id = key_named(site_keys_of(workspace.trust(site).base().site), key)
    write_holders(workspace.fs, folder, with_names(holders_of(workspace, site), {key_id: holder}, workspace.clock.now_ms()))
    return key_id


def _publish_site(workspace: Workspace, proposal: Proposal, one: SiteProposal) -> int:
    trust = workspace.trust(one.site)
    opened = open_site(one)
    before, after = _role_keys(opened, is_after=False), _role_keys(opened, is_after=True)
    if set(one.parts) == {RELEASE}:
        raise RefusedError("is a release, not a change of keys", f"proposal {proposal.id[:12]}", hint="pumpdeck package publish")
    signer = _own_signer(workspace, DEPLOY, set(after[DEPLOY]))
    if signer is None:
        raise NotFoundError(
            "no deploy key that counts after this change",
            "this computer",
            expected=", ".join(key[:12] for key in after[DEPLOY]),
            hint="publish it on one of their laptops",
        )
    version = trust.publish(one, signer)
    now_ms = workspace.clock.now_ms()
    ended = {key: proposal.purpose for role in KEY_ROLES for key in before[role] if key not in _all(after)}
    new = {key: proposal.holders.get(key, "") for key in _all(after) if key not in _all(before)}
    folder = workspace.trust_path / one.site
    named = with_ended(with_names(holders_of(workspace, one.site), new, now_ms), ended, now_ms)
    write_holders(workspace.fs, folder, replace(named, first_seq=trust.next_seq()))
    with workspace.store.atomic() as store:
        digests = {"proposal": proposal.id, "root": canonical.digest(trust.root_bytes())}
        words = [f"-{role} {key[:12]}" for role in KEY_ROLES for key in before[role] if key not in after[role]]
        words += [f"+{role} {key[:12]}" for role in KEY_ROLES for key in after[role] if key not in before[role]]
        reason = f"{proposal.purpose}: {', '.join(words) or 'no key changed'}; root {version}"
        store.audit.append(workspace.actor, "trust.change", one.site, reason[:500], digests)
    return version


def _is_published(workspace: Workspace, one: SiteProposal) -> bool:
    """Whether exactly this change is what the site has now: a publication that was cut goes on with the other sites."""
    site, opened = workspace.trust(one.site).base().site, open_site(one)
    same_root = ROOT not in one.parts or site.trusted.root == opened.root
    same_targets = TARGETS not in one.parts or site.trusted.targets == opened.targets
    return bool(same_root and same_targets) and bool(set(one.parts) & {ROOT, TARGETS})


def _sites(workspace: Workspace, request: ChangeRequest) -> list[str]:
    names = request.sites or tuple(site.id for site in workspace.fleet.sites)
    founded = [site for site in names if workspace.trust(site).exists]
    if request.sites and len(founded) < len(names):
        missing = next(site for site in names if site not in founded)
        raise NotFoundError("has no trust repository", missing, hint="found it with: pumpdeck trust init")
    return founded


def _edits(keys: SiteKeys, request: ChangeRequest) -> list[KeyEdit]:
    """The edits this request means at one site; a key that is not there is passed over when no site was named."""
    new: dict[str, tuple[PublicKey, ...]] = {}
    for one in request.add:
        role = one.role or request.role
        new[role] = (*new.get(role, ()), _public(one.text))
    remove: dict[str, list[str]] = {}
    for text in request.remove:
        try:
            key_id = key_named(keys, text, request.role)
        except NotFoundError:
            if request.sites:
                raise
            continue
        for role, ids in roles_of(keys).items():
            if key_id in ids and request.role in ("", role):
                remove.setdefault(role, []).append(key_id)
    if request.add and request.remove and not remove:
        return []
    roles = {*remove, *new, *([request.role] if request.threshold else [])}
    return [
        KeyEdit(role, new.get(role, ()), tuple(remove.get(role, ())), request.threshold if role == request.role else None)
        for role in KEY_ROLES
        if role in roles
    ]


def _with_people(
    workspace: Workspace, site: str, keys: SiteKeys, request: ChangeRequest, edits: list[KeyEdit]
) -> list[KeyEdit]:
    """The edits with whose keys are whose: a new key's holder may be known here by name, else it is somebody new."""
    known = holders_of(workspace, site).keys
    named = {known[key_id].name.partition(",")[0]: person for key_id, person in keys.people.items() if key_id in known}
    people = {}
    for key, person in request.people.items():
        with nullcontext() if request.sites else suppress(NotFoundError):
            people[key_named(keys, key)] = person_named(keys, person)
    for one in request.add if edits else ():
        key_id = _public(one.text).key_id
        if (one.role or request.role) in (RELEASE, DEPLOY):
            known_by_name = named.get(one.holder.partition(",")[0], person_of_key(key_id))
            people[key_id] = person_named(keys, one.person) if one.person else known_by_name
    if not people:
        return edits
    return [*edits, KeyEdit(RELEASE, people=people)]


def _public(text: str) -> PublicKey:
    key = public_key_of(text.strip())
    return PublicKey(str(key.keyid), pem_of_key(key))


def _own_signer(workspace: Workspace, role: str, wanted: set[str]) -> Signer | None:
    try:
        return workspace.find_key(role, wanted).signer
    except NotFoundError:
        return None


def _root_words(one: SiteProposal) -> str:
    return fingerprint_words(one.root.encode("utf-8"))


def _role_keys(opened: OpenedSite, *, is_after: bool) -> dict[str, tuple[str, ...]]:
    root, targets = (opened.root, opened.targets) if is_after else (opened.root_before, opened.targets_before)
    return {
        ROOT: tuple(keys_of_role(root, ROOT)),
        TARGETS: tuple(keys_of_role(root, TARGETS)),
        RELEASE: tuple(keys_of_role(targets, RELEASE)),
        DEPLOY: tuple(keys_of_role(targets, DEPLOY)),
    }


def _lines(opened: OpenedSite, holders: Mapping[str, str]) -> list[KeyLine]:
    site = opened.proposal.site
    before, after = _role_keys(opened, is_after=False), _role_keys(opened, is_after=True)
    lines = []
    for role in KEY_ROLES:
        for key in dict.fromkeys((*before[role], *after[role])):
            sign = "=" if key in before[role] and key in after[role] else "-" if key in before[role] else "+"
            lines.append(KeyLine(site, sign, role, key, holders.get(key, "")))
        if role == RELEASE:
            lines += _people_lines(opened, holders)
        threshold = _threshold(opened, role)
        if threshold[0] != threshold[1]:
            words = f"{role}: {threshold[1]} must sign instead of {threshold[0]}"
            lines.append(KeyLine(site, "!", role, "", "", words))
    for role, signed in ((ROOT, opened.root), (TARGETS, opened.targets), (RELEASE, opened.release)):
        if role in opened.proposal.parts and signed is not None:
            until = format_ms(round(signed.expires.timestamp() * 1000))
            lines.append(KeyLine(site, "!", role, "", "", f"{role} version {signed.version}, until {until}"))
    if opened.release is not None:
        for path, target in sorted(opened.release.targets.items()):
            if int(target.custom["release"]) == opened.release.version:
                versions = ", ".join(f"{model} v{number}" for model, number in sorted(target.custom["versions"].items()))
                words = f"package {path.split('/')[2]} for {path.split('/')[1]}: {versions}"
                lines.append(KeyLine(site, "!", RELEASE, "", "", words))
    return lines


def _people_lines(opened: OpenedSite, holders: Mapping[str, str]) -> list[KeyLine]:
    before, after = (people_in(one) for one in (opened.targets_before, opened.targets))
    return [
        KeyLine(opened.proposal.site, "!", RELEASE, key, holders.get(key, ""), f"is a key of {person}")
        for key, person in after.items()
        if before.get(key) != person
    ]


def _threshold(opened: OpenedSite, role: str) -> tuple[int, int]:
    if role in (ROOT, TARGETS):
        return opened.root_before.roles[role].threshold, opened.root.roles[role].threshold
    before, after = (one.get_delegated_role(role).threshold for one in (opened.targets_before, opened.targets))
    return before, after


def _all(keys: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {key for ids in keys.values() for key in ids}


def _lack_words(found: Sequence[Lack], proposal: Proposal) -> str:
    return "; ".join(
        f"{lack.role} of {lack.site}: {lack.has} of {lack.needs}, "
        + "or ".join(f"{proposal.holders.get(key, '')} {key[:12]} ".lstrip() for key in lack.keys).strip()
        for lack in found
    )
