"""`pumpdeck trust`: keys and the trust repositories of sites."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    say,
    show_digest,
    time_text,
    write_json,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import key_options, new_passphrase
from pumpdeck_console.cli.recipients import recipient
from pumpdeck_console.cli.rules import rules
from pumpdeck_console.cli.session import Session

if TYPE_CHECKING:
    from pumpdeck_console.operations.trust_rows import RoleKey

_SITE_COLUMNS = (
    Column("site"),
    Column("founded"),
    Column("root", right=True),
    Column("release", right=True),
    Column("deploy", right=True),
    Column("released", right=True),
    Column("assigned", right=True),
    Column("metadata_bytes", right=True),
    Column("expires"),
    Column("warnings"),
)
_ROLE_COLUMNS = (
    Column("site"),
    Column("role"),
    Column("key_id", write=show_digest),
    Column("holder"),
    Column("here"),
    Column("slot", right=True),
    Column("threshold", "must sign", right=True),
    Column("role_keys", "of", right=True),
    Column("version", right=True),
    Column("expires"),
    Column("warning"),
)
_KEY_COLUMNS = (Column("key"), Column("found_in"), Column("detail"))


_KEYS = "pumpdeck_console.cli.trust_keys"
_VOUCHING = "pumpdeck_console.cli.vouching"
_COMMANDS = {
    "downgrade": (
        "pumpdeck_console.cli.downgrade:downgrade",
        "Let one device go back to an older package, once: two people sign, on two computers.",
    ),
    "add": (f"{_KEYS}:add", "Let the key in PUBLIC_KEY sign for ROLE."),
    "remove": (f"{_KEYS}:remove", "Let KEY no longer sign for ROLE."),
    "rotate": (f"{_KEYS}:rotate", "Put a new key in the place of KEY for ROLE."),
    "threshold": (f"{_KEYS}:threshold", "Ask for NUMBER signatures for ROLE: release 2 is four eyes."),
    "renew": (f"{_KEYS}:renew", "Sign root, targets and release anew with the same keys."),
    "revoke": (f"{_KEYS}:revoke", "Revoke the KEYS of a lost laptop everywhere, and show what they signed."),
    "sign": (f"{_KEYS}:sign", "Sign what stands in FILE with keys you hold."),
    "show": (f"{_KEYS}:show", "Show what FILE would change, who has signed and who has not."),
    "publish": (f"{_KEYS}:publish", "Put a change into force once enough people signed."),
    "exposed": (f"{_KEYS}:exposed", "List devices that are not known to have taken the newest keys."),
    "name": (f"{_KEYS}:name", "Write down who holds KEY of SITE."),
    "person": (f"{_VOUCHING}:person", "Say that KEY is a key of PERSON, so that one person counts once."),
    "vouch": (f"{_VOUCHING}:vouch", "Sign what stands in this workspace and nobody has signed."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def trust() -> None:
    """Found the trust of sites, change who may sign, or show how it stands."""


trust.add_command(recipient)
trust.add_command(rules)


@trust.command("init")
@click.option(
    "--root-keys",
    "root_folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the three root key files, outside the workspace: give each to another person.",
)
@click.option(
    "--store",
    type=click.Choice(["keyring", "file"]),
    default="keyring",
    show_default=True,
    help="Where this computer keeps its targets, release, deploy and ssh keys.",
)
@click.option("--key-folder", default="", help="Folder for key files and public halves; remembered in settings.toml.")
@click.option("--plain-returns", is_flag=True, help="What devices of new sites put on sticks is not encrypted.")
@key_options
@json_option
@click.pass_obj
def init(
    session: Session, root_folder: Path, store: str, key_folder: str, plain_returns: bool, as_json: bool
) -> None:
    """Make keys where they are missing and found the trust repository of every site that has none.

    Passphrases are asked for, never given as arguments. Repeating changes nothing.
    """
    from pumpdeck_console.credentials import Source  # deferred: cryptography
    from pumpdeck_console.operations.trust import TrustRequest, init_trust

    insecure = session.insecure_storage
    plain_or_protected = Source.PLAIN_FILE if insecure else Source.PROTECTED_FILE
    source = Source.KEYRING if store == "keyring" else plain_or_protected
    has_root = root_folder.is_dir() and any(root_folder.glob("root-*.key"))
    request = TrustRequest(
        root_folder=root_folder,
        store=source,
        key_folder=key_folder,
        root_passphrases=("", "", "") if insecure or has_root else _root_passphrases(),
        passphrase=new_passphrase("this computer's keys") if source is Source.PROTECTED_FILE else "",
        insecure_storage=insecure,
        plain_returns=plain_returns,
    )
    report = init_trust(session.workspace(), request)
    write_object(
        {
            "founded": list(report.founded),
            "already": list(report.already),
            "made_keys": list(report.made_keys),
            "root_folder": report.root_folder,
            "key_folder": report.key_folder,
        },
        as_json=as_json,
    )
    for warning in report.warnings:
        say(f"Warning: {warning}")
    if report.founded:
        say(f"Give the files in {report.root_folder} to three different people; two of them can change who is trusted.")


@trust.command("status")
@click.argument("site", default="")
@key_options
@json_option
@click.pass_obj
def status(session: Session, site: str, as_json: bool) -> None:
    """Show each site's repository, verified as a device would, who holds which key until when, and where this computer's are.

    Without SITE every site.
    """
    from pumpdeck_console.operations.trust import trust_status  # deferred: TUF
    from pumpdeck_console.operations.trust_view import list_keys

    found = trust_status(session.workspace(), site=site)
    rows = []
    for name, one in found.sites.items():
        rows.append(
            {
                "site": name,
                "founded": one is not None,
                **({role: one.versions.get(role) for role in ("root", "release", "deploy")} if one else {}),
                "released": sum(one.released.values()) if one else None,
                "assigned": len(one.assigned) if one else None,
                "metadata_bytes": one.metadata_bytes if one else None,
                "expires": time_text(min(one.expires_ms.values())) if one else None,
                "warnings": "; ".join(one.warnings) if one else "",
            }
        )
    keys = [
        {
            "key": key.name,
            "found_in": key.source,
            "detail": "; ".join(f"{place.source}: {place.state} {place.detail}".strip() for place in key.places),
        }
        for key in found.keys
    ]
    founded = [name for name, one in found.sites.items() if one is not None]
    roles = [_role_row(one) for one in list_keys(session.workspace(), sites=founded)] if founded else []
    if as_json:
        write_json({"sites": rows, "roles": roles, "keys": keys})
        return
    write_rows(rows, _SITE_COLUMNS, as_json=False, empty="No site in the inventory yet.")
    sys.stdout.write("\n")
    write_rows(roles, _ROLE_COLUMNS, as_json=False, empty="")
    sys.stdout.write("\n")
    write_rows(keys, _KEY_COLUMNS, as_json=False, empty="")


def _role_row(one: RoleKey) -> dict[str, object]:
    return {
        "site": one.site,
        "role": one.role,
        "key_id": one.key_id,
        "holder": one.holder or None,
        "here": one.is_here,
        "slot": one.slot,
        "threshold": one.threshold,
        "role_keys": one.keys,
        "version": one.version,
        "expires": time_text(one.expires_ms),
        "warning": one.warning,
    }


@trust.command("new-key")
@click.argument("role", type=click.Choice(["root", "targets", "release", "deploy"]))
@click.option(
    "--store", type=click.Choice(["keyring", "file"]), default="keyring", show_default=True, help="Where it is kept."
)
@click.option(
    "--to", "path", type=click.Path(path_type=Path, dir_okay=False), help="A file for a root key, on its own medium."
)
@key_options
@json_option
@click.pass_obj
def new_key(session: Session, role: str, store: str, path: Path | None, as_json: bool) -> None:
    """Make a key for ROLE on this computer; its public half goes to `trust add` or `trust rotate`.

    It counts for nothing before a change that names it is in force. A root key needs --to, outside the workspace.
    """
    from pumpdeck_console.credentials import Source  # deferred: cryptography
    from pumpdeck_console.operations.trust_making import NewKeyRequest, make_key

    source = Source.KEYRING
    if store == "file" or role == "root":
        source = Source.PLAIN_FILE if session.insecure_storage else Source.PROTECTED_FILE
    passphrase = new_passphrase(f"the new {role} key") if source is Source.PROTECTED_FILE else ""
    made = make_key(session.workspace(), NewKeyRequest(role, source, passphrase, path))
    told = {"key_id": made.key_id, "name": made.name, "where": made.where, "public_file": made.public_file}
    write_object(told, as_json=as_json)
    if made.warning:
        say(f"Warning: {made.warning}")


@trust.command("root")
@click.argument("site")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file; without it stdout.")
@click.pass_obj
def root(session: Session, site: str, output: Path | None) -> None:
    """Write the newest root of SITE: what a device is enrolled with."""
    from pumpdeck_console.operations.trust import root_bytes  # deferred: TUF
    from pumpdeck_fleet.core.files import replace_file
    from pumpdeck_fleet.core.words import fingerprint_words

    workspace = session.workspace()
    data = root_bytes(workspace, site=site)
    say(f"Words of this root, for the sheet of paper: {fingerprint_words(data)}")
    if output is None:
        sys.stdout.write(data.decode("utf-8"))
    else:
        replace_file(workspace.fs, output.resolve(), data)
        say(f"Wrote {output}")


def _root_passphrases() -> tuple[str, str, str]:
    first, second, third = (new_passphrase(f"root key {number}, for person {number}") for number in (1, 2, 3))
    return first, second, third
