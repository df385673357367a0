"""What the training data holds of the operating range: rows in each third of every channel that tells how a pump is run.

Such channels are those that do not vote (speed, valve position): the model does not judge them, they say under which
conditions it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.numeric.frame import Bools, Float32
from pumpdeck_trainer.learning import Learned
from pumpdeck_trainer.source import SPEED_UNIT, STOPPED_BELOW
from pumpdeck_trainer.spec import ChannelSpec, PipelineSpec

THIRDS = ("low", "middle", "high")
_OUTER = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class Regime:
    """One third of an operating channel's range over all pumps: its bounds in `unit`, share of rows and pumps with rows in it."""

    channel: str
    unit: str
    third: str
    low: float
    high: float
    share: float
    pumps: int


def ranges_of(learned: Learned, spec: PipelineSpec) -> dict[str, tuple[float, float]]:
    """Of each operating channel the range that a pump's spread rows hold; a channel that was never there is left out."""
    found = {}
    for place, channel in enumerate(spec.channels):
        column = learned.sample[:, place]
        column = column[np.isfinite(column)]
        if not channel.votes and len(column):
            found[channel.name] = (float(column.min()), float(column.max()))
    return found


def is_beyond(hourly: Float32, held: tuple[float, float], channel: ChannelSpec) -> Bools:
    """Which hourly means [n] lie clearly outside a range: by a tenth of it and 2 % of the sensor's. Standstill is left out."""
    low, high = held
    margin = 0.1 * (high - low) + STOPPED_BELOW * (channel.high - channel.low)
    beyond = (hourly < low - margin) | (hourly > high + margin)
    if channel.unit == SPEED_UNIT:
        beyond &= np.abs(hourly) >= STOPPED_BELOW * (channel.high - channel.low)
    return np.asarray(beyond & np.isfinite(hourly))


def regimes_of(learned: Sequence[Learned], spec: PipelineSpec) -> tuple[Regime, ...]:
    """From each pump's spread rows; a channel whose range is narrower than 2 % of its middle has one regime and is left out."""
    found: list[Regime] = []
    for place, channel in enumerate(spec.channels):
        if channel.votes:
            continue
        columns = [one.sample[:, place][np.isfinite(one.sample[:, place])] for one in learned]
        rows = np.concatenate(columns).astype(np.float64)
        if not len(rows):
            continue
        low, high = (float(edge) for edge in np.quantile(rows, _OUTER))
        if high - low <= 0.02 * max(abs(low), abs(high)):
            continue
        edges = np.linspace(low, high, len(THIRDS) + 1)
        which = np.searchsorted(edges[1:-1], rows, side="right")
        pump = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
        for third, name in enumerate(THIRDS):
            inside = which == third
            found.append(
                Regime(
                    channel.name,
                    channel.unit,
                    name,
                    round(float(edges[third]), 6),
                    round(float(edges[third + 1]), 6),
                    round(float(inside.mean()), 6),
                    len(np.unique(pump[inside])),
                )
            )
    return tuple(found)
