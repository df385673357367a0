"""Bundles: what the outbox holds for couriers goes onto a stick, what devices put on it comes back in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_console.operations.assigning import SiteAssigner
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.bundle_agent import AgentReport, agent_load, note_agent, paper_of
from pumpdeck_console.operations.bundle_plan import (
    BundlePlan,
    Outgoing,
    chosen_devices,
    known_stick,
    outgoing,
    plan_bundle,
    plan_of,
)
from pumpdeck_console.operations.confidential import open_return
from pumpdeck_console.operations.confidential_packages import seal_word, stored_package
from pumpdeck_console.operations.delivering import collector_of
from pumpdeck_console.operations.sticks import new_entry, record_export, record_return, record_speed
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES, Assignment
from pumpdeck_fleet.core.sticks import StickEntry, StickKind, StickState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.collect import CollectReport
from pumpdeck_fleet.services.courier import AwaitedReturn, CourierTask, awaited_returns, hand_out
from pumpdeck_fleet.services.intake import intake_return
from pumpdeck_packaging.bundle import BundlePart, WriteReport, bytes_part, claim, write_bundle
from pumpdeck_packaging.bundle_agent import AgentLoad, AgentOnStick, agent_folder
from pumpdeck_packaging.bundle_index import assignment_file, kept_file, metadata_file, package_file
from pumpdeck_packaging.bundle_kept import DeviceName, sign_kept
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME
from pumpdeck_packaging.bundle_returns import ENVELOPE_MAX_BYTES, returned_devices
from pumpdeck_packaging.bundle_stick import Stick, real_stick, stick_errors
from pumpdeck_packaging.bundle_tar import open_tar
from pumpdeck_packaging.bundle_tar_writer import check_ours, real_place, tar_id, write_bundle_tar
from pumpdeck_packaging.folder_lock import hold_folder

_LOCK_WAIT_S = 2.0
_WORKERS = 4
_MEASURED_BYTES = 1_000_000
"""Less than this says nothing about a stick's speed."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did, and the plan it carried out. `bytes_per_s` is the stick's, written and read back; 0 for too little.

    `replaced` names lost sticks whose load this one carries now; `agent` is what a letter holds of the agent.
    """

    plan: BundlePlan
    bundle: str
    written: int
    written_bytes: int
    already: int
    bytes_per_s: float = 0.0
    replaced: tuple[str, ...] = ()
    agent: AgentReport | None = None


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What a stick brought back: reports by device, what was refused or ignored and why, what is still awaited."""

    devices: tuple[CollectReport, ...]
    problems: tuple[tuple[str, str], ...]
    awaited: tuple[AwaitedReturn, ...]
    rows: int = 0
    drift: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)
    stick: str = ""
    stick_state: str = ""


@operation("bundle.export", runs_in="worker")
def export_bundle(
    workspace: Workspace, *, query: str = "", to: str, carrier: str = "", on_progress: Progress = no_progress
) -> ExportReport:
    """Write everything that couriers may carry to these devices into the folder `to`. Repeating goes on where it stopped.

    Without a query, for every site that only couriers reach; with one, for sites that have a link as well.

    Raises:
        RefusedError: no device, no room, or other things lie in the folder. ConflictError: another workspace's bundle does.
        StickFailedError: the stick failed; what is on it is not believed by anyone.
        NotFoundError: no deploy key on this computer.
    """
    wanted = _Wanted(chosen_devices(workspace, query), carrier)
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        return _export(workspace, wanted, real_stick(Path(to).absolute()), on_progress)


@operation("bundle.reissue", runs_in="worker")
def reissue_stick(
    workspace: Workspace, *, stick: str, to: str, carrier: str = "", on_progress: Progress = no_progress
) -> ExportReport:
    """Write onto another stick what a lost one carried, as far as it is still to be carried.

    Raises:
        NotFoundError: no such stick. RefusedError: it is not lost. Else as `export_bundle`.
    """
    entry = workspace.store.sticks.find(stick)
    if entry.state is not StickState.LOST:
        hint = f"mark it first: pumpdeck bundle lost {entry.id}"
        raise RefusedError("is not lost", f"stick {entry.id}", expected="LOST", found=entry.state.value, hint=hint)
    fleet = workspace.fleet
    devices = [fleet.device_by_id[load.device] for load in entry.loads if load.device in fleet.device_by_id]
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        wanted = _Wanted(devices, carrier, replaces=entry.id)
        return _export(workspace, wanted, real_stick(Path(to).absolute()), on_progress)


@operation("bundle.tar", runs_in="worker")
def export_tar(
    workspace: Workspace,
    *,
    query: str = "",
    file: str,
    carrier: str = "",
    has_agent: bool = False,
    on_progress: Progress = no_progress,
) -> ExportReport:
    """The same as `export_bundle` in one file that travels by mail; the same content gives the same bytes.

    `has_agent`: the agent and its libraries too, as `bundle_agent.add_agent` puts them onto a stick.

    Raises:
        RefusedError: no device, no room, or another file has that name. ConflictError: another workspace's bundle has it.
        NotFoundError: no deploy key on this computer.
    """
    path = Path(file).absolute()
    devices = chosen_devices(workspace, query)
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        store = workspace.store
        deploy.advance(store, workspace.fleet, workspace.clock.now_ms())
        going = outgoing(workspace, devices)
        plan = plan_of(workspace, going, path)
        place = real_place(path)
        check_ours(place, path, store.workspace)
        parts = bundle_parts(workspace, going)
        agent = _letter_agent(workspace, query) if has_agent else None
        parts += agent.parts if agent else []
        entry = new_entry(
            workspace, going, tar_id(parts), path, kind=StickKind.LETTER, carrier=carrier, size_bytes=plan.bytes
        )
        replaced: list[str] = []

        def before_index() -> None:
            replaced.extend(give_away(workspace, going, entry, parts))

        found = write_bundle_tar(place, store.workspace, parts, before_index=before_index, on_progress=on_progress)
        if agent:
            note_agent(workspace, found.id, agent.load, agent.start_digest)
    told = agent.told() if agent else None
    return ExportReport(plan, found.id, found.written, found.written_bytes, 0, 0.0, tuple(replaced), told)


@dataclass(frozen=True, slots=True)
class _LetterAgent:
    """The agent as it goes into a letter."""

    load: AgentLoad
    parts: list[BundlePart]
    start_digest: str
    notes: tuple[str, ...]

    def told(self) -> AgentReport:
        targets = tuple(one.target.name for one in self.load.sets)
        size = sum(part.size for part in self.parts)
        written = AgentOnStick(self.load.agent.version, targets, size, len(self.parts), 0, self.start_digest)
        return AgentReport(written, paper_of(self.start_digest), tuple(sorted(self.load.words)), self.notes)


def _letter_agent(workspace: Workspace, query: str) -> _LetterAgent:
    load, notes = agent_load(workspace, query)
    parts, start_digest = agent_folder(load)
    return _LetterAgent(load, parts, start_digest, notes)


@operation("bundle.intake", runs_in="worker")
def intake_bundle(
    workspace: Workspace, *, folder: str, allow_plain: bool = False, on_progress: Progress = no_progress
) -> IntakeReport:
    """Take in what devices put on a stick, or the file in which a device answered.

    In any order, as often as one likes; what is not theirs is refused, device by device. `allow_plain`: take returns that lie
    open although their site demands encryption.

    Raises:
        NotFoundError: there is no such folder or file. FormatError: the file is no answer.
    """
    path = Path(folder).absolute()
    if path.is_dir():
        return _intake(workspace, real_stick(path), allow_plain, on_progress)
    if not path.is_file():
        raise NotFoundError("is not a folder", folder, hint="is the stick mounted?")
    with stick_errors(path):
        letter = open_tar(path, workspace.fs)
    try:
        return _intake(workspace, letter.stick(), allow_plain, on_progress)
    finally:
        letter.close()


def _intake(workspace: Workspace, stick: Stick, allow_plain: bool, on_progress: Progress) -> IntakeReport:
    from pumpdeck_console.operations.drift import judge  # deferred: numpy

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
    entry = _note_return(workspace, stick)
    back = (entry.id, entry.state.value) if entry else ("", "")
    return IntakeReport(tuple(reports), tuple(problems), awaited_returns(workspace.store), rows, drift, stored, *back)


@operation("bundle.awaited", runs_in="reader")
def awaited(workspace: Workspace) -> tuple[AwaitedReturn, ...]:
    """Devices that a courier serves and whose receipt is outstanding, the nearest deadline first."""
    return awaited_returns(workspace.store)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Whom the bundle is for, who carries it, and which lost stick it replaces."""

    devices: Sequence[Device]
    carrier: str = ""
    replaces: str = ""


def _export(workspace: Workspace, wanted: _Wanted, stick: Stick, on_progress: Progress) -> ExportReport:
    store = workspace.store
    deploy.advance(store, workspace.fleet, workspace.clock.now_ms())
    going = outgoing(workspace, wanted.devices)
    plan = plan_of(workspace, going, stick.folder)
    parts = bundle_parts(workspace, going)
    new_id = "b-" + canonical.digest(f"{store.workspace}/{workspace.clock.now_ms()}/{stick.folder}".encode())[:12]
    bundle = claim(stick, store.workspace, new_id)
    entry = new_entry(
        workspace, going, bundle, stick.folder, kind=StickKind.FOLDER, carrier=wanted.carrier, size_bytes=plan.bytes
    )
    replaced: list[str] = []

    def before_index() -> None:
        replaced.extend(give_away(workspace, going, entry, parts, wanted.replaces))

    start_ms = workspace.clock.now_ms()
    found: WriteReport = write_bundle(
        stick, bundle, parts, before_index=before_index, on_progress=on_progress, workers=_WORKERS
    )
    elapsed_ms = workspace.clock.now_ms() - start_ms
    speed = 0.0
    if found.written_bytes >= _MEASURED_BYTES and elapsed_ms > 0:
        # Each byte was written and read back.
        speed = 2000 * found.written_bytes / elapsed_ms
        record_speed(workspace, bundle, speed)
    return ExportReport(plan, bundle, found.written, found.written_bytes, found.already, speed, tuple(replaced))


def give_away(
    workspace: Workspace, going: Outgoing, entry: StickEntry, parts: Sequence[BundlePart], replaces: str = ""
) -> tuple[str, ...]:
    """Count these assignments as given away with that stick, in one transaction; the lost sticks that it replaces."""
    store = workspace.store
    digests = {part.path: part.digest for part in parts}
    with store.atomic():
        hand_out(store, going.tasks, workspace.clock.now_ms())
        replaced = record_export(workspace, entry, replaces)
        reason = f"{len(going.tasks)} packages for {', '.join(sorted({device.site for device in going.devices}))}"
        what = {"files": canonical.digest(canonical.encode(digests))}
        store.audit.append(workspace.actor, "bundle.export", entry.id, reason, what)
    return replaced


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


def bundle_parts(workspace: Workspace, going: Outgoing) -> list[BundlePart]:
    """Every file of the bundle; signs what is not signed yet.

    Raises:
        NotFoundError: no deploy key on this computer.
    """
    devices, tasks = going.devices, going.tasks
    assigner = SiteAssigner(workspace)
    _sign(assigner, tasks)
    parts: dict[str, BundlePart] = {}
    for site in sorted({device.site for device in devices}):
        trust = workspace.trust(site)
        files = trust.current_files() if trust.exists else []
        parts |= {part.path: part for part in (bytes_part(metadata_file(site, name), data) for name, data in files)}
    for task in tasks:
        command = task.command
        data = dict(assigner.files_for(command.site, command.device))[ASSIGNMENT_NAME]
        assignment = bytes_part(assignment_file(command.site, command.device), data)
        stored = stored_package(workspace, command.site, command.device, command.package_sha256, command.package_bytes)
        package = _package_part(workspace, command.site, stored.sha256, stored.bytes)
        parts |= {assignment.path: assignment, package.path: package}
    for device in devices:
        envelope = _kept_envelope(workspace, device.id)
        if envelope and workspace.trust(device.site).exists:
            signer = workspace.signing_key("deploy", device.site).signer
            kept = seal_word(workspace, device, sign_kept(DeviceName(device.site, device.id), envelope, signer))
            part = bytes_part(kept_file(device.site, device.id), kept)
            parts[part.path] = part
    return list(parts.values())


def _package_part(workspace: Workspace, site: str, digest: str, size: int) -> BundlePart:
    return BundlePart(package_file(site, digest), size, digest, lambda: workspace.artifacts.get_unproven(digest))


def _note_return(workspace: Workspace, stick: Stick) -> StickEntry | None:
    entry = known_stick(workspace, stick)
    return record_return(workspace, entry.id) if entry else None


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


__all__ = [
    "ExportReport",
    "IntakeReport",
    "awaited",
    "bundle_parts",
    "export_bundle",
    "export_tar",
    "give_away",
    "intake_bundle",
    "plan_bundle",
    "reissue_stick",
]
