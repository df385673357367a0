"""`pumpdeck sync`: two workspaces that worked apart become one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, time_text, write_json, write_object, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED

if TYPE_CHECKING:
    from pumpdeck_console.operations.syncing import SyncResult
    from pumpdeck_console.wiring import Workspace
    from pumpdeck_fleet.store.merge import KnownConflict

_TAKEN_COLUMNS = (Column("what"), Column("rows", right=True))
_CONFLICT_COLUMNS = (Column("kind"), Column("which"), Column("kept"), Column("other"), Column("advice"))


@click.group(cls=LazyGroup, default="take")
def sync() -> None:
    """Take in what another workspace, or a backup of one, knows."""


@sync.command("take")
@click.argument("folder", type=click.Path(path_type=Path), metavar="[FROM]", required=False)
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would come; nothing is changed.")
@click.option("--new-roots", is_flag=True, help="Believe the roots of sites that have none here: their words were compared.")
@key_options
@json_option
@click.pass_obj
def take(session: Session, folder: Path | None, is_plan: bool, new_roots: bool, as_json: bool) -> int:
    """Take in what another workspace, or a backup of one, knows.

    FROM is its folder, a folder with a backup of it, or a backup in one file; it is only read. In whatever order
    workspaces take each other in, they end with the same rows. What gives authority is believed under the signature of a
    person who stands, else refused by name. Ends with 3 when something was refused. Without FROM it lists the conflicts.
    """
    from pumpdeck_console.operations.syncing import plan_sync  # deferred: TUF and numpy
    from pumpdeck_console.operations.syncing import sync as do_sync

    workspace = session.workspace()
    if folder is None:
        _list_conflicts(workspace, as_json)
        return 0
    if is_plan:
        result = plan_sync(workspace, folder=str(folder))
    else:
        with ProgressLine() as progress:
            result = do_sync(workspace, folder=str(folder), new_roots=new_roots, on_progress=progress)
    if as_json:
        write_json(as_row(result))
    else:
        show(result)
    return EXIT_REFUSED if result.report.refused else 0


@sync.command("conflicts")
@click.option("--open", "only_open", is_flag=True, help="Only those that nobody has settled.")
@json_option
@click.pass_obj
def conflicts(session: Session, only_open: bool, as_json: bool) -> None:
    """List on what workspaces differed when they met, the newest first."""
    _list_conflicts(session.workspace(), as_json, only_open=only_open)


@sync.command("settle")
@click.argument("which", metavar="NUMBER")
@click.option("--take", type=click.Choice(["OURS", "THEIRS", "KEPT"], case_sensitive=False), required=True,
              help="What this workspace had, what the other had, or what the merge kept.")
@click.option("--because", required=True, help="Why: it stands in the audit chain and travels.")
@key_options
@json_option
@click.pass_obj
def settle(session: Session, which: str, take: str, because: str, as_json: bool) -> None:
    """Decide the conflict NUMBER of `sync conflicts`.

    The decision is signed and travels with the next syncs; the latest one counts in every workspace. Host keys and aliases
    follow it; of the other kinds only what the merge kept can be confirmed.
    """
    from pumpdeck_console.operations.settling import settle as do_settle  # deferred: TUF and numpy

    found = do_settle(session.workspace(), which=which, take=take, because=because)
    write_object(_conflict_row(found), as_json=as_json)


def _conflict_row(one: KnownConflict) -> dict[str, Any]:
    told = {"number": one.number, "found": time_text(one.found_ms), "workspace": one.workspace}
    return {**told, **dataclasses.asdict(one.conflict), "settled": one.settled or None, "digest": one.digest}


def _list_conflicts(workspace: Workspace, as_json: bool, *, only_open: bool = False) -> None:
    from pumpdeck_console.operations.syncing import list_conflicts  # deferred: TUF and numpy

    found = [one for one in list_conflicts(workspace) if not (only_open and one.settled)]
    rows = [_conflict_row(one) for one in found]
    head = (Column("number", right=True), Column("found"), Column("workspace"))
    columns = (*head, *_CONFLICT_COLUMNS, Column("ours"), Column("settled"))
    write_rows(rows, columns, as_json=as_json, empty="No conflict was found so far.")


def as_row(result: SyncResult) -> dict[str, Any]:
    """The result for programs."""
    report = result.report
    return {
        "workspace": report.workspace,
        "is_plan": result.is_plan,
        "taken": dict(report.taken),
        "artifacts": result.artifacts,
        "receipts": report.receipts,
        "approved": list(report.approved),
        "conflicts": [dataclasses.asdict(conflict) for conflict in report.conflicts],
        "conflicts_known": report.known,
        "gave_way": [dataclasses.asdict(one) for one in report.gave_way],
        "refused": [{"which": which, "reason": reason} for which, reason in report.refused],
        "sites": [{"site": site, "found": words} for site, words in result.sites],
        "unsigned": list(result.unsigned),
        "unsealed": [{"chain": chain, "entries": count} for chain, count in report.unsealed],
        "signature": result.signature,
    }


def show(result: SyncResult) -> None:
    """The result for people."""
    report = result.report
    rows = [{"what": name, "rows": count} for name, count in report.taken.items()]
    if result.artifacts:
        rows.append({"what": "artifacts", "rows": result.artifacts})
    write_rows(rows, _TAKEN_COLUMNS, as_json=False, empty=f"Workspace {report.workspace} brings nothing new.")
    if report.conflicts:
        say(f"{len(report.conflicts)} conflicts to look at:")
        write_rows(map(dataclasses.asdict, report.conflicts), _CONFLICT_COLUMNS, as_json=False, empty="")
    if report.known:
        say(f"{report.known} conflicts were listed before.")
    for one in report.gave_way:
        ended = f"ends at the next sync of {one.driven_by}" if one.driven_by else "ended here"
        say(f"{one.device}: the task of rollout {one.rollout} gives way to {one.to}; it {ended}.")
    for which, reason in report.refused:
        say(f"Refused: {which}: {reason}")
    for line in result.unsigned:
        say(f"Not signed again: {line}")
    for chain, count in report.unsealed:
        say(f"{count} audit entries of {chain} wait there for a signature: pumpdeck trust vouch")
    say(result.signature)
    said = "would be taken" if result.is_plan else "taken"
    say(f"{sum(report.taken.values())} rows {said} from workspace {report.workspace}; {report.receipts} receipts awaited here.")
