"""The agent's own folder on its disk: two slots, two copies of the record, the launcher, unpacked libraries."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pumpdeck_agent.own_command import own_archive
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.slot_record import SLOT_MAX_BYTES, SLOTS, AgentBuild, SlotRecord, decode_record, encode_record
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import IllegalMoveError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file

ARCHIVE_MAX_BYTES = 16 * 1024 * 1024
LAUNCHER_FILE = "launch.py"
_COPIES = (0, 1)
_LOCK_WAIT_S = 20.0


class SlotFiles:
    """Everything under `<root>/agent`."""

    def __init__(self, platform: Platform, root: Path) -> None:
        self._fs = platform.fs
        self._locks = platform.locks
        self.folder = root / "agent"

    @property
    def launcher(self) -> Path:
        """What the service unit and the SSH key's command start."""
        return self.folder / LAUNCHER_FILE

    def archive(self, slot: str) -> Path:
        """The agent in a slot."""
        return self.folder / slot / "agent.pyz"

    def libraries(self, digest: str) -> Path:
        """The unpacked wheels whose index has that digest."""
        return self.folder / "libraries" / digest

    def lock(self) -> AbstractContextManager[None]:
        """Held while a record is read and the next one written; the launcher takes the same lock."""
        return self._locks.hold(self.folder / "slot.lock", _LOCK_WAIT_S)

    def load(self) -> SlotRecord | None:
        """The newest record that is whole; None: this agent was not put into slots, or both copies are lost."""
        found = [record for record in map(self._read, _COPIES) if record is not None]
        return max(found, key=lambda record: record.record, default=None)

    def save(self, record: SlotRecord) -> SlotRecord:
        """Make this the newest record; the one before it stays whole meanwhile.

        Raises:
            IllegalMoveError: a record as new stands there already.
        """
        which = record.record % len(_COPIES)
        path = self._copy(which)
        old = self._read(which)
        if old is not None and old.record >= record.record:
            raise IllegalMoveError(f"record {old.record}", f"record {record.record}", path.name)
        is_new = not self._fs.exists(path)
        handle = self._fs.open_write(path)
        try:
            handle.write(encode_record(record))
            handle.fsync()
        finally:
            handle.close()
        if is_new:
            self._fs.fsync_dir(self.folder)
        return record

    def is_sound(self, build: AgentBuild) -> bool:
        """True when every byte of the agent in that slot, and the folder of its libraries, are there."""
        try:
            data = self._fs.read_bytes(self.archive(build.slot), ARCHIVE_MAX_BYTES)
        except (OSError, PumpdeckError):
            return False
        has_libraries = not build.libraries or self._fs.exists(self.libraries(build.libraries))
        return canonical.digest(data) == build.sha256 and has_libraries

    def put(self, slot: str, data: bytes) -> None:
        """Write an agent into a slot: old bytes or new ones, whole, after a cut at any moment."""
        folder = self.archive(slot).parent
        if not self._fs.exists(folder):
            self._fs.mkdir(folder)
            self._fs.fsync_dir(self.folder)
        replace_file(self._fs, self.archive(slot), data)

    def runs(self, build: AgentBuild) -> bool:
        """True when this very process runs from that build's slot."""
        mine = own_archive()
        return mine is not None and mine.resolve() == self.archive(build.slot).resolve()

    def is_own(self) -> bool:
        """True when this very process runs from one of these slots."""
        mine = own_archive()
        return mine is not None and mine.resolve() in [self.archive(slot).resolve() for slot in SLOTS]

    def _copy(self, which: int) -> Path:
        return self.folder / f"slot.{which}"

    def _read(self, which: int) -> SlotRecord | None:
        path = self._copy(which)
        try:
            return decode_record(self._fs.read_bytes(path, SLOT_MAX_BYTES), path.name)
        except (OSError, PumpdeckError):
            return None
