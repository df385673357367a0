"""What devices demand before they take a package: `fleet.toml` says it, the targets role of each site signs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.inventory import Device, DeviceClass, Fleet, Site
from pumpdeck_fleet.core.receipts import Terms
from pumpdeck_packaging.device_rules import DeviceRules, SiteRules


@dataclass(frozen=True, slots=True)
class RuleRow:
    """What devices of one class demand at one site: as the inventory says, and as its devices know it by signed words."""

    site: str
    device_class: str
    devices: int
    wanted: DeviceRules
    signed: DeviceRules

    @property
    def is_signed(self) -> bool:
        """True when the two say the same."""
        return self.wanted == self.signed


def demanded(fleet: Fleet, device: Device) -> DeviceRules:
    """What the inventory demands of this device: what its site or its class asks for."""
    return rules_of(fleet, device.site).of_class(device.device_class)


def rules_of(fleet: Fleet, site: str) -> SiteRules:
    """What the inventory says of a site and of the device classes on it."""
    used = sorted({device.device_class for device in fleet.devices if device.site == site})
    said = {name: _said(fleet.device_classes[name]) for name in used}
    nothing = DeviceRules()
    return SiteRules(_said(fleet.site_by_id[site]), {name: rules for name, rules in said.items() if rules != nothing})


def check_permit(workspace: Workspace, devices: Sequence[Device], terms: Terms) -> None:
    """Turn down what these devices would turn down: better here than after a flight.

    Raises:
        RefusedError: one of them takes nothing without a permit, and none is given.
    """
    if terms.permit is not None:
        return
    for device in devices:
        if demanded(workspace.fleet, device).needs_permit:
            hint = "give it with --permit NUMBER"
            raise RefusedError("takes nothing without a permit or work-order number", device.id, hint=hint)


@operation("trust.rules", runs_in="reader")
def list_rules(workspace: Workspace, *, sites: Sequence[str] = ()) -> tuple[RuleRow, ...]:
    """Each founded site (or those named) and each device class on it.

    Raises:
        NotFoundError: a named site is not there or not founded.
    """
    rows = []
    for site, signed in _signed(workspace, sites).items():
        wanted = rules_of(workspace.fleet, site)
        devices = [device.device_class for device in workspace.fleet.devices if device.site == site]
        for name in sorted(set(devices)):
            found = (signed or SiteRules()).of_class(name)
            rows.append(RuleRow(site, name, devices.count(name), wanted.of_class(name), found))
    return tuple(rows)


@operation("trust.sign_rules", runs_in="worker")
def sign_rules(workspace: Workspace, *, sites: Sequence[str] = ()) -> tuple[RuleRow, ...]:
    """Sign what the inventory demands into the targets of each site where it is not signed yet; the rows that changed.

    Devices follow with their next assignment: it is judged by the words that come with it.

    Raises:
        NotFoundError: no such site, or the targets or the deploy key is not here; then nothing is signed.
    """
    changed = [row for row in list_rules(workspace, sites=sites) if not row.is_signed]
    wanted = sorted({row.site for row in changed})
    signers = {site: tuple(workspace.signing_key(role, site).signer for role in ("targets", "deploy")) for site in wanted}
    for site in wanted:
        rules = rules_of(workspace.fleet, site)
        workspace.trust(site).set_rules(rules, *signers[site])
        words = "; ".join(f"{row.device_class}: {in_words(row.wanted)}" for row in changed if row.site == site)
        with workspace.store.atomic() as store:
            digests = {"rules": canonical.digest(canonical.encode(rules))}
            store.audit.append(workspace.actor, "trust.rules", site, reason=words, digests=digests)
    return tuple(changed)


def in_words(rules: DeviceRules) -> str:
    """For people."""
    named = (("a permit", rules.needs_permit), ("two people's word to go back", rules.undo_needs_token))
    said = [words if is_on else f"not {words}" for words, is_on in named if is_on is not None]
    return ", ".join(said) or "nothing"


def _said(source: Site | DeviceClass) -> DeviceRules:
    return DeviceRules(source.needs_permit, source.undo_needs_token)


def _signed(workspace: Workspace, sites: Sequence[str]) -> dict[str, SiteRules | None]:
    known = workspace.fleet.site_by_id
    found: dict[str, SiteRules | None] = {}
    for site in sites or known:
        if site not in known:
            raise NotFoundError("no such site", site, expected="a site of fleet.toml")
        trust = workspace.trust(site)
        if trust.exists:
            found[site] = trust.device_rules()
        elif sites:
            raise NotFoundError("has no trust repository", site, hint="found the site with: pumpdeck trust init")
    return found
