"""Alarms as the site sees them: which stand, which are acknowledged, what is to be announced when. Decides; announces nothing.

A change of a pump's alarm counts once: one that is not later than the last one of that pump was announced before.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_agent.config import Layout
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import AlarmNotice

ALARMS_FORMAT = 1
_MAX_BYTES = 256 * 1024
_NAME_MAX = 64


class AlarmState(enum.StrEnum):
    """Where a pump's alarm stands on site."""

    CLEAR = "clear"
    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"


class Word(enum.StrEnum):
    """What an announcement says."""

    RAISED = "raised"
    REPEATED = "repeated"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


MOVES = {
    AlarmState.CLEAR: {Word.RAISED: AlarmState.RAISED},
    AlarmState.RAISED: {
        Word.REPEATED: AlarmState.RAISED,
        Word.ACKNOWLEDGED: AlarmState.ACKNOWLEDGED,
        Word.CLEARED: AlarmState.CLEAR,
    },
    AlarmState.ACKNOWLEDGED: {Word.CLEARED: AlarmState.CLEAR},
}


@dataclass(frozen=True, slots=True)
class SiteAlarm:
    """One pump's alarm. `since_ms`: time of the row that changed it last; `announced_ms`: by the device's clock."""

    pump: str
    state: AlarmState
    since_ms: int
    announced_ms: int
    score: float | None = None
    limit: float | None = None
    channel: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One thing to be said on site."""

    word: Word
    alarm: SiteAlarm


@dataclass(frozen=True, slots=True)
class _Kept:
    format: int
    alarms: Mapping[str, SiteAlarm] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody has seen the alarm of a pump."""

    pump: str
    by: str


class AlarmBoard:
    """The alarms of a device. `repeat_ms`: an alarm that nobody acknowledged is announced again after so long."""

    def __init__(self, alarms: Mapping[str, SiteAlarm], repeat_ms: int) -> None:
        self._alarms = dict(alarms)
        self._repeat_ms = repeat_ms

    @property
    def alarms(self) -> Mapping[str, SiteAlarm]:
        """All pumps that ever had one, by tag."""
        return dict(self._alarms)

    def standing(self) -> tuple[SiteAlarm, ...]:
        """Those that are raised or acknowledged."""
        return tuple(one for _, one in sorted(self._alarms.items()) if one.state is not AlarmState.CLEAR)

    def change(self, notices: Iterable[AlarmNotice], now_ms: int) -> list[Announcement]:
        """Alarms raised and cleared by scoring, in order."""
        said = []
        for notice in notices:
            before = self._alarms.get(notice.pump)
            if before is not None and notice.at_ms <= before.since_ms:
                continue
            word = Word.RAISED if notice.raised else Word.CLEARED
            after = SiteAlarm(
                notice.pump, AlarmState.CLEAR, notice.at_ms, now_ms, notice.score, notice.limit, notice.channel
            )
            said += self._move(word, after)
        return said

    def reconcile(self, figures: Mapping[str, PumpFigures], now_ms: int) -> list[Announcement]:
        """After a start: what changed while nobody was there to announce it."""
        said = []
        for tag, one in figures.items():
            state = self._alarms[tag].state if tag in self._alarms else AlarmState.CLEAR
            if one.alarmed is not (state is not AlarmState.CLEAR):
                word = Word.RAISED if one.alarmed else Word.CLEARED
                said += self._move(word, SiteAlarm(tag, AlarmState.CLEAR, one.last_row_ms or 0, now_ms, one.score))
        return said

    def acknowledge(self, seen: Acknowledgement, now_ms: int) -> list[Announcement]:
        """Somebody knows: no more repeats until the next alarm. Nothing when it does not stand (any more)."""
        alarm = self._alarms.get(seen.pump)
        if alarm is None:
            return []
        return self._move(Word.ACKNOWLEDGED, replace(alarm, by=seen.by, announced_ms=now_ms))

    def repeats(self, now_ms: int) -> list[Announcement]:
        """Alarms that are due again. A clock that was set back does not keep one silent."""
        said = []
        for alarm in self.standing():
            if not 0 <= now_ms - alarm.announced_ms < self._repeat_ms:
                said += self._move(Word.REPEATED, replace(alarm, announced_ms=now_ms))
        return said

    def _move(self, word: Word, alarm: SiteAlarm) -> list[Announcement]:
        before = self._alarms.get(alarm.pump)
        state = MOVES[before.state if before is not None else AlarmState.CLEAR].get(word)
        if state is None:
            return []
        moved = replace(alarm, state=state)
        self._alarms[alarm.pump] = moved
        return [Announcement(word, moved)]


def load_alarms(fs: FileSystem, layout: Layout) -> Mapping[str, SiteAlarm]:
    """The alarms as they stood last. A damaged file is worth as much as none: `reconcile` finds what stands."""
    try:
        kept = canonical.decode(_Kept, fs.read_bytes(layout.alarms, _MAX_BYTES), "alarms.json", max_bytes=_MAX_BYTES)
    except (OSError, PumpdeckError):
        return {}
    return kept.alarms if kept.format == ALARMS_FORMAT else {}


def save_alarms(fs: FileSystem, layout: Layout, board: AlarmBoard) -> None:
    """Keep them over a restart."""
    replace_file(fs, layout.alarms, canonical.encode(_Kept(ALARMS_FORMAT, board.alarms)))


def request_acknowledge(fs: FileSystem, layout: Layout, seen: Acknowledgement) -> None:
    """Leave word for the process that announces.

    Raises:
        NotFoundError: no alarm of that pump stands.
        UsageError: nobody's name.
    """
    if not 0 < len(seen.by.strip()) <= _NAME_MAX or not seen.by.isprintable():
        raise UsageError("is nobody's name", "by", expected=f"1-{_NAME_MAX} printable characters")
    alarms = {tag.lower(): alarm for tag, alarm in load_alarms(fs, layout).items()}
    alarm = alarms.get(seen.pump.lower())
    if alarm is None or alarm.state is AlarmState.CLEAR:
        raise NotFoundError("has no alarm that stands", seen.pump[:40])
    fs.mkdir(layout.acknowledged)
    path = layout.acknowledged / f"{alarm.pump.lower()}.json"
    replace_file(fs, path, canonical.encode(Acknowledgement(alarm.pump, seen.by.strip())))


def read_acknowledgements(fs: FileSystem, layout: Layout) -> list[tuple[Path, Acknowledgement | None]]:
    """What people left word of, and where; None: not to be read. It goes once the board is saved: a cut loses none."""
    found: list[tuple[Path, Acknowledgement | None]] = []
    for name in fs.listdir(layout.acknowledged) if fs.exists(layout.acknowledged) else []:
        path, seen = layout.acknowledged / name, None
        if not name.endswith(".json"):
            continue
        with contextlib.suppress(OSError, PumpdeckError):
            seen = canonical.decode(Acknowledgement, fs.read_bytes(path, 4096), name, max_bytes=4096)
        found.append((path, seen))
    return found
