"""`pumpdeck explain`: why a pump was alarmed, with the evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import Column, json_option, say, time_text, write_json, write_object, write_rows
from pumpdeck_console.cli.params import WHEN
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.merging import version_word

if TYPE_CHECKING:
    from pumpdeck_console.operations.explaining import Explanation

_CHANNELS = (
    Column("channel"),
    Column("unit"),
    Column("centre", right=True),
    Column("width", right=True),
    Column("votes"),
)


@click.command(cls=WorkspaceCommand)
@click.argument("pump")
@click.option("--at", "at", type=WHEN, default="now", help="The moment: RFC 3339, a day, or so long ago (6h). Else now.")
@json_option
@click.pass_obj
def explain(session: Session, pump: str, at: Callable[[int], int], as_json: bool) -> None:
    """Say which model, limit and calibration judged PUMP at a moment, and what proves it."""
    from pumpdeck_console.operations.explaining import explain as do_explain  # deferred: numpy and TUF

    workspace = session.workspace()
    found = do_explain(workspace, pump=pump, at_ms=at(workspace.clock.now_ms()))
    alarm, package, model, decision = found.alarm, found.package, found.model, found.decision
    told = {
        "pump": found.pump,
        "device": found.device,
        "at": time_text(found.at_ms),
        "alarmed": found.is_alarmed,
        "alarm_since": time_text(alarm.at_ms) if alarm and found.is_alarmed else None,
        "alarm_score": alarm.score if alarm and found.is_alarmed else None,
        "alarm_limit": alarm.limit if alarm and found.is_alarmed else None,
        "channel": alarm.channel if alarm and found.is_alarmed else None,
        "score_at": time_text(found.score_ms),
        "score": found.score,
        "package": package.sha256 if package else None,
        "limit": package.limit if package else None,
        "deadband": package.deadband if package else None,
        "persistence_s": package.persistence_s if package else None,
        "window_s": package.window_s if package else None,
        "model": model.model if model else None,
        "version": version_word(model.number) if model else None,
        "model_type": model.model_type if model else None,
        "foreign": _foreign(found),
        "version_digest": model.content_digest if model else None,
        "limit_from": model.limit_branch if model else None,
        "provisional": model.is_limit_provisional if model else None,
        "snapshot": model.snapshot_digest if model else None,
        "code": model.code_digest if model else None,
        "git_commit": model.git_commit if model else None,
        "seed": model.seed if model else None,
        "receipt": decision.receipt if decision else None,
        "receipt_signed": decision.is_signature_proven if decision else None,
        "installed": time_text(decision.at_ms) if decision else None,
        "rollout": decision.rollout if decision else None,
        "approved_by": list(decision.approved_by) if decision else None,
    }
    channels = [
        {"channel": one.name, "unit": one.unit, "centre": one.centre, "width": one.width, "votes": one.votes}
        for one in (package.channels if package else ())
    ]
    if as_json:
        write_json({**told, "channels": channels, "doubts": list(found.doubts)})
        return
    write_object(told, as_json=False)
    if channels:
        write_rows(channels, _CHANNELS, as_json=False, empty="")
        say("The device moves the centre slowly while the pump is not alarmed; the width and the limit stay as they are.")
    if model and model.origin:
        origin = model.origin
        say(f"This model is foreign: {origin.file} by {origin.made_by}, licence {origin.licence}; score: {origin.meaning}.")
    for doubt in found.doubts:
        say(f"Doubt: {doubt}.")


def _foreign(found: Explanation) -> dict[str, Any] | None:
    """Of a model that was not learned here: where it comes from, and limit and score in its maker's own unit."""
    origin = found.model.origin if found.model else None
    if origin is None:
        return None
    alarm = found.alarm if found.is_alarmed else None
    return {
        "file": origin.file,
        "source": origin.source_digest,
        "made_by": origin.made_by,
        "licence": origin.licence,
        "raw_limit": origin.raw(found.package.limit) if found.package else None,
        "raw_score": origin.raw(alarm.score) if alarm else None,
    }
