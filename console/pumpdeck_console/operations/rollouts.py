"""Rollouts as people use them: the dry run, start, approve, halt, resume, abort, and why a device is not updated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.device_rules import check_permit
from pumpdeck_console.operations.selection import versions_by_type, wanted_devices
from pumpdeck_console.operations.vouching import Circle, seal_chains
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import BusyError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.receipts import NO_TERMS, Terms
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.statements import Kind, Voice, count_people
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store import Store


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan and what it would cost. `slowest_minutes` is the slowest site's time at its bandwidth, None where none is set."""

    plan: RolloutPlan
    bytes_total: int
    slowest_site: str
    slowest_minutes: float | None


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """Where a rollout stands, in plain figures. `not_signed`: why the approval given now counts in this workspace alone."""

    rollout: str
    state: str
    reason: str
    plan_digest: str
    devices: int
    committed: int
    bad: int
    unknown: int
    waves: int
    waves_passed: int
    not_signed: str = ""


@operation("rollout.plan", runs_in="reader")
def plan_new(
    workspace: Workspace, *, query: str = "", models: Mapping[str, str] | None = None, terms: Terms = NO_TERMS
) -> PlanReport:
    """The dry run for all devices that `query` and `models` (model -> number or alias) select; nothing is stored.

    Raises:
        RefusedError: no device can take part, or one needs a permit; says why. NotFoundError, QueryError: as the selection.
    """
    request = _request(workspace, query, models or {}, terms)
    plan = deploy.draft_plan(workspace.store, workspace.fleet, request, workspace.clock.now_ms())
    site, minutes = _slowest(workspace, plan)
    return PlanReport(plan, plan.bytes_total, site, minutes)


@operation("rollout.start", runs_in="worker")
def start(
    workspace: Workspace,
    *,
    query: str = "",
    models: Mapping[str, str] | None = None,
    model: str = "",
    version: str = "",
    terms: Terms = NO_TERMS,
) -> RolloutReport:
    """Freeze a plan: from here on nothing in it can change. It waits for approval and runs once it has enough.

    `model` and `version` are one more entry of `models`. Raises: as `plan_new`.
    """
    chosen = {**(models or {}), **({model: version} if model else {})}
    request = _request(workspace, query, chosen, terms)
    with workspace.store.atomic() as store:
        rollout = deploy.plan(store, workspace.fleet, request, actor=workspace.actor, now_ms=workspace.clock.now_ms())
    return report_of(rollout)


@operation("rollout.approve", runs_in="worker")
def approve(
    workspace: Workspace,
    *,
    rollout_id: str,
    plan_digest: str = "",
    deliver: str = "",
    unheard: bool = False,
    on_progress: Progress = no_progress,
) -> RolloutReport:
    """Say yes to exactly this plan; with enough approvals the rollout runs.

    `unheard`: start in a restored workspace although devices have said nothing since. With `deliver` (`yes`) it is also carried
    out to its end, unless another process is delivering already.

    Raises:
        RefusedError: another plan, or this person has approved before. ConflictError: a device is in another rollout.
    """
    now_ms = workspace.clock.now_ms()
    found = deploy.find_rollout(workspace.store, rollout_id)
    circle = Circle(workspace)
    pen = circle.pen(found.plan.sites)
    if not pen.signers and workspace.policies.trust.signed_approvals:
        hint = "unlock your deploy or release key; policies.toml asks for signed approvals"
        raise RefusedError("cannot be approved without a signature", found.id, found=pen.why, hint=hint)
    with workspace.store.atomic() as store:
        digest = plan_digest or found.plan_digest
        rollout = deploy.approve(store, found.id, digest, actor=workspace.actor, now_ms=now_ms, person=pen.person)
        pen.write(workspace, Kind.APPROVAL, found.id, {"plan": digest, "actor": workspace.actor, "at_ms": str(now_ms)})
        if rollout.state is RolloutState.APPROVED:
            seqs = trust_seqs(workspace, rollout)
            rollout = deploy.start(store, found.id, actor=workspace.actor, now_ms=now_ms, trust_seqs=seqs, unheard=unheard)
        seal_chains(workspace, pen)
    if deliver == "yes" and rollout.state is RolloutState.RUNNING:
        rollout = _carried_out(workspace, found.id, on_progress)
    return replace(report_of(rollout), not_signed=pen.why)


def _carried_out(workspace: Workspace, rollout_id: str, on_progress: Progress) -> Rollout:
    from pumpdeck_console.operations.delivering import tick  # deferred: TUF and SSH, only to carry it out

    with contextlib.suppress(BusyError):
        tick(workspace, until_idle=True, on_progress=on_progress)
    return workspace.store.rollouts.load(rollout_id)


@operation("rollout.halt", runs_in="worker")
def halt(workspace: Workspace, *, rollout_id: str, reason: str) -> RolloutReport:
    """Stop sending; what is on its way still ends."""
    return _person_says(workspace, rollout_id, reason, deploy.halt)


@operation("rollout.resume", runs_in="worker")
def resume(
    workspace: Workspace,
    *,
    rollout_id: str,
    reason: str,
    override: bool = False,
    deliver: str = "",
    on_progress: Progress = no_progress,
) -> RolloutReport:
    """Go on after a halt. `override` lets the next wave open although this one failed; `deliver` as in `approve`.

    Raises:
        GateRefusedError: the wave failed and there is no override.
    """
    report = _person_says(workspace, rollout_id, reason, partial(deploy.resume, override=override))
    return report_of(_carried_out(workspace, report.rollout, on_progress)) if deliver == "yes" else report


@operation("rollout.abort", runs_in="worker")
def abort(workspace: Workspace, *, rollout_id: str, reason: str) -> RolloutReport:
    """End it: what was not handed over is cancelled."""
    return _person_says(workspace, rollout_id, reason, deploy.abort)


@operation("rollout.adopt", runs_in="worker")
def adopt(workspace: Workspace, *, rollout_id: str, reason: str) -> RolloutReport:
    """Drive a rollout here that another workspace drove. That one learns of it at its next sync.

    Raises:
        NotFoundError: no such rollout.
    """
    found = deploy.find_rollout(workspace.store, rollout_id)
    circle = Circle(workspace)
    pen = circle.pen(found.plan.sites)
    with workspace.store.atomic() as store:
        _check_approved(circle, store, found)
        rollout = deploy.adopt(store, found.id, reason, actor=workspace.actor, now_ms=workspace.clock.now_ms())
        epoch = store.rollouts.epoch(found.id)
        pen.write(workspace, Kind.ADOPTION, found.id, {"workspace": store.workspace, "epoch": str(epoch)})
        seal_chains(workspace, pen)
    return replace(report_of(rollout), not_signed=pen.why)


def _check_approved(circle: Circle, store: Store, rollout: Rollout) -> None:
    """Raises: RefusedError: it runs under approvals of which too few are signed by people who stand."""
    if rollout.state in (RolloutState.PLANNED, RolloutState.ABORTED) or rollout.id not in store.rollouts.homes():
        return
    people = []
    for row in store.statements.of(Kind.APPROVAL, rollout.id):
        with contextlib.suppress(PumpdeckError):
            if row.statement.about["plan"] == rollout.plan.digest and rollout.plan.sites <= set(row.statement.sites):
                people.append(Voice(row.statement.about["actor"], circle.statement(row.envelope).person))
    if count_people(people) < rollout.plan.policy.approvals:
        raise RefusedError(
            "is approved by too few people whose signature stands",
            rollout.id,
            expected=rollout.plan.policy.approvals,
            found=count_people(people),
            hint="plan it anew here",
        )


@operation("rollout.list", runs_in="reader")
def list_rollouts(workspace: Workspace) -> tuple[Rollout, ...]:
    """All rollouts, newest first."""
    return tuple(sorted(workspace.store.rollouts.all(), key=lambda one: (-one.plan.created_ms, one.id)))


@operation("rollout.show", runs_in="reader")
def show(workspace: Workspace, *, rollout_id: str) -> Rollout:
    """One rollout, by its name or the beginning of it. Raises: NotFoundError."""
    return deploy.find_rollout(workspace.store, rollout_id)


@dataclass(frozen=True, slots=True)
class Why:
    """Why a device does not run what it should: blocking reasons in order, the first is the one to work on."""

    device: str
    rollout: str
    active_sha256: str
    reasons: tuple[str, ...]


@operation("why", runs_in="reader")
def why(workspace: Workspace, *, device: str) -> Why:
    """The blocking reasons of the device in its newest rollout, or what it lacks to be in one.

    Raises:
        NotFoundError: no such device.
    """
    found = workspace.fleet.device(device)
    active = workspace.store.devices.active().get(found.id, "")
    for rollout in list_rollouts(workspace):
        excluded = {entry.device for entry in rollout.plan.excluded}
        if found.id in rollout.tasks or found.id in excluded:
            blocking, home = rollout.why(found.id), workspace.store.rollouts.homes().get(rollout.id)
            if home and blocking:
                blocking = (f"workspace {home} drives this rollout; here it stands as at the last sync", *blocking)
            return Why(found.id, rollout.id, active, blocking)
    reasons = ["it is in no rollout yet; plan one with: pumpdeck rollout plan"]
    if found.id in workspace.store.devices.retired():
        reasons = ["it is retired; a device in its place is enrolled as a new one"]
    elif workspace.store.devices.identity(found.id) is None:
        reasons.insert(0, f"it is not enrolled; enrol it with: pumpdeck devices enrol {found.id}")
    if not workspace.store.packages.for_device(found.id):
        reasons.insert(0, "there is no package for it; make it with: pumpdeck package build")
    return Why(found.id, "", active, tuple(reasons))


def report_of(rollout: Rollout) -> RolloutReport:
    """The figures of one rollout."""
    counts = [rollout.counts(number) for number in range(len(rollout.waves))]
    return RolloutReport(
        rollout=rollout.id,
        state=rollout.state.value,
        reason=rollout.reason,
        plan_digest=rollout.plan_digest,
        devices=len(rollout.tasks),
        committed=sum(count.committed for count in counts),
        bad=sum(count.bad for count in counts),
        unknown=sum(count.unknown for count in counts),
        waves=len(rollout.waves),
        waves_passed=sum(wave.state.value == "PASSED" for wave in rollout.waves),
    )


def _request(workspace: Workspace, query: str, models: Mapping[str, str], terms: Terms) -> deploy.PlanRequest:
    wanted = wanted_devices(workspace, query=query, models=models)
    if not wanted:
        raise RefusedError("selects no device", "rollout", found=query or "no device in the inventory")
    by_type = versions_by_type(workspace, models)
    types = {pump.type for one in wanted for pump in one.pumps}
    # Only what a person named, when anything was: the rollout then brings that model and leaves the others as they are.
    versions = {
        version.model: version.number
        for pump_type, version in by_type.items()
        if pump_type in types and (not models or version.model in models)
    }
    if not versions:
        raise RefusedError("there is no model version to bring", "rollout", hint="make one with: pumpdeck train")
    check_permit(workspace, [one.device for one in wanted], terms)
    return deploy.PlanRequest(versions, tuple(one.device.id for one in wanted), workspace.policies.rollout, terms)


def trust_seqs(workspace: Workspace, rollout: Rollout) -> dict[str, int]:
    """By device, the highest number its site's repository has used: devices are enrolled to accept nothing below it."""
    by_site = {site: workspace.trust(site).next_seq() - 1 for site in rollout.plan.sites}
    return {task.device: by_site[task.site] for task in rollout.plan.tasks}


def _person_says(workspace: Workspace, rollout_id: str, reason: str, say: Callable[..., Rollout]) -> RolloutReport:
    with workspace.store.atomic() as store:
        found = deploy.find_rollout(store, rollout_id)
        rollout = say(store, found.id, reason, actor=workspace.actor, now_ms=workspace.clock.now_ms())
    return report_of(rollout)


def _slowest(workspace: Workspace, plan: RolloutPlan) -> tuple[str, float | None]:
    by_site: dict[str, int] = {}
    for task in plan.tasks:
        by_site[task.site] = by_site.get(task.site, 0) + task.package_bytes
    slowest: tuple[float, str] | None = None
    for identity, size in by_site.items():
        bandwidth = workspace.fleet.site(identity).bandwidth_kbit_s
        if bandwidth > 0:
            slowest = max(slowest or (0.0, identity), (size * 8 / 1000 / bandwidth / 60, identity))
    return (slowest[1], slowest[0]) if slowest is not None else ("", None)
