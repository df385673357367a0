"""The manifest: what a package holds, for which device, with names, sizes, digests and limits.

Standard library and core only, because the scoring process of the agent reads it. A manifest holds no measured time, no version
number, no run id and no wall clock, so that the same model always gives the same package (docs/formats.md, Package).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, NotFoundError
from pumpdeck_fleet.core.ids import check_digest, check_name, check_tag
from pumpdeck_fleet.core.inventory import Channel

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
MANIFEST_MAX_BYTES = 256 * 1024
PACKAGE_MAX_BYTES = 64 * 1024 * 1024
UNPACKED_MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 512

_PATH = re.compile(r"(?:pumps/)?[a-z0-9][a-z0-9._-]{0,89}")


class PayloadKind(enum.StrEnum):
    """In which form a model is shipped; the device class picks one."""

    ONNX = "onnx"
    OCI = "oci"
    PMML = "pmml"
    VERILOG = "verilog"


@dataclass(frozen=True, slots=True)
class Payload:
    """One form of one model. `target` is the architecture it is for, `any` when it does not matter."""

    kind: PayloadKind
    path: str
    digest: str
    bytes: int
    target: str = "any"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Digest and size of one member."""

    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The shared graph of one pump type: `payload`, `golden` and `card` are paths, `model` is the name of its line.

    `content_digest` is the identity of the model version.
    """

    pump_type: str
    model: str
    model_type: str
    content_digest: str
    payload: str
    golden: str
    card: str


@dataclass(frozen=True, slots=True)
class PumpEntry:
    """What one pump adds: its block and reference edges (paths), its channels in model order and its alarm settings."""

    tag: str
    pump_type: str
    block: str
    edges: str
    channels: tuple[Channel, ...]
    window_s: float
    limit: float
    deadband: float
    persistence_s: float
    tau_s: float


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the device must be: its class, and the least runtime and highest opset the model was made for."""

    device_class: str
    architecture: str
    os: str
    onnxruntime: str
    opset: int
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How the device runs and tries the model: a deterministic rule on device class and model, never a measurement.

    `latency_limit_us` bounds one scored row, `memory_limit_mb` the trial process, `golden_tolerance` the relative difference
    of a golden answer.
    """

    threads: int
    spinning: bool
    latency_limit_us: float
    memory_limit_mb: int
    golden_tolerance: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The list of everything in a package. `unpacked_bytes` is the exact length of the tar inside the xz stream.

    `files` covers every member but the manifest itself.
    """

    format: int
    device: str
    requirements: Requirements
    settings: Settings
    unpacked_bytes: int
    data_end_ms: int
    models: tuple[ModelEntry, ...]
    payloads: tuple[Payload, ...]
    pumps: tuple[PumpEntry, ...]
    files: Mapping[str, FileEntry]

    def model_of(self, pump_type: str) -> ModelEntry:
        """The model of a pump type.

        Raises:
            NotFoundError: this package has none for it.
        """
        for model in self.models:
            if model.pump_type == pump_type:
                return model
        raise NotFoundError("the package holds no model for this pump type", pump_type)

    def pump(self, tag: str) -> PumpEntry:
        """The entry of a pump by tag, whatever the case.

        Raises:
            NotFoundError: the package is not for this pump.
        """
        for entry in self.pumps:
            if entry.tag.lower() == tag.lower():
                return entry
        raise NotFoundError("the package holds nothing for this pump", tag)

    def payload_at(self, path: str) -> Payload:
        """The payload of that path.

        Raises:
            NotFoundError: there is none.
        """
        for payload in self.payloads:
            if payload.path == path:
                return payload
        raise NotFoundError("the package holds no such payload", path)


def is_member_path(path: str) -> bool:
    """True for a path a package may hold: lower case, at most one folder deep, no dots that climb, fits a USTAR name."""
    return _PATH.fullmatch(path) is not None and ".." not in path and path[-1] != "." and len(path) <= 100


def parse_manifest(data: bytes, what: str = MANIFEST_NAME) -> Manifest:
    """A checked manifest from its bytes.

    Raises:
        TooLargeError: more than MANIFEST_MAX_BYTES.
        FormatError: not canonical JSON of a Manifest, an unknown format, or a part that points at nothing.
    """
    manifest = canonical.decode(Manifest, data, what, max_bytes=MANIFEST_MAX_BYTES)
    if canonical.encode(manifest) != data:
        raise FormatError("is not in canonical form", what, hint="make it with pumpdeck package build")
    check_manifest(manifest, what)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest."""
    return canonical.encode(manifest)


def check_manifest(manifest: Manifest, what: str = MANIFEST_NAME) -> None:
    """Check what the types alone do not say.

    Raises:
        FormatError: names the first part that is wrong.
    """
    if manifest.format != MANIFEST_FORMAT:
        raise FormatError("has an unknown format", what, expected=MANIFEST_FORMAT, found=manifest.format)
    check_name(manifest.device, f"{what}.device")
    if not 0 < manifest.unpacked_bytes <= UNPACKED_MAX_BYTES:
        raise FormatError("has an impossible unpacked length", what, found=manifest.unpacked_bytes)
    if not 0 < len(manifest.files) <= MAX_FILES:
        raise FormatError("lists too many or no files", what, expected=f"1-{MAX_FILES}", found=len(manifest.files))
    for path, entry in manifest.files.items():
        _check_file(path, entry, what)
    _check_parts(manifest, what)


def _check_file(path: str, entry: FileEntry, what: str) -> None:
    if path == MANIFEST_NAME or not is_member_path(path):
        raise FormatError("lists a path that a package must not hold", what, found=repr(path[:100]))
    check_digest(entry.digest, f"{what}.files.{path}")
    if not 0 <= entry.bytes <= UNPACKED_MAX_BYTES:
        raise FormatError("has an impossible size", f"{what}.files.{path}", found=entry.bytes)


def _check_parts(manifest: Manifest, what: str) -> None:
    payload_paths = [payload.path for payload in manifest.payloads]
    types = [model.pump_type for model in manifest.models]
    tags = [pump.tag.lower() for pump in manifest.pumps]
    for names, of in ((payload_paths, "payloads"), (types, "models"), (tags, "pumps")):
        if not names or len(set(names)) != len(names):
            raise FormatError("has none or the same one twice", f"{what}.{of}")
    for payload in manifest.payloads:
        entry = manifest.files.get(payload.path)
        if entry is None or (entry.digest, entry.bytes) != (payload.digest, payload.bytes):
            raise FormatError("has a payload that differs from its file", what, found=payload.path)
    for model in manifest.models:
        check_digest(model.content_digest, f"{what}.models.{model.pump_type}")
        if model.payload not in payload_paths:
            raise FormatError("has a model without a payload", what, found=model.payload)
        _check_listed(manifest, (model.golden, model.card), what)
    for pump in manifest.pumps:
        check_tag(pump.tag, f"{what}.pumps")
        if pump.pump_type not in types:
            raise FormatError("has a pump without a model", what, found=pump.tag)
        if not pump.channels:
            raise FormatError("has a pump without channels", what, found=pump.tag)
        _check_listed(manifest, (pump.block, pump.edges), what)


def _check_listed(manifest: Manifest, paths: tuple[str, ...], what: str) -> None:
    for path in paths:
        if path not in manifest.files:
            raise FormatError("points at a file it does not list", what, found=path)
