"""What there is to do on a trip: device by device, the first thing first, as data and as a page to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.fleet import PumpRow, list_pumps
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import LIVE

DRIFT_PSI = 0.25
SILENT_MS = 7 * DAY_MS
_OK = "ok"


@dataclass(frozen=True, slots=True)
class TripWork:
    """One device of a trip: where it is, what it runs, and what there is to do, the first thing first."""

    device: str
    site: str
    link: str
    address: str
    pumps: tuple[str, ...]
    active: str
    last_seen_ms: int | None
    todo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceReturn:
    """What a trip did at one device, its signed receipts and renewed agents, and what is still open there."""

    device: str
    receipts: tuple[str, ...]
    labels: int
    todo: tuple[str, ...]


def chosen_devices(workspace: Workspace, query: str) -> tuple[Device, ...]:
    """The devices with a pump that `query` selects. Raises: RefusedError: there is none."""
    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = tuple(device for device in workspace.fleet.devices if device.id in chosen)
    if not devices:
        raise RefusedError("no device is selected", query or "trip", hint="try the query with: pumpdeck devices")
    return devices


def work_list(workspace: Workspace, devices: Sequence[Device]) -> tuple[TripWork, ...]:
    """What there is to do, site by site."""
    rows: dict[str, list[PumpRow]] = {}
    for row in list_pumps(workspace):
        rows.setdefault(row.pump.device, []).append(row)
    rollouts = workspace.store.rollouts.all()
    found = [_work(workspace, device, rows.get(device.id, []), rollouts) for device in devices]
    return tuple(sorted(found, key=lambda work: (work.site, work.device)))


def _work(workspace: Workspace, device: Device, rows: Sequence[PumpRow], rollouts: Sequence[Rollout]) -> TripWork:
    store, now_ms = workspace.store, workspace.clock.now_ms()
    link = workspace.fleet.site(device.site).link
    seen = [row.facts.last_seen_ms for row in rows if row.facts and row.facts.last_seen_ms is not None]
    status = store.devices.status(device.id)
    last_ms = max([*seen, *([status.at_ms] if status else [])], default=None)
    todo = list(_deliveries(workspace, device, link, rollouts))
    if store.devices.identity(device.id) is None:
        todo.insert(0, f"enrol it: pumpdeck devices enrol {device.id}")
    elif last_ms is None or now_ms - last_ms > SILENT_MS:
        how = "take a stick there and back" if link is Link.COURIER else f"pumpdeck collect device:{device.id}"
        todo.append(f"fetch what it has kept: {how}")
    for row in rows:
        if row.facts and row.facts.is_alarmed:
            todo.append(f"{row.pump.tag} alarms: look at it, then label what you found: pumpdeck label add")
        elif row.facts and row.facts.has_sensor_fault:
            todo.append(f"{row.pump.tag}: a sensor does not measure; check it")
        elif row.facts and (row.facts.drift_psi or 0) > DRIFT_PSI:
            todo.append(f"{row.pump.tag} drifts ({row.facts.drift_channel}): ask what has changed there")
    return TripWork(
        device=device.id,
        site=device.site,
        link=link.value,
        address=f"{device.address}:{device.port}" if device.address else "",
        pumps=tuple(row.pump.tag for row in rows),
        active=store.devices.active().get(device.id, ""),
        last_seen_ms=last_ms,
        todo=tuple(todo),
    )


def _deliveries(workspace: Workspace, device: Device, link: Link, rollouts: Sequence[Rollout]) -> list[str]:
    homes = workspace.store.rollouts.homes()
    found = []
    for rollout in rollouts:
        task = rollout.tasks.get(device.id)
        if task is None or task.state not in LIVE:
            continue
        if rollout.id in homes:
            found.append(f"rollout {rollout.id} is brought by workspace {homes[rollout.id]}: leave it alone")
        elif task.assign_ms:
            found.append(f"rollout {rollout.id} is under way ({task.state}): fetch its receipt")
        else:
            how = "bundle export, walk the stick, bundle intake" if link is Link.COURIER else "pumpdeck tick"
            found.append(f"bring package {rollout.plan.by_device[device.id].package_sha256[:12]} of {rollout.id}: {how}")
    if not found and not workspace.store.packages.for_device(device.id):
        found.append("there is no package for it: build one before you leave")
    return found


def as_markdown(query: str, until_ms: int, work: Sequence[TripWork], findings: Sequence[Finding]) -> str:
    """The work list to print or to read without a console."""
    lines = [f"# Trip: {query or 'all devices'}, until {format_ms(until_ms)}", ""]
    lines += [f"- {one.verdict.upper()}: {one.what}: {one.found}" for one in findings if one.verdict != _OK]
    site = ""
    for one in work:
        if one.site != site:
            site = one.site
            lines += ["", f"## {site}"]
        seen = format_ms(one.last_seen_ms) if one.last_seen_ms is not None else "never"
        place = f"{one.link} {one.address}".strip()
        lines += ["", f"### {one.device} ({place})", ""]
        lines += [f"Pumps {', '.join(one.pumps)}; runs {one.active[:12] or 'nothing'}; last heard of {seen}.", ""]
        lines += [f"- [ ] {what}" for what in one.todo] or ["- nothing is due"]
    return "\n".join(lines) + "\n"


def returned_markdown(query: str, at_ms: int, devices: Sequence[DeviceReturn], odd: Sequence[str]) -> str:
    """What came of a trip, to be filed or mailed: by device what is proven and what is open, then what people must settle."""
    lines = [f"# Trip home: {query or 'all devices'}, {format_ms(at_ms)}"]
    for one in devices:
        lines += ["", f"## {one.device}", ""]
        lines += [f"- signed by the device: {receipt}" for receipt in one.receipts] or ["- no receipt came"]
        lines += [f"- labels of what was found: {one.labels}"] if one.labels else []
        lines += [f"- [ ] {what}" for what in one.todo]
    if odd:
        lines += ["", "## To be settled by somebody", "", *(f"- [ ] {what}" for what in odd)]
    return "\n".join(lines) + "\n"
