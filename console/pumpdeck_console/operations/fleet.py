"""The fleet as lists: pumps with health, and sites and devices rolled up from them. No numpy here: lists must start fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.health import Health, HealthRules, health_of, worst
from pumpdeck_fleet.core.inventory import Device, Pump, Site
from pumpdeck_fleet.core.telemetry import QualityFlag

if TYPE_CHECKING:
    from pumpdeck_fleet.store.devices import DeviceIdentityRow, DeviceStatusRow
    from pumpdeck_fleet.store.facts import PumpFacts

NO_WORD = ""


@dataclass(frozen=True, slots=True)
class PumpRow:
    """One pump, what the store knows of it (`None` for nothing), and the health that follows."""

    pump: Pump
    facts: PumpFacts | None
    health: Health | None
    reason: str


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site: the worst health of its pumps and how many have each (`None` for pumps without a fact)."""

    site: Site
    devices: int
    pumps: int
    worst: Health | None
    counts: Mapping[Health | None, int]


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device: its identity and last status where they are known, what it runs, and the worst health of its pumps."""

    device: Device
    site: Site
    pumps: tuple[PumpRow, ...]
    worst: Health | None
    identity: DeviceIdentityRow | None
    status: DeviceStatusRow | None
    active_sha256: str
    live_task: str


@operation("pumps.list", runs_in="reader")
def list_pumps(workspace: Workspace, *, query: str = "") -> tuple[PumpRow, ...]:
    """The pumps that `query` selects, in the order of the inventory.

    Raises:
        QueryError: the query cannot be read.
    """
    now_ms = workspace.clock.now_ms()
    rows = pump_rows(
        workspace.fleet.pumps, workspace.store.facts(), now_ms, workspace.policies.health, _guilty(workspace)
    )
    if not query.strip():
        return tuple(rows)
    from pumpdeck_fleet.core.query import parse_query  # deferred: most lists have no query

    wanted = parse_query(query)
    sites = workspace.fleet.site_by_id
    return tuple(row for row in rows if wanted.matches(query_row(row, sites[row.pump.site]), now_ms))


@operation("pumps.show", runs_in="reader")
def show_pump(workspace: Workspace, *, pump: str) -> PumpRow:
    """One pump by its identity, or by its tag where only one site has it.

    Raises:
        NotFoundError: there is none.
    """
    found = workspace.fleet.pump(pump)
    now_ms = workspace.clock.now_ms()
    (row,) = pump_rows((found,), workspace.store.facts(), now_ms, workspace.policies.health, _guilty(workspace))
    return row


@operation("sites.list", runs_in="reader")
def list_sites(workspace: Workspace, *, query: str = "") -> tuple[SiteRow, ...]:
    """Sites with a pump that `query` selects, and the figures over those pumps; every site for the empty query."""
    rows = list_pumps(workspace, query=query)
    by_site: dict[str, list[PumpRow]] = {}
    for row in rows:
        by_site.setdefault(row.pump.site, []).append(row)
    shown = (site for site in workspace.fleet.sites if site.id in by_site or not query.strip())
    return tuple(_site_row(site, by_site.get(site.id, [])) for site in shown)


@operation("devices.list", runs_in="reader")
def list_devices(workspace: Workspace, *, query: str = "") -> tuple[DeviceRow, ...]:
    """Devices with a pump that `query` selects; every device for the empty query."""
    by_device: dict[str, list[PumpRow]] = {}
    for row in list_pumps(workspace, query=query):
        by_device.setdefault(row.pump.device, []).append(row)
    chosen = [device for device in workspace.fleet.devices if device.id in by_device or not query.strip()]
    identities, statuses = workspace.store.devices.identities(), workspace.store.devices.statuses()
    active, live = workspace.store.devices.active(), workspace.store.rollouts.live_tasks()
    return tuple(
        DeviceRow(
            device=device,
            site=workspace.fleet.site(device.site),
            pumps=tuple(by_device.get(device.id, ())),
            worst=worst(row.health for row in by_device.get(device.id, ())),
            identity=identities.get(device.id),
            status=statuses.get(device.id),
            active_sha256=active.get(device.id, ""),
            live_task=live.get(device.id, ("", ""))[0],
        )
        for device in chosen
    )


@operation("devices.show", runs_in="reader")
def show_device(workspace: Workspace, *, device: str) -> DeviceRow:
    """One device.

    Raises:
        NotFoundError: there is none.
    """
    found = workspace.fleet.device(device)
    return next(row for row in list_devices(workspace) if row.device.id == found.id)


def pump_rows(
    pumps: Iterable[Pump],
    facts: Mapping[str, PumpFacts],
    now_ms: int,
    rules: HealthRules,
    guilty: Mapping[str, str],
) -> list[PumpRow]:
    """Pumps joined with what is known of them. `guilty` holds the channel that raised each open alarm."""
    rows = []
    for pump in pumps:
        known = facts.get(pump.id)
        health = None if known is None else health_of(known.health_facts(), now_ms, rules)
        rows.append(PumpRow(pump, known, health, _reason(health, known, guilty.get(pump.id, NO_WORD))))
    return rows


def _guilty(workspace: Workspace) -> dict[str, str]:
    return {notice.pump: notice.channel for notice in workspace.store.alarms.open()}


def _reason(health: Health | None, facts: PumpFacts | None, guilty: str) -> str:
    if facts is None or health in (None, Health.OK):
        return NO_WORD
    if health is Health.ALARM:
        return guilty
    if health is Health.SENSOR_FAULT:
        flags = QualityFlag(facts.last_flags or 0)
        return ", ".join(flag.name.lower().replace("_", " ") for flag in QualityFlag if flag in flags and flag.name)
    if health is Health.STALE:
        return f"last seen {format_ms(facts.last_seen_ms)}" if facts.last_seen_ms is not None else "never seen"
    if health is Health.DRIFT:
        return facts.drift_channel
    return "no model on its device"


def _site_row(site: Site, rows: list[PumpRow]) -> SiteRow:
    counts: dict[Health | None, int] = {}
    for row in rows:
        counts[row.health] = counts.get(row.health, 0) + 1
    devices = len({row.pump.device for row in rows})
    return SiteRow(site, devices, len(rows), worst(row.health for row in rows), counts)


def query_row(row: PumpRow, site: Site) -> dict[str, Any]:
    """The fields of docs/query.md for one pump."""
    pump, facts = row.pump, row.facts
    return {
        "pump": pump.id,
        "tag": pump.tag,
        "site": pump.site,
        "kind": site.kind,
        "link": site.link.value,
        "device": pump.device,
        "type": pump.type,
        "maker": pump.maker,
        "maker_model": pump.model,
        "criticality": pump.criticality,
        "group": pump.redundancy_group,
        "label": pump.labels,
        "health": None if row.health is None else row.health.name,
        "score": facts.score if facts else None,
        "limit": facts.limit if facts else None,
        "model": (facts.model if facts else None) or None,
        "version": facts.number if facts else None,
        "drift": facts.drift_psi if facts else None,
        "seen": facts.last_seen_ms if facts else None,
    }
