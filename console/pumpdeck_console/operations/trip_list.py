"""What a field engineer must know before a trip: what is lacking for it, and what there is to do at each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.fleet import PumpRow, list_pumps
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import LIVE

DRIFT_PSI = 0.25
SILENT_MS = 7 * DAY_MS
_BAD, _WARN, _OK = "bad", "warn", "ok"


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


def check_trip(workspace: Workspace, devices: Sequence[Device], until_ms: int, target: Path) -> tuple[Finding, ...]:
    """What could spoil the trip, looked at before it begins; never raises for what it finds."""
    sites = sorted({device.site for device in devices})
    findings = [finding for site in sites for finding in _site_findings(workspace, site, until_ms)]
    identities = workspace.store.devices.identities()
    strange = [device.id for device in devices if device.id not in identities]
    ssh = [device for device in devices if workspace.fleet.site(device.site).link is Link.SSH]
    blind = [one.id for one in ssh if one.id in identities and not (one.host_key or identities[one.id].host_key)]
    findings.append(_named("enrolled devices", strange, "are not enrolled", "pumpdeck devices enrol"))
    findings.append(_named("host keys", blind, "have no host key", "enrol them again, or write host_key into fleet.toml"))
    if ssh:
        findings.append(_login(workspace))
    has_agent = (workspace.root / "agent").is_dir()
    words = "the agent and its wheels come along" if has_agent else "no agent is in this workspace"
    findings.append(Finding("agent", _OK if has_agent else _WARN, words, "" if has_agent else "pumpdeck package agent"))
    here = next(one for one in (target, *target.parents) if one.is_dir())
    free = workspace.fs.free_bytes(here)
    room = _OK if free > 1_000_000_000 else _WARN if free > 200_000_000 else _BAD
    findings.append(Finding("disk", room, f"{free / 1e9:.1f} GB free at {here}", "" if room == _OK else "make room there"))
    return tuple(findings)


def _named(what: str, names: Sequence[str], words: str, hint: str) -> Finding:
    if names:
        return Finding(what, _WARN, f"{len(names)} {words}: {', '.join(names[:3])}", hint)
    return Finding(what, _OK, f"none {words.replace('are not', 'is not').replace('have no', 'lacks a')}")


def _site_findings(workspace: Workspace, site: str, until_ms: int) -> list[Finding]:
    trust = workspace.trust(site)
    if not trust.exists:
        return [Finding(f"trust of {site}", _BAD, "the site was never founded", "pumpdeck trust init")]
    found = []
    try:
        soon = {role: at_ms for role, at_ms in trust.status().expires_ms.items() if at_ms < until_ms}
        # A deploy key renews deploy, snapshot and timestamp with every assignment; the others need people who stay behind.
        lasting = {role: at_ms for role, at_ms in soon.items() if role in ("root", "targets", "release")}
        if lasting:
            words = ", ".join(f"{role} until {format_ms(at_ms)}" for role, at_ms in sorted(lasting.items()))
            found.append(Finding(f"trust of {site}", _BAD, f"runs out on the way: {words}", "renew it before you leave"))
        else:
            found.append(Finding(f"trust of {site}", _OK, f"holds until {format_ms(until_ms)}"))
        workspace.signing_key("deploy", site)
    except PumpdeckError as error:
        found.append(Finding(f"deploy key for {site}", _BAD, error.sentence(), error.hint))
    else:
        found.append(Finding(f"deploy key for {site}", _OK, "this person can sign there"))
    return found


def _login(workspace: Workspace) -> Finding:
    try:
        login = workspace.credentials.login()
    except PumpdeckError as error:
        return Finding("SSH key", _BAD, error.sentence(), error.hint)
    if login.key_text or login.use_agent:
        return Finding("SSH key", _OK, "there is a key to log in with")
    return Finding("SSH key", _BAD, "there is no key to log in with", "pumpdeck trust init makes one")


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
