"""`pumpdeck sync`: two workspaces that worked apart become one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, time_text, write_json, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED

if TYPE_CHECKING:
    from pumpdeck_console.operations.syncing import SyncResult
    from pumpdeck_console.wiring import Workspace

_TAKEN_COLUMNS = (Column("what"), Column("rows", right=True))
_CONFLICT_COLUMNS = (Column("kind"), Column("which"), Column("kept"), Column("other"), Column("advice"))


@click.command(cls=WorkspaceCommand)
@click.argument("folder", type=click.Path(path_type=Path), metavar="[FROM]", required=False)
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would come; nothing is changed.")
@key_options
@json_option
@click.pass_obj
def sync(session: Session, folder: Path | None, is_plan: bool, as_json: bool) -> int:
    """Take in what another workspace, or a backup of one, knows.

    FROM is its folder, a folder with a backup of it, or a backup in one file; it is only read. In whatever order
    workspaces take each other in, they end with the same rows. Ends with 3 when something was refused.
    Without FROM it lists the conflicts that were found so far.
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
            result = do_sync(workspace, folder=str(folder), on_progress=progress)
    if as_json:
        write_json(as_row(result))
    else:
        show(result)
    return EXIT_REFUSED if result.report.refused else 0


def _list_conflicts(workspace: Workspace, as_json: bool) -> None:
    from pumpdeck_console.operations.syncing import list_conflicts  # deferred: TUF and numpy

    rows = [
        {"found": time_text(one.found_ms), "workspace": one.workspace, **dataclasses.asdict(one.conflict)}
        for one in list_conflicts(workspace)
    ]
    columns = (Column("found"), Column("workspace"), *_CONFLICT_COLUMNS)
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
    if result.is_plan:
        say("Nobody signed it as a whole: receipts, trust and audit chains in it are proven, the rest is not.")
    said = "would be taken" if result.is_plan else "taken"
    say(f"{sum(report.taken.values())} rows {said} from workspace {report.workspace}; {report.receipts} receipts awaited here.")
