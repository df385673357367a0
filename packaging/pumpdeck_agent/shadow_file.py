"""What shadow scoring has seen so far, pump by pump, on the disk: read without numpy by who decides, written by who scores.

`spool/shadow/<tag lower>.bin`: `PDW1 <sha256>`, a JSON line, then the candidate's window and alarm state. `start.json` beside it
counts how often scoring began beside this candidate: a graph that takes the scoring process down must not do so for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_agent.config import Layout
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import ShadowSketch

SHADOW_FORMAT = 1
_MAGIC = b"PDW1 "
_HEAD_MAX_BYTES = 16 * 1024
_FILE_MAX_BYTES = 1024 * 1024
_START_NAME = "start.json"
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """Of one pump: the candidate it was scored with, the time of the newest row in it, the sketch, and the blobs' lengths."""

    format: int
    tag: str
    package_sha256: str
    last_row_ms: int
    sketch: ShadowSketch
    window_bytes: int
    alarm_bytes: int


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """Everything of one pump that must move together."""

    figures: ShadowFigures
    window: bytes
    alarm: bytes


@dataclass(frozen=True, slots=True)
class ShadowStart:
    """How often scoring began beside this candidate, the pumps that both packages score, and why it cannot go on, if so."""

    format: int
    package_sha256: str
    starts: int
    pumps: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShadowStanding:
    """How far shadow scoring is. `sketches` by tag, `pumps` those that are to be scored."""

    problem: str = ""
    pumps: tuple[str, ...] = ()
    sketches: Mapping[str, ShadowSketch] = field(default_factory=dict)

    @property
    def watched_s(self) -> float:
        """For how long every pump with rows was watched; pumps that sent none do not hold up the others."""
        return min((sketch.watched_ms for sketch in self.sketches.values()), default=0) / 1000

    def is_done(self, shadow_s: int) -> bool:
        """True when each pump that sends rows was watched long enough."""
        return bool(self.sketches) and self.watched_s >= shadow_s

    def words(self, shadow_s: int) -> str:
        """For people: how far it is."""
        silent = len(self.pumps) - len(self.sketches)
        words = f"shadow scoring: {self.watched_s / _HOUR_S:.1f} of {shadow_s / _HOUR_S:.1f} hours"
        return f"{words}, {silent} pumps without rows" if silent > 0 and self.sketches else words


def read_standing(fs: FileSystem, layout: Layout, package_sha256: str) -> ShadowStanding:
    """How far shadow scoring of this candidate is; what belongs to another one, or is damaged, counts as nothing."""
    start = read_start(fs, layout, package_sha256)
    if start is None:
        return ShadowStanding()
    found = {}
    for tag in start.pumps:
        record = read_shadow(fs, layout, tag, package_sha256)
        if record is not None:
            found[record.figures.tag] = record.figures.sketch
    return ShadowStanding(start.problem, start.pumps, found)


def wants_a_word(fs: FileSystem, layout: Layout, state: DeviceState) -> bool:
    """True when shadow scoring of this device came to an end that the installer has to look at."""
    if state.phase is not Phase.SHADOW or state.candidate is None:
        return False
    standing = read_standing(fs, layout, state.candidate.package.sha256)
    return bool(standing.problem) or standing.is_done(state.candidate.shadow_s)


def read_start(fs: FileSystem, layout: Layout, package_sha256: str) -> ShadowStart | None:
    """The count of starts beside this candidate; None when there is none."""
    try:
        data = fs.read_bytes(layout.shadow / _START_NAME, _HEAD_MAX_BYTES)
        start = canonical.decode(ShadowStart, data, _START_NAME, max_bytes=_HEAD_MAX_BYTES)
    except (OSError, PumpdeckError):
        return None
    return start if start.format == SHADOW_FORMAT and start.package_sha256 == package_sha256 else None


def write_start(fs: FileSystem, layout: Layout, start: ShadowStart) -> None:
    """Replace it; returns once it is on the medium."""
    fs.mkdir(layout.shadow)
    replace_file(fs, layout.shadow / _START_NAME, canonical.encode(start))


def note_problem(fs: FileSystem, layout: Layout, start: ShadowStart, problem: str) -> ShadowStart:
    """Shadow scoring of this candidate cannot go on."""
    told = replace(start, problem=problem[:300])
    write_start(fs, layout, told)
    return told


def read_shadow(fs: FileSystem, layout: Layout, tag: str, package_sha256: str) -> ShadowRecord | None:
    """The record of one pump under this candidate; None when there is none, or the disk damaged it."""
    try:
        record = decode_shadow(fs.read_bytes(shadow_path(layout, tag), _FILE_MAX_BYTES), tag)
    except (OSError, PumpdeckError):
        return None
    return record if record.figures.package_sha256 == package_sha256 else None


def write_shadow(fs: FileSystem, layout: Layout, record: ShadowRecord) -> None:
    """Replace the record of one pump."""
    replace_file(fs, shadow_path(layout, record.figures.tag), encode_shadow(record))


def forget_shadow(fs: FileSystem, layout: Layout) -> None:
    """Nothing was ever scored beside the active package."""
    if fs.exists(layout.shadow):
        fs.remove_tree(layout.shadow)


def shadow_path(layout: Layout, tag: str) -> Path:
    """Where a pump's record stands."""
    return layout.shadow / f"{tag.lower()}.bin"


def encode_shadow(record: ShadowRecord) -> bytes:
    """Magic and digest on the first line, the figures as one JSON line, the blobs."""
    body = canonical.encode(record.figures) + b"\n" + record.window + record.alarm
    return _MAGIC + canonical.digest(body).encode("ascii") + b"\n" + body


def decode_shadow(data: bytes, what: str) -> ShadowRecord:
    """Raises: FormatError, DigestMismatchError: cut, altered, or not such a record."""
    first, _, body = data.partition(b"\n")
    if not first.startswith(_MAGIC):
        raise FormatError("is not a shadow record", what, expected=_MAGIC.decode().strip())
    if canonical.digest(body).encode("ascii") != first[len(_MAGIC) :]:
        raise DigestMismatchError("is cut or altered", what)
    raw, _, rest = body.partition(b"\n")
    figures = canonical.decode(ShadowFigures, raw, what, max_bytes=_HEAD_MAX_BYTES)
    if figures.format != SHADOW_FORMAT or figures.window_bytes + figures.alarm_bytes != len(rest):
        raise FormatError("has an unknown format or length", what, expected=SHADOW_FORMAT, found=figures.format)
    return ShadowRecord(figures, rest[: figures.window_bytes], rest[figures.window_bytes :])
