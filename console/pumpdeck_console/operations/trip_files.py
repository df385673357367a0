"""What a trip takes along as files: artifacts, the agent and its libraries, returns, guides; and how large all of it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pumpdeck_console.guides import guides
from pumpdeck_console.operations.agent_releases import AGENT_FOLDER, agent_desk
from pumpdeck_console.operations.other_side import peoples_files
from pumpdeck_console.wiring import STORE_FILE, Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_release import AGENT_FILE, agent_bytes, build_agent

DOCS_FOLDER = "docs"
_FILE_MAX_BYTES = 1 << 30
_EMPTY_STORE_BYTES = 1_000_000


def trip_sizes(workspace: Workspace, devices: Sequence[Device]) -> list[tuple[str, int]]:
    """Path and length of each file that the trip would hold; of its store, whose rows are cut out later, at most."""
    names = {device.id for device in devices}
    pumps = sum(pump.device in names for pump in workspace.fleet.pumps)
    store_bytes = workspace.fs.size(workspace.root / STORE_FILE)
    sizes = [(path, len(data)) for path, data in peoples_files(workspace.root).items()]
    sizes += [(f"{DOCS_FOLDER}/{name}", len(text)) for name, text in guides().items()]
    sizes += [(STORE_FILE, max(_EMPTY_STORE_BYTES, store_bytes * pumps // max(1, len(workspace.fleet.pumps))))]
    if not (workspace.root / AGENT_FOLDER).is_dir():
        sizes += [(f"{AGENT_FOLDER}/{AGENT_FILE}", len(agent_bytes()))]
    for source in _sources(workspace, sorted(names)):
        sizes.append((source.relative_to(workspace.root).as_posix(), workspace.fs.size(source)))
    for digest in sorted(_wanted(workspace, devices)):
        sizes.append((f"artifacts/sha256/{digest[:2]}/{digest}", workspace.fs.size(workspace.artifacts.path(digest))))
    return sizes


def copy_artifacts(workspace: Workspace, part: Workspace, devices: Sequence[Device], on_progress: Progress) -> int:
    """Packages, agents, and all that the model versions are made of, into the part; how many."""
    wanted = sorted(_wanted(workspace, devices))
    for number, digest in enumerate(wanted):
        on_progress("artifacts", number, len(wanted))
        part.artifacts.put(workspace.artifacts.get(digest))
    return len(wanted)


def copy_files(workspace: Workspace, root: Path, devices: Collection[str]) -> None:
    """The agent with its libraries, what devices returned last, and the guides."""
    for source in _sources(workspace, sorted(devices)):
        target = root / source.relative_to(workspace.root)
        workspace.fs.mkdir(target.parent)
        replace_file(workspace.fs, target, workspace.fs.read_bytes(source, _FILE_MAX_BYTES))
    if not (root / AGENT_FOLDER).is_dir():
        # Made from this very installation: a device without an agent can be enrolled on the way, its libraries permitting.
        build_agent(root / AGENT_FOLDER)
    for name, text in guides().items():
        target = root / DOCS_FOLDER / name
        workspace.fs.mkdir(target.parent)
        replace_file(workspace.fs, target, text.encode("utf-8"))


def _sources(workspace: Workspace, devices: Sequence[str]) -> Iterator[Path]:
    found = sorted(path for path in (workspace.root / AGENT_FOLDER).rglob("*") if path.is_file())
    found += [workspace.root / "returns" / f"{device}.json" for device in devices]
    yield from (path for path in found if path.is_file() and path.suffix != ".part")


def _wanted(workspace: Workspace, devices: Sequence[Device]) -> set[str]:
    return {digest for digest in _named(workspace, devices) if digest and workspace.artifacts.has(digest)}


def _named(workspace: Workspace, devices: Sequence[Device]) -> Iterator[str]:
    names = {device.id for device in devices}
    pumps = {pump.id for pump in workspace.fleet.pumps if pump.device in names}
    for name in names:
        for package in workspace.store.packages.for_device(name):
            yield package.sha256
    for site in {device.site for device in devices}:
        try:
            yield agent_desk(workspace, site).word().sha256
        except PumpdeckError:
            continue
    for model in workspace.store.registry.models():
        for version in workspace.store.registry.versions(model):
            yield from (version.onnx_digest, version.card_digest, version.golden_digest, version.run_record_digest)
            yield version.lineage.pipeline_digest
            for held in version.pumps:
                if held.pump in pumps:
                    yield from (held.block_digest, held.edges_digest)
