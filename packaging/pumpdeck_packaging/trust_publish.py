"""A change that enough people signed, under snapshot and timestamp of the laptop that puts it into force. Writes nothing."""

from __future__ import annotations

from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from pumpdeck_packaging.metadata_form import parse_form
from pumpdeck_packaging.site_draft import Draft
from pumpdeck_packaging.site_keys import SigningTime
from pumpdeck_packaging.site_words import SiteWords
from pumpdeck_packaging.trust_change import SiteBase
from pumpdeck_packaging.trust_proposal import SiteProposal, check_same_base, open_site, signed_files
from pumpdeck_packaging.trust_rules import parse_slots

FIELD_ROLES = (DEPLOY, SNAPSHOT, TIMESTAMP)


def draft_of_change(proposal: SiteProposal, base: SiteBase, signer: Signer, when: SigningTime) -> Draft:
    """The site's metadata after the change; whether it would verify is asked before it is written.

    Raises:
        ConflictError: the site has moved on since it was proposed.
        TrustError: somebody has not signed, or this laptop is not among the deploy keys after the change.
    """
    check_same_base(proposal, base)
    opened = open_site(proposal)
    for role, part in proposal.parts.items():
        for group in opened.groups[role]:
            found = len(set(part.signatures) & set(group.keys))
            if found < group.threshold:
                which = f"{role} of {proposal.site}"
                raise TrustError("is not signed by enough people", which, expected=group.threshold, found=found)
    files = signed_files(proposal)
    forms = {form.role: form for form in (parse_form(name, data) for name, data in files.items())}
    targets = forms.get(TARGETS, base.site.forms[TARGETS])
    release = forms.get(RELEASE, base.release)
    slots = parse_slots(targets, opened.targets)
    if signer.key_id not in opened.targets.get_delegated_role(DEPLOY).keyids:
        known = ", ".join(sorted(key[:12] for key in slots))
        raise TrustError("is not a deploy key after this change", f"key {signer.key_id[:12]}", expected=known)
    draft = Draft(when, slots[signer.key_id])
    draft.root_version = forms.get(ROOT, base.site.forms[ROOT]).version
    # What stays is among them: a device that checks the draft needs the whole set.
    draft.files = {form.name: form.data for form in (targets, release)} | files
    draft.lower = {TARGETS: (targets.version, targets.data), RELEASE: (release.version, release.data)}
    highest = max(base.site.forms[role].version for role in FIELD_ROLES)
    draft.publish(base.site.trusted.delegated(DEPLOY).targets, signer, draft.next_version(highest))
    return draft


def draft_of_words(base: SiteBase, words: SiteWords, when: SigningTime, signers: tuple[Signer, Signer]) -> Draft:
    """The site's metadata with other words, signed by a targets key and a deploy key; all else stays."""
    site, (targets, deploy) = base.site, signers
    form = site.forms[TARGETS]
    draft = Draft(when, parse_slots(form, site.trusted.targets)[deploy.key_id])
    draft.add_words(site.trusted.targets, form.version + 1, words, targets)
    draft.lower[RELEASE] = (base.release.version, base.release.data)
    draft.root_version = site.forms[ROOT].version
    highest = max(site.forms[role].version for role in FIELD_ROLES)
    draft.publish(site.trusted.delegated(DEPLOY).targets, deploy, draft.next_version(highest))
    return draft
