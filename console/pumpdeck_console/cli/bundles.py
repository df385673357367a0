"""`pumpdeck bundle`: packages out and returns back on a stick."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.byte_progress import ByteProgress, span_words
from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    say,
    show_bytes,
    show_digest,
    time_text,
    write_json,
    write_rows,
)
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED, UsageError

if TYPE_CHECKING:
    from pumpdeck_console.operations.bundle_agent import AgentReport
    from pumpdeck_console.operations.bundle_plan import BundlePlan
    from pumpdeck_console.operations.bundles import ExportReport
    from pumpdeck_fleet.services.courier import AwaitedReturn

_PLAN_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("package", write=show_digest),
    Column("bytes", right=True, write=show_bytes),
    Column("receipt_until"),
    Column("note"),
)
_INTAKE_COLUMNS = (
    Column("device"),
    Column("receipt", "receipts", right=True),
    Column("alarm", "alarms", right=True),
    Column("sketch", "sketches", right=True),
    Column("rows", right=True),
    Column("already", right=True),
    Column("problems"),
)
_AWAITED_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("rollout"),
    Column("state"),
    Column("left"),
    Column("receipt_until"),
    Column("stick"),
    Column("carrier"),
)
_STICK_COMMANDS = {
    "sticks": ("pumpdeck_console.cli.sticks:sticks", "List the sticks that left: where they are, who carries them."),
    "carry": ("pumpdeck_console.cli.sticks:carry", "Note who carries STICK."),
    "lost": ("pumpdeck_console.cli.sticks:lost", "Mark STICK as lost; say what was on it and what to do."),
    "reissue": ("pumpdeck_console.cli.sticks:reissue", "Write the load of a lost STICK onto another one."),
}
_KINDS = ("receipt", "agent_receipt", "alarm", "retrain_request", "sketch", "scores", "segment")


_DRIVE_COLUMNS = (
    Column("drive"),
    Column("mount"),
    Column("device"),
    Column("file_system"),
    Column("bytes", right=True, write=show_bytes),
    Column("free_bytes", "free", right=True, write=show_bytes),
    Column("read_only"),
)
_SITE_COLUMNS = (
    Column("site"),
    Column("link"),
    Column("devices", right=True),
    Column("packages", right=True),
    Column("bytes", right=True, write=show_bytes),
    Column("link_s", "by its link", right=True, write=lambda value: span_words(float(value)) if value is not None else "-"),
)


@click.group(cls=LazyGroup, lazy=_STICK_COMMANDS)
def bundle() -> None:
    """Carry packages out and returns back on a stick."""


@bundle.command("export")
@click.option("--for", "query", default="", metavar="QUERY", help="The pumps whose devices the courier visits.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="A folder on the stick.")
@click.option("--drive", is_flag=False, flag_value="", metavar="[NAME]", help="The removable drive of that name; the only one.")
@click.option("--tar", "file", type=click.Path(path_type=Path, dir_okay=False), help="One file instead, for mail.")
@click.option("--agent", "has_agent", is_flag=True, help="Also the agent, for devices without one or with an older one.")
@click.option("--carrier", default="", metavar="NAME", help="Who carries it.")
@click.option("--speed", "mb_per_s", type=click.FloatRange(min=0.01), metavar="MB/S", help="What the stick writes, for the plan.")
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would be written.")
@click.option("--yes", "is_agreed", is_flag=True, help="Do not ask.")
@key_options
@json_option
@click.pass_obj
def export(session: Session, /, as_json: bool, **options: Any) -> None:
    """Write what waits for couriers onto a stick: trust metadata, assignments, packages.

    Shows the plan first, and asks where somebody sits there. Each file is read back from the stick. Repeating goes on where it
    stopped; other people's files are never touched. With --for, sites that SSH reaches are served as well.
    """
    wish = _wish(**options)
    if wish.has_agent:
        from pumpdeck_console.operations.bundle_agent import plan_agent  # deferred: TUF

        beside = plan_agent(session.workspace(), query=wish.query)
        say(f"Beside the bundle: the agent and libraries for {', '.join(beside.targets)}, {show_bytes(beside.bytes)}.")
    show_plan(session, wish, as_json=as_json)
    if wish.is_plan:
        return
    from pumpdeck_console.operations.bundles import export_bundle, export_tar  # deferred: TUF

    with ByteProgress() as progress:
        common: dict[str, Any] = {"query": wish.query, "carrier": wish.carrier, "on_progress": progress}
        if wish.is_tar:
            done = export_tar(session.workspace(), file=str(wish.target), has_agent=wish.has_agent, **common)
            agent = done.agent
        else:
            done = export_bundle(session.workspace(), to=str(wish.target), **common)
            agent = _add_agent(session, wish, progress) if wish.has_agent else None
    show_export(done, agent, as_json=as_json)


def _add_agent(session: Session, wish: ExportWish, progress: ProgressLine) -> AgentReport:
    from pumpdeck_console.operations.bundle_agent import add_agent  # deferred: TUF

    return add_agent(session.workspace(), query=wish.query, to=str(wish.target), on_progress=progress)


@bundle.command("drives")
@json_option
def drives(as_json: bool) -> None:
    """List the removable drives that are mounted here."""
    from pumpdeck_console.drives import find_drives  # deferred: psutil

    rows = [
        {
            "drive": drive.name,
            "mount": drive.mount,
            "device": drive.device,
            "file_system": drive.file_system,
            "bytes": drive.bytes,
            "free_bytes": drive.free_bytes,
            "read_only": drive.is_read_only,
        }
        for drive in find_drives()
    ]
    write_rows(rows, _DRIVE_COLUMNS, as_json=as_json, empty="No removable drive is mounted.")


def _wish(
    *, folder: Path | None, drive: str | None, file: Path | None, **options: Any
) -> ExportWish:
    places = [place for place in (folder, drive, file) if place is not None]
    if len(places) != 1:
        raise UsageError("needs one place", "bundle export", expected="one of --to DIR, --drive [NAME], --tar FILE")
    if drive is not None:
        from pumpdeck_console.drives import choose_drive, find_drives  # deferred: psutil

        chosen = choose_drive(find_drives(), drive)
        say(f"Drive {chosen.name}: {chosen.device} {chosen.file_system}, {show_bytes(chosen.bytes)}, mounted on {chosen.mount}")
        folder = chosen.folder
    target = file or folder
    assert target is not None
    return ExportWish(target=target, is_tar=file is not None, **options)


@dataclass(frozen=True, slots=True)
class ExportWish:
    """What the options of an export say."""

    query: str
    target: Path
    is_tar: bool
    has_agent: bool
    carrier: str
    mb_per_s: float | None
    is_plan: bool
    is_agreed: bool


def show_plan(session: Session, wish: ExportWish, *, as_json: bool) -> None:
    """Print the plan; where somebody sits there and nothing was agreed to, ask.

    Raises:
        click.Abort: the answer is no.
    """
    from pumpdeck_console.operations.bundle_plan import plan_bundle  # deferred: TUF

    if as_json and not wish.is_plan:
        return
    speed = (wish.mb_per_s or 0.0) * 1e6
    plan = plan_bundle(session.workspace(), query=wish.query, to=str(wish.target), bytes_per_s=speed)
    if as_json:
        write_json(_plan_json(plan))
        return
    write_rows(_plan_rows(plan), _PLAN_COLUMNS, as_json=False, empty="")
    write_rows(_site_rows(plan), _SITE_COLUMNS, as_json=False, empty="")
    for device, reason in plan.problems:
        say(f"Left out: {device}: {reason}")
    free = show_bytes(plan.free_bytes) if plan.free_bytes >= 0 else "unknown"
    say(f"{plan.packages} packages, {show_bytes(plan.bytes)}; free on {plan.to}: {free}.")
    say(f"About {span_words(plan.seconds)} to write and read back at {show_bytes(plan.bytes_per_s)}/s ({plan.speed}).")
    if wish.is_plan:
        say("Nothing was written.")
    elif not wish.is_agreed and sys.stdin.isatty():
        click.confirm("Write it?", default=True, abort=True, err=True)


def show_export(done: ExportReport, agent: AgentReport | None = None, *, as_json: bool) -> None:
    """Say what was written."""
    extra: dict[str, object] = {}
    if agent is not None:
        told = agent.agent
        extra = {"agent": told.version, "targets": list(told.targets), "start_digest": told.start_digest}
        extra |= {"agent_sites": list(agent.released), "agent_notes": list(agent.notes)}
    if as_json:
        wrote = {"bundle": done.bundle, "written": done.written, "written_bytes": done.written_bytes}
        more = {"already": done.already, "measured_bytes_per_s": round(done.bytes_per_s), "replaced": list(done.replaced)}
        write_json({**_plan_json(done.plan), **wrote, **more, **extra})
        return
    fast = f", {show_bytes(done.bytes_per_s)}/s" if done.bytes_per_s else ""
    say(f"Stick {done.bundle}: {done.written} files written and read back{fast}, {done.already} were there already.")
    for stick in done.replaced:
        say(f"It replaces the lost stick {stick}.")
    place = done.plan.to
    if agent is not None:
        _show_agent(agent)
    say(f"On the device: pumpdeck-agent install-from {Path(place).name}. Back here: pumpdeck bundle intake {place}")


def _show_agent(agent: AgentReport) -> None:
    for line in agent.paper:
        say(line)
    if agent.released:
        say(f"Devices of {', '.join(agent.released)} that have an agent renew it from this to its release.")
    for note in agent.notes:
        say(note)


def _plan_json(plan: BundlePlan) -> dict[str, object]:
    return {
        "to": plan.to,
        "stick": plan.stick or None,
        "packages": plan.packages,
        "bytes": plan.bytes,
        "free_bytes": plan.free_bytes,
        "seconds": round(plan.seconds, 1),
        "bytes_per_s": round(plan.bytes_per_s),
        "speed": plan.speed,
        "devices": _plan_rows(plan),
        "sites": _site_rows(plan),
        "problems": [{"device": device, "reason": reason} for device, reason in plan.problems],
    }


def _plan_rows(plan: BundlePlan) -> list[dict[str, object]]:
    return [
        {
            "device": row.device,
            "site": row.site,
            "package": row.package,
            "bytes": row.bytes,
            "receipt_until": time_text(row.deadline_ms or None),
            "note": row.note,
        }
        for row in plan.rows
    ]


def _site_rows(plan: BundlePlan) -> list[dict[str, object]]:
    return [
        {
            "site": share.site,
            "link": share.link,
            "devices": share.devices,
            "packages": share.packages,
            "bytes": share.bytes,
            "link_s": round(share.link_s, 1) if share.link_s >= 0 else None,
        }
        for share in plan.sites
    ]


@bundle.command("intake")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--allow-plain", is_flag=True, help="Take returns that are not encrypted although their site demands it.")
@key_options
@json_option
@click.pass_obj
def intake(session: Session, folder: Path, allow_plain: bool, as_json: bool) -> int:
    """Take in what devices put on the stick in FOLDER: receipts, alarms, sketches, scores, segments.

    FOLDER may also be the file in which a device answered to a bundle that came by mail. Everything is verified against the
    device's key, and decrypted with this workspace's recipient key (trust recipient). Sticks may come in any order and more
    than once.
    Ends with 3 when something was refused.
    """
    from pumpdeck_console.operations.bundles import intake_bundle  # deferred: TUF

    with ProgressLine() as progress:
        workspace = session.workspace()
        report = intake_bundle(workspace, folder=str(folder), allow_plain=allow_plain, on_progress=progress)
    rows = [
        {
            "device": one.device,
            **{kind: one.stored.get(kind, 0) for kind in _KINDS},
            "already": sum(one.already.values()),
            "rows": one.rows,
            "problems": "; ".join(one.problems),
        }
        for one in report.devices
    ]
    rows += [{"device": device, "problems": reason} for device, reason in report.problems]
    waits = [_awaited_row(one) for one in report.awaited]
    if as_json:
        stick = {"stick": report.stick or None, "stick_state": report.stick_state or None}
        write_json({"devices": rows, "awaited": waits, "rows": report.rows, "drift": report.drift, **stick})
    else:
        write_rows(rows, _INTAKE_COLUMNS, as_json=False, empty="No return lies on this stick.")
        say(f"{report.rows} rows, {report.drift} new drift figures.")
        if report.stick:
            say(f"Stick {report.stick} is {report.stick_state} now.")
        for row in waits:
            say(f"Awaited: {row['device']} ({row['state']}), until {row['receipt_until']}")
    return EXIT_REFUSED if report.problems else 0


@bundle.command("awaited")
@json_option
@click.pass_obj
def awaited(session: Session, as_json: bool) -> None:
    """List devices that a courier serves and whose receipt has not come back, the nearest deadline first."""
    from pumpdeck_console.operations.bundles import awaited as find  # deferred: TUF

    rows = [_awaited_row(one) for one in find(session.workspace())]
    write_rows(rows, _AWAITED_COLUMNS, as_json=as_json, empty="No courier is awaited.")


def _awaited_row(one: AwaitedReturn) -> dict[str, object]:
    return {
        "device": one.device,
        "site": one.site,
        "rollout": one.rollout,
        "state": one.state.value,
        "left": time_text(one.left_ms or None),
        "receipt_until": time_text(one.deadline_ms),
        "stick": one.stick or None,
        "stick_state": one.stick_state or None,
        "carrier": one.carrier or None,
    }
