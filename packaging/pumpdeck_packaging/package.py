"""Build the package of one device: the same content always gives the same bytes.

The builder takes bytes and gives bytes; it reads its own result back through the device's reader before it hands it out.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass, replace

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import GateRefusedError, UsageError
from pumpdeck_fleet.core.ids import check_name, check_tag
from pumpdeck_fleet.core.inventory import Channel, DeviceClass
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_packaging import ustar
from pumpdeck_packaging.device_settings import ModelSize, device_settings
from pumpdeck_packaging.manifest import (
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    ModelEntry,
    Payload,
    PayloadKind,
    PumpEntry,
    Requirements,
    check_manifest,
    encode_manifest,
)
from pumpdeck_packaging.package_reader import dictionary_bytes, read_package
from pumpdeck_packaging.provenance import PROVENANCE_NAME, TrainedFrom, package_statement


@dataclass(frozen=True, slots=True)
class ModelContent:
    """One pump type's shared graph with its golden inputs and answers, its card and what it was trained from.

    source: digest of the file that an imported model came as.
    """

    pump_type: str
    model: str
    model_type: str
    content_digest: str
    onnx: bytes
    golden: bytes
    card: bytes
    opset: int
    lineage: Lineage
    source: str = ""


@dataclass(frozen=True, slots=True)
class PumpContent:
    """One pump's parameter block, reference edges, channels in model order and alarm settings."""

    tag: str
    pump_type: str
    block: bytes
    edges: bytes
    channels: tuple[Channel, ...]
    window_s: float
    limit: float
    deadband: float
    persistence_s: float
    tau_s: float


@dataclass(frozen=True, slots=True)
class PackageContent:
    """Everything that goes to one device. `data_end_ms` is the time of the newest row any of its models learned from."""

    device: str
    device_class: DeviceClass
    models: tuple[ModelContent, ...]
    pumps: tuple[PumpContent, ...]
    data_end_ms: int


@dataclass(frozen=True, slots=True)
class BuiltPackage:
    """A finished package: its bytes, their digest and the length they unpack to."""

    data: bytes
    sha256: str
    unpacked_bytes: int
    manifest: Manifest
    provenance: bytes


def build_package(content: PackageContent) -> BuiltPackage:
    """The package of one device.

    Raises:
        GateRefusedError: a model needs a newer opset than the device class runs, all of them together need more memory than it
            allows, or a pump has no model here.
        UsageError: nothing to pack, or a pump or pump type stands twice.
        FormatError: a name cannot stand in a package.
    """
    _check_content(content)
    models = tuple(sorted(content.models, key=lambda model: model.pump_type))
    pumps = tuple(sorted(content.pumps, key=lambda pump: pump.tag.lower()))
    files = _files(models, pumps)
    trained = tuple(TrainedFrom(model.pump_type, model.lineage, model.source) for model in models)
    provenance = package_statement(content.device, content.device_class.id, files, trained)
    files[PROVENANCE_NAME] = provenance
    manifest = _manifest(content, models, pumps, files)
    check_manifest(manifest)
    members = {MANIFEST_NAME: encode_manifest(manifest), **files}
    data = _compress(ustar.write(members))
    built = BuiltPackage(data, canonical.digest(data), manifest.unpacked_bytes, manifest, provenance)
    # A package that its own reader refuses must never leave this function.
    read_package(data, expected_sha256=built.sha256, max_unpacked_bytes=built.unpacked_bytes)
    return built


def _check_content(content: PackageContent) -> None:
    check_name(content.device, "device")
    types = [check_name(model.pump_type, "pump type") for model in content.models]
    tags = [check_tag(pump.tag, "pump tag").lower() for pump in content.pumps]
    if not tags or len(set(types)) != len(types) or len(set(tags)) != len(tags):
        raise UsageError("nothing to pack, or a pump or pump type stands twice", content.device)
    for pump in content.pumps:
        if pump.pump_type not in types:
            raise GateRefusedError("no model for this pump", pump.tag, expected=f"a model for {pump.pump_type}")
    for model in content.models:
        if model.opset > content.device_class.highest_opset:
            raise GateRefusedError(
                "needs a newer opset than the device class runs",
                f"{model.model} on {content.device_class.id}",
                expected=f"at most {content.device_class.highest_opset}",
                found=model.opset,
            )
    rule = device_settings(content.device_class, _sizes(content))
    if rule.needed_mb > rule.ceiling_mb:
        raise GateRefusedError(
            "its models need more memory than its device class allows",
            f"{content.device} ({content.device_class.id})",
            expected=f"at most {rule.ceiling_mb} MB, the bound of its service",
            found=f"{rule.needed_mb} MB with a trial beside them",
            hint="take smaller models, or a larger device class",
        )


def _files(models: tuple[ModelContent, ...], pumps: tuple[PumpContent, ...]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for model in models:
        files[f"model-{model.pump_type}.onnx"] = model.onnx
        files[f"golden-{model.pump_type}.bin"] = model.golden
        files[f"card-{model.pump_type}.md"] = model.card
    for pump in pumps:
        files[f"pumps/{pump.tag.lower()}.block"] = pump.block
        files[f"pumps/{pump.tag.lower()}.edges"] = pump.edges
    return files


def _manifest(
    content: PackageContent,
    models: tuple[ModelContent, ...],
    pumps: tuple[PumpContent, ...],
    files: dict[str, bytes],
) -> Manifest:
    entries = {path: FileEntry(canonical.digest(data), len(data)) for path, data in sorted(files.items())}
    paths = [f"model-{model.pump_type}.onnx" for model in models]
    manifest = Manifest(
        format=MANIFEST_FORMAT,
        device=content.device,
        requirements=_requirements(content),
        settings=device_settings(content.device_class, _sizes(content)).settings,
        unpacked_bytes=1,
        data_end_ms=content.data_end_ms,
        models=tuple(_model_entry(model) for model in models),
        payloads=tuple(Payload(PayloadKind.ONNX, p, entries[p].digest, entries[p].bytes) for p in paths),
        pumps=tuple(_pump_entry(pump) for pump in pumps),
        files=entries,
    )
    return _with_length(manifest)


def _with_length(manifest: Manifest) -> Manifest:
    # The manifest holds the tar's length and is part of the tar. Whole records make the length stand still at once.
    while True:
        sizes = {path: entry.bytes for path, entry in manifest.files.items()}
        found = ustar.length({**sizes, MANIFEST_NAME: len(encode_manifest(manifest))})
        if found == manifest.unpacked_bytes:
            return manifest
        manifest = replace(manifest, unpacked_bytes=max(found, manifest.unpacked_bytes))


def _sizes(content: PackageContent) -> list[ModelSize]:
    held = [pump.pump_type for pump in content.pumps]
    return [ModelSize(len(one.onnx), one.opset, held.count(one.pump_type)) for one in content.models]


def _requirements(content: PackageContent) -> Requirements:
    wanted = content.device_class
    opset = max(model.opset for model in content.models)
    return Requirements(wanted.id, wanted.architecture, wanted.os, wanted.onnxruntime, opset, wanted.memory_mb)


def _model_entry(model: ModelContent) -> ModelEntry:
    return ModelEntry(
        pump_type=model.pump_type,
        model=model.model,
        model_type=model.model_type,
        content_digest=model.content_digest,
        payload=f"model-{model.pump_type}.onnx",
        golden=f"golden-{model.pump_type}.bin",
        card=f"card-{model.pump_type}.md",
    )


def _pump_entry(pump: PumpContent) -> PumpEntry:
    return PumpEntry(
        tag=pump.tag,
        pump_type=pump.pump_type,
        block=f"pumps/{pump.tag.lower()}.block",
        edges=f"pumps/{pump.tag.lower()}.edges",
        # Titles are for people at the console; a better one must not change the package.
        channels=tuple(replace(channel, title="") for channel in pump.channels),
        window_s=pump.window_s,
        limit=pump.limit,
        deadband=pump.deadband,
        persistence_s=pump.persistence_s,
        tau_s=pump.tau_s,
    )


def _compress(tar: bytes) -> bytes:
    preset = 9 | lzma.PRESET_EXTREME
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary_bytes(len(tar))}]
    return lzma.compress(tar, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)
