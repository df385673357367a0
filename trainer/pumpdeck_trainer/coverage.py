"""What the training data holds of the operating range: rows in each third of every channel that tells how a pump is run.

Such channels are those that do not vote (speed, valve position): the model does not judge them, they say under which
conditions it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_trainer.learning import Learned
from pumpdeck_trainer.spec import PipelineSpec

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
