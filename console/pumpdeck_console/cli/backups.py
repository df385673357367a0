"""`pumpdeck backup` and `pumpdeck restore`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import LazyGroup, WorkspaceCommand
from pumpdeck_console.cli.output import json_option, say, show_bytes, time_text, write_json
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import PumpdeckError, UsageError


@click.group(cls=LazyGroup, default="make")
def backup() -> None:
    """Write everything of the workspace into TO, and read it all back."""


@backup.command("make")
@click.argument("target", type=click.Path(path_type=Path), metavar="TO")
@key_options
@json_option
@click.pass_obj
def make(session: Session, target: Path, as_json: bool) -> None:
    """Write everything of the workspace into TO, and read it all back.

    TO is a folder, which may hold an earlier backup (only what is new is written), or one file that ends in .tar.
    Others may go on working meanwhile. Your deploy or release key signs the whole of it. Private keys and settings.toml
    are not in it: they belong to a computer.
    """
    from pumpdeck_console.operations.backups import backup as do_backup  # deferred: help needs none of it

    with ProgressLine() as progress:
        report = do_backup(session.workspace(), to=str(target), on_progress=progress)
    if as_json:
        write_json(dataclasses.asdict(report))
        return
    written = f"{show_bytes(report.bytes)}, {show_bytes(report.new_bytes)} of it new"
    say(f"Backup of {report.workspace}: {report.files} files, {written}; all of it was read back and compared.")
    if report.not_signed:
        say(f"Nobody signed it as a whole ({report.not_signed}).")
    say("It holds no private key: keep those apart, or the restored workspace cannot sign.")


@backup.command("verify")
@click.argument("source", type=click.Path(path_type=Path, exists=True), metavar="FROM")
@json_option
@click.pass_obj
def verify(session: Session, source: Path, as_json: bool) -> None:
    """Read all of the backup in FROM, and say who signed it.

    Compare the words of the roots with your sheet of paper: the signature is worth what they are worth. Needs no workspace; one
    that is there and whose backup it is remembers that it was proven.
    """
    from pumpdeck_console.operations import backups  # deferred: help needs none of it

    with ProgressLine() as progress:
        try:
            workspace = session.workspace()
        except PumpdeckError:
            # The day a backup is needed is the day there is none.
            report, is_own = backups.verify_backup(source, clock=SystemClock(), on_progress=progress), False
        else:
            proof = backups.prove_backup(workspace, source=str(source), on_progress=progress)
            report, is_own = proof.found, proof.is_own
    if as_json:
        write_json({**dataclasses.asdict(report), "made": time_text(report.made_ms), "is_own": is_own})
        return
    held = f"{report.files} files, {show_bytes(report.bytes)}"
    say(f"Backup of {'this workspace' if is_own else report.workspace} as of {time_text(report.made_ms)} holds: {held}.")
    say(report.signature)
    for site, words in report.roots.items():
        say(f"Root of {site}: {words}")


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
    say(report.signature)
    if report.unheard:
        say(f"{report.unheard} devices must be heard of before anything is sent: pumpdeck collect, bundle intake or sync.")
