"""`pumpdeck drill`: the promise that no device is bricked, as a table of figures."""

from __future__ import annotations

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, write_json, write_rows
from pumpdeck_console.cli.session import ProgressLine
from pumpdeck_fleet.core.errors import EXIT_DEFECT

_COLUMNS = (
    Column("drill"),
    Column("ok", write=lambda value: "ok" if value else "BAD"),
    Column("tried", right=True),
    Column("must_be_zero"),
    Column("seconds", right=True),
    Column("fault"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("names", nargs=-1, metavar="[DRILL]...")
@click.option("--quick", is_flag=True, help="A small form of each drill: a minute in all instead of many.")
@json_option
def drill(names: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Do to a device what a bad day does, and count what breaks.

    Cut power, full disks, flipped bytes, bad models, killed processes: on devices that are made for it in a temporary
    folder and thrown away. Without names all drills run. Exit code 1 when a figure that must be zero is not.
    """
    from pumpdeck_console.operations.drill import DRILLS, run_drills  # deferred: help needs none of it

    with ProgressLine() as progress:
        found = run_drills(names, quick=quick, on_progress=progress)
    if as_json:
        write_json(found)
    else:
        rows = [
            {
                "drill": name,
                "fault": DRILLS[name].fault,
                "must_be_zero": " ".join(f"{key} {figures.get(key, '-')}" for key in DRILLS[name].zero),
                **{key: figures[key] for key in ("ok", "tried", "seconds")},
            }
            for name, figures in found.items()
        ]
        write_rows(rows, _COLUMNS, as_json=False, empty="No drill.")
    return 0 if all(figures["ok"] for figures in found.values()) else EXIT_DEFECT
