"""`pumpdeck trust recipient`: who may read what devices return on sticks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, write_object, write_rows
from pumpdeck_console.cli.params import key_options, new_passphrase
from pumpdeck_console.cli.session import Session

_COLUMNS = (Column("site"), Column("name"), Column("key"), Column("is_mine"), Column("encrypted"))
_CHANGE_COLUMNS = (Column("site"), Column("before"), Column("after"))
_site_option = click.option("--site", "sites", multiple=True, metavar="SITE", help="Only this site; may be given again.")
_plan_option = click.option("--plan", "is_plan", is_flag=True, help="Only show what would change.")


@click.group(cls=LazyGroup)
def recipient() -> None:
    """Say who may read what devices put on sticks: age public keys by name."""


@recipient.command("list")
@key_options
@json_option
@click.pass_obj
def list_(session: Session, as_json: bool) -> None:
    """List who may read the returns of each site, and whether this workspace can."""
    from pumpdeck_console.operations.recipients import list_recipients  # deferred: TUF

    found = list_recipients(session.workspace())
    rows = [
        {"site": one.site, "name": one.name, "key": one.key, "is_mine": one.is_mine, "encrypted": not one.plain}
        for one in found.rows
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="No site is founded yet.")
    if not as_json:
        places = [f"{place.source}: {place.state} {place.detail}".strip() for place in found.places]
        say(f"This workspace's recipient key: {'; '.join(places)}.")


@recipient.command("make")
@click.option(
    "--store",
    type=click.Choice(["keyring", "file"]),
    default="keyring",
    show_default=True,
    help="Where this computer keeps the private half.",
)
@key_options
@json_option
@click.pass_obj
def make(session: Session, store: str, as_json: bool) -> None:
    """Make this workspace's recipient key and print its public half, for: trust recipient add NAME KEY."""
    from pumpdeck_console.credentials import Source  # deferred: cryptography
    from pumpdeck_console.operations.recipients import make_recipient_key

    in_file = Source.PLAIN_FILE if session.insecure_storage else Source.PROTECTED_FILE
    source = Source.KEYRING if store == "keyring" else in_file
    passphrase = new_passphrase("the recipient key") if source is Source.PROTECTED_FILE else ""
    key, warning = make_recipient_key(session.workspace(), source, passphrase)
    write_object({"key": key, "stored_in": source.value}, as_json=as_json)
    if warning:
        say(f"Warning: {warning}")


@recipient.command("add")
@click.argument("name")
@click.argument("key")
@_site_option
@_plan_option
@key_options
@json_option
@click.pass_obj
def add(session: Session, name: str, key: str, sites: tuple[str, ...], is_plan: bool, as_json: bool) -> None:
    """Let NAME read returns from now on, with the private half of KEY (age1..). Returns made before stay closed to them."""
    _change(session, {"add": {name: key}, "sites": sites}, is_plan=is_plan, as_json=as_json)


@recipient.command("remove")
@click.argument("name")
@_site_option
@_plan_option
@key_options
@json_option
@click.pass_obj
def remove(session: Session, name: str, sites: tuple[str, ...], is_plan: bool, as_json: bool) -> None:
    """Encrypt no later return to NAME. Devices learn it with their next assignment or stick; older returns stay readable."""
    _change(session, {"remove": (name,), "sites": sites}, is_plan=is_plan, as_json=as_json)


@recipient.command("plain")
@click.argument("sites", nargs=-1, required=True, metavar="SITE..")
@click.option("--off", is_flag=True, help="Encrypt again.")
@_plan_option
@key_options
@json_option
@click.pass_obj
def plain(session: Session, sites: tuple[str, ...], off: bool, is_plan: bool, as_json: bool) -> None:
    """Let the devices of SITE put their returns on sticks unencrypted, readable by whoever holds the stick."""
    _change(session, {"plain": not off, "sites": sites}, is_plan=is_plan, as_json=as_json)


def _change(session: Session, wanted: Mapping[str, Any], *, is_plan: bool, as_json: bool) -> None:
    from pumpdeck_console.operations.recipients import change_recipients, plan_recipients  # deferred: TUF

    found = (plan_recipients if is_plan else change_recipients)(session.workspace(), **wanted)
    rows = [
        {"site": one.site, "before": ", ".join(one.before) or "anybody", "after": ", ".join(one.after) or "anybody"}
        for one in found
    ]
    write_rows(rows, _CHANGE_COLUMNS, as_json=as_json, empty="Nothing changes.")
    if rows and not as_json:
        say("Nothing was signed." if is_plan else "Devices follow with their next assignment or stick.")
