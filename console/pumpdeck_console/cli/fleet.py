"""`pumpdeck sites`, `pumps` and `devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    show_digest,
    time_text,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED
from pumpdeck_fleet.core.health import Health
from pumpdeck_fleet.core.merging import version_word

if TYPE_CHECKING:
    from pumpdeck_console.operations.fleet import DeviceRow, PumpRow, SiteRow

_PUMP_COLUMNS = (
    Column("pump"),
    Column("type"),
    Column("maker"),
    Column("health"),
    Column("score", right=True),
    Column("limit", right=True),
    Column("version", right=True),
    Column("drift_psi", "drift", right=True),
    Column("last_seen"),
    Column("reason"),
)
_SITE_COLUMNS = (
    Column("site"),
    Column("name"),
    Column("kind"),
    Column("link"),
    Column("devices", right=True),
    Column("pumps", right=True),
    Column("health"),
    *(Column(health.name.lower(), right=True) for health in reversed(Health)),
)
_DEVICE_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("address"),
    Column("link"),
    Column("pumps", right=True),
    Column("health"),
    Column("state"),
    Column("active", write=show_digest),
    Column("last_seen"),
)


@click.group(cls=LazyGroup, default="list")
def sites() -> None:
    """List sites with the health of their pumps."""


@sites.command("list")
@query_argument
@json_option
@click.pass_obj
def list_sites(session: Session, query: str, as_json: bool) -> None:
    """List sites that have a pump which QUERY selects."""
    from pumpdeck_console.operations import fleet  # deferred: help needs none of it

    rows = [_site(row) for row in fleet.list_sites(session.workspace(), query=query)]
    write_rows(rows, _SITE_COLUMNS, as_json=as_json, empty=_no_rows("site", query))


@click.group(cls=LazyGroup, default="list")
def pumps() -> None:
    """List pumps, or show one."""


@pumps.command("list")
@query_argument
@json_option
@click.pass_obj
def list_pumps(session: Session, query: str, as_json: bool) -> None:
    """List the pumps that QUERY selects, such as: site:gannet type:esp drift>0.2"""
    from pumpdeck_console.operations import fleet  # deferred: help needs none of it

    rows = [_pump(row) for row in fleet.list_pumps(session.workspace(), query=query)]
    write_rows(rows, _PUMP_COLUMNS, as_json=as_json, empty=_no_rows("pump", query))


@pumps.command("show")
@click.argument("pump")
@json_option
@click.pass_obj
def show_pump(session: Session, pump: str, as_json: bool) -> None:
    """Show one PUMP: its identity (site/tag), or its tag alone."""
    from pumpdeck_console.operations import fleet  # deferred: help needs none of it

    write_object(_pump(fleet.show_pump(session.workspace(), pump=pump)), as_json=as_json)


_DEVICE_COMMANDS = {
    "upgrade": (
        "pumpdeck_console.cli.device_agents:upgrade",
        "Bring the released agent to the devices with a pump that QUERY selects.",
    ),
    "enrol-stick": ("pumpdeck_console.cli.device_life:enrol_stick", "Write enrolment forms for DEVICES onto a stick."),
    "enrol-intake": ("pumpdeck_console.cli.device_life:enrol_intake", "Enrol the devices that answered on a stick."),
    "retire": ("pumpdeck_console.cli.device_life:retire", "End DEVICE: its key is believed no more, its history stays."),
    "requests": ("pumpdeck_console.cli.requests:requests", "List what devices ask for: new models for pumps of QUERY."),
    "dismiss": ("pumpdeck_console.cli.requests:dismiss", "Close every open request for PUMP without training."),
    "history": ("pumpdeck_console.cli.device_life:history", "Show the keys DEVICE had and what each of them signed."),
}


@click.group(cls=LazyGroup, default="list", lazy=_DEVICE_COMMANDS)
def devices() -> None:
    """List devices, show one, enrol or retire one."""


@devices.command("list")
@query_argument
@json_option
@click.pass_obj
def list_devices(session: Session, query: str, as_json: bool) -> None:
    """List devices that have a pump which QUERY selects."""
    from pumpdeck_console.operations import fleet  # deferred: help needs none of it

    rows = [_device(row) for row in fleet.list_devices(session.workspace(), query=query)]
    write_rows(rows, _DEVICE_COLUMNS, as_json=as_json, empty=_no_rows("device", query))


@devices.command("show")
@click.argument("device")
@json_option
@click.pass_obj
def show_device(session: Session, device: str, as_json: bool) -> None:
    """Show one DEVICE."""
    from pumpdeck_console.operations import fleet  # deferred: help needs none of it

    write_object(_device(fleet.show_device(session.workspace(), device=device)), as_json=as_json)


@devices.command("enrol")
@click.argument("device", default="")
@click.option("--all", "all_devices", is_flag=True, help="Every device whose host key stands in the inventory.")
@click.option("--host-key", default="", help="The device's SSH host key line, compared with the device itself.")
@click.option("--replace", "replace_identity", is_flag=True, help="The device was replaced: believe its new keys.")
@click.option("--install", is_flag=True, help="Put the agent on it first: look, show what would be done, ask, do it.")
@click.option("--as", "login", default="", metavar="USER", help="With --install: who logs in there, root or with sudo.")
@click.option(
    "--agent-root", default="/var/lib/pumpdeck-agent", show_default=True, help="With --install: its folder there."
)
@click.option(
    "--root-words", default="", help="With --install: the site's root fingerprint as twelve words, from its paper."
)
@click.option("--dry-run", is_flag=True, help="With --install: only show what would be done.")
@click.option("--yes", is_flag=True, help="With --install: ask nothing; needs --host-key and --root-words.")
@key_options
@json_option
@click.pass_obj
def enrol(
    session: Session,
    /,
    device: str,
    all_devices: bool,
    host_key: str,
    replace_identity: bool,
    as_json: bool,
    install: bool,
    **wanted: Any,
) -> int:
    """Enrol DEVICE: pin its SSH host key and believe its device key from now on."""
    from pumpdeck_console.operations import devices as operations  # deferred: cryptography, paramiko

    if all_devices == bool(device):
        raise click.UsageError("name one DEVICE, or --all")
    if install:
        from pumpdeck_console.cli.device_agents import InstallOptions, install_device  # deferred with the operations

        if all_devices or replace_identity:
            raise click.UsageError("--install takes one DEVICE that is not enrolled")
        return install_device(session, InstallOptions(device, host_key, as_json=as_json, **wanted))
    problems: list[dict[str, Any]] = []
    if all_devices:
        with ProgressLine() as progress:
            report = operations.enrol_known(session.workspace(), on_progress=progress)
        enrolled = list(report.devices)
        problems = [{"device": name, "reason": reason} for name, reason in report.problems]
    else:
        one = operations.enrol(session.workspace(), device=device, host_key=host_key, replace_identity=replace_identity)
        enrolled = [one]
    rows = [{"device": row.device, "key_id": row.key_id, "new": row.is_new, "reason": ""} for row in enrolled]
    columns = (Column("device"), Column("key_id", write=show_digest), Column("new"), Column("reason"))
    write_rows([*rows, *problems], columns, as_json=as_json, empty="No device in the inventory yet.")
    return EXIT_REFUSED if problems else 0


def _no_rows(thing: str, query: str) -> str:
    if query:
        return f"No {thing} matches: {query}"
    return f"No {thing} yet. Describe the fleet in fleet.toml of the workspace; pumpdeck doctor checks it."


def _pump(row: PumpRow) -> dict[str, Any]:
    pump, facts = row.pump, row.facts
    return {
        "pump": pump.id,
        "site": pump.site,
        "tag": pump.tag,
        "type": pump.type,
        "maker": pump.maker,
        "maker_model": pump.model,
        "device": pump.device,
        "criticality": pump.criticality,
        "redundancy_group": pump.redundancy_group,
        "labels": ",".join(pump.labels),
        "health": row.health.name if row.health is not None else None,
        "reason": row.reason,
        "score": facts.score if facts else None,
        "limit": facts.limit if facts else None,
        "model": (facts.model or None) if facts else None,
        "version": version_word(facts.number) if facts and facts.number else None,
        "package": (facts.package_sha256 or None) if facts else None,
        "drift_psi": facts.drift_psi if facts else None,
        "drift_channel": (facts.drift_channel or None) if facts else None,
        "last_seen": time_text(facts.last_seen_ms) if facts else None,
        "rows": facts.rows if facts else 0,
    }


def _site(row: SiteRow) -> dict[str, Any]:
    site = row.site
    return {
        "site": site.id,
        "name": site.name,
        "kind": site.kind,
        "link": site.link.value,
        "time_zone": site.time_zone,
        "devices": row.devices,
        "pumps": row.pumps,
        "health": row.worst.name if row.worst is not None else None,
        **{health.name.lower(): row.counts.get(health, 0) for health in reversed(Health)},
        "unknown": row.counts.get(None, 0),
    }


def _device(row: DeviceRow) -> dict[str, Any]:
    device, status = row.device, row.status
    return {
        "device": device.id,
        "site": device.site,
        "device_class": device.device_class,
        "address": f"{device.address}:{device.port}" if device.address else None,
        "link": row.site.link.value,
        "pumps": len(row.pumps),
        "health": row.worst.name if row.worst is not None else None,
        "enrolled": row.identity is not None,
        "key_id": row.identity.key_id if row.identity else None,
        "state": status.status.state if status else None,
        "active": row.active_sha256 or None,
        "seq": status.status.seq if status else None,
        "outbox_items": status.status.outbox.items if status else None,
        "free_bytes": status.status.free_bytes if status else None,
        "task": row.live_task or None,
        "last_seen": time_text(status.at_ms) if status else None,
    }
