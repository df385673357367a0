"""`pumpdeck train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, show_digest, write_rows
from pumpdeck_console.cli.params import WHEN
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED
from pumpdeck_fleet.core.registry import GateVerdict

_COLUMNS = (
    Column("model"),
    Column("version", right=True),
    Column("pumps", right=True),
    Column("left_out", right=True),
    Column("verdict", "gates"),
    Column("content_digest", "content", write=show_digest),
    Column("run", write=show_digest),
    Column("reason"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("pump_type", default="")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--until", type=WHEN, help="Learn from rows before this time only: RFC 3339, a day, or so long ago.")
@click.option("--requested", is_flag=True, help="Only pump types for which a device asks for a new model.")
@click.option("--note", default="", help="Kept with the version.")
@click.option(
    "--scheduler",
    default="",
    metavar="ADDRESS",
    help="Work on this Dask cluster (tcp://HOST:PORT, or local). It must see the workspace under the same path.",
)
@json_option
@click.pass_obj
def train(
    session: Session,
    pump_type: str,
    no_cache: bool,
    until: Callable[[int], int] | None,
    requested: bool,
    note: str,
    scheduler: str,
    as_json: bool,
) -> int:
    """Train the models of PUMP_TYPE, or of every pump type that has rows.

    The result becomes the candidate; nothing on a device changes. Ends with 3 when a quality gate refused one. With --json
    the log goes to stderr, a JSON object a line: steps, pumps done, rate, seconds left (as `runs log --follow --json`).
    """
    from pumpdeck_console.cli.run_logs import write_line  # deferred: the trainer's types
    from pumpdeck_console.operations.training import train_models  # deferred: numpy and the trainer
    from pumpdeck_trainer.run_log import no_listener  # deferred: as above

    workspace = session.workspace()
    with ProgressLine(alive=not as_json) as progress:
        report = train_models(
            workspace,
            pump_type=pump_type,
            use_cache=not no_cache,
            until_ms=until(workspace.clock.now_ms()) if until is not None else 0,
            note=note,
            only_requested=requested,
            scheduler=scheduler,
            on_progress=progress,
            on_log=write_line if as_json else no_listener,
        )
    if requested and not report.models:
        say("No device asks for a new model of pumps that have rows.")
    write_rows([dataclasses.asdict(row) for row in report.models], _COLUMNS, as_json=as_json, empty="")
    refused = [row for row in report.models if row.verdict == GateVerdict.REFUSE]
    if refused:
        say(f"Refused: {', '.join(row.model for row in refused)}")
        return EXIT_REFUSED
    say("Next: pumpdeck package build")
    return 0
