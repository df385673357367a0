"""Found a site's trust, release packages into it, assign them to devices: the signing half of `verify`.

Whoever releases holds a release key, whoever assigns a deploy key; neither can do the other's work. Every state that is read
here is verified first, by the device's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuf.api.metadata import TargetFile, Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, Clock, format_ms
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, TrustError
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.ports import FileSystem, Signer
from pumpdeck_fleet.core.receipts import NO_TERMS, Assignment, Terms
from pumpdeck_packaging.assigned import assignment_for, assignment_target
from pumpdeck_packaging.bundle_layout import (
    ASSIGNMENT_NAME,
    DEPLOY,
    RELEASE,
    ROOT,
    TARGETS,
    metadata_name,
)
from pumpdeck_packaging.device_rules import SiteRules, check_rules
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.key_status import KeyStatus, key_statuses
from pumpdeck_packaging.metadata_form import parse_form
from pumpdeck_packaging.people import Signatory, people_in, signatories
from pumpdeck_packaging.provenance import sign_provenance
from pumpdeck_packaging.release_entries import (
    PackageRelease,
    devices_of,
    new_packages,
    newest_entries,
    sealed_in,
    with_new,
)
from pumpdeck_packaging.returns_policy import ReturnsPolicy, check_policy
from pumpdeck_packaging.sealed_package import SealedPackage
from pumpdeck_packaging.signing import pem_of_key
from pumpdeck_packaging.site_draft import Draft, slot_of
from pumpdeck_packaging.site_folder import SiteFolder
from pumpdeck_packaging.site_keys import Lifetimes, SigningTime, SiteKeys, SiteSigners, check_site_keys, leaf_of
from pumpdeck_packaging.site_words import SiteWords, words_of
from pumpdeck_packaging.trust_change import SiteBase
from pumpdeck_packaging.trust_proposal import SiteProposal, check_same_base, propose, signed_files
from pumpdeck_packaging.trust_publish import FIELD_ROLES, draft_of_change, draft_of_words
from pumpdeck_packaging.trust_rules import keys_of_role, parse_slots, released_package
from pumpdeck_packaging.verify import TrustState, VerifiedSite, verify_site

Lock = Callable[[Path], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """`keep_packages`: how many packages of a device stay listed beside the assigned one. `least_version`: what the next metadata
    version must be above; a restored workspace cannot know what was signed after its backup."""

    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    keep_packages: int = 2
    least_version: int = 0


@dataclass(frozen=True, slots=True)
class AssignmentRequest:
    """Which released package a device shall run. `soft_until_ms` 0 means no end is meant.

    `seq` 0 takes the metadata version that the signing makes; a rollout that froze its numbers gives its own, above the device's
    last one. `issued_at_ms` 0 is the moment of signing. `token` is a downgrade word's envelope.
    """

    device: str
    package_sha256: str
    task: str
    soft_until_ms: int = 0
    seq: int = 0
    issued_at_ms: int = 0
    terms: Terms = NO_TERMS
    token: str | None = None


@dataclass(frozen=True, slots=True)
class SiteTrustStatus:
    """What a site's repository holds now: `assigned` device -> seq, `released` device -> number of listed packages."""

    site: str
    versions: Mapping[str, int]
    expires_ms: Mapping[str, int]
    keys: tuple[KeyStatus, ...]
    assigned: Mapping[str, int]
    released: Mapping[str, int]
    metadata_bytes: int
    warnings: tuple[str, ...]


class SiteTrust:
    """A site's repository in a folder named after the site. Writers hold the folder's lock, also across processes."""

    def __init__(
        self,
        folder: Path,
        fs: FileSystem,
        clock: Clock,
        settings: TrustSettings | None = None,
        lock: Lock = hold_folder,
    ) -> None:
        self.site = check_name(folder.name, "site")
        self._folder = folder
        self._files = SiteFolder(folder, fs)
        self._clock = clock
        self._settings = settings or TrustSettings()
        self._lock = lock

    @property
    def exists(self) -> bool:
        """True once the site was founded."""
        return self._files.exists

    def create(self, keys: SiteKeys, signers: SiteSigners, returns: ReturnsPolicy | None = None) -> bytes:
        """Found the site: all roles, nothing released, nothing assigned. Returns the root that devices are enrolled with.

        `returns` says who may read what devices put on sticks; None says nothing, and they stay plain.

        Raises:
            ConflictError: it was founded before.
            UsageError: the keys do not make a site.
            TrustError: too few signers, or one whose key is not among them; nothing is written then.
        """
        check_site_keys(keys)
        with self._lock(self._folder):
            if self.exists:
                raise ConflictError("has a trust repository already", self.site)
            draft = Draft(self._now(), slot_of(keys, signers.deploy), SiteWords(returns))
            draft.add_top(keys, signers, 1, 1)
            draft.add_release(1, {}, signers.release)
            draft.publish({}, signers.deploy, draft.next_version(0))
            self._check(draft)
            self._files.make()
            self._files.write(draft.files)
            return draft.files[metadata_name(ROOT, 1)]

    def propose_release(self, packages: Sequence[PackageRelease], author: Signer) -> SiteProposal | None:
        """The unsigned release of these packages, for a site where several people must sign; None when all are released already.

        `author` signs where the packages come from, not the release.

        Raises:
            TrustError: not a release key of this site.
        """
        base = self.base()
        if author.key_id not in base.site.trusted.targets.get_delegated_role(RELEASE).keyids:
            raise TrustError("is not a release key of this site", f"{self.site} key {author.key_id[:12]}")
        new = new_packages(packages, base.released)
        if not new:
            return None
        when, version = self._now(base.site), base.release.version + 1
        entries = self._with_new(base, new, version)
        envelopes = [sign_provenance(one.package.provenance, one.package.sha256, author) for one in new]
        return propose(base, {RELEASE: leaf_of(RELEASE, version, entries, when)}, envelopes)

    def release(self, packages: Sequence[PackageRelease], signers: Sequence[Signer]) -> int:
        """Sign packages for their devices; returns the release version. They reach devices with the next `assign`.

        What is released already is not signed again; a call that brings nothing new changes nothing.

        Raises:
            TrustError: too few release keys, or a key of another role.
        """
        with self._lock(self._folder):
            base = self.base()
            self._check_signers(base.site, RELEASE, signers)
            new = new_packages(packages, base.released)
            if not new:
                return base.release.version
            version = base.release.version + 1
            draft = Draft(self._now(base.site), 0)
            draft.add_release(version, self._with_new(base, new, version), signers)
            envelopes = [sign_provenance(one.package.provenance, one.package.sha256, signers[0]) for one in new]
            self._files.write_provenance(version, envelopes)
            self._files.write(draft.files)
            return version

    def assign(self, requests: Sequence[AssignmentRequest], signer: Signer) -> tuple[Assignment, ...]:
        """Sign which package each device shall run, in one step of the metadata version; that is their `seq` if none is given.

        Asking again for what a device is assigned already (same package, task and number) gives the same assignment and signs
        nothing.

        Raises:
            TrustError: a package was not released for that device, not a deploy key, or root or targets have run out.
            ReplayError: a given `seq` is not above the device's last one.
        """
        with self._lock(self._folder):
            site = self._verified()
            self._check_signers(site, DEPLOY, [signer])
            release, released = self._files.newest_release(site)
            deploy = site.trusted.delegated(DEPLOY)
            draft = Draft(self._now(site), parse_slots(site.forms[TARGETS], site.trusted.targets)[signer.key_id])
            version = draft.next_version(self._highest(site))
            for request in requests:
                released_package(released, request.device, request.package_sha256)
            current = {one.device: self._files.assignment(one.device, deploy) for one in requests}
            asked = [assignment_for(one, current[one.device], version, draft.when.now_ms) for one in requests]
            new = [one for one in asked if one != current[one.device]]
            if not new:
                return tuple(asked)
            draft.lower[TARGETS] = (site.forms[TARGETS].version, site.forms[TARGETS].data)
            draft.lower[RELEASE] = (release.version, release.data)
            draft.root_version = site.forms[ROOT].version
            targets = dict(deploy.targets)
            for assignment in new:
                data = canonical.encode(assignment)
                target = assignment_target(assignment, data)
                self._files.write_assignment(target, data)
                targets[target.path] = target
            draft.publish(targets, signer, version)
            self._files.write(draft.files)
            self._files.prune(site, targets)
            return tuple(asked)

    def rotate(self, keys: SiteKeys, signers: SiteSigners) -> bytes:
        """Change the keys of a site: the next root, signed by the keys before it and by its own, and the roles below it.

        `signers.root` holds enough keys of both. What is released and assigned stays. Returns the new root.

        Raises:
            TrustError: the new root or a role below it would not verify; nothing is written then.
        """
        check_site_keys(keys)
        with self._lock(self._folder):
            site = self._verified()
            form, released = self._files.newest_release(site)
            keys = replace(keys, people={**people_in(site.trusted.targets), **keys.people})
            # What the site says outlives every key.
            draft = Draft(self._now(), slot_of(keys, signers.deploy), words_of(site.forms[TARGETS]))
            draft.add_top(keys, signers, site.forms[ROOT].version + 1, site.forms[TARGETS].version + 1)
            draft.add_release(form.version + 1, released.targets, signers.release)
            deploy = site.trusted.delegated(DEPLOY)
            draft.publish(deploy.targets, signers.deploy, draft.next_version(self._highest(site)))
            self._check(draft)
            self._files.write(draft.files)
            return draft.files[metadata_name(ROOT, draft.root_version)]

    def sealed_package(self, device: str, sha256: str) -> SealedPackage | None:
        """The ciphertext that was released for a package of this device; None when it travels as it is."""
        return self.sealed_packages().get((device, sha256))

    def sealed_packages(self) -> dict[tuple[str, str], SealedPackage]:
        """(device, package inside) -> its ciphertext, for every released package that travels encrypted."""
        return sealed_in(self._files.newest_release(self._verified())[1])

    def returns_policy(self) -> ReturnsPolicy | None:
        """What this site says of returns on sticks; None when it says nothing."""
        return self._words().returns

    def device_rules(self) -> SiteRules | None:
        """What this site demands before its devices take a package; None when it says nothing."""
        return self._words().rules

    def set_returns(self, returns: ReturnsPolicy, targets: Signer, deploy: Signer) -> int:
        """Sign who may read returns from now on; gives the targets version. Saying the same again signs nothing.

        Raises:
            TrustError: not keys of these roles, or nobody could read; nothing is written then.
        """
        check_policy(returns, self.site)
        return self._say(lambda words: replace(words, returns=returns), targets, deploy)

    def set_rules(self, rules: SiteRules, targets: Signer, deploy: Signer) -> int:
        """Sign what devices demand from now on; gives the targets version. Saying the same again signs nothing.

        Raises:
            TrustError: not keys of these roles, or rules that no device could follow; nothing is written then.
        """
        check_rules(rules, self.site)
        return self._say(lambda words: replace(words, rules=rules), targets, deploy)

    def _words(self) -> SiteWords:
        return words_of(self._verified().forms[TARGETS])

    def _say(self, change: Callable[[SiteWords], SiteWords], targets: Signer, deploy: Signer) -> int:
        with self._lock(self._folder):
            base = self.base()
            version = base.site.forms[TARGETS].version
            before = words_of(base.site.forms[TARGETS])
            after = change(before)
            if after == before:
                return version
            self._check_signers(base.site, DEPLOY, [deploy])
            draft = draft_of_words(base, after, self._now(base.site), (targets, deploy))
            self._check(draft, {base.release.name: base.release.data})
            self._files.write(draft.files)
            self._files.prune(base.site, base.site.trusted.delegated(DEPLOY).targets)
            return version + 1

    def base(self) -> SiteBase:
        """What a change of keys or a release by several people starts from, verified.

        Raises:
            NotFoundError, TrustError, DamagedError: the site was not founded, or its repository does not hold.
        """
        site = self._verified()
        form, released = self._files.newest_release(site)
        return SiteBase(site, form, released.targets)

    def signing_time(self) -> SigningTime:
        """This moment, for metadata that others will sign later."""
        return self._now()

    def publish(self, proposal: SiteProposal, signer: Signer) -> int:
        """Put a change into force that enough people signed, under snapshot and timestamp of this laptop; the root version then.

        Raises:
            ConflictError: the site has moved on since it was proposed.
            TrustError: too few signatures, or this laptop is not among the deploy keys after it; nothing is written then.
        """
        with self._lock(self._folder):
            draft = draft_of_change(proposal, self._base_for(proposal), signer, self._now())
            self._check(draft)
            self._files.write(draft.files)
            return draft.root_version

    def publish_release(self, proposal: SiteProposal) -> int:
        """Keep a release that enough people signed; returns its version. It reaches devices with the next `assign`.

        Raises:
            ConflictError: the site has moved on since. TrustError: too few signatures, or it is more than a release.
        """
        with self._lock(self._folder):
            base = self._base_for(proposal)
            if set(proposal.parts) != {RELEASE}:
                raise TrustError("is more than a release", f"proposal for {self.site}", found=", ".join(proposal.parts))
            ((name, data),) = signed_files(proposal).items()
            form = parse_form(name, data)
            base.site.trusted.check_delegated(form)
            self._files.write_provenance(form.version, [envelope.encode("utf-8") for envelope in proposal.provenance])
            self._files.write({name: data})
            return form.version

    def _base_for(self, proposal: SiteProposal) -> SiteBase:
        if proposal.site != self.site:
            raise TrustError("is for another site", "proposal", expected=self.site, found=proposal.site)
        base = self.base()
        check_same_base(proposal, base)
        return base

    def files_for(self, device: str, since_root: int = 0) -> list[tuple[str, bytes]]:
        """What an `assign` request to this device carries: metadata and `assign.json`, roots only after `since_root`.

        Raises:
            NotFoundError: nothing is assigned to it.
        """
        site = self._verified()
        data = self._files.assignment_bytes(device, site.trusted.delegated(DEPLOY))
        if data is None:
            raise NotFoundError("is assigned nothing", device, hint="plan and start a rollout first")
        return [*self._files.current_files(since_root), (ASSIGNMENT_NAME, data)]

    def current_files(self) -> list[tuple[str, bytes]]:
        """The metadata that counts now with every root, verified: what a bundle carries for a site."""
        self._verified()
        return self._files.current_files(0)

    def all_files(self) -> dict[str, list[tuple[str, bytes]]]:
        """What `files_for` gives, for every device that is assigned something: the metadata is verified once for all."""
        deploy = self._verified().trusted.delegated(DEPLOY)
        metadata = self._files.current_files(0)
        found = {}
        for path in deploy.targets:
            device = path.split("/")[1]
            data = self._files.assignment_bytes(device, deploy)
            if data is not None:
                found[device] = [*metadata, (ASSIGNMENT_NAME, data)]
        return found

    def assignment(self, device: str) -> Assignment | None:
        """What a device is assigned now; None when nothing."""
        return self._files.assignment(device, self._verified().trusted.delegated(DEPLOY))

    def root_bytes(self) -> bytes:
        """The newest root: what a device is enrolled with.

        Raises:
            NotFoundError: the site was not founded.
        """
        return self._files.newest_root()

    def next_seq(self) -> int:
        """A number that every assignment from now on reaches: the `min_seq` of a device enrolled now."""
        site = self._verified()
        assigned = [int(target.custom["seq"]) for target in site.trusted.delegated(DEPLOY).targets.values()]
        return max([self._highest(site), *assigned]) + 1

    def release_keys(self) -> dict[str, str]:
        """Key id -> PEM of the release role, to check provenance with."""
        targets = self._verified().trusted.targets
        return {key_id: pem_of_key(key) for key_id, key in keys_of_role(targets, RELEASE).items()}

    def signatories(self) -> dict[str, Signatory]:
        """Who may sign statements for this site, by key id."""
        return signatories(self._verified())

    def release_threshold(self) -> int:
        """How many people must sign a release of this site."""
        return self._verified().trusted.targets.get_delegated_role(RELEASE).threshold

    def deploy_keys(self) -> dict[str, str]:
        """Key id -> PEM of the deploy role: who may sign for this site in the field."""
        targets = self._verified().trusted.targets
        return {key_id: pem_of_key(key) for key_id, key in keys_of_role(targets, DEPLOY).items()}

    def provenance(self) -> list[bytes]:
        """Every provenance envelope signed here, oldest release first."""
        return self._files.read_provenance()

    def status(self) -> SiteTrustStatus:
        """Versions, expiry, keys, what is released and assigned; verified like on a device.

        Raises:
            NotFoundError: the site was not founded.
            TrustError, DamagedError: the repository does not hold.
        """
        site = self._verified()
        form, release = self._files.newest_release(site)
        released: dict[str, int] = {}
        for path in release.targets:
            released[path.split("/")[1]] = released.get(path.split("/")[1], 0) + 1
        deploy = site.trusted.delegated(DEPLOY).targets
        return SiteTrustStatus(
            site=self.site,
            versions={role: one.version for role, one in site.forms.items()} | {RELEASE: form.version},
            expires_ms={role: one.expires_ms for role, one in site.forms.items()},
            keys=key_statuses(site),
            assigned={path.split("/")[1]: int(target.custom["seq"]) for path, target in deploy.items()},
            released=released,
            metadata_bytes=sum(len(one.data) for one in site.forms.values()),
            warnings=site.warnings,
        )

    def _verified(self) -> VerifiedSite:
        return self._files.verified(self._clock.now_ms())

    def _check(self, draft: Draft, also: Mapping[str, bytes] | None = None) -> None:
        """Verify a draft of all roles like a device would, from the root it knows, before anything is written."""
        before = dict(self._files.current_files()) if self.exists else {}
        roots = {name: data for name, data in before.items() if name.endswith(f".{ROOT}.json")}
        first = metadata_name(ROOT, 1)
        state = TrustState("console", self.site, roots.get(first) or draft.files[first])
        verify_site(state, {**roots, **(also or {}), **draft.files}, now_ms=draft.when.now_ms, clock_synced=True)

    def _highest(self, site: VerifiedSite) -> int:
        return max(self._settings.least_version, *(site.forms[role].version for role in FIELD_ROLES))

    def _check_signers(self, site: VerifiedSite, role: str, signers: Sequence[Signer]) -> None:
        wanted = site.trusted.targets.get_delegated_role(role)
        for signer in signers:
            if signer.key_id not in wanted.keyids:
                raise TrustError(
                    f"is not a {role} key of this site",
                    f"{self.site} key {signer.key_id[:12]}",
                    expected=", ".join(key_id[:12] for key_id in wanted.keyids),
                )
        found = len({signer.key_id for signer in signers})
        if found < wanted.threshold:
            raise TrustError(f"needs more {role} signatures", self.site, expected=wanted.threshold, found=found)

    def _now(self, site: VerifiedSite | None = None) -> SigningTime:
        """The moment of signing, after a look whether signing now makes sense under this root and these targets."""
        now_ms = self._clock.now_ms()
        for form in (site.forms[ROOT], site.forms[TARGETS]) if site else ():
            if form.expires_ms <= now_ms:
                raise TrustError("ran out", f"{self.site} {form.name}", found=format_ms(form.expires_ms), hint="renew it")
            if form.own.signed_ms > now_ms + DAY_MS:
                raise TrustError(
                    "the clock of this computer is behind", self.site, expected=f"after {format_ms(form.own.signed_ms)}"
                )
        return SigningTime(self.site, now_ms, self._settings.lifetimes)

    def _with_new(self, base: SiteBase, new: Sequence[PackageRelease], version: int) -> dict[str, TargetFile]:
        entries = with_new(base.released, new, version)
        return self._without_old(entries, base.site.trusted.delegated(DEPLOY))

    def _without_old(self, entries: Mapping[str, TargetFile], deploy: Targets) -> dict[str, TargetFile]:
        assigned = {device: self._files.assignment(device, deploy) for device in devices_of(entries)}
        running = {device: one.package_sha256 for device, one in assigned.items() if one}
        return newest_entries(entries, self._settings.keep_packages, running)
