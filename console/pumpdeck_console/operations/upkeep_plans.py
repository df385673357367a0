"""What a backup, and reading one back, would do, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pumpdeck_console.operations.views import PlanView
from pumpdeck_console.wiring import STORE_FILE, Workspace
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import PumpdeckError

_FOLDERS = ("artifacts", "trust", "returns", "agent")


def plan_backup(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`backup {to}`."""
    from pumpdeck_packaging.backup import BackupFolder  # deferred: only this action needs it

    to = arguments.get("to", "")
    command, title = f"pumpdeck backup {_quoted(to)}", "Back this workspace up"
    if not to:
        return PlanView("backup", title, (), command, refusal="name a folder on another disk, or a .tar file")
    target, size = Path(to).absolute(), _bytes_of(workspace)
    lines = [("to", str(target)), ("bytes", f"{size / 1e6:,.1f} MB in all; what lies there by content is not written again")]
    refusal = "it lies inside the workspace: a backup belongs on another disk" if _is_inside(target, workspace.root) else ""
    folder = BackupFolder(target)
    if target.suffix != ".tar" and folder.exists:
        try:
            listed = folder.read()
        except PumpdeckError as error:
            return PlanView("backup", title, tuple(lines), command, refusal=error.sentence())
        lines.append(("there now", f"a backup as of {format_ms(listed.made_ms)}; the new one takes its place"))
        if listed.workspace != workspace.store.workspace:
            refusal = f"it holds the backup of another workspace, {listed.workspace}"
    here = next((one for one in (target, *target.parents) if one.is_dir()), None)
    free = workspace.fs.free_bytes(here) if here is not None else 0
    lines += [
        ("free space", f"{free / 1e9:,.1f} GB"),
        ("then", "all of it is read back and compared"),
        ("not in it", "private keys and settings.toml: keep those apart, or what is restored cannot sign"),
    ]
    if not refusal and free < size and not folder.exists:
        refusal = "there is no room for it"
    return PlanView("backup", title, tuple(lines), command, refusal=refusal)


def plan_verify(_workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`backup.verify {source}`."""
    from pumpdeck_packaging.backup import BackupFolder  # deferred: only this action needs it

    source = arguments.get("source", "")
    command, title = f"pumpdeck backup verify {_quoted(source)}", "Read the backup back"
    path = Path(source)
    if not source or not path.exists():
        return PlanView("backup.verify", title, (), command, refusal="it is not there: is its disk plugged in?")
    if path.is_file():
        lines: tuple[tuple[str, str], ...] = (("file", source), ("bytes", f"{path.stat().st_size / 1e6:,.1f} MB"))
    else:
        try:
            listed = BackupFolder(path).read()
        except PumpdeckError as error:
            return PlanView("backup.verify", title, (), command, refusal=error.sentence())
        lines = (
            ("backup", f"of {listed.workspace} as of {format_ms(listed.made_ms)}"),
            ("reads", f"{len(listed.files)} files, {listed.total_bytes / 1e6:,.1f} MB; each is compared with its digest"),
        )
    lines = (*lines, ("changes", "nothing there; that it holds stands in the audit chain"))
    return PlanView("backup.verify", title, lines, command)


def plan_trip_return(workspace: Workspace, arguments: Mapping[str, str]) -> PlanView:
    """`trip.return {folder}`."""
    from pumpdeck_console.operations.trips import read_trip  # deferred: TUF

    folder = arguments.get("folder", "")
    command, title = f"pumpdeck trip return {_quoted(folder)}", "Take a trip in"
    try:
        trip = read_trip(workspace, Path(folder).absolute())
    except (PumpdeckError, OSError) as error:
        sentence = error.sentence() if isinstance(error, PumpdeckError) else f"it cannot be read: {error}"
        return PlanView("trip.return", title, (), command, refusal=sentence)
    lines = (
        ("trip", f"{trip.workspace}, prepared {format_ms(trip.prepared_ms)}"),
        ("devices", f"{len(trip.devices)}: {', '.join(trip.devices[:6])}{' ..' if len(trip.devices) > 6 else ''}"),
        ("drove", ", ".join(trip.lent) or "no rollout"),
        ("returned", format_ms(trip.returned_ms) if trip.returned_ms else "not before; the same again changes nothing"),
        ("then", "what was done there is proven and taken in, and its rollouts are driven here again"),
    )
    own = workspace.store.workspace
    refusal = "" if trip.parent == own else f"it is the trip of another workspace, {trip.parent}: take it in with sync"
    return PlanView("trip.return", title, lines, command, refusal=refusal)


def _bytes_of(workspace: Workspace) -> int:
    parts = [workspace.root / STORE_FILE, *((workspace.root / name) for name in _FOLDERS)]
    found = 0
    for part in parts:
        for path in (part,) if part.is_file() else part.rglob("*"):
            try:
                found += path.stat().st_size if path.is_file() else 0
            except OSError:
                # Others work here meanwhile: a file that has gone counts nothing.
                continue
    return found


def _is_inside(target: Path, root: Path) -> bool:
    return target.resolve().is_relative_to(root.resolve())


def _quoted(word: str) -> str:
    return word if word and not set(word) & set(" \"'$\\;&|<>()*?") else '"' + word.replace('"', '\\"') + '"'


PLANNERS: Mapping[str, Callable[[Workspace, Mapping[str, str]], PlanView]] = {
    "backup": plan_backup,
    "backup.verify": plan_verify,
    "trip.return": plan_trip_return,
}
