"""`pumpdeck bundle sticks | carry | lost | reissue`: which stick is where."""

from __future__ import annotations

from pathlib import Path

import click

from pumpdeck_console.cli.bundles import show_export
from pumpdeck_console.cli.byte_progress import ByteProgress
from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, show_bytes, time_text, write_json, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.sticks import StickEntry

_COLUMNS = (
    Column("stick"),
    Column("state"),
    Column("sites"),
    Column("devices", right=True),
    Column("awaited", right=True),
    Column("receipt_until"),
    Column("carrier"),
    Column("left"),
    Column("bytes", right=True, write=show_bytes),
    Column("note"),
)


@click.command(cls=WorkspaceCommand)
@json_option
@click.pass_obj
def sticks(session: Session, as_json: bool) -> None:
    """List the sticks that left: where they are, who carries them."""
    from pumpdeck_console.operations.sticks import list_sticks  # deferred: the store

    rows = [
        {**_entry_row(row.entry), "awaited": row.awaited, "receipt_until": time_text(row.deadline_ms or None)}
        for row in list_sticks(session.workspace())
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="No stick has left. Write one: pumpdeck bundle export --to DIR")


@click.command(cls=WorkspaceCommand)
@click.argument("stick")
@click.option("--by", "carrier", required=True, metavar="NAME", help="Who has it now.")
@json_option
@click.pass_obj
def carry(session: Session, stick: str, carrier: str, as_json: bool) -> None:
    """Note who carries STICK.

    The name stands in the inventory of sticks, not in the audit chain.
    """
    from pumpdeck_console.operations.sticks import carry_stick  # deferred: the store

    entry = carry_stick(session.workspace(), stick=stick, carrier=carrier)
    if as_json:
        write_json(_entry_row(entry))
    else:
        say(f"Stick {entry.id} is with {entry.carrier}.")


@click.command(cls=WorkspaceCommand)
@click.argument("stick")
@click.option("--reason", default="", help="How it came to be lost; goes into the audit.")
@json_option
@click.pass_obj
def lost(session: Session, stick: str, reason: str, as_json: bool) -> None:
    """Mark STICK as lost; say what was on it and what to do.

    One that turns up is taken in as ever.
    """
    from pumpdeck_console.operations.sticks import lose_stick  # deferred: the store

    report = lose_stick(session.workspace(), stick=stick, reason=reason)
    if as_json:
        write_json({**_entry_row(report.entry), "awaited": list(report.awaited), "advice": list(report.advice)})
        return
    say(f"Stick {report.entry.id} is marked as lost.")
    for sentence in report.advice:
        click.echo(sentence)


@click.command(cls=WorkspaceCommand)
@click.argument("stick")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="A folder on another stick.")
@click.option("--carrier", default="", metavar="NAME", help="Who carries it.")
@key_options
@json_option
@click.pass_obj
def reissue(session: Session, stick: str, folder: Path, carrier: str, as_json: bool) -> None:
    """Write the load of a lost STICK onto another one.

    The same assignments, as far as they still wait.
    """
    from pumpdeck_console.operations.bundles import reissue_stick  # deferred: TUF

    with ByteProgress() as progress:
        done = reissue_stick(
            session.workspace(), stick=stick, to=str(folder), carrier=carrier, on_progress=progress
        )
    show_export(done, as_json=as_json)


def _entry_row(entry: StickEntry) -> dict[str, object]:
    return {
        "stick": entry.id,
        "kind": entry.kind.value,
        "state": entry.state.value,
        "sites": list(entry.sites),
        "devices": len(entry.loads),
        "carrier": entry.carrier or None,
        "place": entry.place,
        "left": time_text(entry.exported_ms),
        "moved": time_text(entry.changed_ms),
        "bytes": entry.bytes,
        "bytes_per_s": entry.bytes_per_s or None,
        "replaced_by": entry.replaced_by or None,
        "note": entry.note or None,
    }
