"""`pumpdeck telemetry`: rows read back."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, write_rows
from pumpdeck_console.cli.params import WHEN
from pumpdeck_console.cli.session import Session


@click.command(cls=WorkspaceCommand)
@click.argument("pump")
@click.option(
    "--from", "start", type=WHEN, help="Start: RFC 3339, a day, or so long ago (6h). Else the last 24 h known."
)
@click.option("--to", "end", type=WHEN, help="End, not included.")
@click.option("--channel", "channels", multiple=True, help="Only this channel; may be given again.")
@click.option("--scores", is_flag=True, help="Scores that the device computed, in place of what its sensors measured.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout.")
@json_option
@click.pass_obj
def telemetry(
    session: Session,
    pump: str,
    start: Callable[[int], int] | None,
    end: Callable[[int], int] | None,
    channels: tuple[str, ...],
    scores: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show the rows of PUMP."""
    from pumpdeck_console.operations.telemetry import read_rows, row_objects  # deferred: numpy

    workspace = session.workspace()
    now_ms = workspace.clock.now_ms()
    frame = read_rows(
        workspace,
        pump=pump,
        start_ms=start(now_ms) if start is not None else None,
        end_ms=end(now_ms) if end is not None else None,
        channels=channels,
        scores=scores,
    )
    rows = row_objects(workspace.fleet.pump(pump).id, frame)
    keys = ("time", *frame.channels, "flags")
    if as_csv:
        writer = csv.DictWriter(sys.stdout, ("pump", *keys), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    columns = tuple(Column(key, title=key, right=key in frame.channels) for key in keys)
    write_rows(
        rows,
        columns,
        as_json=as_json,
        empty=f"No rows of {pump} in this interval. Bring some with: pumpdeck ingest FILE",
    )
