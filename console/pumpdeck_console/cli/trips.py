"""`pumpdeck trip`: the part of the workspace that a field engineer takes along, and how it comes home."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
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
    from pumpdeck_console.operations.trips import TripReport
    from pumpdeck_console.operations.workspace import Finding

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
@click.option("--stick", "sticks", multiple=True, type=click.Path(path_type=Path), help="A folder on a stick that goes; repeat.")
@click.option("--days", default=21.0, show_default=True, help="How long keys and signatures must hold.")
@click.option("--history-days", default=30.0, show_default=True, help="How much telemetry comes along.")
@click.option("--plan", "is_plan", is_flag=True, help="Only check and show; nothing is written.")
@click.option("--yes", "is_agreed", is_flag=True, help="Do not ask.")
@key_options
@json_option
@click.pass_obj
def prepare(session: Session, /, is_plan: bool, is_agreed: bool, as_json: bool, **options: Any) -> int:
    """Cut out what a trip to the devices of QUERY needs, as a workspace of its own.

    It checks keys, expiry, enrolment and disk, shows what there is to do at each device, and asks where somebody sits there.
    Then it tries the disk of DIR and every stick: does it keep what is written, how fast is it, what does it not take? Open the
    console on the trip with: pumpdeck -w DIR. Ends with 3 when something speaks against leaving; the folder is written all the
    same.
    """
    from pumpdeck_console.operations.trips import TripWish, plan_trip, prepare_trip  # deferred: TUF and numpy

    folder, sticks = options.pop("folder"), options.pop("sticks")
    wish = TripWish(to=str(folder), sticks=tuple(map(str, sticks)), **options)
    workspace = session.workspace()
    report = plan_trip(workspace, wish)
    if not as_json:
        _show_plan(report)
    if not is_plan:
        if not as_json and not is_agreed and sys.stdin.isatty():
            click.confirm("Prepare it?", default=report.is_ready, abort=True, err=True)
        with ProgressLine() as progress:
            known, report = {one.what for one in report.findings}, prepare_trip(workspace, wish, on_progress=progress)
    if as_json:
        write_json(_report_json(report))
    elif is_plan:
        say("Nothing was written, and no stick was tried.")
    else:
        _show_findings([one for one in report.findings if one.what not in known])
        _show_done(report)
    if not report.is_ready and not as_json:
        say("Something speaks against leaving: see the lines marked bad.")
    return 0 if report.is_ready else EXIT_REFUSED


def _show_plan(report: TripReport) -> None:
    work = [_work_row(one) for one in report.work]
    _show_findings(report.findings)
    write_rows([{**row, "todo": "; ".join(row["todo"])} for row in work], _WORK_COLUMNS, as_json=False, empty="")
    until = time_text(report.trip.until_ms)
    say(f"The trip takes {show_bytes(report.bytes)} at most, {len(report.work)} devices, until {until}.")


def _show_findings(findings: Sequence[Finding]) -> None:
    write_rows([dataclasses.asdict(one) for one in findings], _FINDING_COLUMNS, as_json=False, empty="")


def _show_done(report: TripReport) -> None:
    say(f"{report.to}: {show_bytes(report.bytes)}, {report.rows} rows, {report.artifacts} artifacts.")
    say("The work list is WORK.md, for other programs work.json; the guides are in docs.")
    say(f"There: pumpdeck -w {report.to}   Back home: pumpdeck trip return {report.to}")


def _report_json(report: TripReport) -> dict[str, object]:
    told = {"to": report.to, "is_ready": report.is_ready, "rows": report.rows, "artifacts": report.artifacts}
    about = {"bytes": report.bytes, "until": time_text(report.trip.until_ms), "lent": list(report.trip.lent)}
    findings = [dataclasses.asdict(one) for one in report.findings]
    sticks = [dataclasses.asdict(one) for one in report.sticks]
    work = [_work_row(one) for one in report.work]
    return {**told, **about, "is_plan": report.is_plan, "findings": findings, "sticks": sticks, "devices": work}


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
        say(f"{len(report.taken_back)} rollouts are driven here again. RETURN.md tells it all; then the trip's folder may go.")
    return EXIT_REFUSED if report.sync.report.refused else 0


def _work_row(one: TripWork) -> dict[str, Any]:
    row = dataclasses.asdict(one)
    row["last_seen"] = time_text(row.pop("last_seen_ms"))
    return row
