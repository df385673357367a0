"""`pumpdeck models import`: a model that was learned elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import json_option, say, write_object
from pumpdeck_console.cli.session import ProgressLine, Session

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("import", cls=WorkspaceCommand)
@click.argument("file", type=_FILE)
@click.option("--spec", required=True, type=_FILE, help="What the file needs, what its score means, who made it (TOML).")
@click.option("--pump-type", default="", metavar="TYPE", help="The pump type it is for; else the one the spec names.")
@click.option("--reference", type=_FILE, help="CSV of rows and the scores that its maker saw for them; without it: a warning.")
@click.option("--check", is_flag=True, help="Read it and try it apart, say what it is, register nothing.")
@click.option("--note", default="", help="Kept with the version.")
@json_option
@click.pass_obj
def import_model(
    session: Session,
    file: Path,
    spec: Path,
    pump_type: str,
    reference: Path | None,
    check: bool,
    note: str,
    as_json: bool,
) -> None:
    """Import a model that was learned elsewhere: FILE is ONNX; estimators as pickles are refused.

    It is read within limits, tried in a process of its own, compared with its reference and judged by the same gates as our
    own models. The result is marked foreign and has no alias: nothing uses it until somebody accepts it.
    """
    from pumpdeck_console.cli.run_logs import write_line  # deferred: the trainer's types
    from pumpdeck_console.operations import importing  # deferred: numpy, onnx and the trainer
    from pumpdeck_trainer.run_log import no_listener  # deferred: as above

    paths = {"file": str(file), "spec": str(spec), "pump_type": pump_type, "reference": str(reference or "")}
    if check:
        write_object(dataclasses.asdict(importing.check_import(session.workspace(), **paths)), as_json=as_json)
        say("It can be imported; gates and limits are found by the import itself. Nothing was registered.")
        return
    with ProgressLine(alive=not as_json) as progress:
        on_log = write_line if as_json else no_listener
        row = importing.import_model(session.workspace(), **paths, note=note, on_progress=progress, on_log=on_log)
    write_object(dataclasses.asdict(row), as_json=as_json)
    if not row.is_new:
        say("The same content was here before; nothing new was registered.")
    say(f"Read its card: pumpdeck models show {row.model} {row.version} --card")
    say(f'Then: pumpdeck models promote {row.model} {row.version} --accept-foreign --reason "..."')
