"""`pumpdeck devices requests` and `devices dismiss`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, query_argument, say, show_digest, time_text, write_rows
from pumpdeck_console.cli.session import Session

if TYPE_CHECKING:
    from pumpdeck_fleet.core.retraining import RetrainEntry

_COLUMNS = (
    Column("asked"),
    Column("pump"),
    Column("trigger"),
    Column("reason"),
    Column("state"),
    Column("model"),
    Column("run", write=show_digest),
    Column("by"),
    Column("note"),
)


@click.command(cls=WorkspaceCommand)
@query_argument
@click.option("--all", "with_closed", is_flag=True, help="Those that were answered or dismissed too.")
@json_option
@click.pass_obj
def requests(session: Session, query: str, with_closed: bool, as_json: bool) -> None:
    """List what devices ask for: new models for pumps of QUERY."""
    from pumpdeck_console.operations import requests as operations  # deferred: help needs none of it

    found = operations.list_requests(session.workspace(), query=query, with_closed=with_closed)
    rows = [_request(row.entry, row.dismissed_by) for row in found]
    empty = f"No request matches: {query}" if query else "No device asks for a new model."
    write_rows(rows, _COLUMNS, as_json=as_json, empty=empty)
    if any(row["state"] == "open" for row in rows):
        say("Next: pumpdeck train --requested, or pumpdeck devices dismiss PUMP --reason WHY")


@click.command(cls=WorkspaceCommand)
@click.argument("pump")
@click.option("--reason", required=True, help="Why no new model is needed; kept with the request.")
@json_option
@click.pass_obj
def dismiss(session: Session, pump: str, reason: str, as_json: bool) -> None:
    """Close every open request for PUMP without training."""
    from pumpdeck_console.operations import requests as operations  # deferred: help needs none of it

    closed = operations.dismiss_requests(session.workspace(), pump=pump, reason=reason)
    write_rows([_request(entry, session.workspace().person) for entry in closed], _COLUMNS, as_json=as_json, empty="")


def _request(entry: RetrainEntry, by: str) -> dict[str, Any]:
    return {
        "asked": time_text(entry.at_ms),
        "pump": entry.pump,
        "device": entry.device,
        "trigger": entry.trigger,
        "reason": entry.reason,
        "state": entry.state.value,
        "closed": time_text(entry.closed_ms) if entry.closed_ms else None,
        "model": entry.model or None,
        "content_digest": entry.content_digest or None,
        "run": entry.run or None,
        "by": by or None,
        "note": entry.note,
        "package": entry.package_sha256 or None,
        "request": entry.digest,
    }
