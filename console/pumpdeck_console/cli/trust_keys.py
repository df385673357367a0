"""`pumpdeck trust add | remove | rotate | threshold | renew | revoke | sign | show | publish`: one file collects signatures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    say,
    show_digest,
    table,
    time_text,
    write_json,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import ask_to_go_on, key_options, yes_option
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.errors import UsageError

if TYPE_CHECKING:
    from pumpdeck_console.operations.trust_changing import ChangeRequest, ProposalView
    from pumpdeck_packaging.trust_proposal import Proposal

_ROLES = click.Choice(["root", "targets", "release", "deploy"])
_FILE = click.Path(path_type=Path, dir_okay=False)
_LINE_COLUMNS = (
    Column("site"),
    Column("change"),
    Column("role"),
    Column("key_id", write=show_digest),
    Column("holder"),
    Column("words"),
)
_SIGNED_COLUMNS = (Column("site"), Column("kind"), Column("device"), Column("package", write=show_digest), Column("state"))
_EXPOSED_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("link"),
    Column("root", right=True),
    Column("needs_root", right=True),
    Column("targets", right=True),
    Column("needs_targets", right=True),
)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every change of keys takes."""
    for option in (
        json_option,
        key_options,
        yes_option,
        click.option("--root-keys", "root_folder", type=click.Path(path_type=Path, file_okay=False), default=None,
                     help="A folder with root key files that are at hand: they sign now."),
        click.option("--to", "path", type=_FILE, required=True, help="The file that collects the signatures."),
        click.option("--reason", default="", help="Why, for the audit chain and for those who sign."),
        click.option("--site", "sites", multiple=True, help="Only this site; may be given again. Else every site it fits."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=WorkspaceCommand)
@click.argument("role", type=_ROLES)
@click.argument("public_key", type=_FILE)
@click.option("--holder", required=True, help="Who holds it: a person, a medium, a computer.")
@click.option("--person", default="", help="Whose it is: a person, or the beginning of another key of theirs.")
@change_options
@click.pass_obj
def add(session: Session, /, role: str, public_key: Path, holder: str, person: str, **options: Any) -> None:
    """Let the key in PUBLIC_KEY sign for ROLE.

    The file holds PEM or an OpenSSH line, as `trust new-key` writes it. Without --person a release or deploy key is of
    the holder of that name, else of somebody new: one person counts once, however many keys they have.
    """
    from pumpdeck_console.operations.trust_changing import ChangeRequest, NewKey  # deferred: TUF

    key = NewKey(_public_text(public_key), holder, person=person)
    run_change(session, ChangeRequest(role=role, add=(key,), sites=options["sites"], reason=options["reason"]), options)


@click.command(cls=WorkspaceCommand)
@click.argument("role", type=_ROLES)
@click.argument("key")
@change_options
@click.pass_obj
def remove(session: Session, /, role: str, key: str, **options: Any) -> None:
    """Let KEY no longer sign for ROLE.

    KEY is the beginning of its id. For a key in strange hands use: trust revoke.
    """
    from pumpdeck_console.operations.trust_changing import ChangeRequest  # deferred: TUF

    run_change(session, ChangeRequest(role=role, remove=(key,), sites=options["sites"], reason=options["reason"]), options)


@click.command(cls=WorkspaceCommand)
@click.argument("role", type=_ROLES)
@click.argument("key")
@click.argument("public_key", type=_FILE)
@click.option("--holder", required=True, help="Who holds the new key.")
@change_options
@click.pass_obj
def rotate(session: Session, /, role: str, key: str, public_key: Path, holder: str, **options: Any) -> None:
    """Put a new key in the place of KEY for ROLE."""
    from pumpdeck_console.operations.trust_changing import ChangeRequest, NewKey  # deferred: TUF

    new = NewKey(_public_text(public_key), holder)
    request = ChangeRequest(role=role, add=(new,), remove=(key,), sites=options["sites"], reason=options["reason"])
    run_change(session, request, options)


@click.command(cls=WorkspaceCommand)
@click.argument("role", type=click.Choice(["root", "release"]))
@click.argument("number", type=click.IntRange(1, 16))
@change_options
@click.pass_obj
def threshold(session: Session, /, role: str, number: int, **options: Any) -> None:
    """Ask for NUMBER signatures for ROLE: release 2 is four eyes.

    Root never goes below 2.
    """
    from pumpdeck_console.operations.trust_changing import ChangeRequest  # deferred: TUF

    run_change(session, ChangeRequest(role=role, threshold=number, sites=options["sites"], reason=options["reason"]), options)


@click.command(cls=WorkspaceCommand)
@change_options
@click.pass_obj
def renew(session: Session, /, **options: Any) -> None:
    """Sign root, targets and release anew with the same keys."""
    from pumpdeck_console.operations.trust_changing import ChangeRequest  # deferred: TUF

    run_change(session, ChangeRequest(sites=options["sites"], reason=options["reason"], is_renewal=True), options)


@click.command(cls=WorkspaceCommand)
@click.argument("keys", nargs=-1, required=True)
@click.option("--new", "new_keys", multiple=True, metavar="ROLE=PUBLIC_KEY", help="A key in its place; may be given again.")
@click.option("--holder", default="", help="Who holds the new keys.")
@change_options
@click.pass_obj
def revoke(session: Session, /, keys: tuple[str, ...], new_keys: tuple[str, ...], holder: str, **options: Any) -> None:
    """Revoke the KEYS of a lost laptop everywhere, and show what they signed.

    In every role at every site; --new puts other keys in their place where a role would be left without. Packages they
    released that no device was told of are left out. Devices refuse the
    keys from their next contact on.
    """
    from pumpdeck_console.operations.trust_changing import ChangeRequest, NewKey  # deferred: TUF
    from pumpdeck_console.operations.trust_view import signed_by

    workspace, sites = session.workspace(), options["sites"]
    things = [one for key in keys for one in signed_by(workspace, key=key, sites=sites)]
    rows = [dataclasses.asdict(one) for one in things]
    reason = options["reason"] or "lost key"
    pairs = [text.partition("=")[::2] for text in new_keys]
    new = tuple(NewKey(_public_text(Path(path)), holder, role) for role, path in pairs)
    request = ChangeRequest(add=new, remove=keys, sites=sites, reason=reason, is_lost=True)
    run_change(session, request, options, {"signed": rows})
    if not options["as_json"]:
        write_rows(rows, _SIGNED_COLUMNS, as_json=False, empty="Nothing that stands was signed by it.")
        say("Until a device has taken the change it still believes the lost key: pumpdeck trust exposed")


@click.command(cls=WorkspaceCommand)
@click.argument("file", type=_FILE)
@yes_option
@key_options
@json_option
@click.pass_obj
def sign(session: Session, file: Path, is_agreed: bool, as_json: bool) -> None:
    """Sign what stands in FILE with keys you hold.

    Give them with --key-file root-1=PATH; else those of this computer are taken. Works without a workspace. Compare
    the words with the others who sign, and the root's with your sheet of paper.
    """
    from pumpdeck_console.operations import trust_changing as changing  # deferred: TUF
    from pumpdeck_packaging.trust_proposal import sign_proposal

    proposal = changing.read_proposal(file)
    _show(changing.view_proposal(proposal))
    ask_to_go_on(is_agreed, "Do the others read the same words, and do you agree to this change?")
    if session.key_files:
        signers = _given_signers(session)
        signed, done = sign_proposal(proposal, signers, _now_ms())
    else:
        signed = changing.sign_with_own_keys(session.workspace(), proposal)
        done = tuple((site.site, role) for site in signed.sites for role in site.parts if _count(signed) > _count(proposal))
    if signed == proposal:
        raise UsageError("no key here signs anything more in it", file.name, hint="give one with --key-file NAME=PATH")
    changing.write_proposal(file, signed)
    _tell(changing.view_proposal(signed), file, as_json, {"signed": [f"{site} {role}" for site, role in done]})


@click.command(cls=WorkspaceCommand)
@click.argument("file", type=_FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show what FILE would change, who has signed and who has not."""
    from pumpdeck_console.operations.trust_changing import read_proposal, view_proposal  # deferred: TUF

    view = view_proposal(read_proposal(file))
    if not as_json:
        _show(view)
    _tell(view, file, as_json, {})


@click.command(cls=WorkspaceCommand)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@yes_option
@key_options
@json_option
@click.pass_obj
def publish(session: Session, files: tuple[Path, ...], is_agreed: bool, as_json: bool) -> None:
    """Put a change into force once enough people signed.

    Several FILES are copies of one proposal that were signed apart.
    """
    from pumpdeck_console.operations import trust_changing as changing  # deferred: TUF

    workspace = session.workspace()
    proposals = [changing.read_proposal(file) for file in files]
    _show(changing.view_proposal(proposals[0]))
    ask_to_go_on(is_agreed, "Put this change into force?")
    report = changing.publish_proposals(workspace, proposals)
    write_object({"published": dict(report.published), "already": list(report.already)}, as_json=as_json)
    say("Devices take it at their next contact: pumpdeck collect, or a stick. Who has not: pumpdeck trust exposed")


@click.command(cls=WorkspaceCommand)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@yes_option
@json_option
@click.pass_obj
def publish_packages(session: Session, files: tuple[Path, ...], is_agreed: bool, as_json: bool) -> None:
    """Release the packages in FILES that enough people have signed."""
    from pumpdeck_console.operations.releasing import publish_release  # deferred: TUF
    from pumpdeck_console.operations.trust_changing import read_proposal, view_proposal

    _show(view_proposal(read_proposal(files[0])))
    ask_to_go_on(is_agreed, "Release these packages?")
    report = publish_release(session.workspace(), files=[str(file) for file in files])
    rows = [{"device": row.device, "site": row.site, "package": row.sha256} for row in report.packages]
    columns = (Column("device"), Column("site"), Column("package", write=show_digest))
    write_rows(rows, columns, as_json=as_json, empty="Nothing new.")


@click.command(cls=WorkspaceCommand)
@click.option("--site", "sites", multiple=True, help="Only this site; may be given again.")
@json_option
@click.pass_obj
def exposed(session: Session, sites: tuple[str, ...], as_json: bool) -> None:
    """List devices that are not known to have taken the newest keys.

    A key that was revoked since still counts there.
    """
    from pumpdeck_console.operations.trust_contact import exposed as find  # deferred: TUF

    rows = [
        {
            "device": one.device,
            "site": one.site,
            "link": one.link,
            "root": one.root or None,
            "needs_root": one.needs_root,
            "targets": one.targets or None,
            "needs_targets": one.needs_targets,
        }
        for one in find(session.workspace(), sites=sites)
    ]
    write_rows(rows, _EXPOSED_COLUMNS, as_json=as_json, empty="Every enrolled device has the newest keys.")


@click.command(cls=WorkspaceCommand)
@click.argument("site")
@click.argument("key")
@click.argument("holder")
@click.pass_obj
def name(session: Session, site: str, key: str, holder: str) -> None:
    """Write down who holds KEY of SITE.

    "" erases the name. It stays in this workspace and grants nothing.
    """
    from pumpdeck_console.operations.trust_changing import name_holder  # deferred: TUF

    key_id = name_holder(session.workspace(), site=site, key=key, holder=holder)
    say(f"{site} {key_id[:12]}: {holder or 'nobody named'}")


def run_change(session: Session, request: ChangeRequest, options: dict[str, Any], more: dict[str, Any] | None = None) -> None:
    from pumpdeck_console.operations import trust_changing as changing  # deferred: TUF

    workspace, path = session.workspace(), options["path"]
    proposal = changing.make_change(workspace, request)
    _show(changing.view_proposal(proposal))
    ask_to_go_on(options["is_agreed"], f"Write this proposal to {path}?")
    proposal = changing.sign_with_own_keys(workspace, proposal)
    if options["root_folder"] is not None:
        proposal = _signed_by_roots(session, proposal, options["root_folder"])
    changing.write_proposal(path, proposal)
    _tell(changing.view_proposal(proposal), path, options["as_json"], more or {})


def _signed_by_roots(session: Session, proposal: Proposal, folder: Path) -> Proposal:
    from pumpdeck_console.credentials import read_key_file  # deferred: cryptography
    from pumpdeck_packaging.trust_proposal import lacks, sign_proposal

    workspace = session.workspace()
    for path in sorted(folder.glob("*.key")):
        wanted = {key for lack in lacks(proposal) for key in lack.keys}
        signer = read_key_file(workspace.fs, path, workspace.keys.ask_passphrase)
        if signer.key_id in wanted:
            proposal = sign_proposal(proposal, [signer], workspace.clock.now_ms())[0]
    return proposal


def _given_signers(session: Session) -> list[Any]:
    from pumpdeck_console.cli.session import ask_passphrase  # deferred: only a person is asked
    from pumpdeck_console.credentials import read_key_file
    from pumpdeck_fleet.core.files import RealFileSystem

    return [read_key_file(RealFileSystem(), path, ask_passphrase()) for path in session.key_files.values()]


def _now_ms() -> int:
    from pumpdeck_console.wiring import this_clock  # deferred: there may be no workspace, but there is a clock

    return this_clock().now_ms()


def _count(proposal: Proposal) -> int:
    return sum(len(part.signatures) for site in proposal.sites for part in site.parts.values())


def _public_text(path: Path) -> str:
    if not path.is_file():
        raise UsageError("no such file", str(path), expected="a public key, such as deploy.pub")
    text = path.read_text(encoding="ascii", errors="replace")
    if "PRIVATE" in text:
        raise UsageError("is a private key", str(path), expected="its public half, .pub", hint="a private key never travels")
    return text


def _show(view: ProposalView) -> None:
    for line in table(_rows(view), _LINE_COLUMNS, 120).splitlines():
        say(line)
    say(f"Purpose: {view.purpose}; good until {time_text(view.good_until_ms)}")
    for site, words in view.roots.items():
        say(f"Root of {site} before: {words}")
    say(f"This proposal: {view.words}")


def _rows(view: ProposalView) -> list[dict[str, str]]:
    return [
        {
            "site": one.site,
            "change": one.sign,
            "role": one.role,
            "key_id": one.key_id,
            "holder": one.holder,
            "words": one.words,
        }
        for one in view.lines
    ]


def _tell(view: ProposalView, path: Path, as_json: bool, more: dict[str, Any]) -> None:
    waits = [
        {
            "site": one.site,
            "role": one.role,
            "has": one.has,
            "needs": one.needs,
            "keys": [{"key_id": key, "holder": view.holders.get(key, "")} for key in one.keys],
        }
        for one in view.lacks
    ]
    if as_json:
        found = {"file": str(path), "id": view.id, "words": view.words, "complete": not waits, "lacks": waits}
        write_json({**found, "changes": _rows(view), **more})
        return
    for one in view.lacks:
        who = ", ".join(f"{view.holders.get(key, '')} {key[:12]}".strip() for key in one.keys)
        say(f"{one.site} {one.role}: {one.has} of {one.needs} signatures; may still sign: {who}")
    say(f"Complete: pumpdeck trust publish {path}" if not waits else f"Next: pumpdeck trust sign {path}")
