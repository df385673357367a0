"""The inventory of sticks: which one went where with what, who has it, and how its story went on. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from pumpdeck_fleet.core.rollout_states import check_move


class StickState(enum.StrEnum):
    """Where a stick stands, as far as the office knows."""

    EXPORTED = "EXPORTED"
    CARRIED = "CARRIED"
    RETURNED = "RETURNED"
    TAKEN_IN = "TAKEN_IN"
    LOST = "LOST"
    REISSUED = "REISSUED"


class StickKind(enum.StrEnum):
    """A folder on a drive, or the same in one file that travels by mail."""

    FOLDER = "folder"
    LETTER = "letter"


OUT = frozenset({StickState.EXPORTED, StickState.CARRIED, StickState.RETURNED, StickState.LOST})
"""States in which something that the stick carried may still be answered through it."""

_BACK = frozenset({StickState.RETURNED, StickState.TAKEN_IN})
_HERE = _BACK | {StickState.EXPORTED, StickState.CARRIED, StickState.LOST}
STICK_MOVES: Mapping[StickState, frozenset[StickState]] = {
    StickState.EXPORTED: _HERE,
    StickState.CARRIED: _HERE,
    StickState.RETURNED: _HERE,
    StickState.TAKEN_IN: _HERE,
    # A lost stick may turn up again: what it brings is as good as ever, and it may be written anew.
    StickState.LOST: _BACK | {StickState.EXPORTED, StickState.LOST, StickState.REISSUED},
    StickState.REISSUED: _BACK | {StickState.EXPORTED},
}


@dataclass(frozen=True, slots=True)
class StickLoad:
    """One device's part of a stick. Without `task` nothing is brought, its return is fetched."""

    device: str
    site: str
    task: str = ""
    rollout: str = ""
    package_sha256: str = ""
    deadline_ms: int = 0


@dataclass(frozen=True, slots=True)
class StickEntry:
    """One stick. `id` stands on it in `bundle.id`; `bytes_per_s` is what it was measured to write, 0 before that."""

    id: str
    kind: StickKind
    state: StickState
    place: str
    loads: tuple[StickLoad, ...]
    bytes: int
    exported_ms: int
    changed_ms: int
    carrier: str = ""
    bytes_per_s: float = 0.0
    replaced_by: str = ""
    note: str = ""

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it is for."""
        return tuple(sorted({load.site for load in self.loads}))

    @property
    def tasks(self) -> frozenset[str]:
        """The device tasks that it carries."""
        return frozenset(load.task for load in self.loads if load.task)

    def move(self, target: StickState, now_ms: int, note: str = "") -> StickEntry:
        """The entry in its next state.

        Raises:
            IllegalMoveError: the table does not lead there.
        """
        state = check_move(STICK_MOVES, self.state, target, f"stick {self.id}")
        return replace(self, state=state, changed_ms=now_ms, note=note)

    def carry(self, carrier: str, now_ms: int) -> StickEntry:
        """The entry once this person has it. Raises: IllegalMoveError."""
        return replace(self.move(StickState.CARRIED, now_ms), carrier=carrier)

    def come_back(self, live_tasks: Collection[str], now_ms: int) -> StickEntry:
        """The entry after an intake: all that it carried is answered, or it came back and some is still awaited."""
        left = self.tasks & set(live_tasks)
        if not left:
            return self if self.state is StickState.TAKEN_IN else self.move(StickState.TAKEN_IN, now_ms)
        note = f"{len(left)} of {len(self.tasks)} receipts are still awaited"
        if (self.state, self.note) == (StickState.RETURNED, note):
            return self
        return self.move(StickState.RETURNED, now_ms, note)

    def replace_with(self, stick: str, now_ms: int) -> StickEntry:
        """The entry of a lost stick once another one carries the same. Raises: IllegalMoveError."""
        return replace(self.move(StickState.REISSUED, now_ms), replaced_by=stick)
