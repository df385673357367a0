"""Telling devices that keys have changed, whether or not a package is due, and who has not heard it yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_console.key_holders import read_holders
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.trust_rows import Exposure
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import RpcChannel
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.devices import DeviceTrustRow
from pumpdeck_packaging.bundle_layout import ROOT, TARGETS
from pumpdeck_packaging.metadata_form import parse_form


@dataclass(frozen=True, slots=True)
class SiteNews:
    """The metadata of a site that counts now: versions of the roles that say who may sign, and the files themselves."""

    site: str
    root: int
    targets: int
    files: tuple[tuple[str, bytes], ...]

    def is_known_to(self, row: DeviceTrustRow | None) -> bool:
        """Whether that device has these keys or newer ones."""
        return row is not None and row.site == self.site and row.root >= self.root and row.version >= self.targets


def news_of(workspace: Workspace, sites: Sequence[str]) -> dict[str, SiteNews]:
    """What there is to tell, by site; sites without a repository, or whose repository does not hold, are left out."""
    found = {}
    for site in sites:
        trust = workspace.trust(site)
        try:
            files = tuple(trust.current_files()) if trust.exists else ()
        except PumpdeckError:
            # What is wrong with it `doctor` and whoever signs will say; a collect must not fail over it.
            continue
        if files:
            forms = [parse_form(name, data) for name, data in files]
            versions = {role: max(form.version for form in forms if form.role == role) for role in (ROOT, TARGETS)}
            found[site] = SiteNews(site, versions[ROOT], versions[TARGETS], files)
    return found


def tell_device(store: Store, channel: RpcChannel, device: Device, news: SiteNews, now_ms: int) -> bool:
    """Hand the metadata to a device that is not known to have it; False when it has.

    Raises:
        PumpdeckError: the device did not take it, or the link broke.
    """
    if news.is_known_to(store.devices.trusts().get(device.id)):
        return False
    listed = [{"name": name, "bytes": len(data)} for name, data in news.files]
    channel.call(Op.ASSIGN, {"files": listed}, b"".join(data for _, data in news.files))
    with store.atomic():
        store.devices.put_trust(DeviceTrustRow(device.id, device.site, news.targets, news.root, now_ms, "ssh"))
    return True


@operation("trust.exposed", runs_in="reader")
def exposed(workspace: Workspace, *, sites: Sequence[str] = ()) -> tuple[Exposure, ...]:
    """Enrolled devices that are not known to have taken the newest keys: a key that was revoked since still counts there.

    Known is what a device answered over SSH, signed in a return on a stick, or in a receipt for an assignment made after the
    change.
    """
    store = workspace.store
    wanted = set(sites) or {site.id for site in workspace.fleet.sites}
    news = news_of(workspace, [site.id for site in workspace.fleet.sites if site.id in wanted])
    rows, enrolled = store.devices.trusts(), store.devices.identities()
    first_seqs = {site: read_holders(workspace.fs, workspace.trust_path / site).first_seq for site in news}
    found = []
    for device in workspace.fleet.devices:
        told = news.get(device.site)
        if told is None or device.id not in enrolled or _never_changed(told):
            continue
        row = rows.get(device.id)
        if told.is_known_to(row) or _has_answered(workspace, device, first_seqs[device.site]):
            continue
        link = workspace.fleet.site(device.site).link.value
        known = (row.root, row.version) if row and row.site == device.site else (0, 0)
        found.append(Exposure(device.id, device.site, *known, told.root, told.targets, link))
    return tuple(found)


def _never_changed(news: SiteNews) -> bool:
    return news.root == 1 and news.targets == 1


def _has_answered(workspace: Workspace, device: Device, first_seq: int) -> bool:
    """Whether the device signed a receipt for the very assignment that stands in the repository, made after the change.

    Another assignment with such a number could be a thief's.
    """
    key = workspace.store.devices.identities()[device.id].key_id
    receipts = [row.receipt for row in workspace.store.receipts.of(device.id) if row.key_id == key]
    late = {(one.seq, one.task, one.package_sha256) for one in receipts if one.seq >= first_seq > 0}
    assignment = workspace.trust(device.site).assignment(device.id) if late else None
    return assignment is not None and (assignment.seq, assignment.task, assignment.package_sha256) in late
