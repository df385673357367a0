"""`pumpdeck snapshots` and `retention`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from pumpdeck_console.cli.lazy import LazyGroup, WorkspaceCommand
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    show_bytes,
    show_digest,
    time_text,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import ask_to_go_on, yes_option
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED

_COLUMNS = (
    Column("snapshot_digest", "snapshot", write=show_digest),
    Column("pump_type"),
    Column("model"),
    Column("versions"),
    Column("aliases"),
    Column("pumps", right=True),
    Column("held"),
    Column("data_end"),
)
_PART_COLUMNS = (
    Column("pump"),
    Column("start"),
    Column("end"),
    *(Column(name, right=True) for name in ("chunks", "rows", "flagged")),
    Column("left_out"),
)
_DIFF_COLUMNS = {
    "pump": (
        Column("pump"),
        Column("change"),
        *(Column(name, right=True) for name in ("added", "removed", "changed", "flags")),
        Column("left_out_added"),
        Column("left_out_removed"),
    ),
    "channel": (
        Column("pump"),
        Column("channel"),
        *(Column(name, right=True) for name in ("mean_before", "mean_after", "std_before", "std_after", "psi")),
    ),
}
_NEEDED_COLUMNS = (
    Column("model"),
    Column("version", right=True),
    Column("why"),
    Column("snapshot_digest", "snapshot", write=show_digest),
    Column("chunks", right=True),
)


@click.group(cls=LazyGroup, default="list")
def snapshots() -> None:
    """List frozen training sets, show, compare or export one."""


@snapshots.command("list")
@query_argument
@json_option
@click.pass_obj
def list_all(session: Session, query: str, as_json: bool) -> None:
    """List the frozen training sets that QUERY selects, such as held:no type:esp; newest data first."""
    from pumpdeck_console.operations.snapshots import list_snapshots  # deferred: help needs none of it

    rows = [
        {
            "snapshot_digest": row.snapshot_digest,
            "pump_type": row.pump_type,
            "model": row.model,
            "versions": ",".join(str(number) for number in row.versions),
            "aliases": ",".join(row.aliases),
            "pumps": row.pumps,
            "held": row.held,
            "data_end": time_text(row.data_end_ms or None),
        }
        for row in list_snapshots(session.workspace(), query=query)
    ]
    empty = f"No snapshot matches: {query}" if query else "No snapshot yet. Make one with: pumpdeck train"
    write_rows(rows, _COLUMNS, as_json=as_json, empty=empty)


@snapshots.command("show")
@click.argument("snapshot")
@json_option
@click.pass_obj
def show(session: Session, snapshot: str, as_json: bool) -> None:
    """Show what SNAPSHOT holds of each pump; every row is read and proven by its digest."""
    from pumpdeck_console.operations.snapshots import show_snapshot  # deferred: numpy

    digest, parts = show_snapshot(session.workspace(), snapshot=snapshot)
    rows = [
        {**dataclasses.asdict(part), "start": time_text(part.start_ms), "end": time_text(part.end_ms)} for part in parts
    ]
    write_rows(rows, _PART_COLUMNS, as_json=as_json, empty="It holds no pump.")
    say(f"snapshot {digest}: {sum(part.rows for part in parts)} rows, all of them as when it was frozen")


@snapshots.command("diff")
@click.argument("before")
@click.argument("after")
@click.option("--by", type=click.Choice(["pump", "channel"]), default="pump", show_default=True, help="A row each.")
@json_option
@click.pass_obj
def diff(session: Session, before: str, after: str, by: str, as_json: bool) -> None:
    """Tell what differs between two snapshots: rows, flags and what is left out of each pump, or each channel's distribution.

    BEFORE and AFTER are digests or the first characters of them.
    """
    from pumpdeck_console.operations.snapshots import diff_snapshots  # deferred: numpy

    found = diff_snapshots(session.workspace(), before=before, after=after)
    kinds: dict[str, tuple[Any, ...]] = {"pump": found.pumps, "channel": found.channels}
    rows = [dataclasses.asdict(row) for row in kinds[by]]
    write_rows(rows, _DIFF_COLUMNS[by], as_json=as_json, empty="The two hold the same rows.")
    say(f"{found.before[:12]} against {found.after[:12]}: {len(found.pumps)} pumps differ, {found.same_pumps} are the same")


@snapshots.command("export")
@click.argument("snapshot")
@click.option("--to", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new or empty folder.")
@json_option
@click.pass_obj
def export(session: Session, snapshot: str, to: Path, as_json: bool) -> None:
    """Write SNAPSHOT as Parquet files site=ID/date=DAY/rows.parquet, each chunk proven by its digest first."""
    from pumpdeck_console.operations.snapshot_export import export_snapshot  # deferred: numpy and pyarrow

    with ProgressLine() as progress:
        report = export_snapshot(session.workspace(), snapshot=snapshot, to=str(to), on_progress=progress)
    write_object(dataclasses.asdict(report), as_json=as_json)


@click.command(cls=WorkspaceCommand)
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--force", is_flag=True, help="Remove what live versions were trained from, too. Takes a --reason.")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@yes_option
@json_option
@click.pass_obj
def retention(session: Session, dry_run: bool, force: bool, reason: str, is_agreed: bool, as_json: bool) -> int:
    """Remove the rows and snapshots that policies.toml keeps no longer.

    What a live version (one with an alias, or on a device) was trained from stays, and the command ends with 3 and names it.
    """
    from pumpdeck_console.operations.retention import apply_retention, plan_retention  # deferred: numpy

    workspace = session.workspace()
    plan = plan_retention(workspace)
    if plan.before_ms:
        say(
            f"Before {time_text(plan.before_ms)}: {plan.rows} rows in {plan.chunks} chunks ({show_bytes(plan.bytes)}) and "
            f"{len(plan.snapshots)} snapshots of no live version may go; {plan.needed_chunks} chunks are needed by live versions."
        )
    else:
        say("The policy keeps every row: telemetry_days under [retention] in policies.toml is 0.")
    if plan.needed and (dry_run or not as_json):
        rows = [dataclasses.asdict(one) for one in plan.needed]
        write_rows(rows, _NEEDED_COLUMNS, as_json=as_json, empty="")
    if dry_run:
        if as_json and not plan.needed:
            write_rows([], _NEEDED_COLUMNS, as_json=True, empty="")
        return 0
    if plan.before_ms:
        ask_to_go_on(is_agreed, "Remove them?" if not force else "Remove all of them? Live versions can then not be replayed.")
    report = apply_retention(workspace, force=force, reason=reason)
    write_object(dataclasses.asdict(report), as_json=as_json)
    if report.kept_chunks:
        names = ", ".join(f"{one.model} v{one.version} ({one.why})" for one in plan.needed)
        say(f"Kept {report.kept_chunks} old chunks: {names} was trained from them. Remove them with --force --reason.")
        return EXIT_REFUSED
    return 0
