"""Is the process at rest? Read from a pump's newest rows, before anything is tried on its device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pumpdeck_agent.pump_record import ProcessState
from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.numeric.frame import Float32, Int64, TelemetryFrame

SPEED_UNIT = "rpm"
# Shares of the speed channel's range.
_STOPPED_BELOW = 0.02
_STEADY_WITHIN = 0.10
_RUNNING_ABOVE = 0.20
_FEWEST_ROWS = 4
# A drive that is stopped on purpose ramps down; rows further apart than this cannot tell the one from the other.
_SUDDEN_MS = 30_000


def process_state(channels: Iterable[Channel], rows: TelemetryFrame) -> ProcessState:
    """What the speed did over the newest rows: the medians of their older and newer half are compared.

    Medians, because one spike of a sensor is not a pump that changes speed. UNKNOWN without a speed channel or with few rows.
    """
    found = _speed_shares(channels, rows)
    if found is None or len(found[1]) < _FEWEST_ROWS:
        return ProcessState.UNKNOWN
    half = len(found[1]) // 2
    before, after = (float(np.median(part)) for part in (found[1][:half], found[1][half:]))
    if before < _STOPPED_BELOW and after < _STOPPED_BELOW:
        return ProcessState.STOPPED
    return ProcessState.STEADY if abs(after - before) <= _STEADY_WITHIN else ProcessState.CHANGING


class TripWatch:
    """Sees a trip in the rows of one pump: from running to standing within half a minute, and standing since.

    Knows the newest speed between calls, so that the same rows in any portions give the same answer.
    """

    def __init__(self, channels: Iterable[Channel], tail: TelemetryFrame) -> None:
        self._channels = tuple(channels)
        self._newest: tuple[Int64, Float32] = (np.empty(0, np.int64), np.empty(0, np.float32))
        self.take(tail, None)

    def take(self, rows: TelemetryFrame, before: int | None) -> int | None:
        """When the pump tripped, in ms; `before` is what was known, which stands until the pump runs again."""
        found = _speed_shares(self._channels, rows)
        if found is None or not len(found[1]):
            return before
        at_ms = np.concatenate([self._newest[0], found[0]])
        share = np.concatenate([self._newest[1], found[1]])
        self._newest = (at_ms[-1:], share[-1:])
        running, standing = share > _RUNNING_ABOVE, share < _STOPPED_BELOW
        # Only what came since the pump last ran counts.
        since = int(np.flatnonzero(running)[-1]) if running.any() else -1
        if since < 0:
            return before
        is_sudden = since + 1 < len(share) and standing[since + 1] and at_ms[since + 1] - at_ms[since] <= _SUDDEN_MS
        return int(at_ms[since + 1]) if is_sudden else None


def _speed_shares(channels: Iterable[Channel], rows: TelemetryFrame) -> tuple[Int64, Float32] | None:
    """Times and speeds as shares of the channel's range, missing ones left out; None without a speed channel."""
    for channel in channels:
        if channel.unit == SPEED_UNIT and channel.name in rows.channels and channel.high > channel.low:
            speed = np.abs(rows.values[:, rows.channels.index(channel.name)]) / np.float32(channel.high - channel.low)
            known = np.isfinite(speed)
            return rows.at_ms[known], speed[known].astype(np.float32, copy=False)
    return None
