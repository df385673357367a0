"""`pumpdeck trust vouch` and `trust person`: who says what, and who is who."""

from __future__ import annotations

from typing import Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, write_rows
from pumpdeck_console.cli.params import ask_to_go_on, key_options, yes_option
from pumpdeck_console.cli.session import Session
from pumpdeck_console.cli.trust_keys import change_options, run_change

_COLUMNS = (Column("kind"), Column("subject"), Column("words"), Column("not_signed"))


@click.command(cls=WorkspaceCommand)
@click.option("--plan", "is_plan", is_flag=True, help="Only list what nobody has signed; nothing is changed.")
@yes_option
@key_options
@json_option
@click.pass_obj
def vouch(session: Session, is_plan: bool, is_agreed: bool, as_json: bool) -> None:
    """Sign what stands in this workspace and nobody has signed.

    Device keys and their ends, age keys, moved aliases and your own approvals that are older than signatures, were done
    while a key was locked, or were signed under a key that has left since. Other workspaces believe them from then on:
    look at the list first.
    """
    from pumpdeck_console.operations import countersigning  # deferred: TUF

    workspace = session.workspace()
    rows = [
        {"kind": one.kind, "subject": one.subject, "words": one.words, "not_signed": one.why or None}
        for one in countersigning.list_unsigned(workspace)
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="Everything that needs a signature has one.")
    able = sum(row["not_signed"] is None for row in rows)
    if is_plan or not able:
        return
    ask_to_go_on(is_agreed, f"Sign {able} statements in your name?")
    signed = countersigning.vouch(workspace)
    say(f"{len(signed)} statements signed; other workspaces take them with their next sync.")


@click.command(cls=WorkspaceCommand)
@click.argument("key")
@click.argument("whose", metavar="PERSON")
@change_options
@click.pass_obj
def person(session: Session, /, key: str, whose: str, **options: Any) -> None:
    """Say that KEY is a key of PERSON, so that one person counts once.

    KEY is the beginning of its id; PERSON is one that `trust show` names, or the beginning of another key of theirs. Headquarters
    signs it, as every change of keys.
    """
    from pumpdeck_console.operations.trust_changing import ChangeRequest  # deferred: TUF

    run_change(session, ChangeRequest(people={key: whose}, sites=options["sites"], reason=options["reason"]), options)
