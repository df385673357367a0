"""What an action of the console would do, in words, before anybody says yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.views import PlanView
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, UsageError
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_records import voices_of
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.sizes import size_words
from pumpdeck_fleet.core.statements import count_people

_MOST_REASONS = 5
Planner = Callable[[Workspace, Mapping[str, str]], PlanView]


@operation("view.plan", runs_in="reader")
def plan(workspace: Workspace, name: str, arguments: Mapping[str, str]) -> PlanView:
    """What the operation would do; changes nothing.

    Raises:
        UsageError: this operation is not planned. NotFoundError: it names something that is not there.
    """
    if name not in _PLANNERS:
        raise UsageError("is not an action with a plan", name, expected=", ".join(sorted(_PLANNERS)))
    planner = _PLANNERS[name]
    if isinstance(planner, str):
        found: Planner = import_module(f"pumpdeck_console.operations.{planner}").PLANNERS[name]
        return found(workspace, arguments)
    return planner(workspace, arguments)


def _train(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    pump_type = arguments.get("pump_type", "")
    pumps = [pump for pump in workspace.fleet.pumps if pump.type == pump_type]
    facts = workspace.store.facts()
    rows = sum(facts[pump.id].rows for pump in pumps if pump.id in facts)
    has_pipeline = (workspace.pipelines_path / f"{pump_type}.toml").is_file()
    lines = (
        ("pump type", f"{pump_type}, {len(pumps)} pumps"),
        ("rows held", f"{rows:,}"),
        ("pipeline", f"pipelines/{pump_type}.toml" if has_pipeline else "the built-in defaults"),
        ("result", "a new model version with alias candidate; nothing on a device changes"),
    )
    refusal = "" if rows else "there are no rows of this pump type"
    return PlanView("train", f"Train {pump_type}", lines, f"pumpdeck train {pump_type}", refusal=refusal)


def _rollout_start(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    from pumpdeck_console.operations.rollouts import plan_new  # deferred: only this action needs it

    model, version = arguments.get("model", ""), arguments.get("version", "")
    command = f"pumpdeck rollout start --model {model}={version}"
    title = f"Plan a rollout of {model} v{version}"
    try:
        report = plan_new(workspace, models={model: version})
    except NotFoundError:
        raise
    except PumpdeckError as error:
        return PlanView("rollout.start", title, (), command, refusal=error.sentence())
    lines = [*_plan_lines(report.plan, workspace.fleet), ("then", "it waits for approval: pumpdeck approve")]
    if report.slowest_minutes is not None:
        lines.insert(2, ("slowest site", f"{report.slowest_site}, {report.slowest_minutes:.1f} minutes"))
    return PlanView("rollout.start", title, tuple(lines), command, warnings=_excluded(report.plan))


def _rollout_approve(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    rollout = workspace.store.rollouts.load(arguments.get("rollout_id", ""))
    missing = rollout.plan.policy.approvals - count_people(voices_of(rollout.approvals))
    lines = (*_plan_lines(rollout.plan, workspace.fleet), ("approvals", f"{len(rollout.approvals)}, {missing} missing"))
    refusal = "" if rollout.state is RolloutState.PLANNED else f"it is {rollout.state}, not PLANNED"
    return PlanView(
        "rollout.approve",
        f"Approve rollout {rollout.id}",
        lines,
        f"pumpdeck approve {rollout.id}",
        warnings=_excluded(rollout.plan),
        refusal=refusal,
        arguments=(("plan_digest", rollout.plan_digest), ("deliver", "yes")),
    )


def _plan_lines(plan: RolloutPlan, fleet: Fleet) -> list[tuple[str, str]]:
    sites = plan.sites
    return [
        ("model versions", ", ".join(f"{version.model} v{version_name(version.number)}" for version in plan.versions)),
        (
            "devices",
            f"{len(plan.tasks)} at {len(sites)} of {len(fleet.sites)} sites, {sum(t.pumps for t in plan.tasks)} pumps",
        ),
        ("waves", " then ".join(str(size) for size in plan.wave_sizes)),
        ("bytes", f"{size_words(plan.bytes_total)} in all"),
        ("soak", f"{plan.policy.soak_s:g} s after each wave"),
        ("left out", str(len(plan.excluded)) if plan.excluded else "none"),
        *([("terms", plan.terms.words)] if plan.terms else []),
    ]


def _excluded(plan: RolloutPlan) -> tuple[str, ...]:
    shown = [f"{entry.device}: {entry.reason}" for entry in plan.excluded[:_MOST_REASONS]]
    if len(plan.excluded) > _MOST_REASONS:
        shown.append(f"and {len(plan.excluded) - _MOST_REASONS} more")
    return tuple(shown)


_ELSEWHERE = {
    "bundle_plans": ("bundle.export", "bundle.tar", "bundle.intake", "bundle.lost", "bundle.carry", "bundle.reissue"),
    "model_plans": ("models.promote", "models.demote", "devices.dismiss", "experiments.run"),
    "rollout_plans": ("rollout.halt", "rollout.resume", "rollout.abort", "tick"),
    "upkeep_plans": ("backup", "backup.verify", "trip.return"),
}
"""Modules with planners, imported when the first of them is asked for: the console starts without."""
_PLANNERS: Mapping[str, Planner | str] = {
    **{name: module for module, names in _ELSEWHERE.items() for name in names},
    "train": _train,
    "rollout.start": _rollout_start,
    "rollout.approve": _rollout_approve,
}
