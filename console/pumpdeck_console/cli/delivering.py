"""`pumpdeck tick` and `pumpdeck collect`."""

from __future__ import annotations

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, query_argument, say, write_json, write_object, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_UNREACHABLE

_COLLECT_COLUMNS = (
    Column("device"),
    Column("receipt", "receipts", right=True),
    Column("alarm", "alarms", right=True),
    Column("sketch", "sketches", right=True),
    Column("scores", right=True),
    Column("segment", "segments", right=True),
    Column("rows", right=True),
    Column("problems"),
)
_KINDS = ("receipt", "alarm", "retrain_request", "sketch", "scores", "segment")


@click.command(cls=WorkspaceCommand)
@click.option("--until-idle", is_flag=True, help="Go on until no rollout runs.")
@click.option(
    "--limit", "limit_s", default=3600.0, show_default=True, help="With --until-idle, at most so many seconds."
)
@key_options
@json_option
@click.pass_obj
def tick(session: Session, until_idle: bool, limit_s: float, as_json: bool) -> int:
    """Let time pass in all rollouts and deliver what is due.

    Deadlines, soaks and next waves are judged, then packages and assignments go out and receipts come in.
    Ends with 4 when a device could not be served.
    """
    from pumpdeck_console.operations.delivering import tick as do_tick  # deferred: TUF and paramiko

    with ProgressLine() as progress:
        report = do_tick(session.workspace(), until_idle=until_idle, limit_s=limit_s, on_progress=progress)
    problems = [{"device": device, "reason": reason} for device, reason in report.problems]
    told = {
        "ticks": report.ticks,
        "tried": report.tried,
        "committed": len(report.committed),
        "sent_bytes": report.sent_bytes,
        "outbox": report.outbox,
    }
    if as_json:
        rollouts = [{"rollout": one.rollout, "state": one.state, "reason": one.reason} for one in report.rollouts]
        write_json({**told, "rollouts": rollouts, "problems": problems})
    else:
        write_object(told, as_json=False)
        for one in report.rollouts:
            say(f"{one.rollout} {one.state}: {one.committed} of {one.devices} committed {one.reason}".rstrip())
        for problem in problems:
            say(f"{problem['device']}: {problem['reason']}")
    return EXIT_UNREACHABLE if problems else 0


@click.command(cls=WorkspaceCommand)
@query_argument
@key_options
@json_option
@click.pass_obj
def collect(session: Session, query: str, as_json: bool) -> int:
    """Take what waits on devices: receipts, alarms, sketches, scores, segments.

    QUERY selects pumps; their devices are collected.

    Everything is verified against the device's key, stored once and only then acknowledged.
    Ends with 4 when a device could not be collected.
    """
    from pumpdeck_console.operations.delivering import collect as do_collect  # deferred: paramiko

    with ProgressLine() as progress:
        summary = do_collect(session.workspace(), query=query, on_progress=progress)
    rows = [
        {
            "device": report.device,
            **{kind: report.stored.get(kind, 0) for kind in _KINDS},
            "already": sum(report.already.values()),
            "rows": report.rows,
            "problems": "; ".join(report.problems),
        }
        for report in summary.devices
    ]
    rows += [{"device": device, "problems": reason} for device, reason in summary.problems]
    write_rows(rows, _COLLECT_COLUMNS, as_json=as_json, empty="No device is reached by SSH.")
    say(f"{len(summary.devices)} devices collected, {len(summary.problems)} not.")
    say(f"{summary.rows} rows, {summary.drift} new drift figures.")
    return EXIT_UNREACHABLE if summary.problems else 0
