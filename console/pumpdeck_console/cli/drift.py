"""`pumpdeck drift`."""

from __future__ import annotations

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, query_argument, time_text, write_object, write_rows
from pumpdeck_console.cli.session import ProgressLine, Session

_COLUMNS = (
    Column("pump"),
    Column("type"),
    Column("psi", write=lambda value: f"{value:.3f}", right=True),
    Column("channel"),
    Column("drifting"),
    Column("at"),
)


@click.group(cls=LazyGroup, default="list")
def drift() -> None:
    """List how far pumps have drifted from their reference window."""


@drift.command("list")
@query_argument
@json_option
@click.pass_obj
def list_figures(session: Session, query: str, as_json: bool) -> None:
    """List the newest drift figure of pumps that QUERY selects, the worst first.

    A figure is the largest PSI over the channels, from the device's own sketches against the reference window.
    """
    from pumpdeck_console.operations.drift import list_drift  # deferred: help needs none of it

    rows = [
        {
            "pump": row.pump,
            "site": row.site,
            "type": row.type,
            "psi": row.worst,
            "channel": row.worst_channel,
            "drifting": row.is_drifting,
            "at": time_text(row.at_ms),
            **({f"psi_{name}": value for name, value in sorted(row.psi_by_channel.items())} if as_json else {}),
        }
        for row in list_drift(session.workspace(), query=query)
    ]
    write_rows(
        rows, _COLUMNS, as_json=as_json, empty="No drift figure yet. Devices return sketches with: pumpdeck collect"
    )


@drift.command("judge")
@json_option
@click.pass_obj
def judge(session: Session, as_json: bool) -> None:
    """Judge all sketches anew; `collect` does so by itself."""
    from pumpdeck_console.operations.drift import judge as do_judge  # deferred: numpy

    with ProgressLine() as progress:
        report = do_judge(session.workspace(), on_progress=progress)
    write_object(
        {"judged": report.judged, "fresh": report.fresh, "skipped": len(report.skipped)},
        as_json=as_json,
    )
