"""A change of a site's metadata on its way between the people who must sign it: a file that travels, collecting signatures.

It carries what it changes (root and targets as the proposer knew them), so that a holder can see the change on a computer without
a workspace. Its id is the digest of everything but the signatures: two holders compare its words before they sign.
No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.errors import ConflictError, FormatError, TrustError
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.bundle_layout import METADATA_MAX_BYTES, RELEASE, ROOT, TARGETS, metadata_name
from pumpdeck_packaging.metadata_form import OWN_FIELD, MetadataForm, parse_form
from pumpdeck_packaging.trust_change import Signed, SiteBase
from pumpdeck_packaging.trust_rules import check_leaf, check_root, check_targets, keys_of_role
from pumpdeck_packaging.tuf_adapter import TrustedSet

PROPOSAL_FORMAT = 1
PROPOSAL_MAX_BYTES = 32 * 1024 * 1024
PROPOSAL_DAYS = 60
PART_ROLES = (ROOT, TARGETS, RELEASE)
_TEXT_MAX = 500


@dataclass(frozen=True, slots=True)
class ProposedPart:
    """One role's metadata: canonical JSON of the part that is signed, and the signatures so far (key id -> hex)."""

    signed: str
    signatures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SiteProposal:
    """The change of one site. `root` and `targets` are its metadata files before the change; `provenance` are DSSE envelopes."""

    site: str
    root: str
    targets: str
    parts: Mapping[str, ProposedPart]
    provenance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What travels. `holders` are names for people, by key id; they grant nothing."""

    format: int
    purpose: str
    made_ms: int
    good_until_ms: int
    holders: Mapping[str, str]
    sites: tuple[SiteProposal, ...]

    @property
    def id(self) -> str:
        """SHA-256 of everything but the signatures."""
        return canonical.digest(canonical.encode(_bare(self)))

    @property
    def words(self) -> str:
        """What holders compare before they sign."""
        return fingerprint_words(canonical.encode(_bare(self)))


@dataclass(frozen=True, slots=True)
class Lack:
    """What a part still needs: signatures of so many more of these keys."""

    site: str
    role: str
    has: int
    needs: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Keys of which so many must sign."""

    keys: Mapping[str, SSlibKey]
    threshold: int


@dataclass(frozen=True, slots=True)
class OpenedSite:
    """A site's proposal read whole: its metadata before, its parts, and who may sign each."""

    proposal: SiteProposal
    root_before: Root
    targets_before: Targets
    root: Root
    targets: Targets
    release: Targets | None
    payloads: Mapping[str, bytes]
    groups: Mapping[str, tuple[_Group, ...]]


def propose(base: SiteBase, parts: Mapping[str, Signed], provenance: Sequence[bytes] = ()) -> SiteProposal:
    """The unsigned change of one site."""
    texts = {role: ProposedPart(_text_of(signed)) for role, signed in parts.items()}
    forms = base.site.forms
    envelopes = tuple(envelope.decode("utf-8") for envelope in provenance)
    before = (forms[ROOT].data.decode("utf-8"), forms[TARGETS].data.decode("utf-8"))
    return SiteProposal(forms[ROOT].own.site, *before, texts, envelopes)


def make_proposal(
    sites: Iterable[SiteProposal], purpose: str, holders: Mapping[str, str], now_ms: int, days: int = PROPOSAL_DAYS
) -> Proposal:
    """A proposal to be signed within `days`."""
    words = " ".join(purpose.split())[:_TEXT_MAX]
    return Proposal(PROPOSAL_FORMAT, words, now_ms, now_ms + days * DAY_MS, dict(holders), tuple(sites))


def encode_proposal(proposal: Proposal) -> bytes:
    """Its canonical bytes."""
    return canonical.encode(proposal)


def parse_proposal(data: bytes, what: str = "proposal") -> Proposal:
    """A proposal whose form, metadata and every signature hold.

    Raises:
        FormatError, TooLargeError: it is not one.
        TrustError: it was altered after it was signed, or proposes what no device would take.
    """
    proposal = canonical.decode(Proposal, data, what, max_bytes=PROPOSAL_MAX_BYTES)
    if proposal.format != PROPOSAL_FORMAT:
        raise FormatError("has an unknown format", what, expected=PROPOSAL_FORMAT, found=proposal.format)
    names = [check_name(one.site, f"{what}.site") for one in proposal.sites]
    if not names or len(set(names)) != len(names) or canonical.encode(proposal) != data:
        raise FormatError("is not a proposal in canonical form", what, expected="each site once")
    for site in proposal.sites:
        open_site(site)
    return proposal


def open_site(proposal: SiteProposal) -> OpenedSite:
    """One site's change, checked: it follows its own base by one version, keeps the rules of trust, its signatures hold.

    Raises:
        FormatError, TrustError: it does not.
    """
    try:
        return _opened(proposal)
    except (RepositoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"is not metadata ({error})", f"proposal for {proposal.site}") from error


def _opened(proposal: SiteProposal) -> OpenedSite:
    root_form, root_before = _base_root(proposal)
    targets_form, targets_before = _base_targets(proposal, root_before)
    signed = {role: _part(proposal, role) for role in proposal.parts}
    root = signed.get(ROOT, root_before)
    targets = signed.get(TARGETS, targets_before)
    release = signed.get(RELEASE)
    if not isinstance(root, Root) or not isinstance(targets, Targets) or not isinstance(release, Targets | None):
        raise FormatError("holds metadata of another role", f"proposal for {proposal.site}")
    for role, before in ((ROOT, root_form.version), (TARGETS, targets_form.version)):
        if role in signed and signed[role].version != before + 1:
            which = f"{role} of {proposal.site}"
            raise TrustError("does not follow its base", which, expected=before + 1, found=signed[role].version)
    check_root(root, f"proposed root of {proposal.site}")
    check_targets(targets, root, f"proposed targets of {proposal.site}")
    if release is not None:
        check_leaf(release, f"proposed release of {proposal.site}")
    groups = {
        ROOT: (_group(root_before, ROOT), _group(root, ROOT)),
        TARGETS: (_group(root, TARGETS),),
        RELEASE: (_group(targets, RELEASE),),
    }
    payloads = {role: _payload(one) for role, one in signed.items()}
    opened = OpenedSite(proposal, root_before, targets_before, root, targets, release, payloads, groups)
    _check_signatures(opened)
    return opened


def sign_proposal(proposal: Proposal, signers: Sequence[Signer], now_ms: int) -> tuple[Proposal, tuple[tuple[str, str], ...]]:
    """The proposal with every signature these keys are entitled to, and which (site, role) were signed now.

    Raises:
        TrustError: a key may sign nothing in it, or its time is over.
    """
    check_time(proposal, now_ms)
    signed: list[tuple[str, str]] = []
    for signer in signers:
        sites, is_entitled = [], False
        for one in proposal.sites:
            opened = open_site(one)
            parts = dict(one.parts)
            for role, payload in opened.payloads.items():
                if not any(signer.key_id in group.keys for group in opened.groups[role]):
                    continue
                is_entitled = True
                if signer.key_id not in parts[role].signatures:
                    signature = signer.sign(payload).hex()
                    parts[role] = replace(parts[role], signatures={**parts[role].signatures, signer.key_id: signature})
                    signed.append((one.site, role))
            sites.append(replace(one, parts=parts))
        if not is_entitled:
            raise TrustError("may sign nothing in this proposal", f"key {signer.key_id[:12]}", expected=_wanted(proposal))
        proposal = replace(proposal, sites=tuple(sites))
    return parse_proposal(encode_proposal(proposal)), tuple(signed)


def merge_proposals(proposals: Sequence[Proposal]) -> Proposal:
    """One proposal with the signatures of all copies.

    Raises:
        ConflictError: they are not copies of one proposal.
    """
    first = proposals[0]
    for other in proposals[1:]:
        if other.id != first.id:
            raise ConflictError("are two different proposals", first.id[:12], expected=first.words, found=other.words)
    sites = []
    for position, one in enumerate(first.sites):
        parts = {}
        for role, part in one.parts.items():
            copies = [other.sites[position].parts[role].signatures for other in proposals]
            parts[role] = replace(part, signatures={key: sig for copy in copies for key, sig in copy.items()})
        sites.append(replace(one, parts=parts))
    return parse_proposal(encode_proposal(replace(first, sites=tuple(sites))))


def lacks(proposal: Proposal) -> tuple[Lack, ...]:
    """What is still to be signed, by whom; empty when it can be published."""
    found = []
    for one in proposal.sites:
        opened = open_site(one)
        for role in one.parts:
            for group in opened.groups[role]:
                has = set(one.parts[role].signatures) & set(group.keys)
                if len(has) < group.threshold:
                    missing = tuple(sorted(set(group.keys) - has))
                    found.append(Lack(one.site, role, len(has), group.threshold, missing))
    return tuple(dict.fromkeys(found))


def check_time(proposal: Proposal, now_ms: int) -> None:
    """Raises TrustError when nobody should sign or publish it any more: what it starts from may be forgotten by now."""
    if now_ms > proposal.good_until_ms:
        when = format_ms(proposal.good_until_ms)
        raise TrustError("ran out", f"proposal {proposal.id[:12]}", found=when, hint="propose the change again")


def signed_files(site: SiteProposal) -> dict[str, bytes]:
    """Metadata files by name from the parts; whether enough have signed is asked by whoever verifies them."""
    files = {}
    for role in site.parts:
        signed = _part(site, role)
        metadata: Metadata[Any] = Metadata(signed)
        for key_id, value in sorted(site.parts[role].signatures.items()):
            metadata.signatures[key_id] = Signature(key_id, value)
        files[metadata_name(role, signed.version)] = canonical.encode(metadata.to_dict())
    return files


def check_same_base(site: SiteProposal, base: SiteBase) -> None:
    """Raises ConflictError when the site is not what the proposal starts from."""
    here = {ROOT: base.site.forms[ROOT], TARGETS: base.site.forms[TARGETS]}
    found = {ROOT: site.root, TARGETS: site.targets}
    for role, form in here.items():
        if found[role].encode("utf-8") != form.data:
            hint = "somebody changed it meanwhile: propose the change again"
            raise ConflictError("does not start from what the site has now", f"{site.site} {role}", expected=form.name, hint=hint)
    release = _part(site, RELEASE) if RELEASE in site.parts else None
    if release is not None and release.version != base.release.version + 1:
        hint = "packages were released meanwhile: propose the change again"
        which = f"release of {site.site}"
        raise ConflictError("does not follow", which, expected=base.release.version + 1, found=release.version, hint=hint)


def _bare(proposal: Proposal) -> Proposal:
    sites = tuple(
        replace(one, parts={role: ProposedPart(part.signed) for role, part in one.parts.items()}) for one in proposal.sites
    )
    return replace(proposal, sites=sites)


def _text_of(signed: Signed) -> str:
    metadata: Metadata[Any] = Metadata(signed)
    return canonical.encode(metadata.to_dict()["signed"]).decode("utf-8")


def _payload(signed: Signed) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    return bytes(metadata.signed_bytes)


def _base_root(proposal: SiteProposal) -> tuple[MetadataForm, Root]:
    form = _form(proposal.root, ROOT, proposal.site)
    # It must at least be signed by its own keys; which root it should be, people see by its words.
    return form, TrustedSet(form, form.own.signed_ms).root


def _base_targets(proposal: SiteProposal, root: Root) -> tuple[MetadataForm, Targets]:
    form = _form(proposal.targets, TARGETS, proposal.site)
    metadata: Metadata[Targets] = Metadata.from_bytes(form.data)
    result = root.get_verification_result(TARGETS, metadata.signed_bytes, metadata.signatures)
    if not result.verified or len(result.signed) != len(metadata.signatures):
        raise TrustError("is not signed by its root", f"targets of {proposal.site} before the change")
    return form, metadata.signed


def _form(text: str, role: str, site: str) -> MetadataForm:
    data = text.encode("utf-8")
    named = canonical.parse_json(data, f"{role} of {site}", max_bytes=METADATA_MAX_BYTES[role])
    version = named.get("signed", {}).get("version") if isinstance(named, dict) else None
    form = parse_form(metadata_name(role, version if type(version) is int and version > 0 else 1), data)
    if form.own.site != site:
        raise TrustError("is of another site", form.name, expected=site, found=form.own.site)
    return form


def _part(proposal: SiteProposal, role: str) -> Signed:
    what = f"proposed {role} of {proposal.site}"
    if role not in PART_ROLES:
        raise FormatError("is no role that can be proposed", what, expected=", ".join(PART_ROLES))
    data = proposal.parts[role].signed.encode("utf-8")
    plain = canonical.parse_json(data, what, max_bytes=METADATA_MAX_BYTES[role])
    kind = ROOT if role == ROOT else TARGETS
    if not isinstance(plain, dict) or plain.get("_type") != kind:
        raise FormatError("is not metadata of that role", what)
    own = plain.get(OWN_FIELD)
    if not isinstance(own, dict) or own.get("site") != proposal.site:
        raise TrustError("is for another site", what, expected=proposal.site)
    try:
        metadata: Metadata[Any] = Metadata.from_dict({"signatures": [], "signed": plain})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"is not metadata ({error})", what) from error
    if _text_of(metadata.signed).encode("utf-8") != data:
        raise FormatError("does not read back as it is written", what)
    signed = metadata.signed
    if not isinstance(signed, Root | Targets):
        raise FormatError("is not metadata of that role", what)
    return signed


def _group(holder: Root | Targets, role: str) -> _Group:
    return _Group(keys_of_role(holder, role), holder.get_delegated_role(role).threshold)


def _check_signatures(opened: OpenedSite) -> None:
    for role, part in opened.proposal.parts.items():
        known = {key_id: key for group in opened.groups[role] for key_id, key in group.keys.items()}
        for key_id, value in part.signatures.items():
            which = f"signature of key {key_id[:12]} on {role} of {opened.proposal.site}"
            if key_id not in known:
                raise TrustError("is of a key that may not sign it", which)
            try:
                known[key_id].verify_signature(Signature(key_id, value), opened.payloads[role])
            except (UnverifiedSignatureError, VerificationError, ValueError) as error:
                hint = "do not sign it; ask for the proposal again"
                raise TrustError("does not hold: the proposal was altered after it was signed", which, hint=hint) from error
            if value != value.lower():
                raise FormatError("is in another spelling", which)


def _wanted(proposal: Proposal) -> str:
    names = {key_id for lack in lacks(proposal) for key_id in lack.keys}
    return ", ".join(sorted(f"{proposal.holders.get(key, '')} {key[:12]}".strip() for key in names)) or "no further signature"

