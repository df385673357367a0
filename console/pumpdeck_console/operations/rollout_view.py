"""Models, rollouts, the audit chain and the link as views for screens."""

from __future__ import annotations

import numpy as np

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.models import list_models
from pumpdeck_console.operations.query_rows import model_facts
from pumpdeck_console.operations.runs import RunRow, list_runs
from pumpdeck_console.operations.views import (
    NEVER,
    AuditCheck,
    AuditView,
    LinkView,
    ModelsView,
    ModelVersionRow,
    RolloutDetail,
    RolloutRow,
    RolloutsView,
    TrainingRunRow,
    WaveRow,
    Words,
)
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.audit import AuditBrokenError
from pumpdeck_fleet.core.registry import Origin
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import GOOD, TaskState, WaveState

_SENT = GOOD | {TaskState.STAGED, TaskState.TRIAL, TaskState.ROLLED_BACK}


@operation("view.models", runs_in="reader")
def models_view(workspace: Workspace) -> ModelsView:
    """Model versions, training runs and the pump types of the fleet."""
    versions = tuple(
        ModelVersionRow(
            model=row.version.model,
            pump_type=row.version.pump_type,
            version=row.version.number,
            aliases=tuple(alias.value for alias in row.aliases),
            digest=row.version.content_digest,
            created_ms=row.version.created_ms,
            gates=tuple((gate.name, gate.verdict.value, gate.reason) for gate in row.version.gates),
            metrics=tuple(sorted(row.version.metrics.items())),
            pumps=row.pumps_running,
            notes=row.version.note,
            origin=_origin(row.version.origin),
            facts=model_facts(row),
        )
        for row in list_models(workspace)
    )
    newest = tuple(sorted(versions, key=lambda row: (-row.created_ms, row.model, -row.version)))
    runs = tuple(_run(row) for row in list_runs(workspace, limit=200))
    types = tuple(sorted({pump.type for pump in workspace.fleet.pumps}))
    return ModelsView(workspace.clock.now_ms(), newest, runs, types)


def _origin(origin: Origin | None) -> tuple[str, ...]:
    if origin is None:
        return ()
    return (f"{origin.file} by {origin.made_by}", f"licence {origin.licence}", origin.says, f"score: {origin.meaning}")


def _run(row: RunRow) -> TrainingRunRow:
    return TrainingRunRow(
        run_id=row.run, model=row.model, state="done",
        trigger="request" if row.kind == "trained" else "import", started_ms=row.at_ms, ended_ms=row.at_ms,
        result=f"v{row.version} {row.reason}".strip(),
    )  # fmt: skip


@operation("view.rollouts", runs_in="reader")
def rollouts_view(workspace: Workspace) -> RolloutsView:
    """All rollouts, newest first."""
    rollouts = sorted(workspace.store.rollouts.all(), key=lambda one: (-one.plan.created_ms, one.id))
    return RolloutsView(workspace.clock.now_ms(), tuple(_rollout_row(rollout) for rollout in rollouts))


@operation("view.rollout", runs_in="reader")
def rollout_detail(workspace: Workspace, *, rollout_id: str) -> RolloutDetail:
    """One rollout with its waves and device tasks. Raises: NotFoundError."""
    rollout = workspace.store.rollouts.load(rollout_id)
    planned = rollout.plan.tasks
    tasks = [rollout.tasks[entry.device] for entry in planned]
    sent = [entry.package_bytes if rollout.tasks[entry.device].state in _SENT else 0 for entry in planned]
    return RolloutDetail(
        as_of_ms=workspace.clock.now_ms(),
        rollout=_rollout_row(rollout),
        plan_hash=rollout.plan_digest,
        waves=tuple(_wave_row(rollout, number) for number in range(len(rollout.waves))),
        devices=tuple(entry.device for entry in planned),
        sites=Words.of(entry.site for entry in planned),
        wave=np.array([entry.wave + 1 for entry in planned], dtype=np.int32),
        states=Words.of(task.state.value for task in tasks),
        reasons=tuple("; ".join(rollout.why(task.device)[:1]) for task in tasks),
        sent_bytes=np.array(sent, dtype=np.int64),
        total_bytes=np.array([entry.package_bytes for entry in planned], dtype=np.int64),
        changed_ms=np.array([task.changed_ms or NEVER for task in tasks], dtype=np.int64),
    )


def _rollout_row(rollout: Rollout) -> RolloutRow:
    counts = [rollout.counts(number) for number in range(len(rollout.waves))]
    versions = rollout.plan.versions
    return RolloutRow(
        rollout_id=rollout.id,
        model=versions[0].model if len(versions) == 1 else f"{len(versions)} models",
        version=versions[0].number if len(versions) == 1 else 0,
        state=rollout.state.value,
        reason=rollout.reason,
        waves=len(rollout.waves),
        waves_passed=sum(wave.state is WaveState.PASSED for wave in rollout.waves),
        devices=len(rollout.tasks),
        committed=sum(count.committed for count in counts),
        bad=sum(count.bad for count in counts),
        unknown=sum(count.unknown for count in counts),
        created_ms=rollout.plan.created_ms,
        changed_ms=rollout.changed_ms,
        actor=rollout.approvals[-1].actor if rollout.approvals else "",
    )


def _wave_row(rollout: Rollout, number: int) -> WaveRow:
    wave, counts = rollout.waves[number], rollout.counts(number)
    return WaveRow(
        number=number + 1,
        state=wave.state.value,
        devices=counts.size,
        committed=counts.committed,
        bad=counts.bad,
        unknown=counts.unknown,
        needed=rollout.limits(number).needed,
        soak_until_ms=wave.soak_until_ms or NEVER,
    )


@operation("view.audit", runs_in="reader")
def audit_view(workspace: Workspace, *, query: str = "", limit: int = 2_000) -> AuditView:
    """The newest entries in which every word of `query` occurs, newest first."""
    from pumpdeck_console.operations.audit import list_audit  # deferred: the other views do without

    head = workspace.store.audit.head()
    rows = list(reversed(list_audit(workspace, words=query, limit=limit)))
    entries = [row.entry for row in rows]
    return AuditView(
        as_of_ms=workspace.clock.now_ms(),
        total=head.position,
        head=head.digest if head.position else "",
        positions=np.array([entry.position for entry in entries], dtype=np.int64),
        at_ms=np.array([entry.at_ms for entry in entries], dtype=np.int64),
        actors=Words.of(row.name or row.entry.actor for row in rows),
        actions=Words.of(entry.action for entry in entries),
        subjects=tuple(entry.subject for entry in entries),
        reasons=tuple(entry.reason for entry in entries),
        digests=tuple(entry.digest for entry in entries),
    )


@operation("view.audit_check", runs_in="reader")
def audit_check(workspace: Workspace) -> AuditCheck:
    """Whether every link of every chain holds, computed anew; a broken chain is an answer and not an error."""
    try:
        head = workspace.store.audit.verify()
    except AuditBrokenError as error:
        return AuditCheck(workspace.clock.now_ms(), holds=False, entries=0, head="", sentence=error.sentence())
    return AuditCheck(workspace.clock.now_ms(), holds=True, entries=head.position, head=head.digest)


@operation("view.link", runs_in="reader")
def link_view(workspace: Workspace) -> LinkView:
    """How many devices were heard of within the staleness limit, and how many commands wait."""
    now_ms = workspace.clock.now_ms()
    oldest_ms = now_ms - workspace.policies.health.stale_after_s * 1000
    statuses = workspace.store.devices.statuses()
    reached = sum(row.at_ms >= oldest_ms for row in statuses.values())
    return LinkView(now_ms, len(workspace.fleet.devices), reached, len(workspace.store.outbox.waiting()))
