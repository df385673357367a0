"""The agent itself as something that is built, kept in the workspace and handed to devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_release import AGENT_FILE, build_agent
from pumpdeck_packaging.agent_wheels import WHEELS_FILE, WheelSet, WheelTarget, collect_wheels, wheel_bytes

AGENT_FOLDER = "agent"
WHEELS_FOLDER = "wheels"


@dataclass(frozen=True, slots=True)
class BuiltWheels:
    """The compiled libraries for one kind of computer; `versions` as text."""

    target: str
    versions: str
    bytes: int
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class BuiltAgent:
    """The agent as it stands in the workspace now, with its libraries."""

    version: str
    sha256: str
    bytes: int
    path: str
    wheels: tuple[BuiltWheels, ...]


@operation("package.agent", runs_in="worker")
def build_agent_release(
    workspace: Workspace, *, to: str = "", targets: Sequence[str] = (), on_progress: Progress = no_progress
) -> BuiltAgent:
    """Build the agent and fetch its libraries into the workspace's `agent` folder; with `to`, copy both into that folder too.

    Raises:
        UsageError: an unknown kind of computer. UnreachableError: wheels are missing and the index does not answer.
    """
    wanted = [WheelTarget.parse(text) for text in targets]
    home = workspace.root / AGENT_FOLDER
    built = build_agent(home)
    workspace.artifacts.put(built.path.read_bytes())
    sets = []
    for number, target in enumerate(wanted):
        on_progress(f"wheels {target.name}", number, len(wanted))
        sets.append(collect_wheels(home / WHEELS_FOLDER, target))
    on_progress("wheels", len(wanted), len(wanted))
    if to:
        _copy(workspace, built.path, sets, Path(to))
    wheels = tuple(_view(one) for one in sets)
    return BuiltAgent(built.version, built.sha256, built.bytes, str(built.path), wheels)


def _view(one: WheelSet) -> BuiltWheels:
    versions = ", ".join(f"{wheel.name} {wheel.version}" for wheel in one.wheels)
    return BuiltWheels(one.target.name, versions, one.bytes, one.sha256, str(one.folder))


def _copy(workspace: Workspace, agent: Path, sets: Sequence[WheelSet], to: Path) -> None:
    fs = workspace.fs
    fs.mkdir(to)
    replace_file(fs, to / AGENT_FILE, agent.read_bytes())
    for one in sets:
        folder = to / WHEELS_FOLDER / one.target.name
        fs.mkdir(folder)
        for wheel in one.wheels:
            replace_file(fs, folder / wheel.file, wheel_bytes(one.folder, wheel))
        # Last, as in the workspace: a folder without its index is not a set of wheels.
        replace_file(fs, folder / WHEELS_FILE, (one.folder / WHEELS_FILE).read_bytes())
