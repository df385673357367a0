"""`pumpdeck audit`: who did what, and the proof that nobody rewrote it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, show_digest, time_text, write_object, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.audit import CHECKPOINT_MAX_BYTES

_COLUMNS = (
    Column("position", "no", right=True),
    Column("at"),
    Column("name"),
    Column("action"),
    Column("subject"),
    Column("reason"),
    Column("digest", write=show_digest),
)


@click.group(cls=LazyGroup, default="list")
def audit() -> None:
    """List, verify, export or checkpoint the audit chain."""


@audit.command("list")
@click.argument("words", nargs=-1, metavar="[WORDS]...")
@click.option("--limit", default=200, show_default=True, help="At most so many, the newest.")
@json_option
@click.pass_obj
def list_entries(session: Session, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List entries that hold all WORDS, oldest first."""
    from pumpdeck_console.operations.audit import list_audit  # deferred: help needs none of it

    rows = [
        {
            "position": row.entry.position,
            "at": time_text(row.entry.at_ms),
            "actor": row.entry.actor,
            "name": row.name,
            "action": row.entry.action,
            "subject": row.entry.subject,
            "reason": row.entry.reason,
            "digest": row.entry.digest,
        }
        for row in list_audit(session.workspace(), words=" ".join(words), limit=limit)
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="No audit entry holds these words.")


@audit.command("verify")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="Compare with this signed checkpoint too; may be given again.",
)
@json_option
@click.pass_obj
def verify(session: Session, checkpoints: tuple[Path, ...], as_json: bool) -> None:
    """Compute the chain again from its first entry.

    Ends with exit code 5 and the first bad position when the chain does not hold.
    """
    from pumpdeck_console.operations.audit import compare_checkpoint, verify_audit  # deferred: help needs none of it

    workspace = session.workspace()
    head = verify_audit(workspace)
    found = []
    for path in checkpoints:
        data = workspace.fs.read_bytes(path.absolute(), CHECKPOINT_MAX_BYTES)
        found.append(compare_checkpoint(workspace, envelope=data.strip()))
    told = {"chain": head.chain, "entries": head.position, "head": head.digest, "verified": True}
    if found:
        told["checkpoints"] = [f"entry {one.position} of {time_text(one.at_ms)}" for one in found]
    write_object(told, as_json=as_json)


@audit.command("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option("--site", default="", help="Sign with the deploy key of this site; else of the first.")
@key_options
@click.pass_obj
def checkpoint(session: Session, output: Path, site: str) -> None:
    """Sign where the chain stands now. Keep the file elsewhere: a chain rewritten as a whole cannot match it."""
    from pumpdeck_console.operations.audit import sign_checkpoint  # deferred: cryptography
    from pumpdeck_fleet.core.files import replace_file

    workspace = session.workspace()
    replace_file(workspace.fs, output.resolve(), sign_checkpoint(workspace, site=site) + b"\n")
    say(f"Wrote {output}. Compare later with: pumpdeck audit verify --checkpoint {output}")


@audit.command("export")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file; without it stdout.")
@click.pass_obj
def export(session: Session, output: Path | None) -> None:
    """Write the whole chain as JSON lines, without names of persons."""
    from pumpdeck_console.operations.audit import export_lines, verify_audit  # deferred: help needs none of it

    workspace = session.workspace()
    head = verify_audit(workspace)
    if output is None:
        for line in export_lines(workspace):
            sys.stdout.write(line + "\n")
        return
    from pumpdeck_fleet.core.files import replace_file

    text = "".join(line + "\n" for line in export_lines(workspace))
    replace_file(workspace.fs, output.resolve(), text.encode("utf-8"))
    say(f"Wrote {head.position} entries to {output}; head {head.digest}")
