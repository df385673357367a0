"""Who may read what devices return on sticks: age keys by name, signed into each site's targets role."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pumpdeck_console.credentials import PlaceReport, Source
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.trust_rows import RecipientRow
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError
from pumpdeck_fleet.core.ids import check_name, is_name
from pumpdeck_packaging.age_box import check_recipient, generate_identity
from pumpdeck_packaging.returns_policy import ReturnsPolicy, check_policy


@dataclass(frozen=True, slots=True)
class RecipientsView:
    """The readers of every founded site, and where this workspace's own key would be found."""

    rows: tuple[RecipientRow, ...]
    places: tuple[PlaceReport, ...]


@dataclass(frozen=True, slots=True)
class SiteReturns:
    """A site's readers before and after; none: returns lie plain on its sticks."""

    site: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@operation("trust.recipients", runs_in="reader")
def list_recipients(workspace: Workspace) -> RecipientsView:
    """Who may read the returns of each founded site."""
    mine = workspace.recipient_keys.public()
    rows: list[RecipientRow] = []
    for site, policy in _policies(workspace, ()).items():
        if policy is None or policy.plain:
            rows.append(RecipientRow(site, "", "", is_mine=False, plain=True))
        readers = policy.recipients if policy else {}
        is_plain = policy is not None and policy.plain
        rows += [RecipientRow(site, name, key, key == mine, is_plain) for name, key in sorted(readers.items())]
    return RecipientsView(tuple(rows), workspace.recipient_keys.probe())


@operation("trust.plan_recipients", runs_in="reader")
def plan_recipients(
    workspace: Workspace,
    *,
    add: Mapping[str, str] | None = None,
    remove: Sequence[str] = (),
    plain: bool | None = None,
    sites: Sequence[str] = (),
) -> tuple[SiteReturns, ...]:
    """What a change would do to these sites (all, when none is named); those that stay as they are, are left out.

    `add` is names and age keys, `plain` whether returns lie open from now on; None leaves that as it is.

    Raises:
        RefusedError: nobody could read any more. ConflictError: another key has that name. NotFoundError: no such name or site.
        FormatError: not an age public key.
    """
    wanted = _changes(workspace, _Change(add or {}, tuple(remove), plain), sites)
    return tuple(SiteReturns(site, _names(before), _names(after)) for site, (before, after) in wanted.items())


@operation("trust.change_recipients", runs_in="worker")
def change_recipients(
    workspace: Workspace,
    *,
    add: Mapping[str, str] | None = None,
    remove: Sequence[str] = (),
    plain: bool | None = None,
    sites: Sequence[str] = (),
) -> tuple[SiteReturns, ...]:
    """As `plan_recipients`, and sign it into each site's targets; it reaches devices with the next assignment or stick.

    Raises:
        As `plan_recipients`. NotFoundError: the targets or the deploy key is not here; then no site is changed.
    """
    wanted = _changes(workspace, _Change(add or {}, tuple(remove), plain), sites)
    signers = {
        site: tuple(workspace.signing_key(role, site).signer for role in ("targets", "deploy")) for site in wanted
    }
    done = []
    for site, (before, after) in wanted.items():
        workspace.trust(site).set_returns(after, *signers[site])
        found = SiteReturns(site, _names(before), _names(after))
        reason = f"returns readable by {', '.join(found.after) or 'anybody'}"
        digests = {"returns": canonical.digest(canonical.encode(after))}
        with workspace.store.atomic() as store:
            store.audit.append(workspace.actor, "trust.returns", site, reason=reason, digests=digests)
        done.append(found)
    return tuple(done)


def make_recipient_key(workspace: Workspace, source: Source, passphrase: str = "") -> tuple[str, str]:
    """Make this workspace's recipient key; its public half, and a warning that people must see or nothing.

    Not an operation of the worker process: passphrases never travel between processes.

    Raises:
        As `RecipientKeys.save`.
    """
    key = generate_identity()
    warning = workspace.recipient_keys.save(key, source, passphrase)
    return key.public, warning


def founding_returns(workspace: Workspace, store: Source, passphrase: str, made: list[str]) -> ReturnsPolicy:
    """What a new site says of returns: as the sites before it, else readable by this workspace, whose key is made if need be."""
    for policy in _policies(workspace, ()).values():
        if policy is not None:
            return policy
    keys = workspace.recipient_keys
    public = keys.public() or next((one.public for one in keys.find()), "")
    if not public:
        public, _ = make_recipient_key(workspace, store, passphrase)
        made.append("recipient")
    return ReturnsPolicy({own_name(workspace): public})


def own_name(workspace: Workspace) -> str:
    """What this workspace is called among recipients, unless people say otherwise."""
    name = re.sub(r"[^a-z0-9._-]+", "-", workspace.person.lower()).strip("-.")[:64]
    return name if is_name(name) else "office"


@dataclass(frozen=True, slots=True)
class _Change:
    add: Mapping[str, str]
    remove: tuple[str, ...]
    plain: bool | None


def _policies(workspace: Workspace, sites: Sequence[str]) -> dict[str, ReturnsPolicy | None]:
    chosen = sites or [site.id for site in workspace.fleet.sites]
    found = {}
    for site in chosen:
        trust = workspace.trust(site)
        if trust.exists:
            found[site] = trust.returns_policy()
        elif sites:
            raise NotFoundError("has no trust repository", site, hint="found the site with: pumpdeck trust init")
    return found


def _changes(
    workspace: Workspace, change: _Change, sites: Sequence[str]
) -> dict[str, tuple[ReturnsPolicy | None, ReturnsPolicy]]:
    for name, key in change.add.items():
        check_recipient(key, f"recipient {check_name(name, 'recipient')}")
    policies = _policies(workspace, sites)
    if not policies:
        raise RefusedError("no site is founded yet", "recipients", hint="pumpdeck trust init")
    if unknown := [name for name in change.remove if not any(one and name in one.recipients for one in policies.values())]:
        raise NotFoundError("is no recipient", unknown[0], hint="list them with: pumpdeck trust recipient list")
    wanted = {site: (before, _after(site, before, change)) for site, before in policies.items()}
    return {site: (before, after) for site, (before, after) in wanted.items() if before != after}


def _after(site: str, before: ReturnsPolicy | None, change: _Change) -> ReturnsPolicy:
    policy = before or ReturnsPolicy(plain=not change.add)
    readers = {name: key for name, key in policy.recipients.items() if name not in change.remove}
    for name, key in change.add.items():
        if readers.get(name, key) != key:
            raise ConflictError("is there with another key", f"{name} at {site}", hint="remove it first, or take another name")
        readers[name] = key
    plain = policy.plain if change.plain is None else change.plain
    if not readers and not plain:
        raise RefusedError(
            "nobody could read its returns",
            site,
            expected="a recipient",
            hint="add another one first, or let the site stay plain with: pumpdeck trust recipient plain SITE",
        )
    after = replace(policy, recipients=readers, plain=plain)
    check_policy(after, site)
    return after


def _names(policy: ReturnsPolicy | None) -> tuple[str, ...]:
    return tuple(policy.readers) if policy else ()
