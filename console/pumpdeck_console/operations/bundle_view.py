"""What the bundles screen shows: sticks, who is awaited, what is ready to leave, which drives are plugged in."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.drives import find_drives
from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState


@dataclass(frozen=True, slots=True)
class StickLine:
    """One stick. `deadline_ms` is the nearest of what is awaited through it, 0 for none."""

    stick: str
    kind: str
    state: str
    sites: tuple[str, ...]
    devices: int
    awaited: int
    deadline_ms: int
    carrier: str
    left_ms: int
    moved_ms: int
    bytes: int
    place: str
    note: str


@dataclass(frozen=True, slots=True)
class AwaitedLine:
    """One device whose receipt has not come back. `left_ms` is 0 while no stick has left."""

    device: str
    site: str
    state: str
    stick: str
    stick_state: str
    carrier: str
    left_ms: int
    deadline_ms: int
    rollout: str


@dataclass(frozen=True, slots=True)
class DriveLine:
    """A removable drive that is plugged in, and the folder in which a bundle goes there."""

    name: str
    folder: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class BundlesView:
    """Sticks, the one that moved last first; awaited devices, the nearest deadline first.

    `ready` counts devices that wait for a stick.
    """

    as_of_ms: int
    sticks: tuple[StickLine, ...]
    awaited: tuple[AwaitedLine, ...]
    ready: int
    drives: tuple[DriveLine, ...] = ()


@operation("view.bundles", runs_in="reader")
def bundles_view(workspace: Workspace) -> BundlesView:
    """The newest state of it all."""
    from pumpdeck_fleet.services.courier import awaited_returns  # deferred: SQLite; screens import the types above

    store = workspace.store
    live = {task for task, _ in store.rollouts.live_tasks().values()}
    sticks = []
    for entry in store.sticks.all():
        waiting = [load.deadline_ms for load in entry.loads if load.task in live]
        deadline = min((ms for ms in waiting if ms), default=0)
        note = f"replaced by {entry.replaced_by}" if entry.replaced_by else entry.note
        sticks.append(
            StickLine(
                entry.id, entry.kind.value, entry.state.value, entry.sites, len(entry.loads), len(waiting), deadline,
                entry.carrier, entry.exported_ms, entry.changed_ms, entry.bytes, entry.place, note,
            )
        )  # fmt: skip
    awaited = tuple(
        AwaitedLine(
            one.device, one.site, one.state.value, one.stick, one.stick_state, one.carrier, one.left_ms, one.deadline_ms,
            one.rollout,
        )
        for one in awaited_returns(store)
    )  # fmt: skip
    running = {name for name, state in store.rollouts.states().items() if state == RolloutState.RUNNING}
    ready = sum(one.state == TaskState.WAIT_COURIER and one.rollout in running for one in awaited)
    return BundlesView(workspace.clock.now_ms(), tuple(sticks), awaited, ready, _drives())


def _drives() -> tuple[DriveLine, ...]:
    try:
        found = find_drives()
    except (PumpdeckError, OSError):
        # A screen without drives still shows the sticks.
        return ()
    return tuple(DriveLine(one.name, str(one.folder), one.free_bytes) for one in found if not one.is_read_only)
