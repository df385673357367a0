"""`pumpdeck backup` and `pumpdeck restore`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import json_option, say, show_bytes, time_text, write_json
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import UsageError


@click.command(cls=WorkspaceCommand)
@click.argument("target", type=click.Path(path_type=Path), metavar="TO")
@click.option("--verify", "is_verify", is_flag=True, help="Write nothing: read the backup in TO back and compare all of it.")
@json_option
@click.pass_obj
def backup(session: Session, target: Path, is_verify: bool, as_json: bool) -> None:
    """Write everything of the workspace into TO, and read it all back.

    TO is a folder, which may hold an earlier backup (only what is new is written), or one file that ends in .tar.
    Others may go on working meanwhile. Private keys and settings.toml are not in it: they belong to a computer.
    """
    from pumpdeck_console.operations.backups import backup as do_backup  # deferred: help needs none of it

    if is_verify:
        _verify(session, target, as_json)
        return
    with ProgressLine() as progress:
        report = do_backup(session.workspace(), to=str(target), on_progress=progress)
    if as_json:
        write_json(dataclasses.asdict(report))
        return
    written = f"{show_bytes(report.bytes)}, {show_bytes(report.new_bytes)} of it new"
    say(f"Backup of {report.workspace}: {report.files} files, {written}; all of it was read back and compared.")
    say("It holds no private key: keep those apart, or the restored workspace cannot sign.")


def _verify(session: Session, source: Path, as_json: bool) -> None:
    from pumpdeck_console.operations.backups import verify_backup  # deferred: help needs none of it

    with ProgressLine() as progress:
        report = verify_backup(session.workspace(), source=str(source), on_progress=progress)
    if as_json:
        write_json({**dataclasses.asdict(report), "made": time_text(report.made_ms)})
        return
    whose = "" if report.is_own else f" It is of another workspace, {report.workspace}."
    say(f"The backup as of {time_text(report.made_ms)} holds: {report.files} files, {show_bytes(report.bytes)}.{whose}")


@click.command(cls=WorkspaceCommand)
@click.argument("source", type=click.Path(path_type=Path, exists=True), metavar="FROM")
@json_option
@click.pass_obj
def restore(session: Session, source: Path, as_json: bool) -> None:
    """Make a new workspace from the backup in FROM.

    The new workspace stands where -w says, which must be a new or empty folder. Everything is verified first. It gets an
    id of its own, and sends nothing to a device before it has heard of it: the old one may have done more after the backup.
    """
    from pumpdeck_console.operations.backups import restore as do_restore  # deferred: help needs none of it

    if session.path is None:
        raise UsageError("says not where", "restore", expected="-w NEW", hint="name a new folder with -w")
    with ProgressLine() as progress:
        report = do_restore(source, session.path, clock=SystemClock(), on_progress=progress)
    if as_json:
        write_json({**dataclasses.asdict(report), "backup": time_text(report.backup_ms)})
        return
    say(f"{report.root}: {report.files} files, {show_bytes(report.bytes)}, all verified.")
    say(f"It is workspace {report.workspace}, restored from {report.restored_from} as of {time_text(report.backup_ms)}.")
    if report.unheard:
        say(f"{report.unheard} devices must be heard of before anything is sent: pumpdeck collect, bundle intake or sync.")
