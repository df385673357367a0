"""SKAB (Skoltech Anomaly Benchmark) by its published protocol, with the product's own features, detector, alarm logic and limit.

    python tests/bench/skab.py DIR [--json] [--quick]      figures with the recorded options
    python tests/bench/skab_choice.py DIR                  choose the options by the labels of valve1 alone (docs/adr/0083)

Protocol: the first 400 rows of a file are its reference window (labels unused), the rest is tested; counts are
summed over all 34 labelled files; NAB gives credit in the 60 s right of each changepoint. The limit comes from
`fit_limit` with the default alarm budget, from training rows alone: 400 rows hold fewer than 20 blocks of 10
windows, so it is the type's pooled limit, provisional.

Scoring begins where a device would: at the shipped centre, which stands at the end of the reference window.

Options and who chose them: docs/adr/0083 tells the whole story, with every run on all files that is known of. Fixed
without labels: the deadband is the product's default and alarms begin at once (the protocol counts rows, so waiting can
only lose); the limit comes from the default budget; the two temperatures either both vote or neither does (on a bench
they follow the time since start). Chosen by `skab_choice.py`, which can read no label outside valve1: the form of the
detector, the window and whether temperatures vote. Rule and forms were committed before they were run on any file.

NAB is the board's own form: a detection is every row where the alarm changes, up or down; windows lie 60 s to the
right of a changepoint and are cut where they overlap; the first detection in one counts by a tanh from 1 down to the
cost of a false one, every detection outside costs that, a window without any costs its weight.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTracker, with_limit
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock
from pumpdeck_fleet.numeric.edges import ranked_columns
from pumpdeck_fleet.numeric.features import has_full_window, window_means
from pumpdeck_trainer.baseline import (
    Inputs,
    feature_moments,
    fit_baseline,
    scores_of,
    sensor_floor,
    spread_places,
    value_spread,
)
from pumpdeck_trainer.learning import SHAPE_ROWS
from pumpdeck_trainer.limits import AlarmBudget, BlockRule, FittedLimit, Scores, fit_limit, maxima_of, pool_limit
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.scorer import MaxZScorer, Scorer, widths

CHANNELS = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)
TEMPERATURES = ("Temperature", "Thermocouple")
TRAIN_ROWS = 400
NAB_WINDOW_S = 60.0
# What a false detection costs, and what a missed window costs; a hit at the changepoint itself is worth 1.
NAB_COSTS = {"standard": (0.11, 1.0), "low_fp": (0.22, 1.0), "low_fn": (0.11, 2.0)}
ROTATION_SEED = 20200309


@dataclass(frozen=True)
class Options:
    """What `skab_choice.py` chooses on the labels of valve1: the form of the detector, its window, who votes.

    dither: a window's mean may resolve less than a sensor's step; wander: a channel that wandered in the reference window
    is given a wider width (docs/adr/0083).
    """

    window_s: float
    deadband: float = AlarmSettings().deadband
    persistence_s: float = 0.0
    temperatures_vote: bool = False
    dither: bool = False
    wander: bool = False
    model_type: str = "maxz"


OPTIONS = Options(window_s=20.0)


@dataclass(frozen=True, eq=False)
class Run:
    """One file: at_ms int64 [n], values float32 [n, 8], labels and changepoints bool [n]."""

    name: str
    at_ms: np.ndarray
    values: np.ndarray
    anomaly: np.ndarray
    changepoint: np.ndarray


@dataclass(frozen=True)
class Counts:
    """Rows of the test parts."""

    hit: int = 0
    false_alarm: int = 0
    missed: int = 0
    quiet: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def f1(self) -> float:
        return 2 * self.hit / max(2 * self.hit + self.false_alarm + self.missed, 1)

    @property
    def far_pct(self) -> float:
        return 100 * self.false_alarm / max(self.false_alarm + self.quiet, 1)

    @property
    def mar_pct(self) -> float:
        return 100 * self.missed / max(self.missed + self.hit, 1)


def read_run(path: Path, name: str, *, closed: bool = False) -> Run:
    """One CSV file of SKAB. `closed`: its reference window only, and no label is looked at.

    Raises:
        InputError: a column is missing.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=";")
        wanted = {"datetime", *CHANNELS, "anomaly", "changepoint"}
        if missing := wanted - set(reader.fieldnames or ()):
            raise InputError(
                "lacks columns", str(path), expected=", ".join(sorted(wanted)), found=f"no {sorted(missing)}"
            )
        rows = list(itertools.islice(reader, TRAIN_ROWS if closed else None))
    moments = [datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC) for row in rows]
    at_ms = np.array([round(moment.timestamp() * 1000) for moment in moments], np.int64)
    values = np.array([[float(row[channel]) for channel in CHANNELS] for row in rows], np.float32)
    labels = np.zeros((len(rows), 2), np.bool_)
    if not closed:
        labels = np.array([[float(row["anomaly"]), float(row["changepoint"])] for row in rows]) > 0.5
    order = np.unique(at_ms, return_index=True)[1]
    return Run(name, at_ms[order], values[order], labels[order, 0], labels[order, 1])


def read_folder(folder: Path, *, closed: bool = False) -> list[Run]:
    """The 34 labelled files in a fixed order; `closed`: of all but valve1 the unlabelled reference windows only.

    Raises:
        InputError: there are not 34.
    """
    groups = ("valve1", "valve2", "other")
    paths = [path for group in groups for path in sorted((folder / group).glob("*.csv"), key=lambda p: int(p.stem))]
    if len(paths) != 34:
        raise InputError("does not hold SKAB's labelled files", str(folder), expected="34 files", found=len(paths))
    return [
        read_run(path, f"{path.parent.name}/{path.stem}", closed=closed and path.parent.name != "valve1")
        for path in paths
    ]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A run with its baseline at the start and at the end of its reference window, features and scores of that window."""

    run: Run
    start: PumpBlock
    block: PumpBlock
    at_ms: np.ndarray
    features: np.ndarray
    scores: Scores
    scorer: Scorer


def fit_run(run: Run, options: Options) -> Fitted:
    """Learn from the first 400 rows; nothing later is touched."""
    at_ms, values = run.at_ms[:TRAIN_ROWS], run.values[:TRAIN_ROWS]
    features, counts = window_means(at_ms, values, round(options.window_s * 1000))
    full = has_full_window(counts)
    at_ms, features = at_ms[full], features[full]
    votes = np.array([options.temperatures_vote or name not in TEMPERATURES for name in CHANNELS])
    inputs = Inputs(CHANNELS, np.zeros(len(CHANNELS)), votes)
    floor = sensor_floor(ranked_columns(values), inputs)
    if options.dither:
        floor = dithered_floor(floor, values, float(np.median(counts[full])))
    baseline = fit_baseline(at_ms, features, floor, inputs, alarm_settings(options))
    scorer, start, scores = MaxZScorer(len(CHANNELS)), baseline.block(inputs, 1.0), baseline.scores
    if options.wander:
        start = replace(start, scale=np.hypot(start.scale, wandered(features)).astype(np.float32))
        scores = scored(start, at_ms, features, (options, scorer))
    return Fitted(run, start, replace(start, centre=baseline.end_centre), at_ms, features, scores, scorer)


def dithered_floor(floor: np.ndarray, values: np.ndarray, readings: float) -> np.ndarray:
    """What a mean of so many readings resolves: step / sqrt(n) where they jump between steps by themselves (Widrow)."""
    jumps = value_spread(values) >= floor / 2
    return np.where(jumps, floor / math.sqrt(readings), floor).astype(np.float32)


def wandered(features: np.ndarray) -> np.ndarray:
    """How far the two halves of a reference window lie apart, float32 [c]."""
    half = len(features) // 2
    return np.abs(feature_moments(features[half:])[0] - feature_moments(features[:half])[0])


def scored(start: PumpBlock, at_ms: np.ndarray, features: np.ndarray, by: tuple[Options, Scorer]) -> Scores:
    """Scores of a reference window as a device with no limit would give them."""
    options, scorer = by
    return scores_of(
        with_limit(start, float(np.float32(SCORE_CAP))), at_ms, features, (alarm_settings(options), scorer.score)
    )


def with_shape(fitted: list[Fitted], options: Options) -> list[Fitted]:
    """The same runs under a model type whose shape is learned from all reference windows, as the pipeline learns it."""
    samples = [widths(one.start, one.features[spread_places(len(one.features), SHAPE_ROWS)]) for one in fitted]
    scorer = fit_scorer(options.model_type, np.concatenate(samples), fitted[0].start.votes, 0)
    return [
        replace(one, scorer=scorer, scores=scored(one.start, one.at_ms, one.features, (options, scorer)))
        for one in fitted
    ]


def alarm_settings(options: Options) -> AlarmSettings:
    """The product's alarm settings with these options."""
    return AlarmSettings(deadband=options.deadband, persistence_s=options.persistence_s)


def fit_all(runs: list[Run], options: Options) -> list[tuple[Fitted, FittedLimit]]:
    """Every run with its own limit by the product's rule: own blocks where there are enough, else the type's pool."""
    rule, budget = BlockRule(options.window_s, options.persistence_s), AlarmBudget()
    fitted = [fit_run(run, options) for run in runs]
    if options.model_type != MaxZScorer.model_type:
        fitted = with_shape(fitted, options)
    pooled = pool_limit([maxima_of(one.scores, rule) for one in fitted], rule, budget)
    return [(one, fit_limit(one.scores, rule, budget, pooled=pooled)) for one in fitted]


def alarms_of(fitted: Fitted, limit: FittedLimit, options: Options) -> np.ndarray:
    """Alarmed or not, bool [n], over the whole file, as a device would say row after row."""
    block = with_limit(fitted.block, limit.limit)
    tracker = AlarmTracker(block, alarm_settings(options))
    features, _ = window_means(fitted.run.at_ms, fitted.run.values, round(options.window_s * 1000))
    return tracker.extend(fitted.run.at_ms, features, lambda rows: fitted.scorer.score(block, rows)).alarmed


def count(alarmed: np.ndarray, anomaly: np.ndarray) -> Counts:
    """Rows of the test part by outcome."""
    said, true = alarmed[TRAIN_ROWS:], anomaly[TRAIN_ROWS:]
    return Counts(
        int((said & true).sum()), int((said & ~true).sum()), int((~said & true).sum()), int((~said & ~true).sum())
    )


def rotated(run: Run, rng: np.random.Generator) -> Run:
    """The same file with its test part rotated to another start; times keep their places, so that no label tells the clock."""
    start = int(rng.integers(1, len(run.at_ms) - TRAIN_ROWS))
    order = np.concatenate(
        [np.arange(TRAIN_ROWS), TRAIN_ROWS + np.roll(np.arange(len(run.at_ms) - TRAIN_ROWS), -start)]
    )
    return Run(run.name, run.at_ms, run.values[order], run.anomaly[order], run.changepoint[order])


def total(pairs: list[tuple[Fitted, FittedLimit]], options: Options) -> Counts:
    """Counts summed over files."""
    parts = [count(alarms_of(fitted, limit, options), fitted.run.anomaly) for fitted, limit in pairs]
    return sum(parts, Counts())


def nab_score(runs: list[Run], alarms: list[np.ndarray], profile: str) -> float:
    """The board's NAB score of a profile over the test parts: 100 is perfect, 0 never says anything."""
    false_cost, miss_cost = NAB_COSTS[profile]
    score = windows = 0.0
    for run, alarmed in zip(runs, alarms, strict=True):
        at_s = run.at_ms[TRAIN_ROWS:] / 1000
        detections = at_s[np.diff(alarmed[TRAIN_ROWS:].astype(np.int8), prepend=0) != 0]
        taken = np.zeros(len(detections), np.bool_)
        for left, right in _nab_windows(at_s[run.changepoint[TRAIN_ROWS:]]):
            windows += 1
            inside = (detections >= left) & (detections <= right)
            taken |= inside
            score += (
                _credit((detections[inside][0] - left) / (right - left), false_cost) if inside.any() else -miss_cost
            )
        score -= false_cost * int((~taken).sum())
    return 100 * (score + windows * miss_cost) / (windows * (1 + miss_cost))


def _nab_windows(starts: np.ndarray) -> list[tuple[float, float]]:
    """60 s from each changepoint; one that begins inside the window before it begins where that ends."""
    found: list[tuple[float, float]] = []
    for start in starts.tolist():
        left = max(start, found[-1][1]) if found else start
        found.append((left, start + NAB_WINDOW_S))
    return found


def _credit(place: float, false_cost: float) -> float:
    """What a detection at this share of a window is worth: 1 at its left end, minus the false cost at its right."""
    fall = math.tanh(math.pi * (place - 0.5)) / math.tanh(math.pi / 2)
    return (1 - false_cost - (1 + false_cost) * fall) / 2


def figures(runs: list[Run], options: Options) -> tuple[dict[str, float], list[str]]:
    """All figures by their names, and what is to be said aloud."""
    pairs = fit_all(runs, options)
    alarms = [alarms_of(fitted, limit, options) for fitted, limit in pairs]
    parts = [count(alarmed, run.anomaly) for run, alarmed in zip(runs, alarms, strict=True)]
    every = sum(parts, Counts())
    valve1 = sum((part for part, run in zip(parts, runs, strict=True) if run.name.startswith("valve1/")), Counts())
    unseen = sum((part for part, run in zip(parts, runs, strict=True) if not run.name.startswith("valve1/")), Counts())
    rng = np.random.default_rng(ROTATION_SEED)
    turned = total(fit_all([rotated(run, rng) for run in runs], options), options)
    always = sum((count(np.ones(len(run.at_ms), np.bool_), run.anomaly) for run in runs), Counts())
    result = {
        "f1_all": every.f1,
        "far_all_pct": every.far_pct,
        "mar_all_pct": every.mar_pct,
        "f1_valve1": valve1.f1,
        "far_valve1_pct": valve1.far_pct,
        "mar_valve1_pct": valve1.mar_pct,
        "f1_unseen": unseen.f1,
        "far_unseen_pct": unseen.far_pct,
        "mar_unseen_pct": unseen.mar_pct,
        "f1_rotated": turned.f1,
        "far_rotated_pct": turned.far_pct,
        "mar_rotated_pct": turned.mar_pct,
        "f1_always_alarm": always.f1,
        **{f"nab_{profile}": nab_score(runs, alarms, profile) for profile in NAB_COSTS},
    }
    return {name: round(figure, 4) for name, figure in result.items()}, _said(pairs, every, turned)


def _said(pairs: list[tuple[Fitted, FittedLimit]], every: Counts, turned: Counts) -> list[str]:
    branches = sorted({limit.branch.value for _, limit in pairs})
    one = pairs[0][1]
    lines = [
        f"files {len(pairs)}, test rows {every.hit + every.false_alarm + every.missed + every.quiet}, options {OPTIONS}",
        f"fit_limit branch: {', '.join(branches)}; limit {one.limit:.3f} from {one.blocks} blocks of {one.block_s:g} s "
        f"(Gumbel {one.location:.3f}, {one.spread:.3f}; small-sample factor {one.small_sample:.3f})",
    ]
    if every.f1 - turned.f1 > 0.03:
        lines.append(
            f"WARNING: rotating the test parts costs {every.f1 - turned.f1:.3f} of F1: the labels leak the clock"
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="SKAB by the published protocol, with the product's own parts")
    parser.add_argument("folder", type=Path, help="the folder with valve1/, valve2/ and other/")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="accepted for CI; the whole benchmark takes seconds")
    arguments = parser.parse_args(argv)
    runs = read_folder(arguments.folder)
    result, said = figures(runs, OPTIONS)
    for line in said:
        print(line, file=sys.stderr)
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:18} {figure:8.4f}" for name, figure in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
