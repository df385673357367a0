"""What the actions on model versions and on retrain requests would do, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pumpdeck_console.operations import overriding
from pumpdeck_console.operations.models import find_version, running_by_version
from pumpdeck_console.operations.views import PlanView
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.registry import Alias, ModelVersion

_MOST = 6


def plan_promote(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`models.promote {model, which, reason}`. Raises: NotFoundError."""
    model, which = arguments.get("model", ""), arguments.get("which", "")
    version = find_version(workspace, model, which)
    aliases = workspace.store.registry.aliases(model)
    champion, name = aliases.get(Alias.CHAMPION, 0), version_name(version.number)
    running = running_by_version(workspace).get((model, version.number), 0)
    lines = [
        ("champion", f"{_named(champion)} -> v{name}"),
        ("previous", f"{_named(aliases.get(Alias.PREVIOUS, 0))} -> {_named(champion or aliases.get(Alias.PREVIOUS, 0))}"),
        ("quality gates", _gates(version)),
        ("runs on", f"{running} pumps; no device changes by this: a rollout brings it there"),
    ]
    command = f'pumpdeck models promote {model} {name} --reason "..."'
    title = f"Make {model} v{name} the champion"
    if champion == version.number:
        return PlanView("models.promote", title, tuple(lines), command, refusal="it is the champion already")
    warnings = []
    if champion and version.judged_against != champion:
        against = f"v{version_name(version.judged_against)}" if version.judged_against else "no champion"
        warnings.append(f"it was judged against {against}, not {_named(champion)}: compare them first")
    missing = overriding.missing(workspace, version)
    if missing:
        return _override(title, lines, (version, missing, champion), command)
    return PlanView("models.promote", title, tuple(lines), command, warnings=tuple(warnings))


def _override(
    title: str, lines: list[tuple[str, str]], refused: tuple[ModelVersion, int, int], command: str
) -> PlanView:
    version, missing, champion = refused
    reasons = tuple(f"{gate.name}: {gate.reason}" for gate in version.refusals[:_MOST])
    if any(gate.name in overriding.NEVER_OVERRIDDEN for gate in version.refusals):
        return PlanView("models.promote", title, tuple(lines), command, refusal=reasons[0])
    people = "1 more person" if missing == 1 else f"{missing} people"
    last = "yours is the last word that is needed" if missing == 1 else f"yours is noted; {_named(champion)} stays champion"
    lines.append(("override", f"{people} must say so with a reason; {last}"))
    return PlanView(
        "models.promote", f"{title} although a gate refused it", tuple(lines), f"{command} --override",
        warnings=tuple(f"refused: {reason}" for reason in reasons), arguments=(("override", True),),
    )  # fmt: skip


def plan_demote(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`models.demote {model, reason}`."""
    model = arguments.get("model", "")
    command, title = f'pumpdeck models rollback {model} --reason "..."', f"Take {model} back"
    try:
        champion = find_version(workspace, model, Alias.CHAMPION)
        previous = find_version(workspace, model, Alias.PREVIOUS)
    except NotFoundError as error:
        return PlanView("models.demote", title, (), command, refusal=error.sentence())
    running = running_by_version(workspace)
    lines = (
        ("champion", f"{_named(champion.number)} -> {_named(previous.number)}"),
        ("previous", f"{_named(previous.number)} -> {_named(champion.number)}; the same again undoes it"),
        ("runs on", f"{running.get((model, champion.number), 0)} pumps run {_named(champion.number)} and go on doing so"),
        ("then", f"pumpdeck rollout plan --model {model}={version_name(previous.number)}"),
    )
    refusal = "champion and previous are the same version" if champion.number == previous.number else ""
    return PlanView("models.demote", f"{title} to {_named(previous.number)}", lines, command, refusal=refusal)


def plan_experiment(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`experiments.run {name}`."""
    name = arguments.get("name", "")
    path = workspace.root / "experiments" / f"{name}.toml"
    lines = (
        ("experiment", f"{name}, experiments/{name}.toml"),
        ("result", "a run record to compare; no version is registered and no alias moves"),
        ("cached", "what it shares with other runs is not computed again"),
    )
    refusal = "" if path.is_file() else "there is no such experiment"
    return PlanView("experiments.run", f"Train {name}", lines, f"pumpdeck experiments run {name}", refusal=refusal)


def plan_dismiss(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`devices.dismiss {pump, reason}`."""
    pump = workspace.fleet.pump(arguments.get("pump", ""))
    asked = workspace.store.retraining.open((pump.id,))
    lines = (
        ("pump", f"{pump.id}, {pump.type}"),
        ("asked for", "; ".join(sorted({entry.reason for entry in asked})) or "nothing"),
        ("closes", f"{len(asked)} requests; nothing is trained"),
    )
    command = f'pumpdeck devices dismiss {pump.id} --reason "..."'
    refusal = "" if asked else "nothing is asked for it any more"
    return PlanView("devices.dismiss", f"Dismiss what is asked for {pump.tag}", lines, command, refusal=refusal)


def _gates(version: ModelVersion) -> str:
    if not version.gates:
        return "none"
    worst = [f"{gate.name} {gate.verdict.value}" for gate in version.gates if gate.verdict.value != "pass"]
    return ", ".join(worst) or f"all {len(version.gates)} pass"


def _named(number: int) -> str:
    return f"v{version_name(number)}" if number else "none"


MODEL_PLANNERS: Mapping[str, Callable[[Workspace, Mapping[str, str]], PlanView]] = {
    "models.promote": plan_promote,
    "models.demote": plan_demote,
    "devices.dismiss": plan_dismiss,
    "experiments.run": plan_experiment,
}
