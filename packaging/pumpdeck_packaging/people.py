"""Whose key is whose: a signed word of the targets role, so that one person with two laptops counts once.

`N.targets.json` holds `pumpdeck_people: {format, people: {<key id>: <person>}}` beside its other fields, as `pumpdeck_returns`
stands there: agents that do not know it pass over it. A person is `p-` and the beginning of the first key that was theirs: no
name travels to devices.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE
from pumpdeck_packaging.signing import pem_of_key
from pumpdeck_packaging.trust_rules import keys_of_role

if TYPE_CHECKING:
    # verify.py asks here whose the keys under a downgrade word are.
    from pumpdeck_packaging.verify import VerifiedSite

PEOPLE_FIELD = "pumpdeck_people"
PEOPLE_FORMAT = 1
_PERSON = re.compile(r"p-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class PeopleWords:
    """What stands in the targets metadata."""

    people: Mapping[str, str]
    format: int = PEOPLE_FORMAT


@dataclass(frozen=True, slots=True)
class Signatory:
    """A key that may sign statements for a site. `person` is empty where headquarters has not said whose it is."""

    public_pem: str
    role: str
    person: str


def person_of_key(key_id: str) -> str:
    """The person whose first key this is."""
    return f"p-{key_id[:12]}"


def people_in(targets: Targets) -> dict[str, str]:
    """Person by key id, as the targets role says; empty when it says nothing.

    Raises:
        TrustError: it says something that cannot be followed; then nobody's word counts.
    """
    if PEOPLE_FIELD not in targets.unrecognized_fields:
        return {}
    words = canonical.from_plain(PeopleWords, targets.unrecognized_fields[PEOPLE_FIELD], PEOPLE_FIELD)
    if words.format != PEOPLE_FORMAT:
        raise TrustError("names people in an unknown format", PEOPLE_FIELD, expected=PEOPLE_FORMAT, found=words.format)
    for key_id, person in words.people.items():
        if _PERSON.fullmatch(person) is None:
            found = f"{key_id[:12]}: {person[:40]}"
            raise TrustError("names somebody who cannot be one", PEOPLE_FIELD, expected="p-<12 hex>", found=found)
    return dict(words.people)


def people_fields(people: Mapping[str, str], held: Collection[str]) -> dict[str, Any]:
    """The field for the signed part, of the keys that are held; none when nothing is said of them."""
    said = {key_id: person for key_id, person in sorted(people.items()) if key_id in held}
    return {PEOPLE_FIELD: canonical.to_plain(PeopleWords(said))} if said else {}


def signatories(site: VerifiedSite) -> dict[str, Signatory]:
    """Who may sign statements for a verified site: its deploy and release keys, by key id."""
    people = people_in(site.trusted.targets)
    found = {}
    for role in (RELEASE, DEPLOY):
        for key_id, key in keys_of_role(site.trusted.targets, role).items():
            found[key_id] = Signatory(pem_of_key(key), role, people.get(key_id, ""))
    return found
