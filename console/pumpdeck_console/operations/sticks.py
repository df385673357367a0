"""The inventory of sticks: what left, who carries it, what is lost and what that means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.bundle_plan import Outgoing
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.sticks import StickEntry, StickKind, StickLoad, StickState

CARRIER_MAX = 80


@dataclass(frozen=True, slots=True)
class StickRow:
    """One stick and how many of its receipts are outstanding, the nearest deadline among them (0 for none)."""

    entry: StickEntry
    awaited: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class LostReport:
    """A lost stick: what lay on it, and what there is to do, in sentences."""

    entry: StickEntry
    awaited: tuple[str, ...]
    advice: tuple[str, ...]


@operation("bundle.sticks", runs_in="reader")
def list_sticks(workspace: Workspace) -> tuple[StickRow, ...]:
    """Every stick that ever left, the one that moved last first."""
    live = _live_tasks(workspace)
    return tuple(_row(entry, live) for entry in workspace.store.sticks.all())


@operation("bundle.carry", runs_in="worker")
def carry_stick(workspace: Workspace, *, stick: str, carrier: str) -> StickEntry:
    """Note who has the stick now.

    Raises:
        NotFoundError: no such stick. IllegalMoveError: it is lost. UsageError: no name is given.
    """
    name = _checked_name(carrier)
    with workspace.store.atomic() as store:
        entry = store.sticks.find(stick).carry(name, workspace.clock.now_ms())
        store.sticks.put(entry)
        # The chain outlives people's wish to be forgotten: their name stands in the inventory alone.
        store.audit.append(workspace.actor, "stick.carry", entry.id, f"for {', '.join(entry.sites)}", {})
    return entry


@operation("bundle.lost", runs_in="worker")
def lose_stick(workspace: Workspace, *, stick: str, reason: str = "") -> LostReport:
    """Mark a stick as lost, and say what was on it and what to do. It may turn up again: then it is taken in as ever.

    Raises:
        NotFoundError: no such stick. IllegalMoveError: it was replaced already.
    """
    with workspace.store.atomic() as store:
        entry = store.sticks.find(stick).move(StickState.LOST, workspace.clock.now_ms(), reason)
        store.sticks.put(entry)
        store.audit.append(workspace.actor, "stick.lost", entry.id, reason or "no reason given", {})
    live = _live_tasks(workspace)
    awaited = tuple(sorted(load.device for load in entry.loads if load.task in live))
    return LostReport(entry, awaited, tuple(_advice(workspace, entry, awaited)))


def record_export(workspace: Workspace, entry: StickEntry, replaces: str = "") -> tuple[str, ...]:
    """Put a stick that leaves now into the inventory; the lost sticks that it replaces, `replaces` among them.

    Call inside the transaction that gives its assignments away.
    """
    store, now_ms = workspace.store, workspace.clock.now_ms()
    known = store.sticks.get(entry.id)
    if known is not None:
        known.move(StickState.EXPORTED, now_ms)
        entry = replace(entry, bytes_per_s=known.bytes_per_s, carrier=entry.carrier or known.carrier)
    store.sticks.put(entry)
    live, replaced = _live_tasks(workspace), []
    for lost in store.sticks.all():
        left = lost.tasks & live.keys()
        is_asked = lost.id == replaces
        if lost.state is StickState.LOST and lost.id != entry.id and (is_asked or (left and left <= entry.tasks)):
            store.sticks.put(lost.replace_with(entry.id, now_ms))
            store.audit.append(workspace.actor, "stick.reissued", lost.id, f"as {entry.id}", {})
            replaced.append(lost.id)
    return tuple(replaced)


def new_entry(
    workspace: Workspace, going: Outgoing, stick: str, place: Path, *, kind: StickKind, carrier: str, size_bytes: int
) -> StickEntry:
    """The inventory's entry of a stick that is about to leave."""
    now_ms = workspace.clock.now_ms()
    name = _checked_name(carrier) if carrier else ""
    loads = tuple(_loads(going))
    return StickEntry(stick, kind, StickState.EXPORTED, str(place), loads, size_bytes, now_ms, now_ms, name)


def record_return(workspace: Workspace, stick: str) -> StickEntry | None:
    """Move a stick that was just taken in; `None` when the inventory does not know it."""
    with workspace.store.atomic() as store:
        entry = store.sticks.get(stick)
        if entry is None:
            return None
        after = entry.come_back(_live_tasks(workspace), workspace.clock.now_ms())
        if after is not entry:
            store.sticks.put(after)
            store.audit.append(workspace.actor, f"stick.{after.state.value.lower()}", after.id, after.note, {})
    return after


def record_speed(workspace: Workspace, stick: str, bytes_per_s: float) -> None:
    """Remember how fast the stick was; its state stays."""
    with workspace.store.atomic() as store:
        entry = store.sticks.get(stick)
        if entry is not None:
            store.sticks.put(replace(entry, bytes_per_s=round(bytes_per_s)))


def _loads(going: Outgoing) -> Iterable[StickLoad]:
    tasks = {task.command.device: task for task in going.tasks}
    for device in going.devices:
        task = tasks.get(device.id)
        if task is None:
            yield StickLoad(device.id, device.site)
            continue
        one = task.command
        yield StickLoad(device.id, device.site, one.id, one.rollout, one.package_sha256, task.deadline_ms)


def _live_tasks(workspace: Workspace) -> dict[str, str]:
    """Device by live task."""
    return {task: device for device, (task, _) in workspace.store.rollouts.live_tasks().items()}


def _row(entry: StickEntry, live: dict[str, str]) -> StickRow:
    waiting = [load.deadline_ms for load in entry.loads if load.task in live]
    return StickRow(entry, len(waiting), min((ms for ms in waiting if ms), default=0))


def _readers(workspace: Workspace, site: str) -> bool:
    """Whether what devices of that site return is encrypted, by the newest word signed here."""
    trust = workspace.trust(site)
    policy = trust.returns_policy() if trust.exists else None
    return policy is not None and bool(policy.readers)


def _checked_name(carrier: str) -> str:
    name = " ".join(carrier.split())
    if not name or len(name) > CARRIER_MAX or not name.isprintable():
        raise UsageError("is not a name", repr(carrier[:CARRIER_MAX]), expected=f"1-{CARRIER_MAX} characters")
    return name


def _advice(workspace: Workspace, entry: StickEntry, awaited: Sequence[str]) -> Iterable[str]:
    packages = len({load.package_sha256 for load in entry.loads if load.task})
    fleet = workspace.fleet
    known = [fleet.device_by_id[load.device] for load in entry.loads if load.task and load.device in fleet.device_by_id]
    classes = {device.device_class for device in known}
    closed = sorted(name for name in classes if name in fleet.device_classes and fleet.device_classes[name].confidential)
    yield f"It left with {packages} packages for {len(entry.loads)} devices at {', '.join(entry.sites)}."
    yield "No private key and no password lies on a stick. Who finds it can make no device run anything, nor be believed here."
    if packages:
        what = "Packages are signed, not secret: models, channels and limits can be read"
        yield f"{what}, except for device classes {', '.join(closed)}." if closed else f"{what}."
    yield "If a device had written its return on it: the device keeps everything until a console's signed word comes back."
    open_sites = [site for site in entry.sites if site in fleet.site_by_id and not _readers(workspace, site)]
    if open_sites:
        yield f"Returns of {', '.join(open_sites)} are not encrypted: what devices there put on it can be read."
    else:
        yield "Returns are encrypted to the recipients of their site: a finder reads names, sizes and times, and no reading."
    if awaited:
        yield f"Receipts are awaited of {', '.join(awaited[:8])}{' and others' if len(awaited) > 8 else ''}."
        yield f"Write it again onto another stick: pumpdeck bundle reissue {entry.id} --to DIR"
    else:
        yield "Nothing that it carried is awaited any more: there is nothing to send again."
    yield "If it turns up: pumpdeck bundle intake DIR takes it in as if nothing had happened."
