"""The agent and its libraries for the devices that a courier visits, on the same stick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.agent_releases import AGENT_FOLDER, WHEELS_FOLDER
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.bundle_plan import chosen_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_release import build_agent
from pumpdeck_packaging.agent_wheels import WheelSet, read_wheels
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_agent import AgentOnStick, write_agent
from pumpdeck_packaging.bundle_stick import real_stick

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What was put on the stick, and the two lines that the courier takes along on paper."""

    agent: AgentOnStick
    paper: tuple[str, ...]


@operation("bundle.agent", runs_in="worker")
def add_agent(workspace: Workspace, *, query: str = "", to: str, on_progress: Progress = no_progress) -> AgentReport:
    """Put the agent, and the libraries for the kinds of computer that these devices are, into the folder on the stick.

    Raises:
        NotFoundError: the libraries for one of them were never fetched. RefusedError, ConflictError, StickFailedError: as export.
    """
    store, fleet = workspace.store, workspace.fleet
    devices = chosen_devices(workspace, query)
    classes = [fleet.device_classes[one.device_class] for one in devices if one.device_class in fleet.device_classes]
    wanted = {_ARCHITECTURES.get(one.architecture.lower(), one.architecture.lower()) for one in classes}
    sets = _wheels(workspace, wanted)
    built = build_agent(workspace.root / AGENT_FOLDER)
    stick = real_stick(Path(to).absolute())
    new_id = "b-" + canonical.digest(f"{store.workspace}/{workspace.clock.now_ms()}/{stick.folder}".encode())[:12]
    name = claim(stick, store.workspace, new_id)
    done = write_agent(stick, built, sets, on_progress)
    with store.atomic():
        what = {"agent": built.sha256, "start": done.start_digest}
        store.audit.append(workspace.actor, "bundle.agent", name, f"agent {built.version} for {', '.join(done.targets)}", what)
    return AgentReport(done, tuple(_paper(done)))


def _wheels(workspace: Workspace, architectures: set[str]) -> list[WheelSet]:
    home = workspace.root / AGENT_FOLDER / WHEELS_FOLDER
    folders = sorted(home.iterdir()) if home.is_dir() else []
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
