"""`pumpdeck devices enrol-stick`, `enrol-intake`, `retire` and `history`: a device's life without a network."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    say,
    say_unsigned,
    show_digest,
    time_text,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import ask_to_go_on, key_options, yes_option
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED, PumpdeckError

_HISTORY_COLUMNS = (
    Column("what"),
    Column("key_id", write=show_digest),
    Column("at"),
    Column("counter", right=True),
    Column("package", write=show_digest),
    Column("outcome"),
    Column("note"),
)


_FORM_COLUMNS = (Column("device"), Column("site"), Column("root_words"))
_ANSWER_COLUMNS = (
    Column("device"),
    Column("key_id", write=show_digest),
    Column("enrolled"),
    Column("words"),
    Column("problem"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("devices", nargs=-1, required=True)
@click.option(
    "--to", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder on the stick."
)
@key_options
@json_option
@click.pass_obj
def enrol_stick(session: Session, devices: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Write enrolment forms for DEVICES onto a stick.

    On the device: pumpdeck-agent enrol --from DIR. Give the root's words along on paper, never on the stick.
    """
    from pumpdeck_console.operations.stick_enrolment import write_forms  # deferred: TUF

    rows = [dataclasses.asdict(row) for row in write_forms(session.workspace(), devices=devices, folder=str(folder))]
    write_rows(rows, _FORM_COLUMNS, as_json=as_json, empty="")
    say(f"At each device: pumpdeck-agent enrol --from {folder.name}. Back here: pumpdeck devices enrol-intake DIR")


@click.command(cls=WorkspaceCommand)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--key-words", "told", multiple=True, metavar="DEVICE=WORDS", help="The words read at the device.")
@click.option("--replace", "replace_identity", is_flag=True, help="The device was replaced: believe its new keys.")
@json_option
@click.pass_obj
def enrol_intake(session: Session, folder: Path, told: tuple[str, ...], replace_identity: bool, as_json: bool) -> int:
    """Enrol the devices that answered on a stick.

    You are shown the words of each key, to compare with those that the device showed.
    Ends with 3 when an answer was refused or not confirmed.
    """
    from pumpdeck_console.operations.stick_enrolment import accept_answer, read_answers  # deferred: TUF

    workspace, words = session.workspace(), dict(text.partition("=")[::2] for text in told)
    rows = []
    for one in read_answers(workspace, folder=str(folder)):
        row: dict[str, Any] = {**dataclasses.asdict(one), "enrolled": False}
        rows.append(row)
        if one.problem:
            continue
        given = words.get(one.device) or _asked(one.device, one.words)
        if not given:
            row["problem"] = "its words were not confirmed"
            continue
        try:
            accept_answer(
                workspace, folder=str(folder), device=one.device, words=given, replace_identity=replace_identity
            )
        except PumpdeckError as error:
            row["problem"] = error.sentence()
        else:
            row["enrolled"] = True
    write_rows(rows, _ANSWER_COLUMNS, as_json=as_json, empty="No device has answered on this stick.")
    return EXIT_REFUSED if any(row["problem"] for row in rows) else 0


def _asked(device: str, words: str) -> str:
    if not sys.stdin.isatty():
        return ""
    say(f"Key of {device}: {words}")
    return words if click.confirm("Did the device show the same words?", err=True) else ""


@click.command(cls=WorkspaceCommand)
@click.argument("device")
@click.option("--reason", default="", help="Why, for the audit chain.")
@yes_option
@key_options
@json_option
@click.pass_obj
def retire(session: Session, device: str, reason: str, is_agreed: bool, as_json: bool) -> None:
    """End DEVICE: its key is believed no more, its history stays.

    It gets no task any more. A device in its place is enrolled as a new one, with a key of its own.
    """
    from pumpdeck_console.operations.retiring import plan_retire  # deferred: the store
    from pumpdeck_console.operations.retiring import retire as end_device

    workspace = session.workspace()
    plan = plan_retire(workspace, device=device)
    if not plan.is_retired:
        say(f"{plan.device} at {plan.site}: key {plan.key_id[:12]} is believed no more; {plan.receipts} receipts stay.")
        if plan.task:
            end = f"ends at the next sync of {plan.driven_by}, which drives it" if plan.driven_by else "ends now"
            say(f"Its task {plan.task} of rollout {plan.rollout} {end}.")
        ask_to_go_on(is_agreed, f"Retire {plan.device}?")
        plan = end_device(workspace, device=device, reason=reason)
        say_unsigned(plan.not_signed, "end of the key")
    write_object({**dataclasses.asdict(plan), "is_retired": True}, as_json=as_json)


@click.command(cls=WorkspaceCommand)
@click.argument("device")
@json_option
@click.pass_obj
def history(session: Session, device: str, as_json: bool) -> None:
    """Show the keys DEVICE had and what each of them signed.

    Receipts that came in after their key had ended stand apart.
    """
    from pumpdeck_console.operations.retiring import device_history  # deferred: the store

    found = device_history(session.workspace(), device=device)
    rows: list[dict[str, Any]] = []
    for key in found.keys:
        ended = f"{key.ended} {time_text(key.ended_ms)}" if key.ended else "counts"
        rows.append({"what": "key", "key_id": key.key_id, "at": time_text(key.enrolled_ms), "note": ended})
    for row in found.receipts:
        rows.append({"what": "receipt", **_receipt(row)})
    for row, reason in found.apart:
        rows.append({"what": "kept apart", **_receipt(row), "note": reason})
    write_rows(rows, _HISTORY_COLUMNS, as_json=as_json, empty="Never enrolled.")


def _receipt(row: Any) -> dict[str, Any]:
    receipt = row.receipt
    return {
        "key_id": row.key_id,
        "at": time_text(row.received_ms),
        "counter": receipt.counter,
        "package": receipt.package_sha256,
        "outcome": receipt.outcome.value,
        "note": receipt.reason,
    }
