"""The device state on its disk: two copies, written in turn, the highest valid record read back."""

from __future__ import annotations

from pumpdeck_agent.config import Layout
from pumpdeck_agent.state import STATE_MAX_BYTES, DeviceState, decode_state, encode_state
from pumpdeck_fleet.core.errors import IllegalMoveError, PumpdeckError
from pumpdeck_fleet.core.ports import FileSystem

_COPIES = (0, 1)


class StateFiles:
    """Loads and saves one device's state."""

    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        self._fs = fs
        self._layout = layout

    def load(self) -> DeviceState | None:
        """The newest record that is whole, in whatever format it was written; None when both copies are lost."""
        found = [state for state in map(self._read, _COPIES) if state is not None]
        return max(found, key=lambda state: state.record, default=None)

    def save(self, state: DeviceState) -> None:
        """Make this the newest record; returns when it is on the medium. The record before it stays whole meanwhile."""
        which = state.record % len(_COPIES)
        path = self._layout.state_copy(which)
        old = self._read(which)
        if old is not None and old.record >= state.record:
            # Writing over the newest record would leave nothing newer than the one before it in a cut.
            raise IllegalMoveError(f"record {old.record}", f"record {state.record}", path.name)
        is_new = not self._fs.exists(path)
        handle = self._fs.open_write(path)
        try:
            handle.write(encode_state(state))
            handle.fsync()
        finally:
            handle.close()
        if is_new:
            self._fs.fsync_dir(path.parent)

    def _read(self, which: int) -> DeviceState | None:
        path = self._layout.state_copy(which)
        try:
            return decode_state(self._fs.read_bytes(path, STATE_MAX_BYTES), path.name)
        except (OSError, PumpdeckError):
            return None
