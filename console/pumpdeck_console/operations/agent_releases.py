"""The agent itself as something that is built, kept in the workspace and handed to devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_desk import AgentContent, AgentDesk
from pumpdeck_packaging.agent_release import AGENT_FILE, build_agent
from pumpdeck_packaging.agent_wheels import WheelSet, WheelTarget, collect_wheels, read_wheels, wheel_bytes
from pumpdeck_packaging.wheel_index import WHEELS_FILE

AGENT_FOLDER = "agent"
WHEELS_FOLDER = "wheels"
_AUDIT_LOOK = 10_000


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
    released: tuple[str, ...] = ()


@operation("package.agent", runs_in="worker")
def build_agent_release(
    workspace: Workspace,
    *,
    to: str = "",
    targets: Sequence[str] = (),
    release: bool = False,
    on_progress: Progress = no_progress,
) -> BuiltAgent:
    """Build the agent and fetch its libraries into the workspace's `agent` folder; with `to`, copy both into that folder too.

    With `release`, sign it for every founded site, with the digests of all libraries that are here.

    Raises:
        TrustError, NotFoundError: no release key of a site is at hand.
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
    wheel_digests = {one.target.name: one.sha256 for one in wheel_sets(workspace)}
    content = AgentContent(built.version, built.sha256, built.bytes, wheel_digests)
    released = _release(workspace, content) if release else ()
    return BuiltAgent(built.version, built.sha256, built.bytes, str(built.path), wheels, released)


def agent_desk(workspace: Workspace, site: str) -> AgentDesk:
    """The agent releases of a site."""
    return AgentDesk(workspace.trust_path / site, workspace.trust(site), workspace.fs, workspace.clock)


def wheel_sets(workspace: Workspace) -> tuple[WheelSet, ...]:
    """The compiled libraries in this workspace, each proven by digest. Raises: DamagedError: one is not what its index says."""
    home = workspace.root / AGENT_FOLDER / WHEELS_FOLDER
    folders = sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    return tuple(read_wheels(folder) for folder in folders if (folder / WHEELS_FILE).is_file())


def _release(workspace: Workspace, content: AgentContent) -> tuple[str, ...]:
    released = []
    for site in workspace.fleet.sites:
        if not workspace.trust(site.id).exists:
            continue
        desk = agent_desk(workspace, site.id)
        signer = workspace.signing_key("release", site.id).signer
        word = desk.release(content, [signer])
        released.append(site.id)
        with workspace.store.atomic() as store:
            reason = f"{word.version} serial {word.serial}"
            # The signed word comes first; a cut after it leaves a release whose entry the next call writes.
            said = {(entry.action, entry.subject, entry.reason) for entry in store.audit.latest(_AUDIT_LOOK)}
            if ("agent.release", site.id, reason) not in said:
                digests = {"agent": word.sha256, **{f"wheels {name}": digest for name, digest in word.wheels.items()}}
                store.audit.append(workspace.actor, "agent.release", site.id, reason=reason, digests=digests)
    return tuple(released)


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
