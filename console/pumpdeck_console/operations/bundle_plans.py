"""What the actions of the bundles screen would do, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pumpdeck_console.operations.views import PlanView
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.sizes import size_words
from pumpdeck_fleet.core.sticks import STICK_MOVES, StickState

_MOST = 6


def plan_export(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`bundle.export {to, query}` and `bundle.tar {file, query}`."""
    from pumpdeck_console.operations.bundle_plan import plan_bundle  # deferred: TUF

    query, file = arguments.get("query", ""), arguments.get("file", "")
    place = file or arguments.get("to", "")
    operation = "bundle.tar" if file else "bundle.export"
    words = f"pumpdeck bundle export {'--tar' if file else '--to'} {_quoted(place)}"
    command = f"{words} --for {_quoted(query)}" if query else words
    title = f"Write a bundle to {Path(place).name or place}"
    if not place:
        return PlanView(operation, title, (), command, refusal="name a folder on the stick, or a .tar file")
    try:
        plan = plan_bundle(workspace, query=query, to=place)
    except PumpdeckError as error:
        return PlanView(operation, title, (), command, refusal=error.sentence())
    free = f"{size_words(plan.free_bytes)} free" if plan.free_bytes >= 0 else "free space unknown"
    lines = [
        ("to", plan.to),
        ("devices", f"{len(plan.rows)} at {len(plan.sites)} sites, {plan.packages} packages"),
        ("bytes", f"{size_words(plan.bytes)}; {free}"),
        ("time", f"{plan.seconds / 60:.1f} min at {size_words(plan.bytes_per_s)}/s ({plan.speed})"),
    ]
    for share in plan.sites[:_MOST]:
        link = f", {share.link_s / 60:.1f} min by its link" if share.link_s >= 0 else ""
        lines.append((share.site, f"{share.packages} packages, {size_words(share.bytes)}{link}"))
    if plan.stick:
        lines.append(("stick", f"{plan.stick}, {plan.stick_state}: what lies there whole is not written again"))
    left_out = tuple(f"left out: {device}: {reason}" for device, reason in plan.problems[:_MOST])
    more = (f"and {len(plan.problems) - _MOST} more",) if len(plan.problems) > _MOST else ()
    refusal = "it has no room for that" if 0 <= plan.free_bytes < plan.bytes else ""
    return PlanView(operation, title, tuple(lines), command, warnings=(*left_out, *more), refusal=refusal)


def plan_intake(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`bundle.intake {folder}`: who lies on it; nothing is verified yet."""
    from pumpdeck_packaging.bundle_returns import returned_devices  # deferred: the stick's reader
    from pumpdeck_packaging.bundle_stick import real_stick

    folder = arguments.get("folder", "")
    path = Path(folder).absolute() if folder else Path()
    command, title = f"pumpdeck bundle intake {_quoted(folder)}", f"Take in {path.name}"
    if not folder or not path.exists():
        return PlanView("bundle.intake", title, (), command, refusal="there is no such folder or file: is the stick mounted?")
    names: list[str] = []
    if path.is_dir():
        try:
            names, _ = returned_devices(real_stick(path).fs, path)
        except (OSError, PumpdeckError) as error:
            return PlanView("bundle.intake", title, (), command, refusal=f"it cannot be read: {error}")
    known = workspace.fleet.device_by_id
    listed = ", ".join(names[:_MOST]) + (" .." if len(names) > _MOST else "")
    lines = (
        ("from", str(path)),
        ("returns of", listed or ("the device that answered" if path.is_file() else "nobody")),
        ("then", "each is verified against its device's key; what does not hold is refused, device by device"),
    )
    strange = tuple(f"{name} is not a device of this fleet" for name in names if name not in known)[:_MOST]
    return PlanView("bundle.intake", title, lines, command, warnings=strange)


def plan_lost(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`bundle.lost {stick, reason}`."""
    entry = workspace.store.sticks.find(arguments.get("stick", ""))
    live = {task for task, _ in workspace.store.rollouts.live_tasks().values()}
    waiting = [load.device for load in entry.loads if load.task in live]
    lines = (
        ("stick", f"{entry.id}, {entry.state}, for {', '.join(entry.sites)}"),
        ("awaited", f"{len(waiting)} receipts: {', '.join(waiting[:_MOST])}" if waiting else "nothing any more"),
        ("secrets", "no private key and no password lies on a stick; nobody can make a device run anything with it"),
        ("then", "its load is written again onto another stick" if waiting else "nothing to do"),
    )
    refusal = "" if StickState.LOST in STICK_MOVES[entry.state] else f"it is {entry.state}"
    return PlanView("bundle.lost", f"Mark {entry.id} as lost", lines, f"pumpdeck bundle lost {entry.id}", refusal=refusal)


def plan_carry(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`bundle.carry {stick, carrier}`."""
    entry, carrier = workspace.store.sticks.find(arguments.get("stick", "")), arguments.get("carrier", "")
    lines = (("stick", f"{entry.id}, for {', '.join(entry.sites)}"), ("carrier", f"{entry.carrier or 'nobody'} -> {carrier}"))
    refusal = "" if StickState.CARRIED in STICK_MOVES[entry.state] else f"it is {entry.state}"
    command = f"pumpdeck bundle carry {entry.id} --by {_quoted(carrier)}"
    return PlanView("bundle.carry", f"{entry.id} goes with {carrier}", lines, command, refusal=refusal)


def plan_reissue(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`bundle.reissue {stick, to}`."""
    entry, place = workspace.store.sticks.find(arguments.get("stick", "")), arguments.get("to", "")
    live = {task for task, _ in workspace.store.rollouts.live_tasks().values()}
    waiting = len(entry.tasks & live)
    lines = (
        ("instead of", f"{entry.id}, {entry.state}, for {', '.join(entry.sites)}"),
        ("to", place),
        ("devices", f"{len(entry.loads)}, {waiting} receipts awaited"),
        ("then", "the same assignments leave again; a device that meets both sticks does the work once"),
    )
    refusal = "" if place else "name a folder on another stick"
    if entry.state is not StickState.LOST:
        refusal = f"it is {entry.state}, not LOST"
    command = f"pumpdeck bundle reissue {entry.id} --to {_quoted(place)}"
    return PlanView("bundle.reissue", f"Write {entry.id} again", lines, command, refusal=refusal)


def _quoted(word: str) -> str:
    return word if word and not set(word) & set(" \"'$\\;&|<>()*?") else '"' + word.replace('"', '\\"') + '"'


PLANNERS: Mapping[str, Callable[[Workspace, Mapping[str, str]], PlanView]] = {
    "bundle.export": plan_export,
    "bundle.tar": plan_export,
    "bundle.intake": plan_intake,
    "bundle.lost": plan_lost,
    "bundle.carry": plan_carry,
    "bundle.reissue": plan_reissue,
}
