"""The keys of a verified site, one entry for each role a key stands in."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE, ROOT, TARGETS
from pumpdeck_packaging.trust_rules import keys_of_role, parse_slots
from pumpdeck_packaging.verify import VerifiedSite


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of one role; `slot` only for deploy keys."""

    role: str
    key_id: str
    slot: int | None = None


def key_statuses(site: VerifiedSite) -> tuple[KeyStatus, ...]:
    """Who holds which role, the top roles first."""
    slots = parse_slots(site.forms[TARGETS], site.trusted.targets)
    roles = site.trusted.root.roles
    found = [KeyStatus(role, key_id) for role in (ROOT, TARGETS) for key_id in roles[role].keyids]
    found += [KeyStatus(RELEASE, key_id) for key_id in keys_of_role(site.trusted.targets, RELEASE)]
    found += [KeyStatus(DEPLOY, key_id, slots[key_id]) for key_id in keys_of_role(site.trusted.targets, DEPLOY)]
    return tuple(found)
