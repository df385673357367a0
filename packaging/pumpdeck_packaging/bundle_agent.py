"""The agent and its libraries on a stick, in a folder of their own: `agent/`.

The folder is not named in `bundle.json`, so that agents that know nothing of it go on taking bundles. Its own list, `agent.json`,
is written after the files, and `start.py`, which holds that list's digest, last of all: one digest stands for the whole folder.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, PumpdeckError
from pumpdeck_fleet.core.ids import check_digest, is_name
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_packaging.agent_on_stick import (
    AGENT_FOLDER,
    RELEASED_FOLDER,
    WHEELS_FOLDER,
    WORDS_FOLDER,
    released_file,
    word_file,
)
from pumpdeck_packaging.agent_release import AGENT_FILE, AgentRelease
from pumpdeck_packaging.agent_wheels import WheelSet, wheel_bytes
from pumpdeck_packaging.bundle import write_parts
from pumpdeck_packaging.bundle_index import BundleFile, place_of
from pumpdeck_packaging.bundle_part import BundlePart, bytes_part
from pumpdeck_packaging.bundle_stick import Stick, stick_errors
from pumpdeck_packaging.wheel_index import WHEELS_FILE

AGENT_INDEX = "agent.json"
START_FILE = "start.py"
AGENT_INDEX_FORMAT = 1
INDEX_MAX_BYTES = 4 * 1024 * 1024
_START_SOURCE = "stick_start.py"
_EXPECTED = re.compile(rb'^EXPECTED = ""$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AgentIndex:
    """`agent/agent.json`: what lies in the folder, by path below it."""

    format: int
    version: str
    files: Mapping[str, BundleFile]


@dataclass(frozen=True, slots=True)
class AgentOnStick:
    """What was put on the stick. `start_digest` is what people compare before they run `start.py`: it stands for all."""

    version: str
    targets: tuple[str, ...]
    bytes: int
    written: int
    already: int
    start_digest: str


def parse_agent_index(data: bytes) -> AgentIndex:
    """The list from its bytes.

    Raises:
        FormatError, TooLargeError: it is not one, or names something outside the folder.
    """
    index = canonical.decode(AgentIndex, data, AGENT_INDEX, max_bytes=INDEX_MAX_BYTES)
    if index.format != AGENT_INDEX_FORMAT:
        raise FormatError("has an unknown format", AGENT_INDEX, expected=AGENT_INDEX_FORMAT, found=index.format)
    for path, file in index.files.items():
        parts = path.split("/")
        is_wheel = len(parts) == 3 and parts[0] == WHEELS_FOLDER and all(is_name(part) for part in parts)
        if path != AGENT_FILE and not is_wheel:
            raise FormatError("names a path that is not of an agent", AGENT_INDEX, found=repr(path[:120]))
        check_digest(file.digest, f"{AGENT_INDEX} {path}")
    return index


def agent_parts(agent: AgentRelease, sets: Sequence[WheelSet]) -> list[BundlePart]:
    """The files of the folder but for its list and `start.py`."""
    parts = [BundlePart(f"{AGENT_FOLDER}/{AGENT_FILE}", agent.bytes, agent.sha256, agent.path.read_bytes)]
    for one in sets:
        base = f"{AGENT_FOLDER}/{WHEELS_FOLDER}/{one.target.name}"
        parts.append(bytes_part(f"{base}/{WHEELS_FILE}", (one.folder / WHEELS_FILE).read_bytes()))
        for wheel in one.wheels:
            parts.append(
                BundlePart(
                    f"{base}/{wheel.file}", wheel.bytes, wheel.digest, lambda f=one.folder, w=wheel: wheel_bytes(f, w)  # type: ignore[misc]
                )
            )
    return parts


def start_script(index: bytes) -> bytes:
    """`start.py` for a folder with that list."""
    source = resources.files("pumpdeck_packaging").joinpath(_START_SOURCE).read_bytes().replace(b"\r\n", b"\n")
    found, count = _EXPECTED.subn(f'EXPECTED = "{canonical.digest(index)}"'.encode(), source)
    assert count == 1
    return found


@dataclass(frozen=True, slots=True)
class AgentLoad:
    """What goes onto a stick: the agent for devices that have none, libraries, and for devices that have one the signed words
    on released agents by site, with the agents that they name by digest.
    """

    agent: AgentRelease
    sets: Sequence[WheelSet]
    words: Mapping[str, bytes] = field(default_factory=dict)
    released: Mapping[str, bytes] = field(default_factory=dict)

    def released_parts(self) -> list[BundlePart]:
        """Words and the agents they name; each proves itself, so no list names them."""
        parts = [bytes_part(released_file(digest), data) for digest, data in sorted(self.released.items())]
        return parts + [bytes_part(word_file(site), data) for site, data in sorted(self.words.items())]


def write_agent(stick: Stick, load: AgentLoad, on_progress: Progress) -> AgentOnStick:
    """Put the agent and these libraries into the claimed folder; what lies there whole is not written again.

    Raises:
        StickFailedError: the stick failed; nothing there starts, and the next call goes on. RefusedError: no room.
    """
    agent, parts = load.agent, agent_parts(load.agent, load.sets)
    listed, ends = _ends(agent, parts)
    beside = load.released_parts()
    with stick_errors(stick.folder):
        _remove_old(stick, listed)
        _remove_others(stick, {part.path for part in beside})
        written, already = write_parts(stick, [*parts, *beside], on_progress=on_progress, workers=1)
        for end in ends:
            write_parts(stick, [end], on_progress=lambda *_: None, workers=1)
    size = sum(part.size for part in (*parts, *beside, *ends))
    targets = tuple(one.target.name for one in load.sets)
    return AgentOnStick(agent.version, targets, size, len(written), already, ends[-1].digest)


def agent_folder(load: AgentLoad) -> tuple[list[BundlePart], str]:
    """Every file of the folder in the order in which it is written, and the digest of `start.py`."""
    parts = agent_parts(load.agent, load.sets)
    ends = _ends(load.agent, parts)[1]
    return [*parts, *load.released_parts(), *ends], ends[-1].digest


def _ends(agent: AgentRelease, parts: Sequence[BundlePart]) -> tuple[dict[str, BundleFile], list[BundlePart]]:
    """What the list names, by path below the folder, and the two files that are written last: the list and `start.py`."""
    start = len(AGENT_FOLDER) + 1
    listed = {part.path[start:]: BundleFile(part.size, part.digest) for part in parts}
    index = canonical.encode(AgentIndex(AGENT_INDEX_FORMAT, agent.version, listed))
    parse_agent_index(index)
    ends = [
        bytes_part(f"{AGENT_FOLDER}/{AGENT_INDEX}", index),
        bytes_part(f"{AGENT_FOLDER}/{START_FILE}", start_script(index)),
    ]
    return listed, ends


def _remove_others(stick: Stick, paths: Collection[str]) -> None:
    """Words and released agents of an earlier export; words first, so that none names an agent that is gone."""
    for name in (WORDS_FOLDER, RELEASED_FOLDER):
        folder = stick.folder / AGENT_FOLDER / name
        for found in stick.fs.listdir(folder) if stick.fs.exists(folder) else ():
            if is_name(found.removesuffix(".part")) and f"{AGENT_FOLDER}/{name}/{found}" not in paths:
                stick.fs.unlink(folder / found)


def _remove_old(stick: Stick, listed: Mapping[str, BundleFile]) -> None:
    """What an earlier list names and this one does not goes; nothing else in the folder is touched.

    The list itself stays until a new one takes its place: a start script proves it before it believes it.
    """
    folder = stick.folder / AGENT_FOLDER
    old: AgentIndex | None = None
    with contextlib.suppress(FileNotFoundError, PumpdeckError):
        old = parse_agent_index(stick.fs.read_bytes(folder / AGENT_INDEX, INDEX_MAX_BYTES))
    for path in sorted(set(old.files) - set(listed)) if old else ():
        stick.fs.unlink(place_of(folder, path))
