"""What a bundle would hold, for whom and how long it takes, before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.sticks import StickEntry
from pumpdeck_fleet.services.courier import CourierTask, courier_tasks
from pumpdeck_packaging.bundle_index import MARK_MAX_BYTES, MARK_NAME, parse_mark
from pumpdeck_packaging.bundle_stick import Stick, real_stick

STICK_BYTES_PER_S = 8_000_000
"""What an ordinary stick writes and gives back; used until the stick was measured, and the plan says so."""


@dataclass(frozen=True, slots=True)
class BundleRow:
    """One device of a bundle. `package` is empty when the stick only fetches its return; `note` says what is odd."""

    device: str
    site: str
    package: str
    bytes: int
    deadline_ms: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class SiteShare:
    """One site of a bundle: its bytes, and how long they would take over its link; -1 where no speed of a link is known."""

    site: str
    link: str
    devices: int
    packages: int
    bytes: int
    link_s: float


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What an export would write.

    `seconds` is to write and to read back at `bytes_per_s`, which was `measured` on this stick, `stated` or `assumed`.
    `free_bytes` is -1 where nothing is mounted yet. `problems` is who is left out, and why.
    """

    to: str
    rows: tuple[BundleRow, ...]
    packages: int
    bytes: int
    free_bytes: int
    seconds: float
    problems: tuple[tuple[str, str], ...]
    sites: tuple[SiteShare, ...] = ()
    bytes_per_s: float = STICK_BYTES_PER_S
    speed: str = "assumed"
    stick: str = ""
    stick_state: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Whom a bundle serves and with what."""

    devices: tuple[Device, ...]
    tasks: tuple[CourierTask, ...]
    left_out: tuple[tuple[str, str], ...]


@operation("bundle.plan", runs_in="reader")
def plan_bundle(workspace: Workspace, *, query: str = "", to: str, bytes_per_s: float = 0.0) -> BundlePlan:
    """What a bundle for the devices with a pump that `query` selects would hold; without a query, of every courier site.

    `bytes_per_s` is what somebody states of the stick; without it, what was measured when it was last written.

    Raises:
        RefusedError: no device is selected.
    """
    folder = Path(to).absolute()
    return plan_of(workspace, outgoing(workspace, chosen_devices(workspace, query)), folder, bytes_per_s)


def chosen_devices(workspace: Workspace, query: str) -> list[Device]:
    """The devices with a pump that the query selects; without one, those of the sites that only couriers reach.

    Raises:
        RefusedError: none.
    """
    fleet = workspace.fleet
    if query:
        chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
        devices = [device for device in fleet.devices if device.id in chosen]
    else:
        devices = [device for device in fleet.devices if fleet.site(device.site).link is Link.COURIER]
    if not devices:
        hint = "try the query with: pumpdeck devices" if query else "name devices of other sites with --for QUERY"
        raise RefusedError("no device is selected", query or "bundle", hint=hint)
    return devices


def outgoing(workspace: Workspace, devices: Sequence[Device]) -> Outgoing:
    """What may leave for these devices now. Those that are not enrolled are left out."""
    enrolled = workspace.store.devices.identities()
    strangers = [(one.id, "it is not enrolled: its key is not known") for one in devices if one.id not in enrolled]
    known = tuple(device for device in devices if device.id in enrolled)
    work = courier_tasks(workspace.store, {device.id for device in known})
    return Outgoing(known, work.tasks, tuple(sorted([*strangers, *work.left_out])))


def plan_of(workspace: Workspace, going: Outgoing, folder: Path, stated_bytes_per_s: float = 0.0) -> BundlePlan:
    """The plan in figures; reads the stick's name where it has one, and writes nothing."""
    by_device = {task.command.device: task for task in going.tasks}
    out = dict(going.left_out)
    rows = tuple(_row(workspace, device, by_device.get(device.id), out.get(device.id, "")) for device in going.devices)
    shares = tuple(_share(workspace, site, rows) for site in sorted({row.site for row in rows}))
    total = sum(share.bytes for share in shares)
    here = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
    entry = known_stick(workspace, real_stick(folder))
    speed, source = float(STICK_BYTES_PER_S), "assumed"
    if stated_bytes_per_s > 0:
        speed, source = stated_bytes_per_s, "stated"
    elif entry is not None and entry.bytes_per_s > 0:
        speed, source = entry.bytes_per_s, "measured"
    return BundlePlan(
        to=str(folder),
        rows=rows,
        packages=sum(bool(row.package) for row in rows),
        bytes=total,
        free_bytes=workspace.fs.free_bytes(here) if here else -1,
        # Written once, read back once.
        seconds=2 * total / speed,
        problems=going.left_out,
        sites=shares,
        bytes_per_s=speed,
        speed=source,
        stick=entry.id if entry else "",
        stick_state=entry.state.value if entry else "",
    )


def known_stick(workspace: Workspace, stick: Stick) -> StickEntry | None:
    """The inventory's entry of that stick; `None` when it has no name of ours, or one that is not known."""
    try:
        mark = parse_mark(stick.fs.read_bytes(stick.folder / MARK_NAME, MARK_MAX_BYTES))
    except (OSError, PumpdeckError):
        return None
    return workspace.store.sticks.get(mark.id) if mark.workspace == workspace.store.workspace else None


def _row(workspace: Workspace, device: Device, task: CourierTask | None, left_out: str) -> BundleRow:
    is_courier = workspace.fleet.site(device.site).link is Link.COURIER
    if task is None:
        note = "nothing to bring, its return is fetched" if is_courier else "reached by SSH, its return is fetched"
        return BundleRow(device.id, device.site, "", 0, 0, "only its return is fetched" if left_out else note)
    notes = ["given to a courier before"] if task.is_again and is_courier else []
    notes += [] if is_courier else ["SSH goes on trying too; whichever comes first counts"]
    command = task.command
    return BundleRow(
        device.id, device.site, command.package_sha256, command.package_bytes, task.deadline_ms, "; ".join(notes)
    )


def _share(workspace: Workspace, site: str, rows: Collection[BundleRow]) -> SiteShare:
    mine = [row for row in rows if row.site == site]
    packages = {row.package: row.bytes for row in mine if row.package}
    total = _metadata_bytes(workspace, site) + sum(packages.values())
    known = workspace.fleet.site(site)
    has_link = known.link is not Link.COURIER and known.bandwidth_kbit_s > 0
    link_s = total * 8 / (known.bandwidth_kbit_s * 1000) if has_link else -1.0
    return SiteShare(site, known.link.value, len(mine), len(packages), total, link_s)


def _metadata_bytes(workspace: Workspace, site: str) -> int:
    trust = workspace.trust(site)
    return trust.status().metadata_bytes if trust.exists else 0
