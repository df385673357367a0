"""`pumpdeck experiments`."""

from __future__ import annotations

import dataclasses

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, show_digest, write_object, write_rows
from pumpdeck_console.cli.session import ProgressLine, Session

_COLUMNS = (
    Column("name"),
    Column("pump_type"),
    Column("set"),
    Column("runs", right=True),
    Column("verdict", "gates"),
    Column("run", write=show_digest),
    Column("snapshot_digest", "snapshot", write=show_digest),
    Column("content_digest", "content", write=show_digest),
)
_COMPARE_COLUMNS = (Column("part"), Column("name"), Column("before"), Column("after"))


@click.group(cls=LazyGroup, default="list")
def experiments() -> None:
    """Try other settings of a pipeline on a branch: start, run, compare, merge or drop one."""


@experiments.command("start")
@click.argument("name")
@click.option("--pipeline", "pump_type", required=True, metavar="PUMP_TYPE", help="Which pipeline it branches from.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Such as features.window_s=1800; may be given again.")
@json_option
@click.pass_obj
def start(session: Session, name: str, pump_type: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Branch NAME from a pipeline, with other values for some keys of its spec."""
    from pumpdeck_console.operations.experiments import start_experiment  # deferred: numpy and the trainer

    row = start_experiment(session.workspace(), name=name, pump_type=pump_type, changes=changes)
    write_object(dataclasses.asdict(row), as_json=as_json)
    say(f"Next: pumpdeck experiments run {name}")


@experiments.command("run")
@click.argument("name")
@json_option
@click.pass_obj
def run(session: Session, name: str, as_json: bool) -> None:
    """Train the branch NAME; nothing is registered and no alias moves."""
    from pumpdeck_console.operations.experiments import run_experiment  # deferred: numpy and the trainer

    with ProgressLine() as progress:
        row = run_experiment(session.workspace(), name=name, on_progress=progress)
    write_object(dataclasses.asdict(row), as_json=as_json)
    say(f"Next: pumpdeck experiments compare {name}")


@experiments.command("list")
@json_option
@click.pass_obj
def list_all(session: Session, as_json: bool) -> None:
    """List experiments with their newest runs."""
    from pumpdeck_console.operations.experiments import list_experiments  # deferred: numpy and the trainer

    rows = [dataclasses.asdict(row) for row in list_experiments(session.workspace())]
    empty = "No experiment yet. Start one with: pumpdeck experiments start NAME --pipeline PUMP_TYPE --set KEY=VALUE"
    write_rows(rows, _COLUMNS, as_json=as_json, empty=empty)


@experiments.command("compare")
@click.argument("before")
@click.argument("after", default="")
@json_option
@click.pass_obj
def compare(session: Session, before: str, after: str, as_json: bool) -> None:
    """Tell what differs between two experiments, or between BEFORE and what is registered for its pump type."""
    from pumpdeck_console.operations.experiments import compare_experiments  # deferred: numpy and the trainer

    rows = [dataclasses.asdict(row) for row in compare_experiments(session.workspace(), before=before, after=after)]
    write_rows(rows, _COMPARE_COLUMNS, as_json=as_json, empty="They are the same in every part.")


@experiments.command("merge")
@click.argument("name")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@json_option
@click.pass_obj
def merge(session: Session, name: str, reason: str, as_json: bool) -> None:
    """Write what NAME changes into the pipeline's file, when as many people say so as the policy asks for."""
    from pumpdeck_console.operations.experiments import merge_experiment  # deferred: numpy and the trainer

    report = merge_experiment(session.workspace(), name=name, reason=reason)
    write_object(dataclasses.asdict(report), as_json=as_json)
    if report.missing_people:
        say(f"Noted. Nothing changed yet: {report.missing_people} more must say the same with a reason.")
    else:
        say(f"Next: pumpdeck train {report.pump_type}")


@experiments.command("drop")
@click.argument("name")
@click.option("--reason", default="", help="Why; goes into the audit chain.")
@click.pass_obj
def drop(session: Session, name: str, reason: str) -> None:
    """Remove the branch NAME; its run records and audit entries stay."""
    from pumpdeck_console.operations.experiments import drop_experiment  # deferred: numpy and the trainer

    drop_experiment(session.workspace(), name=name, reason=reason)
    say(f"Dropped {name}.")
