"""Decide what a device may believe: bytes in, a verified assignment out, no I/O.

TUF's order (root chain, timestamp, snapshot, targets, release, deploy) is driven through `tuf_adapter`. What TUF does not ask
stands in `metadata_form`, `trust_rules` and here: the device's own floor of numbers, the site, who signed which target.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import (
    DamagedError,
    DigestMismatchError,
    FormatError,
    PumpdeckError,
    ReplayError,
    TooLargeError,
    TrustError,
)
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES, Assignment
from pumpdeck_packaging.bundle_layout import (
    ASSIGNMENT_NAME,
    DEPLOY,
    MAX_ROOTS,
    RELEASE,
    ROLES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    assignment_path,
    metadata_name,
)
from pumpdeck_packaging.downgrade import DowngradeToken, token_for
from pumpdeck_packaging.metadata_form import MetadataForm, parse_form
from pumpdeck_packaging.trust_floor import FloorEntry, TrustFloor
from pumpdeck_packaging.trust_rules import (
    AssignmentWords,
    ReleasedPackage,
    check_leaf,
    check_root,
    check_slot,
    check_snapshot,
    check_targets,
    parse_slots,
    released_package,
)
from pumpdeck_packaging.tuf_adapter import SYNC_FIRST, SameVersionError, TrustedSet

ASSIGNMENT_FORMAT = 1
_FIELD_ROLES = (DEPLOY, SNAPSHOT, TIMESTAMP)


class NotAssignedError(TrustError):
    """The metadata holds, but says nothing about this device."""


@dataclass(frozen=True, slots=True)
class TrustState:
    """What a device brings along: who it is, the root it was enrolled with, what it accepted last, its floor."""

    device: str
    site: str
    trusted_root: bytes
    kept: Mapping[str, bytes] = field(default_factory=dict)
    floor: TrustFloor = field(default_factory=TrustFloor)
    min_seq: int = 0


@dataclass(frozen=True, slots=True)
class VerifiedAssignment:
    """An assignment this device may act on, and the package it names.

    `keep` replaces the device's kept metadata, `floor` its floor. `repeated` says that this very assignment was accepted before.
    `token` is the downgrade word in it; that it was not used before is the device's to know.
    `warnings` are sentences for people: expired but time is not proven, kept files damaged, validity over.
    """

    assignment: Assignment
    package: ReleasedPackage
    keep: Mapping[str, bytes]
    floor: TrustFloor
    repeated: bool
    warnings: tuple[str, ...]
    token: DowngradeToken | None = None


@dataclass(frozen=True, slots=True)
class VerifiedMetadata:
    """A site's metadata without an assignment. `keep` and `floor` replace the device's own."""

    keep: Mapping[str, bytes]
    floor: TrustFloor
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedSite:
    """A site's metadata as far as TUF and our rules go, before any device's assignment is looked at."""

    trusted: TrustedSet
    forms: Mapping[str, MetadataForm]
    signers: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]


def verify_assignment(
    state: TrustState, files: Mapping[str, bytes], *, now_ms: int, clock_synced: bool
) -> VerifiedAssignment:
    """Verify a site's metadata and the assignment of this device in it.

    `files` are named as in docs/formats.md: `N.root.json`, `timestamp.json`, `N.snapshot.json`, `N.targets.json`,
    `N.release.json`, `N.deploy.json` and `assign.json`. `now_ms` counts only when `clock_synced` says that the time is proven.

    Raises:
        ReplayError: a sequence number or version below what this device has accepted.
        TrustError: keys, signatures, delegations, site, device or expiry do not hold.
        DamagedError: a file is missing, empty, cut, too large or not what was signed for.
    """
    if ASSIGNMENT_NAME not in files:
        raise DamagedError("is missing", ASSIGNMENT_NAME, expected=f"an assignment for {state.device}")
    metadata = {name: data for name, data in files.items() if name != ASSIGNMENT_NAME}
    verified = verify_site(state, metadata, now_ms=now_ms, clock_synced=clock_synced)
    floor = raised_floor(state, verified)
    assignment, data = _assignment(state, verified, files[ASSIGNMENT_NAME])
    release = verified.trusted.delegated(RELEASE)
    package = released_package(release, state.device, assignment.package_sha256)
    repeated = _check_seq(state, assignment, canonical.digest(data), verified)
    token = token_for(assignment, verified.trusted, state.site)
    warnings = [*verified.warnings]
    if assignment.soft_until_ms and now_ms > assignment.soft_until_ms:
        warnings.append(f"the assignment was meant to be used until {format_ms(assignment.soft_until_ms)}")
    floor = replace(
        floor, seq=FloorEntry(assignment.seq, verified.signers[DEPLOY]), assignment=canonical.digest(data)
    )
    keep = {form.name: form.data for form in verified.forms.values()} | {ASSIGNMENT_NAME: data}
    return VerifiedAssignment(assignment, package, keep, floor, repeated, tuple(warnings), token)


def verify_metadata(
    state: TrustState, files: Mapping[str, bytes], *, now_ms: int, clock_synced: bool
) -> VerifiedMetadata:
    """Verify a site's metadata that brings no assignment for this device: a revoked key must not wait for the next package.

    Raises:
        As `verify_assignment`.
    """
    verified = verify_site(state, files, now_ms=now_ms, clock_synced=clock_synced)
    floor = raised_floor(state, verified)
    keep = {form.name: form.data for form in verified.forms.values()}
    if ASSIGNMENT_NAME in state.kept:
        keep[ASSIGNMENT_NAME] = state.kept[ASSIGNMENT_NAME]
    return VerifiedMetadata(keep, floor, verified.warnings)


def verify_site(
    state: TrustState, files: Mapping[str, bytes], *, now_ms: int, clock_synced: bool
) -> VerifiedSite:
    """Verify a site's metadata without an assignment: the same door, used by the console on its own repository.

    Raises:
        As `verify_assignment`.
    """
    forms = [parse_form(name, data) for name, data in sorted(files.items())]
    roots = {form.version: form for form in forms if form.role == ROOT}
    if len(roots) > MAX_ROOTS:
        raise TooLargeError("are too many", "root versions", expected=MAX_ROOTS, found=len(roots))
    single = _one_of_each(forms)
    kept, warnings = _kept_forms(state)
    start = _start_root(state, kept)
    newer = [form for form in roots.values() if form.version > start.version]
    signed_ms = max(form.own.signed_ms for form in (start, *newer, *single.values()))
    trusted = TrustedSet(start, now_ms if clock_synced else signed_ms)
    found = {ROOT: _follow_roots(trusted, start, roots), **single}
    signers: dict[str, tuple[str, ...]] = {ROOT: ()}
    for role in (TIMESTAMP, SNAPSHOT, TARGETS, RELEASE, DEPLOY):
        _add_kept(trusted, kept.get(role))
        signers[role] = _add(trusted, found[role], kept.get(role))
    _check_rules(trusted, found, signers)
    for form in found.values():
        _check_site(form, state.site)
    _check_root_named(found)
    warnings += _expiry_warnings(found, now_ms, clock_synced)
    return VerifiedSite(trusted, found, signers, tuple(warnings))


def _one_of_each(forms: list[MetadataForm]) -> dict[str, MetadataForm]:
    single: dict[str, MetadataForm] = {}
    for form in forms:
        if form.role == ROOT:
            continue
        if form.role in single:
            raise FormatError("stands beside another version", form.name, found=single[form.role].name)
        single[form.role] = form
    for role in ROLES:
        if role != ROOT and role not in single:
            raise DamagedError("is missing", f"{role} metadata", hint="copy the whole set again")
    return single


def _kept_forms(state: TrustState) -> tuple[dict[str, MetadataForm], list[str]]:
    """What was accepted earlier, by role. A damaged file is left out and said: the floor guards without it."""
    kept: dict[str, MetadataForm] = {}
    warnings = []
    for name, data in sorted(state.kept.items()):
        if name == ASSIGNMENT_NAME:
            continue
        try:
            form = parse_form(name, data)
        except PumpdeckError as error:
            warnings.append(f"kept metadata was damaged and left out: {error}")
            continue
        if form.role not in kept or form.version > kept[form.role].version:
            kept[form.role] = form
    return kept, warnings


def _start_root(state: TrustState, kept: Mapping[str, MetadataForm]) -> MetadataForm:
    """The newest root that is trusted already: the one of enrolment or the one kept since."""
    named = canonical.parse_json(state.trusted_root, "trusted root", max_bytes=64 * 1024)
    version = named.get("signed", {}).get("version") if isinstance(named, dict) else None
    enrolled = parse_form(metadata_name(ROOT, version if type(version) is int else 0), state.trusted_root)
    last = kept.get(ROOT)
    return last if last is not None and last.version > enrolled.version else enrolled


def _follow_roots(
    trusted: TrustedSet, start: MetadataForm, roots: Mapping[int, MetadataForm]
) -> MetadataForm:
    check_root(trusted.root, start.name)
    last = start
    if last.version in roots and roots[last.version].data != last.data:
        raise TrustError("differs from the root this device trusts", roots[last.version].name)
    while last.version < max(roots, default=0):
        following = roots.get(last.version + 1)
        if following is None:
            raise DamagedError("is missing", metadata_name(ROOT, last.version + 1), hint="copy the whole set again")
        trusted.add_root(following)
        check_root(trusted.root, following.name)
        _check_site(following, start.own.site)
        last = following
    return last


def _add_kept(trusted: TrustedSet, kept: MetadataForm | None) -> None:
    """Let TUF compare a new timestamp or snapshot with the one accepted earlier.

    What no longer verifies is passed over: its key was revoked since, which is no fault of what is new. What is out of time, or
    not the newest any more, TUF loads all the same as the one to compare with.
    """
    if kept is None or kept.role not in (TIMESTAMP, SNAPSHOT):
        return
    with suppress(TrustError, DamagedError):
        trusted.add(kept, kept=True)


def _add(trusted: TrustedSet, form: MetadataForm, kept: MetadataForm | None) -> tuple[str, ...]:
    try:
        return trusted.add(form)
    except SameVersionError:
        if kept is None or kept.data != form.data:
            raise ReplayError("differs from the one of the same version accepted before", form.name, hint=SYNC_FIRST) from None
        return trusted.signers(form)


def _check_rules(
    trusted: TrustedSet, forms: Mapping[str, MetadataForm], signers: Mapping[str, tuple[str, ...]]
) -> None:
    check_targets(trusted.targets, trusted.root, forms[TARGETS].name)
    check_snapshot(trusted.snapshot, forms[SNAPSHOT].name)
    for role in (RELEASE, DEPLOY):
        check_leaf(trusted.delegated(role), forms[role].name)
    slots = parse_slots(forms[TARGETS], trusted.targets)
    for role in _FIELD_ROLES:
        check_slot(forms[role], signers[role], slots)


def _check_site(form: MetadataForm, site: str) -> None:
    # Sites may share key holders, so a signature alone does not say for which site it was given.
    if form.own.site != site:
        raise TrustError("was signed for another site", form.name, expected=site, found=form.own.site)


def _check_root_named(forms: Mapping[str, MetadataForm]) -> None:
    # A root that revokes a key must not be held back while newer metadata is handed over.
    named = forms[TIMESTAMP].own.root or 1
    if forms[ROOT].version < named:
        raise DamagedError("is missing", metadata_name(ROOT, named), hint="copy the whole set again")


def _expiry_warnings(forms: Mapping[str, MetadataForm], now_ms: int, clock_synced: bool) -> list[str]:
    if clock_synced:
        return []
    late = [form for form in forms.values() if form.expires_ms <= now_ms]
    return [f"{form.name} ran out on {format_ms(form.expires_ms)}, but this clock is not proven" for form in late]


def raised_floor(state: TrustState, verified: VerifiedSite) -> TrustFloor:
    """The floor after this metadata.

    Raises:
        ReplayError: a role's version is below what this device has accepted.
    """
    roles: dict[str, FloorEntry] = {}
    for role, form in verified.forms.items():
        entry = state.floor.roles.get(role)
        if entry is not None and form.version < entry.number and _still_counts(entry, role, verified):
            raise ReplayError(
                "is older than what this device has accepted",
                form.name,
                expected=f"version {entry.number} or newer",
                found=form.version,
                hint=SYNC_FIRST,
            )
        roles[role] = FloorEntry(form.version, verified.signers[role])
    return replace(state.floor, roles=roles)


def _still_counts(entry: FloorEntry, role: str, verified: VerifiedSite) -> bool:
    """False when every key behind a floor was revoked since: a thief could have raised it out of reach."""
    if role == ROOT:
        return True
    delegator = verified.trusted.targets if role in (RELEASE, DEPLOY) else verified.trusted.root
    return bool(set(entry.keys) & set(delegator.get_delegated_role(role).keyids))


def _assignment(state: TrustState, verified: VerifiedSite, data: bytes) -> tuple[Assignment, bytes]:
    path = assignment_path(state.device)
    target = verified.trusted.delegated(DEPLOY).targets.get(path)
    if target is None:
        raise NotAssignedError("is assigned nothing in this metadata", state.device, expected=f"a target {path}")
    if len(data) != target.length or target.hashes != {"sha256": canonical.digest(data)}:
        raise DigestMismatchError(
            "is not the assignment that was signed", ASSIGNMENT_NAME, hint="copy it again from the console"
        )
    assignment = canonical.decode(Assignment, data, ASSIGNMENT_NAME, max_bytes=ASSIGNMENT_MAX_BYTES)
    if assignment.format != ASSIGNMENT_FORMAT:
        raise FormatError(
            "has an unknown format", ASSIGNMENT_NAME, expected=ASSIGNMENT_FORMAT, found=assignment.format
        )
    if assignment.device != state.device:
        raise TrustError("is for another device", ASSIGNMENT_NAME, expected=state.device, found=assignment.device)
    check_digest(assignment.package_sha256, f"{ASSIGNMENT_NAME}.package_sha256")
    try:
        _ = assignment.terms
    except ValueError as error:
        raise FormatError(f"has impossible terms ({error})", ASSIGNMENT_NAME) from error
    words = canonical.from_plain(AssignmentWords, target.custom, f"{path}.custom")
    if words.seq != assignment.seq or assignment.seq < 1:
        raise TrustError("contradicts its own target", ASSIGNMENT_NAME, expected=words.seq, found=assignment.seq)
    return assignment, data


def _check_seq(state: TrustState, assignment: Assignment, found: str, verified: VerifiedSite) -> bool:
    """True for the very assignment accepted last; an error for anything that is not newer."""
    entry = state.floor.seq
    counts = _still_counts(entry, DEPLOY, verified)
    if counts and assignment.seq == entry.number and found == state.floor.assignment:
        return True
    least = max(state.min_seq, entry.number + 1 if counts else 0)
    if assignment.seq < least:
        raise ReplayError(
            "is older than what this device has accepted",
            f"assignment of {assignment.device}",
            expected=f"seq {least} or newer",
            found=assignment.seq,
            hint=SYNC_FIRST,
        )
    return False
