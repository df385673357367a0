"""`pumpdeck label`: what the crew found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, time_text, write_object, write_rows
from pumpdeck_console.cli.params import WHEN
from pumpdeck_console.cli.session import Session

_COLUMNS = (Column("pump"), Column("start"), Column("end"), Column("verdict"), Column("actor"), Column("note"))


@click.group(cls=LazyGroup)
def label() -> None:
    """Write or list labels: what the crew found on a pump."""


@label.command("add")
@click.argument("pump")
@click.argument("verdict")
@click.option("--from", "start", type=WHEN, required=True, help="Start: RFC 3339, a day, or so long ago (7d).")
@click.option("--to", "end", type=WHEN, default="now", help="End, not included; now when absent.")
@click.option("--note", default="", help="In the crew's words.")
@json_option
@click.pass_obj
def add(
    session: Session,
    pump: str,
    verdict: str,
    start: Callable[[int], int],
    end: Callable[[int], int],
    note: str,
    as_json: bool,
) -> None:
    """Label an interval of PUMP.

    VERDICT is fault:<kind>, false_alarm or normal.
    """
    from pumpdeck_console.operations.labels import add_label  # deferred: help needs none of it

    workspace = session.workspace()
    now_ms = workspace.clock.now_ms()
    report = add_label(workspace, pump=pump, start_ms=start(now_ms), end_ms=end(now_ms), verdict=verdict, note=note)
    write_object({"added": report.added, "already": report.already}, as_json=as_json)


@label.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@click.pass_obj
def import_file(session: Session, file: Path, as_json: bool) -> None:
    """Write the labels of a CSV FILE: pump, start, end, verdict and optionally kind, note. All of them or none."""
    from pumpdeck_console.operations.labels import import_labels  # deferred: help needs none of it

    report = import_labels(session.workspace(), path=str(file))
    write_object({"added": report.added, "already": report.already}, as_json=as_json)
    if not report.added:
        say("Every label of this file was there already; nothing changed.")


@label.command("list")
@click.argument("pump", default="")
@json_option
@click.pass_obj
def list_labels(session: Session, pump: str, as_json: bool) -> None:
    """List labels, of one PUMP when it is given."""
    from pumpdeck_console.operations.labels import list_labels as listed  # deferred: help needs none of it

    rows = [
        {
            "pump": label.pump,
            "start": time_text(label.start_ms),
            "end": time_text(label.end_ms),
            "verdict": f"{label.verdict}:{label.kind}" if label.kind else label.verdict.value,
            "actor": label.actor,
            "at": time_text(label.at_ms),
            "note": label.note,
        }
        for label in listed(session.workspace(), pump=pump)
    ]
    write_rows(
        rows, _COLUMNS, as_json=as_json, empty="No labels. Write one with: pumpdeck label add PUMP VERDICT --from 7d"
    )
