"""What a drift report says: how far each channel of a pump has moved from its reference window, measured as PSI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DriftRules:
    """What the current window is: the newest day of a pump and days less than `window_ms` before; `min_rows`: fewer say nothing.

    Two days by default, so that a day that has just begun is not judged by its first hours alone.

    With 9 degrees of freedom PSI of an unchanged channel is about 9 / rows above zero: 0.09 at 100 rows.
    """

    window_ms: int = 2 * 86_400_000
    min_rows: int = 100


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Drift of one pump: PSI by channel over the current window [start_ms, end_ms]; a channel without values is left out."""

    pump: str
    start_ms: int
    end_ms: int
    rows: int
    edges_digest: str
    psi_by_channel: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest PSI; 0 when no channel has one."""
        return max(self.psi_by_channel.values(), default=0.0)

    @property
    def worst_channel(self) -> str:
        """The channel that moved most; the first by name of several."""
        return max(sorted(self.psi_by_channel), key=lambda name: self.psi_by_channel[name], default="")


@dataclass(frozen=True, slots=True)
class DriftSummary:
    """What one pass over the fleet found: reports, and why other pumps have none."""

    reports: tuple[DriftReport, ...]
    skipped: Mapping[str, str]
