"""`pumpdeck trip`: the part of the workspace that a field engineer takes along, and how it comes home."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    show_bytes,
    show_digest,
    time_text,
    write_json,
    write_rows,
)
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_console.cli.syncing import as_row, show
from pumpdeck_fleet.core.errors import EXIT_REFUSED

if TYPE_CHECKING:
    from pumpdeck_console.operations.trip_list import TripWork

_FINDING_COLUMNS = (Column("what"), Column("verdict"), Column("found"), Column("hint"))
_WORK_COLUMNS = (
    Column("site"),
    Column("device"),
    Column("link"),
    Column("active", write=show_digest),
    Column("last_seen", "last heard of"),
    Column("todo", "to do"),
)
_RETURN_COLUMNS = (Column("device"), Column("receipts"), Column("labels", right=True), Column("todo", "still open"))


@click.group(cls=LazyGroup)
def trip() -> None:
    """Prepare a trip to devices, and take in what was done on it."""


@trip.command("prepare")
@query_argument
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A new folder on the laptop that goes.")
@click.option("--days", default=21.0, show_default=True, help="How long keys and signatures must hold.")
@click.option("--history-days", default=30.0, show_default=True, help="How much telemetry comes along.")
@click.option("--plan", "is_plan", is_flag=True, help="Only check and show; nothing is written.")
@key_options
@json_option
@click.pass_obj
def prepare(session: Session, /, query: str, folder: Path, is_plan: bool, as_json: bool, **spans: float) -> int:
    """Cut out what a trip to the devices of QUERY needs, as a workspace of its own.

    It checks keys, expiry, enrolment and disk first and prints what there is to do at each device. Open the console on
    it with: pumpdeck -w DIR. Ends with 3 when something speaks against leaving; the folder is written all the same.
    """
    from pumpdeck_console.operations.trips import plan_trip, prepare_trip  # deferred: TUF and numpy

    workspace = session.workspace()
    if is_plan:
        report = plan_trip(workspace, query=query, days=spans["days"], to=str(folder))
    else:
        with ProgressLine() as progress:
            report = prepare_trip(workspace, query=query, to=str(folder), on_progress=progress, **spans)
    work = [_work_row(one) for one in report.work]
    findings = [dataclasses.asdict(one) for one in report.findings]
    if as_json:
        told = {"to": report.to, "is_ready": report.is_ready, "rows": report.rows, "artifacts": report.artifacts}
        about = {"bytes": report.bytes, "until": time_text(report.trip.until_ms), "lent": list(report.trip.lent)}
        write_json({**told, **about, "is_plan": is_plan, "findings": findings, "devices": work})
        return 0 if report.is_ready else EXIT_REFUSED
    write_rows(findings, _FINDING_COLUMNS, as_json=False, empty="")
    write_rows([{**row, "todo": "; ".join(row["todo"])} for row in work], _WORK_COLUMNS, as_json=False, empty="")
    if is_plan:
        say("Nothing was written.")
    else:
        say(f"{report.to}: {show_bytes(report.bytes)}, {report.rows} rows, {report.artifacts} artifacts; the list is WORK.md.")
        say(f"There: pumpdeck -w {report.to}   Back home: pumpdeck trip return {report.to}")
    if not report.is_ready:
        say("Something speaks against leaving: see the lines marked bad.")
    return 0 if report.is_ready else EXIT_REFUSED


@trip.command("return")
@click.argument("folder", type=click.Path(path_type=Path, exists=True), metavar="DIR")
@key_options
@json_option
@click.pass_obj
def come_home(session: Session, folder: Path, as_json: bool) -> int:
    """Take in what was done on the trip in DIR, and say what is still open.

    Ends with 3 when something was refused.
    """
    from pumpdeck_console.operations.trips import return_trip  # deferred: TUF and numpy

    with ProgressLine() as progress:
        report = return_trip(session.workspace(), folder=str(folder), on_progress=progress)
    rows = [dataclasses.asdict(one) for one in report.devices]
    if as_json:
        write_json({**as_row(report.sync), "taken_back": list(report.taken_back), "devices": rows})
    else:
        show(report.sync)
        joined = [{**row, "receipts": ", ".join(row["receipts"]), "todo": "; ".join(row["todo"])} for row in rows]
        write_rows(joined, _RETURN_COLUMNS, as_json=False, empty="")
        say(f"{len(report.taken_back)} rollouts are driven here again; the trip's folder may go.")
    return EXIT_REFUSED if report.sync.report.refused else 0


def _work_row(one: TripWork) -> dict[str, Any]:
    row = dataclasses.asdict(one)
    row["last_seen"] = time_text(row.pop("last_seen_ms"))
    return row
