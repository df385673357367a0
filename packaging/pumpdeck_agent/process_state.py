"""Is the process at rest? Read from a pump's newest rows, before anything is tried on its device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pumpdeck_agent.pump_record import ProcessState
from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.numeric.frame import TelemetryFrame

SPEED_UNIT = "rpm"
# Shares of the speed channel's range.
_STOPPED_BELOW = 0.02
_STEADY_WITHIN = 0.10
_FEWEST_ROWS = 4


def process_state(channels: Iterable[Channel], rows: TelemetryFrame) -> ProcessState:
    """What the speed did over the newest rows: the medians of their older and newer half are compared.

    Medians, because one spike of a sensor is not a pump that changes speed. UNKNOWN without a speed channel or with few rows.
    """
    for channel in channels:
        if channel.unit == SPEED_UNIT and channel.name in rows.channels and channel.high > channel.low:
            break
    else:
        return ProcessState.UNKNOWN
    speed = rows.values[:, rows.channels.index(channel.name)]
    speed = speed[np.isfinite(speed)]
    if len(speed) < _FEWEST_ROWS:
        return ProcessState.UNKNOWN
    half = len(speed) // 2
    span = channel.high - channel.low
    before, after = (abs(float(np.median(part))) / span for part in (speed[:half], speed[half:]))
    if before < _STOPPED_BELOW and after < _STOPPED_BELOW:
        return ProcessState.STOPPED
    return ProcessState.STEADY if abs(after - before) <= _STEADY_WITHIN else ProcessState.CHANGING
