"""The agent and its libraries for the devices that a courier visits, on the same stick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.agent_releases import AGENT_FOLDER, WHEELS_FOLDER
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.bundle_plan import chosen_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_release import build_agent
from pumpdeck_packaging.agent_wheels import WheelSet, read_wheels
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_agent import AgentOnStick, write_agent
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.wheel_index import WHEELS_FILE

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What was put on the stick, and the two lines that the courier takes along on paper."""

    agent: AgentOnStick
    paper: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What the agent and its libraries would take: for which kinds of computer, how many bytes of libraries."""

    targets: tuple[str, ...]
    bytes: int


@operation("bundle.agent_plan", runs_in="reader")
def plan_agent(workspace: Workspace, *, query: str = "") -> AgentPlan:
    """What `add_agent` would put on the stick beside a bundle.

    Raises:
        NotFoundError: the libraries for one of the devices were never fetched. RefusedError: no device is selected.
    """
    sets = _wheels(workspace, architectures_of(workspace, chosen_devices(workspace, query)))
    return AgentPlan(tuple(one.target.name for one in sets), sum(one.bytes for one in sets))


@operation("bundle.agent", runs_in="worker")
def add_agent(workspace: Workspace, *, query: str = "", to: str, on_progress: Progress = no_progress) -> AgentReport:
    """Put the agent, and the libraries for the kinds of computer that these devices are, into the folder on the stick.

    Raises:
        NotFoundError: the libraries for one of them were never fetched. RefusedError, ConflictError, StickFailedError: as export.
    """
    store = workspace.store
    sets = _wheels(workspace, architectures_of(workspace, chosen_devices(workspace, query)))
    built = build_agent(workspace.root / AGENT_FOLDER)
    stick = real_stick(Path(to).absolute())
    new_id = "b-" + canonical.digest(f"{store.workspace}/{workspace.clock.now_ms()}/{stick.folder}".encode())[:12]
    name = claim(stick, store.workspace, new_id)
    done = write_agent(stick, built, sets, on_progress)
    with store.atomic():
        what = {"agent": built.sha256, "start": done.start_digest}
        store.audit.append(workspace.actor, "bundle.agent", name, f"agent {built.version} for {', '.join(done.targets)}", what)
    return AgentReport(done, tuple(_paper(done)))


def architectures_of(workspace: Workspace, devices: Iterable[Device]) -> set[str]:
    """The kinds of computer that these devices are, by the names of their classes."""
    known = workspace.fleet.device_classes
    classes = [known[one.device_class] for one in devices if one.device_class in known]
    return {_ARCHITECTURES.get(one.architecture.lower(), one.architecture.lower()) for one in classes}


def fetched_architectures(workspace: Workspace) -> set[str]:
    """The kinds of computer for which compiled libraries are in this workspace."""
    return {folder.name.split("-cp")[0] for folder in _wheel_folders(workspace)}


def _wheel_folders(workspace: Workspace) -> list[Path]:
    home = workspace.root / AGENT_FOLDER / WHEELS_FOLDER
    return sorted(folder for folder in home.iterdir() if (folder / WHEELS_FILE).is_file()) if home.is_dir() else []


def _wheels(workspace: Workspace, architectures: set[str]) -> list[WheelSet]:
    folders = _wheel_folders(workspace)
    sets = [read_wheels(folder) for folder in folders if folder.name.split("-cp")[0] in architectures]
    missing = sorted(architectures - {one.target.architecture for one in sets})
    if missing:
        hint = f"with a network: pumpdeck package agent --wheels {missing[0]}-cp311"
        found = ", ".join(folder.name for folder in folders) or "none"
        raise NotFoundError("no libraries were fetched", ", ".join(missing), found=found, hint=hint)
    return sets


def _paper(done: AgentOnStick) -> list[str]:
    digest = done.start_digest
    groups = " ".join(digest[at : at + 4] for at in range(0, 32, 4))
    return [
        f"On a device without the agent, from the bundle's folder: sha256sum agent/start.py must begin with {groups}",
        "Only then: sudo python3 -I agent/start.py --to /opt/pumpdeck",
    ]
