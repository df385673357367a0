"""`pumpdeck trust rules`: what devices demand before they take a package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import Session

if TYPE_CHECKING:
    from pumpdeck_console.operations.device_rules import RuleRow

_COLUMNS = (
    Column("site"),
    Column("device_class"),
    Column("devices", right=True),
    Column("demands"),
    Column("signed"),
    Column("is_signed"),
)


@click.group(cls=LazyGroup)
def rules() -> None:
    """Say what devices demand of an assignment: a permit number, two people's word to go back."""


@rules.command("list")
@click.argument("sites", nargs=-1, metavar="[SITE]...")
@json_option
@click.pass_obj
def list_(session: Session, sites: tuple[str, ...], as_json: bool) -> None:
    """List what fleet.toml demands for each site and device class, and what is signed."""
    from pumpdeck_console.operations.device_rules import list_rules  # deferred: TUF

    _write(list_rules(session.workspace(), sites=sites), as_json=as_json, empty="No site is founded yet.")


@rules.command("sign")
@click.argument("sites", nargs=-1, metavar="[SITE]...")
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would change.")
@key_options
@json_option
@click.pass_obj
def sign(session: Session, sites: tuple[str, ...], is_plan: bool, as_json: bool) -> None:
    """Sign what fleet.toml demands with the targets key. Devices follow it from their next assignment on."""
    from pumpdeck_console.operations.device_rules import list_rules, sign_rules  # deferred: TUF

    workspace = session.workspace()
    found: Sequence[RuleRow]
    if is_plan:
        found = [row for row in list_rules(workspace, sites=sites) if not row.is_signed]
    else:
        found = sign_rules(workspace, sites=sites)
    _write(found, as_json=as_json, empty="Nothing changes.")
    if found and not as_json:
        say("Nothing was signed." if is_plan else "Devices follow from their next assignment on.")


def _write(found: Sequence[RuleRow], *, as_json: bool, empty: str) -> None:
    from pumpdeck_console.operations.device_rules import in_words  # deferred: TUF

    rows: list[dict[str, Any]] = [
        {
            "site": row.site,
            "device_class": row.device_class,
            "devices": row.devices,
            "demands": in_words(row.wanted),
            "signed": in_words(row.signed),
            "is_signed": row.is_signed,
        }
        for row in found
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty=empty)
