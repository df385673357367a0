"""The agent and its libraries for the devices that a courier visits, on the same stick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.agent_releases import AGENT_FOLDER, WHEELS_FOLDER, agent_desk
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.bundle_plan import chosen_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_release import build_agent
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME
from pumpdeck_packaging.agent_wheels import WheelSet, read_wheels
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_agent import AgentLoad, AgentOnStick, write_agent
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.wheel_index import WHEELS_FILE

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What was put on the stick, and the two lines that the courier takes along on paper.

    `released` are the sites whose devices renew their agent from it, `notes` why others do not.
    """

    agent: AgentOnStick
    paper: tuple[str, ...]
    released: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    load, notes = agent_load(workspace, query)
    stick = real_stick(Path(to).absolute())
    new_id = "b-" + canonical.digest(f"{store.workspace}/{workspace.clock.now_ms()}/{stick.folder}".encode())[:12]
    name = claim(stick, store.workspace, new_id)
    done = write_agent(stick, load, on_progress)
    note_agent(workspace, name, load, done.start_digest)
    return AgentReport(done, paper_of(done.start_digest), tuple(sorted(load.words)), notes)


def agent_load(workspace: Workspace, query: str) -> tuple[AgentLoad, tuple[str, ...]]:
    """What goes along for the devices that `query` selects, and why some of them will not renew their agent from it.

    Raises:
        NotFoundError: the libraries for one of them were never fetched. RefusedError: no device is selected.
    """
    devices = chosen_devices(workspace, query)
    sets = _wheels(workspace, architectures_of(workspace, devices))
    words, released, notes = {}, {}, []
    for site in sorted({device.site for device in devices}):
        desk = agent_desk(workspace, site)
        try:
            word, envelope = desk.word(), dict(desk.files())[AGENT_WORD_NAME]
            released[word.sha256] = workspace.artifacts.get(word.sha256)
            words[site] = envelope
        except PumpdeckError as error:
            notes.append(f"devices of {site} keep their agent: {error.sentence()}")
            continue
        if any(word.wheels.get(one.target.name, one.sha256) != one.sha256 for one in sets):
            notes.append(f"{site}: the libraries here are not those of its release: pumpdeck package agent --release")
    return AgentLoad(build_agent(workspace.root / AGENT_FOLDER), sets, words, released), tuple(notes)


def note_agent(workspace: Workspace, bundle: str, load: AgentLoad, start_digest: str) -> None:
    """The audit entry of an agent that left on a stick or in a letter."""
    targets = ", ".join(one.target.name for one in load.sets)
    with workspace.store.atomic() as store:
        released = {f"released {digest[:12]}": digest for digest in load.released}
        what = {"agent": load.agent.sha256, "start": start_digest, **released}
        store.audit.append(workspace.actor, "bundle.agent", bundle, f"agent {load.agent.version} for {targets}", what)


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


def paper_of(start_digest: str) -> tuple[str, ...]:
    """The two lines for the courier's paper."""
    groups = " ".join(start_digest[at : at + 4] for at in range(0, 32, 4))
    return (
        f"On a device without the agent, from the bundle's folder: sha256sum agent/start.py must begin with {groups}",
        "Only then: sudo python3 -I agent/start.py --to /opt/pumpdeck",
    )
