"""`pumpdeck ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, time_text, write_rows
from pumpdeck_console.cli.session import ProgressLine, Session

if TYPE_CHECKING:
    from pumpdeck_fleet.core.telemetry import IngestReport

_COLUMNS = (
    Column("file"),
    Column("accepted", right=True),
    Column("already", right=True),
    Column("flagged", right=True),
    Column("refused", right=True),
    Column("pumps", right=True),
    Column("start"),
    Column("end"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE...")
@click.option("--site", default="", help="Id of the site: makes bare tags unique, gives the time zone.")
@click.option("--pump", default="", help="Identity or tag, for files of one pump without a pump column.")
@click.option("--maker", default="", help="Whose names of channels the file uses.")
@click.option(
    "--map", "columns", multiple=True, metavar="COLUMN=CHANNEL", help="CHANNEL, time, pump, or - to leave out."
)
@click.option("--time-zone", default="", help="Of times without one; else that of the site.")
@click.option("--time-format", default="", help="strptime format, for times no rule can read.")
@click.option("--separator", default="", help="Between columns; found out by itself.")
@click.option("--decimal", type=click.Choice([".", ","]), help="Decimal mark; found out by itself.")
@click.option("--encoding", default="", help="Of the text; found out by itself.")
@click.option("--header-line", default=1, show_default=True, help="The line with the names of columns, from 1.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be used in place of refusing the file.")
@click.option("--allow-missing", is_flag=True, help="The file need not hold every channel of the pump type.")
@json_option
@click.pass_obj
def ingest(
    session: Session,
    /,
    files: tuple[Path, ...],
    columns: tuple[str, ...],
    decimal: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Bring CSV or Parquet files of rows into the store.

    Each FILE comes in whole or not at all. The same file twice changes nothing.
    """
    from pumpdeck_console.operations.ingest import ingest_files  # deferred: numpy and pyarrow

    options = {**given, "decimal": decimal or "", "columns": _mapping(columns)}
    with ProgressLine() as progress:
        reports = ingest_files(
            session.workspace(), paths=[str(path) for path in _expanded(files)], options=options, on_progress=progress
        )
    write_rows([_row(report) for report in reports], _COLUMNS, as_json=as_json, empty="")
    for report in reports:
        for problem in report.problems:
            say(f"{Path(report.path).name}: {problem.what}, {problem.rows} rows, {problem.where}")
        if not report.accepted and not report.refused:
            say(f"{Path(report.path).name}: nothing in it was new; nothing changed.")


def _expanded(files: tuple[Path, ...]) -> list[Path]:
    """Names with `*` or `?` as the files they stand for: cmd and PowerShell leave that to the program."""
    found: list[Path] = []
    for path in files:
        matches = [] if path.exists() or not set(path.name) & set("*?") else sorted(path.parent.glob(path.name))
        found += matches or [path]
    return found


def _mapping(columns: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in columns:
        column, sign, channel = text.rpartition("=")
        if not sign or not column or not channel:
            raise click.BadParameter(f"{text!r} is not COLUMN=CHANNEL", param_hint="--map")
        found[column] = channel
    return found


def _row(report: IngestReport) -> dict[str, Any]:
    return {
        "file": report.path,
        "digest": report.digest,
        "accepted": report.accepted,
        "already": report.already,
        "flagged": report.flagged,
        "refused": report.refused,
        "pumps": len(report.pumps),
        "start": time_text(report.start_ms),
        "end": time_text(report.end_ms),
        "problems": "; ".join(f"{problem.what}: {problem.rows} rows, {problem.where}" for problem in report.problems),
    }
