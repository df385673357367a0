"""`pumpdeck runs live` and `runs log`, and how log lines are written."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, show, time_text, write_rows
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.plain_text import plain

if TYPE_CHECKING:
    from pumpdeck_trainer.run_log import LogLine

FOLLOW_EVERY_S = 0.5
_LIVE_COLUMNS = (
    Column("name"),
    Column("state"),
    Column("began"),
    Column("step"),
    *(Column(name, right=True) for name in ("done", "total", "rate_per_s", "left_s", "seconds")),
    Column("text"),
)


@click.command(cls=WorkspaceCommand)
@click.option("--limit", default=20, show_default=True, help="At most so many, the newest.")
@json_option
@click.pass_obj
def live(session: Session, limit: int, as_json: bool) -> None:
    """List trainings that are running, and how the newest ones before them ended."""
    from pumpdeck_console.operations.run_logs import list_live  # deferred: help needs none of it

    found = [dataclasses.asdict(row) for row in list_live(session.workspace(), limit=limit)]
    rows = [{"name": row["name"], "began": time_text(row.pop("began_ms")), **row} for row in found]
    write_rows(rows, _LIVE_COLUMNS, as_json=as_json, empty="No training has run here. Start one with: pumpdeck train")


@click.command(cls=WorkspaceCommand)
@click.argument("run", default="")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@json_option
@click.pass_obj
def log(session: Session, run: str, follow: bool, as_json: bool) -> None:
    """Show the log of RUN: steps, durations, warnings, pumps with trouble, verdicts.

    RUN is a name that `runs live` shows, or the digest of a run or the first characters of it; without it the newest.
    With --json a line is a JSON object.
    """
    from pumpdeck_console.operations import run_logs  # deferred: help needs none of it

    workspace = session.workspace()
    first = run_logs.read_log(workspace, run=run)
    name = first.name

    def read(after: int) -> run_logs.RunLogView:
        return run_logs.read_log(workspace, run=name, after_bytes=after) if after else first

    for lines in run_logs.follow(read, lambda: time.sleep(FOLLOW_EVERY_S)) if follow else (first.lines,):
        for line in lines:
            # A person who reads afterwards wants no progress; one who follows does.
            if as_json or follow or line.event != "progress":
                sys.stdout.write((json.dumps(line.plain()) if as_json else line_text(line)) + "\n")
        sys.stdout.flush()
    if not follow and first.state == "running":
        say(f"It is still running; follow it with: pumpdeck runs log {name} --follow")
    if first.state == "cut":
        say("It was killed in the middle; the next training takes what it had found from the cache.")


def line_text(line: LogLine) -> str:
    """A line for people."""
    told: dict[str, Any] = {"pump": line.pump, "cached": line.cached or None, "in s": line.seconds}
    told |= {"a second": line.rate_per_s, "s left": line.left_s}
    said = ", ".join(f"{show(value)} {name}" if name != "pump" else str(value) for name, value in told.items() if value)
    count = f"{line.done} of {line.total}" if line.done is not None and line.total else ""
    parts = (time_text(line.at_ms), line.event.ljust(8), (line.step or "").ljust(8), count, said, line.text)
    return plain("  ".join(part for part in parts if part)).rstrip()


def write_line(line: LogLine) -> None:
    """A line as JSON on stderr: for whoever runs `train --json` and wants to know how far it is."""
    sys.stderr.write(json.dumps(line.plain()) + "\n")
    sys.stderr.flush()
