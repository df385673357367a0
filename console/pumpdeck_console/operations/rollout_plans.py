"""What the actions on a rollout under way would do, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pumpdeck_console.operations.views import PlanView
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import GOOD, ROLLOUT_MOVES, UNSENT, RolloutState, TaskState, WaveState


def plan_halt(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`rollout.halt {rollout_id, reason}`."""
    rollout = workspace.store.rollouts.load(arguments.get("rollout_id", ""))
    lines = (
        ("rollout", f"{rollout.id}, {rollout.state}"),
        ("under way", f"{_under_way(rollout)} devices hold an assignment and will end it"),
        ("stops", "nothing more is sent until it is resumed"),
    )
    refusal = "" if rollout.state is RolloutState.RUNNING else f"it is {rollout.state}, not RUNNING"
    command = f'pumpdeck rollout halt {rollout.id} --reason "..."'
    return PlanView("rollout.halt", f"Halt rollout {rollout.id}", lines, command, refusal=refusal)


def plan_resume(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`rollout.resume {rollout_id, reason}`; a failed wave needs the override, which the plan then says and sends."""
    rollout = workspace.store.rollouts.load(arguments.get("rollout_id", ""))
    title, command = f"Resume rollout {rollout.id}", f'pumpdeck rollout resume {rollout.id} --reason "..."'
    waiting = sum(task.state in UNSENT | {TaskState.WAIT_COURIER} for task in rollout.tasks.values())
    lines = [
        ("rollout", f"{rollout.id}, {rollout.state}"),
        ("halted", rollout.reason or "no reason given"),
        ("goes on with", f"{waiting} devices that were not reached yet; {_good(rollout)} are done"),
    ]
    if rollout.state is not RolloutState.HALTED:
        return PlanView("rollout.resume", title, tuple(lines), command, refusal=f"it is {rollout.state}, not HALTED")
    number = rollout.current_wave
    if rollout.waves[number].state is not WaveState.FAILED:
        return PlanView("rollout.resume", title, tuple(lines), command, arguments=(("deliver", "yes"),))
    counts, limits = rollout.counts(number), rollout.limits(number)
    story = f"wave {number + 1} failed: {counts.committed} of {counts.size} committed, {limits.needed} needed, {counts.bad} bad"
    lines.append(("override", "the next wave opens although this one failed; your reason is kept in the audit chain"))
    return PlanView(
        "rollout.resume", title, tuple(lines), f"{command} --override", warnings=(story,),
        arguments=(("override", True), ("deliver", "yes")),
    )  # fmt: skip


def plan_abort(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`rollout.abort {rollout_id, reason}`."""
    rollout = workspace.store.rollouts.load(arguments.get("rollout_id", ""))
    unassigned = sum(task.is_live and not task.assign_ms for task in rollout.tasks.values())
    lines = (
        ("rollout", f"{rollout.id}, {rollout.state}"),
        ("cancelled", f"{unassigned} devices that hold no assignment yet"),
        ("under way", f"{_under_way(rollout)} devices hold an assignment and will end it"),
        ("stays", f"{_good(rollout)} devices keep what they run now"),
        ("for good", "an aborted rollout cannot be resumed; a new one can be planned"),
    )
    may = RolloutState.ABORTED in ROLLOUT_MOVES[rollout.state]
    refusal = "" if may else f"it is {rollout.state} and has ended already"
    command = f'pumpdeck rollout abort {rollout.id} --reason "..."'
    return PlanView("rollout.abort", f"Abort rollout {rollout.id}", lines, command, refusal=refusal)


def plan_tick(workspace: Workspace, _arguments: Mapping[str, str]) -> PlanView:
    """`tick`: what is due is carried out once and what devices answered is fetched."""
    states = workspace.store.rollouts.states()
    moving = sorted(name for name, state in states.items() if state in (RolloutState.RUNNING, RolloutState.REVERTING))
    waiting = len(workspace.store.outbox.waiting())
    lines = (
        ("rollouts", ", ".join(moving) or "none is running"),
        ("outbox", f"{waiting} commands decided and not carried out"),
        ("then", "deadlines and soaks are judged, packages go out, receipts come back; once"),
    )
    refusal = "" if moving or waiting else "there is nothing to carry out"
    return PlanView("tick", "Carry out what is due", lines, "pumpdeck tick", refusal=refusal)


def _under_way(rollout: Rollout) -> int:
    return sum(task.is_live and task.assign_ms > 0 for task in rollout.tasks.values())


def _good(rollout: Rollout) -> int:
    return sum(task.state in GOOD for task in rollout.tasks.values())


ROLLOUT_PLANNERS: Mapping[str, Callable[[Workspace, Mapping[str, str]], PlanView]] = {
    "rollout.halt": plan_halt,
    "rollout.resume": plan_resume,
    "rollout.abort": plan_abort,
    "tick": plan_tick,
}
