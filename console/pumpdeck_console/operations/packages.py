"""Building the package of each device and releasing it: signed for that device, listed in its site's trust repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.confidential_packages import seal_for, without_key
from pumpdeck_console.operations.releasing import propose_release
from pumpdeck_console.operations.selection import WantedDevice, wanted_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import GateRefusedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import ModelVersion, PumpParameters
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_packaging.manifest import Manifest
from pumpdeck_packaging.package import BuiltPackage, ModelContent, PackageContent, PumpContent, build_package
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_packaging.release_entries import PackageRelease
from pumpdeck_trainer.foreign_reader import graph_opset
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec


@dataclass(frozen=True, slots=True)
class BuiltRow:
    """One package: `is_new` is false when these very bytes were built before.

    `pending` is empty, or the file that a second person must sign before the package can be assigned.
    """

    device: str
    site: str
    sha256: str
    bytes: int
    unpacked_bytes: int
    is_new: bool
    pending: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A device without a package, and why."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built and released, and what was left out."""

    packages: tuple[BuiltRow, ...]
    left_out: tuple[LeftOut, ...]


@operation("package.build", runs_in="worker")
def build_packages(
    workspace: Workspace,
    *,
    query: str = "",
    models: Mapping[str, str] | None = None,
    on_progress: Progress = no_progress,
) -> BuildReport:
    """Build and release the package of every device that `query` and `models` (model -> number or alias) select.

    The same model versions give the same bytes; building again changes nothing.

    Raises:
        RefusedError: no device can have a package. TrustError: the release key is not one of the site's.
    """
    wanted = wanted_devices(workspace, query=query, models=models or {})
    keyless = without_key(workspace, [one.device for one in wanted])
    lacking = {one.device.id: one.lacking or keyless.get(one.device.id, "") for one in wanted}
    left_out = tuple(LeftOut(device, reason) for device, reason in lacking.items() if reason)
    chosen = [one for one in wanted if not lacking[one.device.id]]
    if not chosen:
        why = "; ".join(sorted({one.reason for one in left_out})[:3]) or "the query selects no device"
        raise RefusedError("no device can have a package", "package", found=why)
    parts = _Parts(workspace)
    by_site: dict[str, list[tuple[WantedDevice, BuiltPackage]]] = {}
    for number, one in enumerate(chosen):
        on_progress("build packages", number, len(chosen))
        try:
            by_site.setdefault(one.device.site, []).append((one, build_package(parts.content(one))))
        except GateRefusedError as error:
            # One device that cannot hold its models is no reason to leave the others without.
            left_out = (*left_out, LeftOut(one.device.id, error.sentence()))
    on_progress("build packages", len(chosen), len(chosen))
    by_site = {site: built for site, built in by_site.items() if built}
    if not by_site:
        raise RefusedError("no device can have a package", "package", found=left_out[-1].reason)
    rows: list[BuiltRow] = []
    for number, (site, built) in enumerate(sorted(by_site.items())):
        on_progress("release", number, len(by_site))
        rows += _release(workspace, site, built)
    on_progress("release", len(by_site), len(by_site))
    return BuildReport(tuple(sorted(rows, key=lambda row: row.device)), left_out)


@dataclass(frozen=True, slots=True)
class PackageView:
    """A package read back from the artifacts and checked."""

    row: PackageRow
    manifest: Manifest


@operation("package.list", runs_in="reader")
def list_packages(workspace: Workspace, *, query: str = "") -> tuple[PackageRow, ...]:
    """The packages of the devices with a pump that `query` selects, by device, newest first."""
    from pumpdeck_console.operations.fleet import list_pumps  # deferred: only this operation needs it

    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = [device.id for device in workspace.fleet.devices if device.id in chosen]
    return tuple(package for device in devices for package in workspace.store.packages.for_device(device))


@operation("package.show", runs_in="reader")
def show_package(workspace: Workspace, *, which: str) -> PackageView:
    """The package of that digest, or the newest one of that device, verified against its digest and read whole.

    Raises:
        NotFoundError: there is none. DamagedError: its bytes were altered.
    """
    row = workspace.store.packages.get(which)
    if row is None:
        found = workspace.store.packages.for_device(which)
        if not found:
            raise NotFoundError("no such package", which, hint="list them with: pumpdeck package list")
        row = found[0]
    data = workspace.artifacts.get(row.sha256)
    files = read_package(data, expected_sha256=row.sha256, max_unpacked_bytes=row.unpacked_bytes)
    return PackageView(row, files.manifest)


def package_content(workspace: Workspace, wanted: WantedDevice) -> PackageContent:
    """Everything that the package of one device would hold; nothing is released."""
    return _Parts(workspace).content(wanted)


class _Parts:
    """The bytes that packages are made of, each read from the artifacts once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._models: dict[str, ModelContent] = {}
        self._specs: dict[str, PipelineSpec] = {}

    def content(self, wanted: WantedDevice) -> PackageContent:
        """Everything that goes to one device."""
        versions = wanted.versions
        return PackageContent(
            device=wanted.device.id,
            device_class=self._workspace.fleet.device_classes[wanted.device.device_class],
            models=tuple(self._model(version) for version in versions.values()),
            pumps=tuple(self._pump(pump.id, pump.tag, versions[pump.type]) for pump in wanted.pumps),
            data_end_ms=max(version.data_end_ms for version in versions.values()),
        )

    def _model(self, version: ModelVersion) -> ModelContent:
        if version.content_digest not in self._models:
            get = self._workspace.artifacts.get
            onnx = get(version.onnx_digest)
            self._models[version.content_digest] = ModelContent(
                pump_type=version.pump_type,
                model=version.model,
                model_type=version.model_type,
                content_digest=version.content_digest,
                onnx=onnx,
                golden=get(version.golden_digest),
                card=get(version.card_digest),
                opset=graph_opset(version.model_type, onnx),
                lineage=version.lineage,
                source=version.origin.source_digest if version.origin else "",
            )
        return self._models[version.content_digest]

    def _spec(self, version: ModelVersion) -> PipelineSpec:
        digest = version.lineage.pipeline_digest
        if digest not in self._specs:
            data = self._workspace.artifacts.get(digest)
            what = f"pipeline {digest[:12]}"
            self._specs[digest] = canonical.decode(PipelineSpec, data, what, max_bytes=SPEC_MAX_BYTES)
        return self._specs[digest]

    def _pump(self, identity: str, tag: str, version: ModelVersion) -> PumpContent:
        held: PumpParameters = next(pump for pump in version.pumps if pump.pump == identity)
        spec = self._spec(version)
        pump_type = self._workspace.fleet.pump_types[version.pump_type]
        return PumpContent(
            tag=tag,
            pump_type=version.pump_type,
            block=self._workspace.artifacts.get(held.block_digest),
            edges=self._workspace.artifacts.get(held.edges_digest),
            channels=tuple(pump_type.channel(channel.name) for channel in spec.channels),
            window_s=spec.window_s,
            limit=held.limit,
            deadband=spec.alarm.deadband,
            persistence_s=spec.alarm.persistence_s,
            tau_s=spec.alarm.tau_s,
        )


def _release(workspace: Workspace, site: str, built: Sequence[tuple[WantedDevice, BuiltPackage]]) -> list[BuiltRow]:
    for _, package in built:
        workspace.artifacts.put(package.data)
    releases = [
        PackageRelease(
            package,
            {version.model: version.number for version in one.versions.values()},
            seal_for(workspace, one.device, package),
        )
        for one, package in built
    ]
    signer = workspace.signing_key("release", site).signer
    if workspace.trust(site).release_threshold() > 1:
        path = propose_release(workspace, site, releases, signer)
        if path is not None:
            return [_pending_row(one.device.id, site, package, str(path)) for one, package in built]
    else:
        # The signed word comes first: a cut after it leaves a released package that the next build finds again.
        workspace.trust(site).release(releases, [signer])
    now_ms = workspace.clock.now_ms()
    rows = []
    with workspace.store.atomic() as store:
        for one, package in built:
            row = _package_row(one, package, now_ms)
            is_new = store.packages.put(row)
            rows.append(BuiltRow(row.device, row.site, row.sha256, row.bytes, row.unpacked_bytes, is_new))
            if is_new:
                versions = ", ".join(f"{model} v{number}" for model, number in sorted(row.versions.items()))
                digests = {"package": row.sha256}
                store.audit.append(workspace.actor, "package.release", row.device, reason=versions, digests=digests)
    return rows


def _pending_row(device: str, site: str, package: BuiltPackage, path: str) -> BuiltRow:
    return BuiltRow(device, site, package.sha256, len(package.data), package.unpacked_bytes, is_new=True, pending=path)


def _package_row(wanted: WantedDevice, package: BuiltPackage, now_ms: int) -> PackageRow:
    pumps = []
    for pump in wanted.pumps:
        version = wanted.versions[pump.type]
        limit = next(held.limit for held in version.pumps if held.pump == pump.id)
        pumps.append(PackagePump(pump.id, version.model, version.number, limit))
    return PackageRow(
        sha256=package.sha256,
        device=wanted.device.id,
        site=wanted.device.site,
        bytes=len(package.data),
        unpacked_bytes=package.unpacked_bytes,
        created_ms=now_ms,
        pumps=tuple(pumps),
    )
