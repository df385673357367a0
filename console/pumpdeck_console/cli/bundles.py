"""`pumpdeck bundle`: packages out and returns back on a stick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

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
from pumpdeck_fleet.core.errors import EXIT_REFUSED

if TYPE_CHECKING:
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
)
_KINDS = ("receipt", "alarm", "retrain_request", "sketch", "scores", "segment")


@click.group(cls=LazyGroup)
def bundle() -> None:
    """Carry packages out and returns back on a stick."""


@bundle.command("export")
@click.option("--for", "query", default="", metavar="QUERY", help="The pumps whose devices the courier visits.")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A folder on the stick.")
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would be written.")
@key_options
@json_option
@click.pass_obj
def export(session: Session, query: str, folder: Path, is_plan: bool, as_json: bool) -> None:
    """Write what waits for couriers onto a stick: trust metadata, assignments, packages.

    Each file is read back from the stick. Repeating goes on where it stopped; other people's files are never touched.
    """
    from pumpdeck_console.operations.bundles import export_bundle, plan_bundle  # deferred: TUF

    workspace = session.workspace()
    if is_plan:
        plan, done = plan_bundle(workspace, query=query, to=str(folder)), None
    else:
        with ProgressLine() as progress:
            done = export_bundle(workspace, query=query, to=str(folder), on_progress=progress)
        plan = done.plan
    rows = [
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
    problems = [{"device": device, "reason": reason} for device, reason in plan.problems]
    if as_json:
        told = {"to": plan.to, "packages": plan.packages, "bytes": plan.bytes, "free_bytes": plan.free_bytes}
        wrote = {"bundle": done.bundle, "written": done.written, "already": done.already} if done else {}
        write_json({**told, "seconds": round(plan.seconds, 1), **wrote, "devices": rows, "problems": problems})
        return
    write_rows(rows, _PLAN_COLUMNS, as_json=False, empty="")
    for problem in problems:
        say(f"{problem['device']}: {problem['reason']}")
    free = show_bytes(plan.free_bytes) if plan.free_bytes >= 0 else "unknown"
    say(f"{plan.packages} packages, {show_bytes(plan.bytes)}; free on {plan.to}: {free}.")
    if done is None:
        say(f"About {max(1, round(plan.seconds / 60))} min on a stick of 8 MB/s. Nothing was written.")
    else:
        say(f"Bundle {done.bundle}: {done.written} files written and read back, {done.already} were there already.")
        say("On the device: pumpdeck-agent install-from DIR. Back here: pumpdeck bundle intake DIR")


@bundle.command("intake")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--allow-plain", is_flag=True, help="Take returns that are not encrypted although their site demands it.")
@key_options
@json_option
@click.pass_obj
def intake(session: Session, folder: Path, allow_plain: bool, as_json: bool) -> int:
    """Take in what devices put on the stick in FOLDER: receipts, alarms, sketches, scores, segments.

    Everything is verified against the device's key, and decrypted with this workspace's recipient key (trust recipient).
    Sticks may come in any order and more than once.
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
        write_json({"devices": rows, "awaited": waits, "rows": report.rows, "drift": report.drift})
    else:
        write_rows(rows, _INTAKE_COLUMNS, as_json=False, empty="No return lies on this stick.")
        say(f"{report.rows} rows, {report.drift} new drift figures.")
        for row in waits:
            say(f"Awaited: {row['device']} ({row['state']}), until {row['receipt_until']}")
    return EXIT_REFUSED if report.problems else 0


@bundle.command("awaited")
@json_option
@click.pass_obj
def awaited(session: Session, as_json: bool) -> None:
    """List courier devices whose receipt has not come back, the nearest deadline first."""
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
    }
