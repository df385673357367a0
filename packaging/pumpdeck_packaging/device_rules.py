"""What a site demands before its devices take a package: signed by the targets role, so that no file on a device weakens it.

It stands beside the other fields of `N.targets.json`, as the words on returns do: agents that do not know it pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_packaging.bundle_layout import TARGETS
from pumpdeck_packaging.metadata_form import MetadataForm, parse_form

RULES_FIELD = "pumpdeck_device_rules"
RULES_FORMAT = 1
MAX_CLASSES = 64


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """needs_permit: no package without a permit or work-order number. undo_needs_token: one step back needs two people's word.

    None: nothing is said, and what the device was enrolled with stands.
    """

    needs_permit: bool | None = None
    undo_needs_token: bool | None = None

    def with_other(self, other: DeviceRules) -> DeviceRules:
        """Both at once: what either demands is demanded."""
        return DeviceRules(
            _stricter(self.needs_permit, other.needs_permit), _stricter(self.undo_needs_token, other.undo_needs_token)
        )

    def over(self, other: DeviceRules) -> DeviceRules:
        """These where they say something, else the other ones."""
        return DeviceRules(
            other.needs_permit if self.needs_permit is None else self.needs_permit,
            other.undo_needs_token if self.undo_needs_token is None else self.undo_needs_token,
        )


@dataclass(frozen=True, slots=True)
class SiteRules:
    """The rules of a site, and those of device classes on it."""

    site: DeviceRules = DeviceRules()
    classes: Mapping[str, DeviceRules] = field(default_factory=dict)
    format: int = RULES_FORMAT

    def of_class(self, device_class: str) -> DeviceRules:
        """What holds for a device of that class."""
        return self.site.with_other(self.classes.get(device_class, DeviceRules()))


def parse_rules(form: MetadataForm) -> SiteRules | None:
    """What a targets file demands; None when it says nothing, as those signed before there were rules.

    Raises:
        TrustError: it says something that cannot be followed; then no assignment may be taken under it.
    """
    signed = canonical.parse_json(form.data, form.name, max_bytes=len(form.data))["signed"]
    if RULES_FIELD not in signed:
        return None
    rules = canonical.from_plain(SiteRules, signed[RULES_FIELD], f"{form.name}.{RULES_FIELD}")
    check_rules(rules, form.name)
    return rules


def rules_in(files: Mapping[str, bytes]) -> SiteRules | None:
    """As `parse_rules`, of the targets file in a verified set.

    Raises:
        TrustError: it says something that cannot be followed, or there is none.
    """
    names = [name for name in files if name.endswith(f".{TARGETS}.json")]
    if len(names) != 1:
        raise TrustError("is not there once", f"{TARGETS} metadata", found=len(names))
    return parse_rules(parse_form(names[0], files[names[0]]))


def rules_fields(rules: SiteRules | None) -> dict[str, Any]:
    """The field for the signed part; none when nothing is said."""
    return {} if rules is None else {RULES_FIELD: canonical.to_plain(rules)}


def check_rules(rules: SiteRules, what: str) -> None:
    """Format, names and number.

    Raises:
        TrustError: one of them is wrong.
    """
    if rules.format != RULES_FORMAT:
        raise TrustError("has device rules in an unknown format", what, expected=RULES_FORMAT, found=rules.format)
    wrong = next((name for name in rules.classes if not is_name(name)), None)
    if wrong is not None or len(rules.classes) > MAX_CLASSES:
        said = f"at most {MAX_CLASSES} classes by name"
        raise TrustError("has rules for classes that cannot be", what, expected=said, found=(wrong or "")[:64])


def _stricter(one: bool | None, other: bool | None) -> bool | None:
    if one is None or other is None:
        return other if one is None else one
    return one or other
