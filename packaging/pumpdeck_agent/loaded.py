"""A package from the store, ready to score with: manifest, graphs, and each pump's block, edges and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pumpdeck_agent.runtime import Model, ModelCache
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.detectors import PumpBlock, decode_block
from pumpdeck_fleet.numeric.edges import ReferenceEdges, decode_edges
from pumpdeck_fleet.numeric.features import FeatureSpec
from pumpdeck_packaging.manifest import Manifest, PumpEntry
from pumpdeck_packaging.package_reader import load_folder


@dataclass(frozen=True, eq=False)
class LoadedPump:
    """What one pump is scored with. `places`: where each channel stands in a row."""

    entry: PumpEntry
    spec: FeatureSpec
    block: PumpBlock
    edges: ReferenceEdges
    settings: AlarmSettings
    model: Model
    parameters: Mapping[str, NDArray[Any]]
    places: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class LoadedPackage:
    """A whole package in memory. `pumps` by tag in lower case, `models` by pump type."""

    sha256: str
    manifest: Manifest
    files: Mapping[str, bytes]
    models: Mapping[str, Model]
    pumps: Mapping[str, LoadedPump]


def load_package(fs: FileSystem, folder: Path, manifest_digest: str, cache: ModelCache) -> LoadedPackage:
    """The package in this folder of the store, every byte checked.

    Raises:
        DamagedError: a file is missing or differs, or a block does not fit its channels.
        FormatError: a graph cannot be loaded.
    """
    package = load_folder(fs, folder, manifest_digest=manifest_digest)
    manifest = package.manifest
    models: dict[str, Model] = {}
    for entry in manifest.models:
        payload = manifest.payload_at(entry.payload)
        models[entry.pump_type] = cache.get(
            payload.digest,
            package.files[payload.path],
            threads=manifest.settings.threads,
            spinning=manifest.settings.spinning,
        )
    pumps = {pump.tag.lower(): _load_pump(pump, package.files, models) for pump in manifest.pumps}
    return LoadedPackage(folder.name, manifest, package.files, models, pumps)


def _load_pump(entry: PumpEntry, files: Mapping[str, bytes], models: Mapping[str, Model]) -> LoadedPump:
    channels = tuple(channel.name for channel in entry.channels)
    block = decode_block(files[entry.block], channels, entry.block)
    model = models[entry.pump_type]
    return LoadedPump(
        entry=entry,
        spec=FeatureSpec(channels, entry.window_s),
        block=block,
        edges=decode_edges(files[entry.edges], channels, entry.edges),
        settings=AlarmSettings(entry.deadband, entry.persistence_s, entry.tau_s),
        model=model,
        parameters=model.parameters(block),
        places={name: place for place, name in enumerate(channels)},
    )
