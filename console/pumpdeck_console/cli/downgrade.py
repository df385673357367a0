"""`pumpdeck trust downgrade`: two people let one device go back to one older package, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import Column, json_option, say, show_digest, time_text, write_object, write_rows
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import Session

if TYPE_CHECKING:
    from pumpdeck_console.operations.downgrading import DowngradeReport
    from pumpdeck_fleet.core.receipts import DowngradeWord

_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("package", write=show_digest),
    Column("until_seq", right=True),
    Column("made"),
    Column("reason"),
)
_FILE = click.Path(path_type=Path, dir_okay=False)
_root_key_option = click.option(
    "--root-key", type=_FILE, help="Sign with this root key file instead of this computer's deploy key."
)


@click.group(cls=LazyGroup)
def downgrade() -> None:
    """Let one device go back to an older package, once: two people sign, on two computers."""


@downgrade.command("ask")
@click.argument("device")
@click.option("--package", required=True, help="The older package: its digest, or the beginning of it.")
@click.option("--reason", required=True, help="Why; stands in the word and in the audit chain.")
@click.option("--to", "file", type=_FILE, required=True, help="The file for the second person.")
@click.option(
    "--steps",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="How many signings of the site's metadata the word outlives.",
)
@_root_key_option
@key_options
@json_option
@click.pass_obj
def ask(session: Session, /, as_json: bool, root_key: Path | None, **what: Any) -> None:
    """Make the word for DEVICE and sign it as the first person."""
    from pumpdeck_console.operations import downgrading  # deferred: TUF

    request = downgrading.DowngradeRequest(root_key=root_key and root_key.absolute(), **_absolute(what))
    report = downgrading.ask(session.workspace(), request)
    _write(report, as_json)
    say(f"Give {report.file} to a second person: pumpdeck trust downgrade sign {report.file}")


@downgrade.command("sign")
@click.argument("file", type=_FILE)
@_root_key_option
@click.option("--yes", is_flag=True, help="Do not ask; the word was read.")
@key_options
@json_option
@click.pass_obj
def sign(session: Session, file: Path, root_key: Path | None, yes: bool, as_json: bool) -> None:
    """Read the word in FILE and sign it as the second person."""
    from pumpdeck_console.operations import downgrading  # deferred: TUF

    workspace, path = session.workspace(), file.absolute()
    word = downgrading.look(workspace, path).word
    say(f"{word.device} at {word.site} may go back to package {word.package_sha256[:12]}, once: {word.reason}")
    if not yes:
        click.confirm("Sign this?", abort=True, err=True)
    report = downgrading.sign(workspace, path, root_key and root_key.absolute())
    _write(report, as_json)
    say(f"Signed by {len(report.signers)}. Take it in where you deliver from: pumpdeck trust downgrade take {file}")


@downgrade.command("take")
@click.argument("file", type=_FILE)
@json_option
@click.pass_obj
def take(session: Session, file: Path, as_json: bool) -> None:
    """Take FILE in; the next rollout of its package to its device carries it."""
    from pumpdeck_console.operations import downgrading  # deferred: TUF

    report = downgrading.take(session.workspace(), file.absolute())
    _write(report, as_json)
    say("Kept. Plan a rollout that brings that package to that device; the device uses the word up.")


@downgrade.command("list")
@json_option
@click.pass_obj
def list_words(session: Session, as_json: bool) -> None:
    """List the words that wait for a rollout."""
    from pumpdeck_console.operations.downgrading import waiting  # deferred: TUF

    rows = [_row(word) for word in waiting(session.workspace())]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="No word waits. Make one with: pumpdeck trust downgrade ask")


def _absolute(what: dict[str, Any]) -> dict[str, Any]:
    return {**what, "file": what["file"].absolute()}


def _row(word: DowngradeWord) -> dict[str, Any]:
    return {
        "device": word.device,
        "site": word.site,
        "package": word.package_sha256,
        "until_seq": word.until_seq,
        "made": time_text(word.made_ms),
        "reason": word.reason,
    }


def _write(report: DowngradeReport, as_json: bool) -> None:
    row = _row(report.word) | {"file": report.file, "signers": list(report.signers), "missing": report.missing}
    write_object(row, as_json=as_json)
