"""`pumpdeck rollout`, `approve` and `why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import LazyGroup, WorkspaceCommand
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    say_unsigned,
    show_digest,
    time_text,
    write_json,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import key_options, models_option, terms_options
from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.merging import version_name

if TYPE_CHECKING:
    from pumpdeck_console.operations.rollouts import PlanReport, RolloutReport
    from pumpdeck_fleet.core.receipts import Terms
    from pumpdeck_fleet.core.rollout import Rollout

_COLUMNS = (
    Column("rollout"),
    Column("state"),
    Column("versions"),
    Column("devices", right=True),
    Column("committed", right=True),
    Column("bad", right=True),
    Column("unknown", right=True),
    Column("waves"),
    Column("created"),
    Column("reason"),
)
_PLAN_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("wave", right=True),
    Column("package", write=show_digest),
    Column("bytes", right=True),
    Column("pumps", right=True),
    Column("left_out"),
)
_TASK_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("wave", right=True),
    Column("state"),
    Column("package", write=show_digest),
    Column("seq", right=True),
    Column("changed"),
    Column("why"),
)


@click.group(cls=LazyGroup)
def rollout() -> None:
    """Plan, start, list, show, halt, resume or abort rollouts."""


@rollout.command("plan")
@query_argument
@models_option
@terms_options
@json_option
@click.pass_obj
def plan(session: Session, query: str, models: tuple[str, ...], as_json: bool, terms: Terms) -> None:
    """Show what a rollout would do: which devices, which packages, in which waves, who is left out and why.

    Nothing is stored or sent. Without --model it brings the candidate of every pump type, else its champion.
    """
    from pumpdeck_console.operations.rollouts import plan_new  # deferred: the rollout core
    from pumpdeck_console.operations.selection import parse_models

    report = plan_new(session.workspace(), query=query, models=parse_models(models), terms=terms)
    write_rows(_plan_rows(report), _PLAN_COLUMNS, as_json=as_json, empty="")
    say(_plan_words(report))


@rollout.command("start")
@query_argument
@models_option
@terms_options
@json_option
@click.pass_obj
def start(session: Session, query: str, models: tuple[str, ...], as_json: bool, terms: Terms) -> None:
    """Freeze the plan that `rollout plan` shows and ask for approval; it runs once it has enough."""
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core
    from pumpdeck_console.operations.selection import parse_models

    report = operations.start(session.workspace(), query=query, models=parse_models(models), terms=terms)
    _write_report(report, as_json)
    say(f"Planned. Look at it: pumpdeck rollout show {report.rollout}. Then: pumpdeck approve {report.rollout}")


@rollout.command("list")
@query_argument
@json_option
@click.pass_obj
def list_rollouts(session: Session, query: str, as_json: bool) -> None:
    """List rollouts in which all words of QUERY occur, newest first."""
    from pumpdeck_console.operations.rollouts import list_rollouts as listed  # deferred: the rollout core

    words = query.lower().split()
    rows = [_rollout(one) for one in listed(session.workspace())]
    chosen = [row for row in rows if all(word in " ".join(map(str, row.values())).lower() for word in words)]
    write_rows(chosen, _COLUMNS, as_json=as_json, empty="No rollout. Plan one with: pumpdeck rollout plan")


@rollout.command("show")
@click.argument("rollout_id", metavar="ROLLOUT")
@json_option
@click.pass_obj
def show(session: Session, rollout_id: str, as_json: bool) -> None:
    """Show one ROLLOUT (its name or the beginning of it) with its waves and device tasks."""
    from pumpdeck_console.operations.rollouts import show as found  # deferred: the rollout core

    one = found(session.workspace(), rollout_id=rollout_id)
    tasks = _task_rows(one)
    if as_json:
        write_json({**_rollout(one), "plan_digest": one.plan_digest, "tasks": tasks})
        return
    write_object({**_rollout(one), "plan_digest": one.plan_digest}, as_json=False)
    write_rows(tasks, _TASK_COLUMNS, as_json=False, empty="")


@rollout.command("halt")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--reason", required=True, help="Why; goes into the audit chain.")
@json_option
@click.pass_obj
def halt(session: Session, rollout_id: str, reason: str, as_json: bool) -> None:
    """Stop sending; what is on its way still ends."""
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core

    _write_report(operations.halt(session.workspace(), rollout_id=rollout_id, reason=reason), as_json)


@rollout.command("resume")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--reason", required=True, help="Why; goes into the audit chain.")
@click.option("--override", is_flag=True, help="Let the next wave open although this one failed.")
@json_option
@click.pass_obj
def resume(session: Session, rollout_id: str, reason: str, override: bool, as_json: bool) -> None:
    """Go on after a halt."""
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core

    report = operations.resume(session.workspace(), rollout_id=rollout_id, reason=reason, override=override)
    _write_report(report, as_json)


@rollout.command("abort")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--reason", required=True, help="Why; goes into the audit chain.")
@json_option
@click.pass_obj
def abort(session: Session, rollout_id: str, reason: str, as_json: bool) -> None:
    """End a rollout: what was not handed over is cancelled."""
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core

    _write_report(operations.abort(session.workspace(), rollout_id=rollout_id, reason=reason), as_json)


@rollout.command("adopt")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--reason", required=True, help="Why it is taken over; stands in the audit chain.")
@key_options
@json_option
@click.pass_obj
def adopt(session: Session, rollout_id: str, reason: str, as_json: bool) -> None:
    """Drive a rollout here that another workspace drove, as when its laptop is lost."""
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core

    report = operations.adopt(session.workspace(), rollout_id=rollout_id, reason=reason)
    _write_report(report, as_json)
    say_unsigned(report.not_signed, "change of driver")


@click.command(cls=WorkspaceCommand)
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--plan-digest", default="", help="Approve only when the plan has this digest.")
@click.option("--unheard", is_flag=True, help="After a restore: although devices have said nothing since.")
@key_options
@json_option
@click.pass_obj
def approve(session: Session, rollout_id: str, plan_digest: str, unheard: bool, as_json: bool) -> None:
    """Approve the plan of a ROLLOUT; with enough approvals it runs.

    The approval is signed with your deploy or release key, so that it counts in every workspace.
    """
    from pumpdeck_console.operations import rollouts as operations  # deferred: the rollout core

    report = operations.approve(session.workspace(), rollout_id=rollout_id, plan_digest=plan_digest, unheard=unheard)
    _write_report(report, as_json)
    if report.state == "RUNNING":
        say("Approved and running. Carry it out with: pumpdeck tick --until-idle")
    else:
        say("Approved; it needs another person's approval.")
    say_unsigned(report.not_signed, "approval")


@click.command(cls=WorkspaceCommand)
@click.argument("device")
@json_option
@click.pass_obj
def why(session: Session, device: str, as_json: bool) -> None:
    """Say why DEVICE does not run what it should, the first reason first."""
    from pumpdeck_console.operations.rollouts import why as ask  # deferred: the rollout core

    answer = ask(session.workspace(), device=device)
    rows = [
        {"device": answer.device, "rollout": answer.rollout or None, "order": number, "reason": reason}
        for number, reason in enumerate(answer.reasons, 1)
    ]
    columns = (Column("order", "no", right=True), Column("reason"), Column("rollout"))
    runs = f"it runs package {answer.active_sha256[:12]}" if answer.active_sha256 else "it runs no package"
    write_rows(
        rows, columns, as_json=as_json, empty=f"Nothing blocks {answer.device}: {runs}, as its newest rollout says."
    )


def _write_report(report: RolloutReport, as_json: bool) -> None:
    write_object(
        {
            "rollout": report.rollout,
            "state": report.state,
            "reason": report.reason,
            "plan_digest": report.plan_digest,
            "devices": report.devices,
            "committed": report.committed,
            "bad": report.bad,
            "unknown": report.unknown,
            "waves": report.waves,
            "waves_passed": report.waves_passed,
        },
        as_json=as_json,
    )


def _plan_rows(report: PlanReport) -> list[dict[str, Any]]:
    tasks = [
        {
            "device": task.device,
            "site": task.site,
            "wave": task.wave + 1,
            "package": task.package_sha256,
            "bytes": task.package_bytes,
            "pumps": task.pumps,
            "left_out": "",
        }
        for task in report.plan.tasks
    ]
    return [*tasks, *({"device": entry.device, "left_out": entry.reason} for entry in report.plan.excluded)]


def _plan_words(report: PlanReport) -> str:
    plan = report.plan
    versions = ", ".join(f"{version.model} v{version_name(version.number)}" for version in plan.versions)
    words = (
        f"{versions} on {len(plan.tasks)} devices in {len(plan.wave_sizes)} waves, {report.bytes_total / 1000:.0f} kB"
    )
    if report.slowest_minutes is not None:
        words += f", at most {report.slowest_minutes:.1f} minutes ({report.slowest_site})"
    if plan.terms is not None:
        words += f"; {plan.terms.words}"
    return f"{words}; {len(plan.excluded)} left out. Freeze it with: pumpdeck rollout start"


def _rollout(one: Rollout) -> dict[str, Any]:
    counts = [one.counts(number) for number in range(len(one.waves))]
    return {
        "rollout": one.id,
        "state": one.state.value,
        "kind": one.plan.kind.value,
        "versions": ", ".join(f"{version.model} v{version_name(version.number)}" for version in one.plan.versions),
        "devices": len(one.tasks),
        "committed": sum(count.committed for count in counts),
        "bad": sum(count.bad for count in counts),
        "unknown": sum(count.unknown for count in counts),
        "left_out": len(one.plan.excluded),
        "waves": ",".join(
            f"{wave.state.value}:{size}" for wave, size in zip(one.waves, one.plan.wave_sizes, strict=True)
        ),
        "approvals": len(one.approvals),
        "created": time_text(one.plan.created_ms),
        "changed": time_text(one.changed_ms),
        "reason": one.reason,
    }


def _task_rows(one: Rollout) -> list[dict[str, Any]]:
    rows = []
    for planned in one.plan.tasks:
        task = one.tasks[planned.device]
        reasons = one.why(planned.device)
        rows.append(
            {
                "device": planned.device,
                "site": planned.site,
                "wave": planned.wave + 1,
                "task": task.id,
                "state": task.state.value,
                "package": planned.package_sha256,
                "seq": task.seq or None,
                "attempts": task.attempts,
                "receipt": task.receipt_digest or None,
                "changed": time_text(task.changed_ms or None),
                "why": reasons[0] if reasons else "",
            }
        )
    return rows
