"""Put the agent of this very archive into its first slot on a device, with libraries and launcher. Needs nothing but Python."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_agent.libraries import unpack_libraries
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.slot_record import SLOTS, AgentBuild, fresh_record
from pumpdeck_agent.slots import ARCHIVE_MAX_BYTES, SlotFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, DigestMismatchError, NotFoundError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_packaging.wheel_index import INDEX_MAX_BYTES, WHEEL_MAX_BYTES, WHEELS_FILE, parse_index


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """The archive and what the console expects of it. `wheels`: a folder with `wheels.json`; None: this Python has all libraries.

    `serial`: that of the signed release, 0 when there is none yet.
    """

    archive: Path
    sha256: str
    serial: int = 0
    wheels: Path | None = None
    wheels_sha256: str = ""


def settle(platform: Platform, root: Path, wanted: SettleRequest) -> AgentBuild:
    """The agent that stands in a slot now. Repeating it changes nothing; a cut one is repeated.

    Raises:
        DigestMismatchError: these are not the bytes the console sent. ConflictError: another agent stands there.
    """
    fs = platform.fs
    data = fs.read_bytes(wanted.archive, ARCHIVE_MAX_BYTES)
    if canonical.digest(data) != wanted.sha256:
        raise DigestMismatchError("is not the agent that was sent", wanted.archive.name, expected=wanted.sha256)
    slots = SlotFiles(platform, root)
    fs.mkdir(slots.folder)
    fs.fsync_dir(root)
    with slots.lock():
        record = slots.load()
        if record is not None and record.active.sha256 != wanted.sha256:
            hint = "bring another one with: pumpdeck devices upgrade"
            raise ConflictError("an agent stands here already", str(slots.folder), found=record.active.version, hint=hint)
        libraries = _libraries(platform, slots, wanted)
        _put_launcher(platform, slots)
        if record is not None:
            return record.active
        build = AgentBuild(SLOTS[0], wanted.sha256, AGENT_VERSION, wanted.serial, libraries)
        slots.put(build.slot, data)
        # Last: a folder without a record has no agent, so a cut installation is simply begun again.
        return slots.save(fresh_record(build)).active


def _libraries(platform: Platform, slots: SlotFiles, wanted: SettleRequest) -> str:
    if wanted.wheels is None:
        return ""
    fs, folder = platform.fs, wanted.wheels
    try:
        data = fs.read_bytes(folder / WHEELS_FILE, INDEX_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("holds no wheels", str(folder), expected=WHEELS_FILE) from error
    digest = canonical.digest(data)
    if digest != wanted.wheels_sha256:
        raise DigestMismatchError("is not the index that was sent", WHEELS_FILE, expected=wanted.wheels_sha256, found=digest)
    index = parse_index(data)
    fs.mkdir(slots.libraries(digest).parent)
    unpack_libraries(fs, slots.libraries(digest), index, lambda one: fs.read_bytes(folder / one.file, WHEEL_MAX_BYTES))
    return digest


def _put_launcher(platform: Platform, slots: SlotFiles) -> None:
    source = pkgutil.get_data("pumpdeck_agent", "launcher.py")
    if source is None:
        raise NotFoundError("is not in this agent", "launcher.py")
    if not platform.fs.exists(slots.launcher) or platform.fs.read_bytes(slots.launcher, ARCHIVE_MAX_BYTES) != source:
        replace_file(platform.fs, slots.launcher, source)
