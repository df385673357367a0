"""`pumpdeck devices enrol --install` and `devices upgrade`: the agent itself on devices."""

from __future__ import annotations

from dataclasses import dataclass

import click

from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    show_bytes,
    show_digest,
    write_json,
    write_rows,
)
from pumpdeck_console.cli.params import key_options
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.errors import EXIT_REFUSED, UsageError

_STEP_COLUMNS = (Column("step"), Column("does"), Column("note"))

_UPGRADE_PLAN_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("version"),
    Column("agent", write=show_digest),
    Column("bytes", write=show_bytes, right=True),
    Column("note"),
)
_UPGRADE_COLUMNS = (
    Column("device"),
    Column("version"),
    Column("outcome"),
    Column("sent_bytes", "sent", write=show_bytes, right=True),
    Column("reason"),
)


@click.command("upgrade")
@query_argument
@click.option("--plan", "is_plan", is_flag=True, help="Only show what would be done.")
@key_options
@json_option
@click.pass_obj
def upgrade(session: Session, query: str, is_plan: bool, as_json: bool) -> int:
    """Bring the released agent to the devices with a pump that QUERY selects.

    One device after the other; the first that goes back to its old agent stops the rest. Ends with 3 when one did not take it.
    """
    from pumpdeck_console.operations import upgrading  # deferred: TUF, paramiko

    if is_plan:
        rows = upgrading.plan_upgrade(session.workspace(), query=query)
        plain = [
            {
                "device": row.device,
                "site": row.site,
                "version": row.version,
                "agent": row.sha256,
                "bytes": row.bytes,
                "note": row.note,
            }
            for row in rows
        ]
        write_rows(plain, _UPGRADE_PLAN_COLUMNS, as_json=as_json, empty="")
        return 0
    with ProgressLine() as progress:
        results = upgrading.upgrade_devices(session.workspace(), query=query, on_progress=progress)
    done = [
        {
            "device": one.device,
            "version": one.version,
            "outcome": one.outcome,
            "sent_bytes": one.sent_bytes,
            "reason": one.reason,
        }
        for one in results
    ]
    write_rows(done, _UPGRADE_COLUMNS, as_json=as_json, empty="")
    return 0 if all(one.is_good for one in results) else EXIT_REFUSED


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What `devices enrol --install` was told."""

    device: str
    host_key: str
    login: str
    agent_root: str
    root_words: str
    dry_run: bool
    yes: bool
    as_json: bool


def install_device(session: Session, options: InstallOptions) -> int:
    """Look at the device, show what would be done there, ask, do it, enrol it."""
    from pumpdeck_console.operations import installing  # deferred: TUF, paramiko

    workspace = session.workspace()
    host_key, fingerprint = options.host_key, ""
    if not host_key:
        host_key, fingerprint = installing.first_contact(workspace, device=options.device)
        if options.yes and not workspace.fleet.device(options.device).host_key:
            raise UsageError("--yes needs the host key", "devices enrol", expected="--host-key, compared on the device")
    request = installing.InstallRequest(options.device, host_key, options.login, options.agent_root)
    plan = installing.plan_install(workspace, request)
    say(f"host key     {fingerprint or plan.host_fingerprint}")
    say(f"site root    {plan.root_words}")
    say(f"this device  {plan.target}, logged in as {plan.login}; up to {show_bytes(plan.send_bytes)} to send")
    rows = installing.steps_as_rows(plan.steps)
    if options.dry_run:
        write_rows(rows, _STEP_COLUMNS, as_json=options.as_json, empty="")
        return 0
    for row in rows:
        say(f"  {row['step']:9} {row['does']} ({row['note']})")
    words = options.root_words
    if not options.yes:
        if not options.host_key:
            click.confirm("Does the device itself show this host key?", abort=True, err=True)
        words = words or click.prompt("Type the site root's words from its paper", err=True)
    elif not words:
        raise UsageError("--yes needs the root's words", "devices enrol", expected="--root-words")
    with ProgressLine() as progress:
        report = installing.install(workspace, request, root_words=words, on_progress=progress)
    for text in report.by_hand:
        say(f"Still to be done there: {text}")
    one = report.enrolled
    done = {"device": one.device, "key_id": one.key_id, "new": one.is_new}
    if options.as_json:
        write_json([{**done, "done": list(report.done), "by_hand": list(report.by_hand)}])
    else:
        columns = (Column("device"), Column("key_id", write=show_digest), Column("new"))
        write_rows([done], columns, as_json=False, empty="")
    return 0
