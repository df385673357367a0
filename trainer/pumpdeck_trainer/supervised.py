"""Supervised model types: fit, calibration and honest figures, all by leaving pumps out.

Each pump is told by a classifier that has seen none of its rows. On these held-out log-odds a Platt scaling (Platt 1999, with
his smoothed targets; n = faults, not rows, for rows of one fault are nearly copies) is fitted, in which every row has
the weight of the rows that it stands for: the probability is that of a row of the reference window. Isotonic scaling would need
hundreds of faults. Figures about a pump use a scaling that was fitted on the other pumps only.

More than 20 pumps with faults are left out in 20 groups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Bools, Float64, Int64
from pumpdeck_trainer.baseline import spread_places
from pumpdeck_trainer.classifiers import BoostScorer, Classifier, fit_classifier
from pumpdeck_trainer.labelled import LabelledPump, Table, require_labels

MOST_FOLDS = 20
MOST_THREADS = 8
BINS = 10
MIN_SLOPE = 1e-3
MOST_HEALTHY = 4000
"""Healthy rows in one fit of boosted trees, spread evenly over all of them (`rows_of_a_fit`)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault type: how many labelled faults, and how many of them were found on pumps never seen."""

    faults: int
    found: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of about the same probability: share of all rows, mean probability told, and the share that was faulty."""

    share: float
    told: float
    found: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures on pumps the classifier had not seen.

    auc: chance that an ill row stands above a healthy one. brier: mean squared error of the probability; brier_constant: that
    of always telling `prevalence`, the share of faulty rows. reliability_error: mean distance of told from found over `bins`.
    found: faults whose median row is more likely ill than not. false_share: healthy rows that are so. healthy_rows,
    healthy_rows_a_fit: by how many healthy rows all this is judged, and from how many at most one fit learns.
    """

    faults: int
    fault_pumps: int
    pumps: int
    folds: int
    found: int
    auc: float
    brier: float
    brier_constant: float
    reliability_error: float
    false_share: float
    prevalence: float
    bins: tuple[Bin, ...]
    kinds: Mapping[str, Kind]
    healthy_rows: int = 0
    healthy_rows_a_fit: int = 0

    def metrics(self) -> dict[str, float]:
        """By name, for the registry."""
        told = {
            "unseen_faults": self.faults,
            "unseen_faults_found": self.found,
            "unseen_fault_pumps": self.fault_pumps,
            "unseen_auc": self.auc,
            "unseen_brier": self.brier,
            "unseen_brier_constant": self.brier_constant,
            "unseen_reliability_error": self.reliability_error,
            "unseen_false_row_share": self.false_share,
        }
        return {name: round(float(value), 6) for name, value in told.items()}


@dataclass(frozen=True, eq=False)
class Supervised:
    """The calibrated classifier of all pumps, for each pump one that never saw it, and the figures of these."""

    scorer: Classifier
    without: Mapping[str, Classifier]
    held_out: HeldOut


def fit_supervised(
    model_type: str, pumps: Sequence[LabelledPump], by: tuple[Bools, int], most_folds: int = MOST_FOLDS
) -> Supervised:
    """Fit, calibrate and judge. by: votes and seed. most_folds: in how many groups the pumps are left out at most.

    Raises:
        GateRefusedError: too few labels (says how many are missing), or held-out pumps are told no better than by chance.
    """
    require_labels(pumps, model_type)
    table = Table.of(pumps)
    fold = _folds(pumps, most_folds)
    everything = np.ones(len(table.z), np.bool_)
    seen = [*(fold[table.pump] != one for one in range(int(fold.max()) + 1)), everything]
    # Trees are grown outside Python's lock; each fit is alone with its rows, so their number and order change nothing.
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS))
    try:
        *left_out, whole = pool.map(lambda rows: _fit(model_type, table, rows, by), seen)
    finally:
        pool.shutdown(cancel_futures=True)
    raw = np.zeros(len(table.z))
    for rows, one in zip(seen, left_out, strict=False):
        raw[~rows] = one.log_odds(table.z[~rows])
    scales = [_scale(raw, table, fold[table.pump] != one, model_type) for one in range(len(left_out))]
    pairs = np.array(scales)[fold[table.pump]]
    figures = _figures(raw * pairs[:, 0] + pairs[:, 1], table, pumps, len(left_out), model_type)
    scorer = whole.calibrated(*_scale(raw, table, everything, model_type))
    unseen = [one.calibrated(*scale) for one, scale in zip(left_out, scales, strict=True)]
    return Supervised(scorer, {one.pump: unseen[fold[place]] for place, one in enumerate(pumps)}, figures)


def _fit(model_type: str, table: Table, seen: Bools, by: tuple[Bools, int]) -> Classifier:
    chosen = rows_of_a_fit(model_type, table.is_ill, seen)
    return fit_classifier(model_type, table.z[chosen], table.is_ill[chosen], table.weights(chosen), by)


def rows_of_a_fit(model_type: str, is_ill: Bools, seen: Bools) -> Bools:
    """Which of the rows seen [n] a fit learns from: all, but of boosted trees at most 4,000 healthy ones.

    Twenty and more fits of trees cost in proportion to their rows (36 pumps: 42 s instead of 18), and what they learn of health
    hardly changes; limits, calibration and all figures are by every row. tests/trainer/test_supervised_rows.py holds both
    side by side.
    """
    chosen = seen.copy()
    if model_type == BoostScorer.model_type:
        healthy = np.flatnonzero(seen & ~is_ill)
        chosen[healthy] = False
        chosen[healthy[spread_places(len(healthy), MOST_HEALTHY)]] = True
    return chosen


def _folds(pumps: Sequence[LabelledPump], most: int) -> Int64:
    """Which fold leaves each pump out: one pump with faults each, as long as there are at most so many; the others go along."""
    ill = [place for place, one in enumerate(pumps) if one.kinds]
    others = [place for place, one in enumerate(pumps) if not one.kinds]
    count = min(len(ill), most)
    found = np.zeros(len(pumps), np.int64)
    for group in (ill, others):
        found[group] = np.arange(len(group)) % count
    return found


def _scale(raw: Float64, table: Table, chosen: Bools, model_type: str) -> tuple[float, float]:
    """Slope and offset of the Platt scaling by Newton's method on two numbers."""
    margin, ill, weight = raw[chosen], table.is_ill[chosen], table.stands_for[chosen]
    faults = len(np.unique(table.fault[chosen & table.is_ill]))
    target = np.where(ill, (faults + 1) / (faults + 2), 1 / (int((~ill).sum()) + 2))
    share = float((weight * target).sum() / weight.sum())
    weight = weight / weight.sum()
    place, spread = float(margin.mean()), max(float(margin.std()), 1e-9)
    columns = np.column_stack([(margin - place) / spread, np.ones(len(margin))])
    found = np.array([1.0, np.log(share / (1 - share))])
    for _ in range(100):
        told = 1 / (1 + np.exp(-np.clip(columns @ found, -40, 40)))
        slope = columns.T @ (weight * (told - target)) + np.array([1e-6, 0.0]) * found
        bend = (columns * (weight * told * (1 - told))[:, None]).T @ columns + 1e-9 * np.eye(2)
        step = np.clip(np.linalg.solve(bend, slope), -2, 2)
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    scale = float(found[0]) / spread
    if scale < MIN_SLOPE:
        raise GateRefusedError(
            "does not tell faults on pumps it has not seen: left out in turn, they look no more ill than healthy rows",
            model_type,
            expected="held-out log-odds that rise with faults",
            found=f"slope {scale:.3g}",
            hint="check the labels, or train a type that needs none (maxz)",
        )
    return scale, float(found[1]) - scale * place


def _figures(odds: Float64, table: Table, pumps: Sequence[LabelledPump], folds: int, model_type: str) -> HeldOut:
    ill, weight = table.is_ill, table.stands_for / table.stands_for.sum()
    told = 1 / (1 + np.exp(-np.clip(odds, -40, 40)))
    met = [bool(np.median(odds[table.fault == place]) > 0) for place in range(len(table.kinds))]
    kinds = {
        kind: Kind(table.kinds.count(kind), sum(hit for hit, one in zip(met, table.kinds, strict=True) if one == kind))
        for kind in sorted(set(table.kinds))
    }
    bins = _bins(told, ill, weight)
    prevalence = float(weight[ill].sum())
    return HeldOut(
        faults=len(met),
        fault_pumps=sum(bool(one.kinds) for one in pumps),
        pumps=len(pumps),
        folds=folds,
        found=sum(met),
        auc=_auc(odds, ill, weight),
        brier=float((weight * (told - ill) ** 2).sum()),
        brier_constant=prevalence * (1 - prevalence),
        reliability_error=sum(one.share * abs(one.told - one.found) for one in bins),
        false_share=float(weight[~ill & (odds > 0)].sum() / weight[~ill].sum()),
        prevalence=prevalence,
        bins=bins,
        kinds=kinds,
        healthy_rows=int((~ill).sum()),
        healthy_rows_a_fit=int((rows_of_a_fit(model_type, ill, np.ones(len(ill), np.bool_)) & ~ill).sum()),
    )


def _bins(told: Float64, ill: Bools, weight: Float64) -> tuple[Bin, ...]:
    place = np.minimum((told * BINS).astype(np.int64), BINS - 1)
    shares, tolds, founds = (
        np.bincount(place, weight * one, minlength=BINS) for one in (np.ones(len(told)), told, ill.astype(np.float64))
    )
    held = [one for one in range(BINS) if shares[one] > 0]
    return tuple(
        Bin(round(float(shares[one]), 6), round(float(tolds[one] / shares[one]), 6), round(float(founds[one] / shares[one]), 6))
        for one in held
    )


def _auc(odds: Float64, ill: Bools, weight: Float64) -> float:
    """Weighted share of pairs of an ill and a healthy row in the right order; ties count half."""
    values, place = np.unique(odds, return_inverse=True)
    good = np.bincount(place, weight * ~ill, minlength=len(values))
    bad = np.bincount(place, weight * ill, minlength=len(values))
    below = np.cumsum(good) - good
    return float((bad * (below + good / 2)).sum() / (good.sum() * bad.sum()))
