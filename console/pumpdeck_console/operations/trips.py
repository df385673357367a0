"""A trip: the part of a workspace that a field engineer needs, as a workspace of its own, and how it comes home."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pumpdeck_console.operations.agent_releases import agent_desk
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.other_side import open_other, peoples_files
from pumpdeck_console.operations.syncing import SyncResult, take_in
from pumpdeck_console.operations.trip_checks import TripPlace, check_trip, trip_place, try_place, try_sticks
from pumpdeck_console.operations.trip_files import copy_artifacts, copy_files
from pumpdeck_console.operations.trip_list import (
    DeviceReturn,
    TripWork,
    as_markdown,
    chosen_devices,
    returned_markdown,
    work_list,
)
from pumpdeck_console.operations.workspace import Finding, init_workspace
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import LIVE, RolloutState
from pumpdeck_fleet.core.room import check_room, standing_folder
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.merge import merge_store, renumber
from pumpdeck_fleet.store.merge_tables import Scope
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.stick_trial import StickFigures
from pumpdeck_packaging.trust_merge import merge_site

TRIP_NAME = "trip.json"
WORK_NAME, WORK_LIST_NAME, RETURN_NAME = "WORK.md", "work.json", "RETURN.md"
TRIP_FORMAT = 1
_MAX_BYTES = 16 * 1024 * 1024
_LOCK_WAIT_S = 10.0
_AUDIT_LOOK = 10_000
_OPEN = frozenset({RolloutState.PLANNED, RolloutState.APPROVED, RolloutState.RUNNING, RolloutState.HALTED})


@dataclass(frozen=True, slots=True)
class Trip:
    """`trip.json`: whose part this is. `lent` are rollouts that the trip drives until it returns."""

    format: int
    parent: str
    workspace: str
    query: str
    devices: tuple[str, ...]
    prepared_ms: int
    until_ms: int
    lent: tuple[str, ...] = ()
    returned_ms: int = 0


@dataclass(frozen=True, slots=True)
class TripWish:
    """What a trip shall be: whose devices, how long keys and signatures must hold, how much telemetry comes along.

    `to` is a new folder, `sticks` are the folders on sticks that bundles will go to; each of them is tried.
    """

    to: str
    query: str = ""
    days: float = 21.0
    history_days: float = 30.0
    sticks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TripReport:
    """A trip that is ready, or with `is_plan` would be. `bytes` is the size of the folder, in a plan at most.

    `sticks` is what trying them found; a plan tries none.
    """

    to: str
    trip: Trip
    findings: tuple[Finding, ...]
    work: tuple[TripWork, ...]
    rows: int = 0
    artifacts: int = 0
    bytes: int = 0
    is_plan: bool = False
    sticks: tuple[StickFigures, ...] = ()

    @property
    def is_ready(self) -> bool:
        """True when nothing speaks against leaving."""
        return all(one.verdict != "bad" for one in self.findings)


@dataclass(frozen=True, slots=True)
class ReturnReport:
    """A trip that came home."""

    trip: Trip
    sync: SyncResult
    devices: tuple[DeviceReturn, ...]
    taken_back: tuple[str, ...]


@operation("trip.plan", runs_in="worker")
def plan_trip(workspace: Workspace, wish: TripWish) -> TripReport:
    """What the trip would be: checks and work list; nothing is written, no stick is tried. Raises: as `prepare_trip`."""
    devices = chosen_devices(workspace, wish.query)
    return _planned(workspace, wish, devices, trip_place(workspace, devices, wish.to, wish.sticks))


def _planned(workspace: Workspace, wish: TripWish, devices: tuple[Device, ...], place: TripPlace) -> TripReport:
    now_ms = workspace.clock.now_ms()
    until_ms = now_ms + round(wish.days * DAY_MS)
    names = tuple(device.id for device in devices)
    lent = tuple(rollout.id for rollout in _lendable(workspace.store, set(names)))
    trip = Trip(TRIP_FORMAT, workspace.store.workspace, "", wish.query, names, now_ms, until_ms, lent)
    findings = check_trip(workspace, devices, until_ms, place)
    return TripReport(wish.to, trip, findings, work_list(workspace, devices), bytes=place.bytes, is_plan=True)


@operation("trip.prepare", runs_in="worker")
def prepare_trip(
    workspace: Workspace,
    wish: TripWish,
    *,
    on_progress: Progress = no_progress,
    now_s: Callable[[], float] = time.monotonic,
) -> TripReport:
    """Write the part of this workspace about the devices that the wish selects into its new folder: it works alone.

    The folder's disk and every stick are tried first. Rollouts that concern no other device are driven by the trip until it
    returns.

    Raises:
        RefusedError: no device is selected, or there is no room. ConflictError: something is at `to` already.
        StickFailedError: the disk of `to` does not keep what is written.
    """
    devices = chosen_devices(workspace, wish.query)
    place = trip_place(workspace, devices, wish.to, wish.sticks)
    plan, target = _planned(workspace, wish, devices, place), place.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError("is there already", wish.to, expected="a new or empty folder")
    check_room(workspace.fs, standing_folder(target), place.bytes, "has no room for this trip")
    tried = try_place(place, now_s, on_progress)
    stick_findings, figures = try_sticks(workspace, devices, place, now_s, on_progress)
    plan = replace(plan, findings=(*plan.findings, *tried, *stick_findings), sticks=figures)
    workspace.fs.mkdir(target.parent)
    beside = target.with_name(target.name + ".preparing")
    workspace.fs.remove_tree(beside)
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        since_ms = workspace.clock.now_ms() - round(wish.history_days * DAY_MS)
        report = _cut_out(workspace, beside, plan, since_ms, on_progress)
        # Lent before the trip stands: a cut between the two leaves a rollout without a driver, never with two.
        _lend(workspace, report.trip)
        if target.exists():
            target.rmdir()
        workspace.fs.rename(beside, target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return replace(report, to=str(target), bytes=size)


@operation("trip.return", runs_in="worker")
def return_trip(workspace: Workspace, *, folder: str, on_progress: Progress = no_progress) -> ReturnReport:
    """Take in what was done on the trip, and drive its rollouts here again. As often as one likes. `RETURN.md` in the
    trip's folder tells it for people.

    Raises:
        NotFoundError: no trip is there. RefusedError: it is another workspace's. Others: as `sync`.
    """
    root = Path(folder).absolute()
    trip = read_trip(workspace, root)
    if trip.parent != workspace.store.workspace:
        raise RefusedError(
            "is the trip of another workspace", folder, expected=workspace.store.workspace, found=trip.parent,
            hint="take it in with: pumpdeck sync",
        )  # fmt: skip
    with hold_folder(workspace.root / "locks" / "deliver", _LOCK_WAIT_S):
        with open_other(workspace, root) as other:
            result = take_in(workspace, other, on_progress)
        taken_back = _take_back(workspace, root, trip)
    devices = tuple(device for device in workspace.fleet.devices if device.id in trip.devices)
    report = ReturnReport(trip, result, _told(workspace, trip, work_list(workspace, devices)), taken_back)
    conflicts = [
        f"{one.kind} {one.which}: {one.kept} is kept, the other is {one.other}; {one.advice}" for one in result.report.conflicts
    ]
    refused = [f"{which}: {reason}" for which, reason in result.report.refused]
    page = returned_markdown(trip.query, workspace.clock.now_ms(), report.devices, [*conflicts, *refused])
    replace_file(workspace.fs, root / RETURN_NAME, page.encode("utf-8"))
    return report


def read_trip(workspace: Workspace, root: Path) -> Trip:
    """What `trip.json` says. Raises: NotFoundError: there is none."""
    try:
        data = workspace.fs.read_bytes(root / TRIP_NAME, _MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("is no trip", str(root), expected=TRIP_NAME) from error
    return canonical.decode(Trip, data, str(root / TRIP_NAME), max_bytes=_MAX_BYTES)


def _cut_out(
    workspace: Workspace, root: Path, plan: TripReport, since_ms: int, on_progress: Progress
) -> TripReport:
    texts = {path: data.decode("utf-8") for path, data in peoples_files(workspace.root).items()}
    init_workspace(root, files=texts | {"settings.toml": _settings(workspace)}, clock=workspace.clock, fs=workspace.fs)
    with open_workspace(root, clock=workspace.clock, fs=workspace.fs) as part:
        scope = _scope(workspace, plan.trip, since_ms)
        on_progress("cut out", 0, 0)
        with part.store.atomic() as store:
            store.lives.use_keys_of(workspace.store.lives.key_owner)
            done = merge_store(store, workspace.store, scope)
            store.lives.share_numbers(workspace.store.workspace)
            renumber(store)
            head = workspace.store.audit.head()
            words = f"{len(plan.trip.devices)} devices"
            store.audit.append(part.actor, "trip.begin", workspace.store.workspace, words, {"head": head.digest})
        devices = [workspace.fleet.device(name) for name in plan.trip.devices]
        artifacts = copy_artifacts(workspace, part, devices, on_progress)
        for site in sorted({workspace.fleet.device(name).site for name in plan.trip.devices}):
            merge_site(part.trust_path / site, workspace.trust_path / site, workspace.fs, workspace.clock.now_ms())
            if part.trust(site).exists:
                agent_desk(part, site).take(workspace.trust_path / site)
        copy_files(workspace, root, plan.trip.devices)
        trip = replace(plan.trip, workspace=part.store.workspace)
        with part.store.atomic() as store:
            for rollout in trip.lent:
                deploy.adopt(store, rollout, "lent to this trip", actor=part.actor, now_ms=workspace.clock.now_ms())
    replace_file(workspace.fs, root / TRIP_NAME, canonical.encode(trip))
    markdown = as_markdown(trip.query, trip.until_ms, plan.work, plan.findings)
    replace_file(workspace.fs, root / WORK_NAME, markdown.encode("utf-8"))
    replace_file(workspace.fs, root / WORK_LIST_NAME, _work_json(plan))
    rows = done.taken["telemetry"] + done.taken["scores"]
    return replace(plan, trip=trip, rows=rows, artifacts=artifacts, is_plan=False)


def _work_json(plan: TripReport) -> bytes:
    """The work list for other programs; `docs/formats.md`."""
    told = {"format": TRIP_FORMAT, "query": plan.trip.query, "prepared_ms": plan.trip.prepared_ms, "until_ms": plan.trip.until_ms}
    work = {"findings": [asdict(one) for one in plan.findings], "devices": [asdict(one) for one in plan.work]}
    return (json.dumps({**told, **work}, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def _settings(workspace: Workspace) -> str:
    """The same person with the same keys, which stay where they are."""
    person, keys = workspace.settings.person, workspace.settings.keys
    folder = str(workspace.key_folder) if keys.folder else ""
    insecure = str(keys.insecure_storage).lower()
    text = "format = 1\n" + (f"person = {_quoted(person)}\n" if person else "")
    return text + f"\n[keys]\nfolder = {_quoted(folder)}\ninsecure_storage = {insecure}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _scope(workspace: Workspace, trip: Trip, since_ms: int) -> Scope:
    devices = frozenset(trip.devices)
    pumps = frozenset(pump.id for pump in workspace.fleet.pumps if pump.device in devices)
    return Scope(pumps=pumps, devices=devices, since_ms=since_ms)


def _lendable(store: Store, devices: set[str]) -> list[Rollout]:
    homes = store.rollouts.homes()
    rollouts = (one for one in store.rollouts.all() if one.id not in homes)
    return [one for one in rollouts if set(one.tasks) <= devices and (one.state in _OPEN or _is_live(one))]


def _is_live(rollout: Rollout) -> bool:
    return any(task.is_live and task.state in LIVE for task in rollout.tasks.values())


def _lend(workspace: Workspace, trip: Trip) -> None:
    with workspace.store.atomic() as store:
        for name in trip.lent:
            store.rollouts.set_home(name, trip.workspace)
            for task in store.rollouts.load(name).tasks.values():
                store.outbox.done(task.id)
        words = f"{len(trip.devices)} devices; {len(trip.lent)} rollouts lent"
        store.audit.append(workspace.actor, "trip.prepare", trip.workspace, words)


def _take_back(workspace: Workspace, root: Path, trip: Trip) -> tuple[str, ...]:
    """Drive the trip's rollouts here again; the trip's own folder learns of it, so that nobody drives them there too."""
    homes = workspace.store.rollouts.homes()
    names = sorted(name for name, home in homes.items() if home == trip.workspace)
    now_ms = workspace.clock.now_ms()
    with open_workspace(root, clock=workspace.clock, fs=workspace.fs) as part, part.store.atomic() as store:
        for name in names:
            store.rollouts.set_home(name, trip.parent)
            for task in store.rollouts.load(name).tasks.values():
                store.outbox.done(task.id)
    with workspace.store.atomic() as store:
        for name in names:
            deploy.adopt(store, name, "the trip is over", actor=workspace.actor, now_ms=now_ms)
        if not trip.returned_ms:
            store.audit.append(workspace.actor, "trip.return", trip.workspace, f"{len(names)} rollouts taken back")
    replace_file(workspace.fs, root / TRIP_NAME, canonical.encode(replace(trip, returned_ms=now_ms)))
    return tuple(names)


def _told(workspace: Workspace, trip: Trip, work: Sequence[TripWork]) -> tuple[DeviceReturn, ...]:
    labels = Counter(
        workspace.fleet.pump(label.pump).device
        for label in workspace.store.labels.all()
        if label.at_ms >= trip.prepared_ms and label.pump in workspace.fleet.pump_by_id
    )
    agents: dict[str, list[str]] = {}
    for entry in workspace.store.audit.latest(_AUDIT_LOOK):
        if entry.action == "device.upgrade" and entry.at_ms >= trip.prepared_ms:
            agents.setdefault(entry.subject, []).append(f"agent {entry.reason}")
    found = []
    for one in work:
        receipts = tuple(
            f"{row.receipt.outcome.value} {row.receipt.package_sha256[:12]} {row.receipt.reason}".rstrip()
            for row in workspace.store.receipts.of(one.device)
            if row.received_ms >= trip.prepared_ms
        )
        found.append(DeviceReturn(one.device, (*receipts, *agents.get(one.device, ())), labels[one.device], one.todo))
    return tuple(found)
