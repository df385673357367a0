"""Bundles: what the outbox holds for couriers goes onto a stick, what devices put on it comes back in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_console.operations.assigning import SiteAssigner
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.confidential import open_return
from pumpdeck_console.operations.delivering import collector_of
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES, Assignment
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.collect import CollectReport
from pumpdeck_fleet.services.courier import AwaitedReturn, CourierTask, awaited_returns, courier_tasks, hand_out
from pumpdeck_fleet.services.intake import intake_return
from pumpdeck_packaging.bundle import BundlePart, WriteReport, bytes_part, claim, write_bundle
from pumpdeck_packaging.bundle_index import assignment_file, kept_file, metadata_file, package_file
from pumpdeck_packaging.bundle_kept import DeviceName, sign_kept
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME
from pumpdeck_packaging.bundle_returns import ENVELOPE_MAX_BYTES, returned_devices
from pumpdeck_packaging.bundle_stick import Stick, real_stick, stick_errors
from pumpdeck_packaging.folder_lock import hold_folder

STICK_BYTES_PER_S = 8_000_000
"""What an ordinary stick writes and gives back; the plan says that it is an assumption."""

_LOCK_WAIT_S = 2.0
_WORKERS = 4


@dataclass(frozen=True, slots=True)
class BundleRow:
    """One device of a bundle. `package` is empty when the stick only fetches its return; `note` says what is odd."""

    device: str
    site: str
    package: str
    bytes: int
    deadline_ms: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What an export would write. `seconds` assumes `STICK_BYTES_PER_S`; `free_bytes` is -1 where nothing is mounted yet."""

    to: str
    rows: tuple[BundleRow, ...]
    packages: int
    bytes: int
    free_bytes: int
    seconds: float
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did, and the plan it carried out."""

    plan: BundlePlan
    bundle: str
    written: int
    written_bytes: int
    already: int


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What a stick brought back: reports by device, what was refused or ignored and why, what is still awaited."""

    devices: tuple[CollectReport, ...]
    problems: tuple[tuple[str, str], ...]
    awaited: tuple[AwaitedReturn, ...]
    rows: int = 0
    drift: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)


@operation("bundle.plan", runs_in="reader")
def plan_bundle(workspace: Workspace, *, query: str = "", to: str) -> BundlePlan:
    """What a bundle for the devices with a pump that `query` selects would hold.

    Raises:
        RefusedError: the query selects no device.
    """
    devices = _chosen(workspace, query)
    tasks, problems = courier_tasks(workspace.store, {device.id for device in devices})
    return _plan(workspace, devices, tasks, problems, Path(to))


@operation("bundle.export", runs_in="worker")
def export_bundle(
    workspace: Workspace, *, query: str = "", to: str, on_progress: Progress = no_progress
) -> ExportReport:
    """Write everything that couriers may carry to these devices into the folder `to`. Repeating goes on where it stopped.

    Raises:
        RefusedError: no device, no room, or other things lie in the folder. ConflictError: another workspace's bundle does.
        StickFailedError: the stick failed; what is on it is not believed by anyone.
        NotFoundError: no deploy key on this computer.
    """
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        return _export(workspace, query, real_stick(Path(to).absolute()), on_progress)


@operation("bundle.intake", runs_in="worker")
def intake_bundle(
    workspace: Workspace, *, folder: str, allow_plain: bool = False, on_progress: Progress = no_progress
) -> IntakeReport:
    """Take in what devices put on a stick. In any order, as often as one likes; what is not theirs is refused, device by device.

    `allow_plain`: take returns that lie open although their site demands encryption.

    Raises:
        NotFoundError: there is no such folder.
    """
    from pumpdeck_console.operations.drift import judge  # deferred: numpy

    stick = real_stick(Path(folder).absolute())
    if not stick.folder.is_dir():
        raise NotFoundError("is not a folder", folder, hint="is the stick mounted?")
    with stick_errors(stick.folder):
        names, odd = returned_devices(stick.fs, stick.folder)
    reports: list[CollectReport] = []
    problems = [(name[:80], "is not the name of a device") for name in odd]
    for number, device in enumerate(names):
        on_progress("take in", number, len(names))
        try:
            reports.append(_take_in(workspace, stick, device, allow_plain))
        except PumpdeckError as error:
            problems.append((device, error.sentence()))
    on_progress("take in", len(names), len(names))
    stored: dict[str, int] = {}
    for report in reports:
        for kind, count in report.stored.items():
            stored[kind] = stored.get(kind, 0) + count
    drift = judge(workspace).fresh if stored.get("sketch") else 0
    rows = sum(report.rows for report in reports)
    return IntakeReport(tuple(reports), tuple(problems), awaited_returns(workspace.store), rows, drift, stored)


@operation("bundle.awaited", runs_in="reader")
def awaited(workspace: Workspace) -> tuple[AwaitedReturn, ...]:
    """Courier devices whose receipt is outstanding, the nearest deadline first."""
    return awaited_returns(workspace.store)


def _chosen(workspace: Workspace, query: str) -> list[Device]:
    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = [device for device in workspace.fleet.devices if device.id in chosen]
    if not devices:
        raise RefusedError("no device is selected", query or "bundle", hint="try the query with: pumpdeck devices")
    return devices


def _plan(
    workspace: Workspace,
    devices: Sequence[Device],
    tasks: Sequence[CourierTask],
    problems: Sequence[tuple[str, str]],
    folder: Path,
) -> BundlePlan:
    by_device = {task.command.device: task for task in tasks}
    rows = []
    for device in devices:
        task = by_device.get(device.id)
        if task is None:
            is_courier = workspace.fleet.site(device.site).link is Link.COURIER
            note = "nothing to bring, its return is fetched" if is_courier else "reached by SSH, its return is fetched"
            rows.append(BundleRow(device.id, device.site, "", 0, 0, note))
            continue
        note = "given to a courier before" if task.is_again else ""
        command = task.command
        size, digest = command.package_bytes, command.package_sha256
        rows.append(BundleRow(device.id, device.site, digest, size, task.deadline_ms, note))
    metadata = sum(_metadata_bytes(workspace, site) for site in {device.site for device in devices})
    total = metadata + sum(row.bytes for row in rows)
    here = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
    free = workspace.fs.free_bytes(here) if here else -1
    # Written once, read back once.
    seconds = 2 * total / STICK_BYTES_PER_S
    packages = sum(bool(row.package) for row in rows)
    return BundlePlan(str(folder), tuple(rows), packages, total, free, seconds, tuple(problems))


def _metadata_bytes(workspace: Workspace, site: str) -> int:
    trust = workspace.trust(site)
    return trust.status().metadata_bytes if trust.exists else 0


def _export(workspace: Workspace, query: str, stick: Stick, on_progress: Progress) -> ExportReport:
    store = workspace.store
    devices = _chosen(workspace, query)
    deploy.advance(store, workspace.fleet, workspace.clock.now_ms())
    tasks, problems = courier_tasks(store, {device.id for device in devices})
    plan = _plan(workspace, devices, tasks, problems, stick.folder)
    assigner = SiteAssigner(workspace)
    _sign(assigner, tasks)
    parts = _parts(workspace, assigner, devices, tasks)
    now_ms = workspace.clock.now_ms()
    new_id = "b-" + canonical.digest(f"{store.workspace}/{now_ms}/{stick.folder}".encode())[:12]
    bundle = claim(stick, store.workspace, new_id)
    digests = {part.path: part.digest for part in parts}

    def give_away() -> None:
        with store.atomic():
            hand_out(store, tasks, workspace.clock.now_ms())
            what = {"files": canonical.digest(canonical.encode(digests))}
            reason = f"{len(tasks)} packages for {', '.join(sorted({device.site for device in devices}))}"
            store.audit.append(workspace.actor, "bundle.export", bundle, reason, what)

    found: WriteReport = write_bundle(
        stick, bundle, parts, before_index=give_away, on_progress=on_progress, workers=_WORKERS
    )
    return ExportReport(plan, bundle, found.written, found.written_bytes, found.already)


def _sign(assigner: SiteAssigner, tasks: Sequence[CourierTask]) -> None:
    """Have every assignment signed that is not yet, one signing step a site."""
    by_site: dict[str, list[Assignment]] = {}
    for task in tasks:
        if not _is_signed(assigner, task):
            by_site.setdefault(task.command.site, []).append(task.assignment)
    for site, assignments in sorted(by_site.items()):
        assigner.assign(site, assignments)


def _is_signed(assigner: SiteAssigner, task: CourierTask) -> bool:
    command = task.command
    try:
        data = dict(assigner.files_for(command.site, command.device))[ASSIGNMENT_NAME]
    except NotFoundError:
        return False
    filed = canonical.decode(Assignment, data, f"assignment of {command.device}", max_bytes=ASSIGNMENT_MAX_BYTES)
    return (filed.task, filed.seq, filed.package_sha256) == (command.id, command.seq, command.package_sha256)


def _parts(
    workspace: Workspace, assigner: SiteAssigner, devices: Sequence[Device], tasks: Sequence[CourierTask]
) -> list[BundlePart]:
    parts: dict[str, BundlePart] = {}
    for site in sorted({device.site for device in devices}):
        trust = workspace.trust(site)
        files = trust.current_files() if trust.exists else []
        parts |= {part.path: part for part in (bytes_part(metadata_file(site, name), data) for name, data in files)}
    for task in tasks:
        command = task.command
        data = dict(assigner.files_for(command.site, command.device))[ASSIGNMENT_NAME]
        assignment = bytes_part(assignment_file(command.site, command.device), data)
        package = _package_part(workspace, command.site, command.package_sha256, command.package_bytes)
        parts |= {assignment.path: assignment, package.path: package}
    for device in devices:
        envelope = _kept_envelope(workspace, device.id)
        if envelope and workspace.trust(device.site).exists:
            signer = workspace.signing_key("deploy", device.site).signer
            kept = sign_kept(DeviceName(device.site, device.id), envelope, signer)
            part = bytes_part(kept_file(device.site, device.id), kept)
            parts[part.path] = part
    return list(parts.values())


def _package_part(workspace: Workspace, site: str, digest: str, size: int) -> BundlePart:
    return BundlePart(package_file(site, digest), size, digest, lambda: workspace.artifacts.get(digest))


def _take_in(workspace: Workspace, stick: Stick, device: str, allow_plain: bool) -> CollectReport:
    with stick_errors(stick.folder):
        found = open_return(workspace, stick, device, allow_plain=allow_plain)
        taken = intake_return(collector_of(workspace), device, found.envelope, found.read_item)
    if taken.is_newest:
        _keep_envelope(workspace, device, found.envelope)
    return taken.report


def _envelope_path(workspace: Workspace, device: str) -> Path:
    return workspace.root / "returns" / f"{device}.json"


def _keep_envelope(workspace: Workspace, device: str, envelope: bytes) -> None:
    """Remember the newest return of a device: the next stick tells it that this one is safe."""
    path = _envelope_path(workspace, device)
    workspace.fs.mkdir(path.parent)
    replace_file(workspace.fs, path, envelope)


def _kept_envelope(workspace: Workspace, device: str) -> bytes:
    try:
        return workspace.fs.read_bytes(_envelope_path(workspace, device), ENVELOPE_MAX_BYTES)
    except FileNotFoundError:
        return b""
