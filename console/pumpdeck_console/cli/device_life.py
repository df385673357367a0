"""`pumpdeck devices retire` and `history`: the end of a device, and the keys it had."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, show_digest, time_text, write_object, write_rows
from pumpdeck_console.cli.params import ask_to_go_on, yes_option
from pumpdeck_console.cli.session import Session

_HISTORY_COLUMNS = (
    Column("what"),
    Column("key_id", write=show_digest),
    Column("at"),
    Column("counter", right=True),
    Column("package", write=show_digest),
    Column("outcome"),
    Column("note"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("device")
@click.option("--reason", default="", help="Why, for the audit chain.")
@yes_option
@json_option
@click.pass_obj
def retire(session: Session, device: str, reason: str, is_agreed: bool, as_json: bool) -> None:
    """End DEVICE: its key is believed no more, it gets no task, its history stays.

    A device in its place is enrolled as a new one, with a key of its own.
    """
    from pumpdeck_console.operations.retiring import plan_retire  # deferred: the store
    from pumpdeck_console.operations.retiring import retire as end_device

    workspace = session.workspace()
    plan = plan_retire(workspace, device=device)
    if not plan.is_retired:
        say(f"{plan.device} at {plan.site}: key {plan.key_id[:12]} is believed no more; {plan.receipts} receipts stay.")
        if plan.task:
            say(f"Its task {plan.task} of rollout {plan.rollout} is not carried out any more.")
        ask_to_go_on(is_agreed, f"Retire {plan.device}?")
        end_device(workspace, device=device, reason=reason)
    write_object({**dataclasses.asdict(plan), "is_retired": True}, as_json=as_json)


@click.command(cls=WorkspaceCommand)
@click.argument("device")
@json_option
@click.pass_obj
def history(session: Session, device: str, as_json: bool) -> None:
    """Show the keys DEVICE had, the receipts each of them signed, and those that came in too late to be believed."""
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
