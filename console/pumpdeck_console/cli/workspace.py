"""`pumpdeck init` and `pumpdeck doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, write_object, write_rows
from pumpdeck_console.cli.session import Session


@click.command(cls=WorkspaceCommand)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", default="Fleet", show_default=True, help="What people call this fleet.")
@json_option
@click.pass_obj
def init(session: Session, folder: Path | None, name: str, as_json: bool) -> None:
    """Make a new workspace folder.

    FOLDER is where; without it the place that -w, PUMPDECK_WORKSPACE or the platform gives.
    """
    from pumpdeck_console.operations.workspace import init_workspace  # deferred: help needs none of it
    from pumpdeck_console.wiring import workspace_path

    report = init_workspace(folder or workspace_path(session.path), name=name)
    write_object(dataclasses.asdict(report), as_json=as_json)
    if not as_json:
        say(f"Next: describe sites, devices and pumps in {Path(report.root) / 'fleet.toml'}, then: pumpdeck doctor")


@click.command(cls=WorkspaceCommand)
@json_option
@click.pass_obj
def doctor(session: Session, as_json: bool) -> int:
    """Check the workspace, its keys and its store."""
    from pumpdeck_console.operations.workspace import doctor as examine  # deferred: help needs none of it

    findings = examine(session.workspace())
    columns = (Column("what"), Column("verdict"), Column("found"), Column("hint"))
    write_rows([dataclasses.asdict(finding) for finding in findings], columns, as_json=as_json, empty="")
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0
