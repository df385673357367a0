"""Rows with a verdict: which of a pump's feature rows a supervised model type learns from, and whether there are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64, Int64
from pumpdeck_trainer.baseline import spread_places
from pumpdeck_trainer.source import Exclusion

SUPERVISED = ("logistic", "gboost")
MIN_FAULTS = 6
MIN_FAULT_PUMPS = 3
ROWS_A_FAULT = 60
ROWS_A_VERDICT = 100


@dataclass(frozen=True, eq=False)
class IllRows:
    """Feature rows in labelled faults, in the order of their time: rows float32 [m, c], at_ms int64 [m], fault int64 [m].

    kinds: of each fault. stands_for float64 [faults]: how many rows of the reference window one row of the fault stands for.
    """

    rows: Float32
    at_ms: Int64
    fault: Int64
    kinds: tuple[str, ...]
    stands_for: Float64

    def arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for the cache; the kinds are kept beside them."""
        return {"ill": self.rows, "ill_at_ms": self.at_ms, "ill_fault": self.fault, "ill_stands_for": self.stands_for}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], kinds: Sequence[str]) -> IllRows:
        """Back from the cache."""
        return cls(arrays["ill"], arrays["ill_at_ms"], arrays["ill_fault"], tuple(kinds), arrays["ill_stands_for"])

    def before(self, end_ms: int) -> IllRows:
        """Only rows of faults that were over by then."""
        over = np.array([self.at_ms[self.fault == one].max() < end_ms for one in range(len(self.kinds))], np.bool_)
        kept = over[self.fault]
        places = np.cumsum(over) - 1
        kinds = tuple(kind for kind, good in zip(self.kinds, over, strict=True) if good)
        return IllRows(self.rows[kept], self.at_ms[kept], places[self.fault[kept]], kinds, self.stands_for[over])


def no_ill_rows(channels: int) -> IllRows:
    """None, of so many channels."""
    return IllRows(np.zeros((0, channels), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64), (), np.zeros(0))


def ill_rows(at_ms: Int64, features: Float32, faults: Sequence[Exclusion], window_ms: int) -> IllRows:
    """At most 60 rows of each labelled fault, spread over it.

    The first window of a fault, or the first half of a short one, is left out: its means still hold healthy rows.
    """
    chosen, which = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    kinds: list[str] = []
    stands_for: list[float] = []
    for one in sorted(faults, key=lambda item: (item.start_ms, item.end_ms, item.reason)):
        first, last = np.searchsorted(at_ms, [one.start_ms + min(window_ms, (one.end_ms - one.start_ms) // 2), one.end_ms])
        if last <= first:
            continue
        places = first + spread_places(int(last - first), ROWS_A_FAULT)
        chosen.append(places)
        which.append(np.full(len(places), len(kinds), np.int64))
        kinds.append(one.kind or "unnamed")
        stands_for.append(float(last - first) / len(places))
    places = np.concatenate(chosen)
    return IllRows(features[places], at_ms[places], np.concatenate(which), tuple(kinds), np.array(stands_for))


def healthy_places(at_ms: Int64, verdicts: Sequence[Exclusion], most: int, horizon_ms: int) -> Int64:
    """Places of healthy rows to learn from, rising: spread over the window, and those that a person looked at.

    Rows within the label horizon of a fault are left out, it may already, or still, show in them; rows that somebody called
    normal or a false alarm are taken in any case, at most 100 of each such label.
    """
    near = np.zeros(len(at_ms), np.bool_)
    looked: list[Int64] = []
    for one in verdicts:
        if one.is_fault:
            near |= (at_ms >= one.start_ms - horizon_ms) & (at_ms < one.end_ms + horizon_ms)
        elif one.is_healthy:
            first, last = np.searchsorted(at_ms, [one.start_ms, one.end_ms])
            looked.append(first + spread_places(int(last - first), ROWS_A_VERDICT) if last > first else np.zeros(0, np.int64))
    calm = np.flatnonzero(~near)
    spread = calm[spread_places(len(calm), most)] if len(calm) else np.zeros(0, np.int64)
    return np.unique(np.concatenate([spread, *looked]).astype(np.int64))


@dataclass(frozen=True, eq=False)
class LabelledPump:
    """One pump's rows in widths float64: healthy [n, c] and ill [m, c], fault int64 [m], and what a row stands for."""

    pump: str
    healthy: Float64
    ill: Float64
    fault: Int64
    kinds: tuple[str, ...]
    healthy_stands_for: float
    ill_stands_for: Float64


@dataclass(frozen=True, eq=False)
class Table:
    """All rows of some pumps in one table: z float64 [n, c], is_ill, pump and fault (-1: healthy) int64 [n].

    stands_for float64 [n]: rows of the reference window; kinds: of each fault.
    """

    z: Float64
    is_ill: Bools
    pump: Int64
    fault: Int64
    stands_for: Float64
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, pumps: Sequence[LabelledPump]) -> Table:
        """The table, pump after pump."""
        parts: list[tuple[Float64, Int64, Int64, Float64]] = []
        kinds: list[str] = []
        for place, one in enumerate(pumps):
            fault = np.concatenate([np.full(len(one.healthy), -1), one.fault + len(kinds)]).astype(np.int64)
            weight = np.concatenate([np.full(len(one.healthy), one.healthy_stands_for), one.ill_stands_for[one.fault]])
            parts.append((np.concatenate([one.healthy, one.ill]), np.full(len(fault), place), fault, weight))
            kinds += one.kinds
        z, pump, fault, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(z, fault >= 0, pump, fault, weight, tuple(kinds))

    def weights(self, chosen: Bools) -> Float64:
        """Class weights: healthy and ill rows weigh the same together, and so does every fault among the ill ones."""
        ill = chosen & self.is_ill
        found = np.where(chosen & ~self.is_ill, 1.0 / max(int((chosen & ~self.is_ill).sum()), 1), 0.0)
        rows_of = np.bincount(self.fault[ill], minlength=len(self.kinds))
        found[ill] = 1.0 / rows_of[self.fault[ill]] / max(int((rows_of > 0).sum()), 1)
        return np.asarray(found[chosen] * int(chosen.sum()) / 2)


def require_labels(pumps: Sequence[LabelledPump], model_type: str) -> None:
    """Raises: GateRefusedError - too few labelled faults, or on too few pumps; says how many are missing."""
    faults, ill = sum(len(one.kinds) for one in pumps), sum(bool(one.kinds) for one in pumps)
    if faults >= MIN_FAULTS and ill >= MIN_FAULT_PUMPS:
        return
    missing = f"{max(MIN_FAULTS - faults, 0)} more faults and {max(MIN_FAULT_PUMPS - ill, 0)} more pumps with one are missing"
    raise GateRefusedError(
        f"has too few labelled faults in the reference window to learn from: {missing}",
        model_type,
        expected=f"{MIN_FAULTS} faults on {MIN_FAULT_PUMPS} pumps",
        found=f"{faults} on {ill}",
        hint="label past faults (pumpdeck label), or train a type that needs none (maxz)",
    )
