"""Tripped pumps: seen in the rows, or told by people and the site's own systems. `trips.json` holds what was told, by tag.

A protection stopped the pump, so something is wrong with it or around it: no moment to try another model. What the rows say is
taken back when the pump runs again, when somebody clears it, or after eight hours at the latest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pumpdeck_agent.config import Layout
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import HOUR_MS, format_ms
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

TRIP_HOLD_MS = 8 * HOUR_MS
_FORMAT = 1
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TripWord:
    """What was told of one pump. `until_ms` 0: nothing stands. Stops up to `cleared_ms` were looked at by somebody."""

    reason: str = ""
    until_ms: int = 0
    cleared_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Trips:
    format: int
    pumps: Mapping[str, TripWord] = field(default_factory=dict)


def read_trips(fs: FileSystem, layout: Layout) -> Mapping[str, TripWord]:
    """What was told, by tag in lower case. Of a file that cannot be read nothing is believed but the rows."""
    try:
        trips = canonical.decode(_Trips, fs.read_bytes(layout.trips, _MAX_BYTES), "trips.json", max_bytes=_MAX_BYTES)
    except (OSError, PumpdeckError):
        return {}
    return trips.pumps if trips.format == _FORMAT else {}


def set_trip(fs: FileSystem, layout: Layout, tag: str, trip: Veto) -> None:
    """This pump is tripped, until then at most."""
    word = replace(read_trips(fs, layout).get(tag.lower(), TripWord()), reason=trip.reason[:200], until_ms=trip.until_ms)
    _write(fs, layout, tag, word)


def clear_trip(fs: FileSystem, layout: Layout, tag: str, now_ms: int) -> None:
    """It is not tripped any more, whatever was told or seen until now."""
    _write(fs, layout, tag, TripWord(cleared_ms=now_ms))


def standing_trip(figures: PumpFigures | None, word: TripWord | None, now_ms: int) -> Veto | None:
    """Why this pump counts as tripped, and until when at the latest; None when it does not."""
    told = word or TripWord()
    if told.until_ms > now_ms:
        return Veto(told.reason, told.until_ms)
    tripped_ms = figures.tripped_ms if figures is not None else None
    if tripped_ms is None or tripped_ms <= told.cleared_ms or now_ms >= tripped_ms + TRIP_HOLD_MS:
        return None
    return Veto(f"it came to a sudden stop at {format_ms(tripped_ms)}", tripped_ms + TRIP_HOLD_MS)


def _write(fs: FileSystem, layout: Layout, tag: str, word: TripWord) -> None:
    pumps = {**read_trips(fs, layout), tag.lower(): word}
    replace_file(fs, layout.trips, canonical.encode(_Trips(_FORMAT, pumps)))
