"""What a shuffled split promises and what later rows, and other pumps, then show: why the pipeline refuses it.

    python tests/bench/leaked_split.py [--skab DIR] [--json] [--quick]

Seeded pumps that wander slowly, each with two spells of the same weak fault. A classifier on hourly means is judged in three
ways by its F1: rows shuffled; the later half of the time, after learning from the earlier; pumps it has never seen. The rows,
the classifier and its settings are the same each time; only the split differs. The sample fleet's
ESPs with weak faults are asked the same. With `--skab DIR` (or PUMPDECK_SKAB) the same
is asked of SKAB's 34 labelled files: means of 15 s in widths from each file's first 400 rows, rows shuffled against whole files
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from skab import TRAIN_ROWS, read_run
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_fleet.numeric.features import window_means
from pumpdeck_sample.fleet import FleetSize
from support.simulated_labels import simulated_source

MINUTES_A_ROW = 10
ROWS_A_DAY = 24 * 60 // MINUTES_A_ROW
WINDOW_MS = 3_600_000
SKAB_WINDOW_MS = 15_000
SAMPLE_SEVERITY = 0.05
FAULT = np.array([0.0, -0.6, 0.9])
Split = Iterator[tuple[np.ndarray, np.ndarray]]


def pump_rows(pump: int, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Hourly means float32 [n, 3] of three channels that wander, and whether the fault was there, bool [n]."""
    rng = np.random.default_rng([pump, days])
    rows = days * ROWS_A_DAY
    wander = np.cumsum(rng.normal(0, 0.05, (rows, 3)), axis=0)
    values = rng.normal(0, 3, 3) + wander + rng.normal(0, 1.0, (rows, 3))
    faulty = np.zeros(rows, np.bool_)
    for start in (rows // 5 + int(rng.integers(rows // 10)), 7 * rows // 10 + int(rng.integers(rows // 10))):
        faulty[start : start + ROWS_A_DAY] = True
    values[faulty] += FAULT * rng.uniform(0.5, 1.5)
    at_ms = np.arange(rows, dtype=np.int64) * MINUTES_A_ROW * 60_000
    features, _ = window_means(at_ms, values.astype(np.float32), WINDOW_MS)
    return features, faulty


def splits(pumps: int, days: int) -> dict[str, Split]:
    """Pairs of rows to learn from and rows to judge by, of each way to split."""
    rows = days * ROWS_A_DAY
    pump, place = np.repeat(np.arange(pumps), rows), np.tile(np.arange(rows), pumps)
    fold = np.random.default_rng(1).integers(0, 4, pumps * rows)
    purge = ROWS_A_DAY
    return {
        "f1_shuffled": ((fold != one, fold == one) for one in range(4)),
        "f1_later_rows": iter([(place < rows // 2 - purge, place >= rows // 2)]),
        "f1_other_pumps": ((pump % 4 != one, pump % 4 == one) for one in range(4)),
    }


def sample_figures(size: FleetSize) -> dict[str, float]:
    """F1 on the sample fleet's ESPs with weak faults, hourly means in widths: shuffled rows against whole pumps left out."""
    _, source = simulated_source(SAMPLE_SEVERITY, size)
    features, faulty, which = [], [], []
    for place, (pump, frame) in enumerate(source.frames.items()):
        means, _ = window_means(frame.at_ms, frame.values, WINDOW_MS)
        ill = np.zeros(len(means), np.bool_)
        for one in source.exclusions(pump):
            ill |= (frame.at_ms >= one.start_ms) & (frame.at_ms < one.end_ms)
        centre, spread = np.nanmean(means[~ill], axis=0), np.nanstd(means[~ill], axis=0)
        features.append((means - centre) / np.maximum(spread, 1e-6))
        faulty.append(ill)
        which.append(np.full(len(means), place))
    rows, truth, pump_of = np.concatenate(features), np.concatenate(faulty), np.concatenate(which)
    fold = np.random.default_rng(1).integers(0, 4, len(rows))
    ways = {
        "sample_f1_shuffled": ((fold != one, fold == one) for one in range(4)),
        "sample_f1_other_pumps": ((pump_of % 4 != one, pump_of % 4 == one) for one in range(4)),
    }
    found = {name: round(f1_of(split, rows, truth), 3) for name, split in ways.items()}
    return {"sample_pumps": len(source.frames), "sample_faulty_share": round(float(truth.mean()), 3), **found}


def skab_figures(folder: Path, files: int) -> dict[str, float]:
    """F1 on SKAB's rows after the reference window, by shuffled rows and by files left out."""
    features, faulty, which = [], [], []
    paths = [path for part in ("valve1", "valve2", "other") for path in sorted((folder / part).glob("*.csv"))][:files]
    for place, path in enumerate(paths):
        run = read_run(path, path.name)
        means, _ = window_means(run.at_ms, run.values, SKAB_WINDOW_MS)
        start = means[:TRAIN_ROWS]
        widths = (means - np.nanmean(start, axis=0)) / np.maximum(np.nanstd(start, axis=0), 1e-6)
        features.append(widths[TRAIN_ROWS:])
        faulty.append(run.anomaly[TRAIN_ROWS:])
        which.append(np.full(len(run.at_ms) - TRAIN_ROWS, place))
    rows, truth, file = np.concatenate(features), np.concatenate(faulty), np.concatenate(which)
    fold = np.random.default_rng(1).integers(0, 4, len(rows))
    ways = {
        "skab_f1_shuffled": ((fold != one, fold == one) for one in range(4)),
        "skab_f1_other_files": ((file % 4 != one, file % 4 == one) for one in range(4)),
    }
    found = {name: round(f1_of(split, rows, truth), 3) for name, split in ways.items()}
    always = float(f1_score(truth, np.ones(len(truth), np.bool_)))
    return {"skab_files": len(paths), **found, "skab_f1_always_alarm": round(always, 3)}


def f1_of(split: Split, features: np.ndarray, faulty: np.ndarray) -> float:
    """Pooled over the folds."""
    told, truth = [], []
    for learned, judged in split:
        model = HistGradientBoostingClassifier(max_iter=200, random_state=1).fit(features[learned], faulty[learned])
        told.append(model.predict(features[judged]))
        truth.append(faulty[judged])
    return float(f1_score(np.concatenate(truth), np.concatenate(told)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="a shuffled split against honest ones")
    skab = os.environ.get("PUMPDECK_SKAB", "")
    parser.add_argument("--skab", default=skab, help="SKAB's folder; without it that part is left out")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="8 pumps of 20 days")
    arguments = parser.parse_args(argv)
    pumps, days = (8, 20) if arguments.quick else (16, 30)
    parts = [pump_rows(pump, days) for pump in range(pumps)]
    features, faulty = (np.concatenate(column) for column in zip(*parts, strict=True))
    found = {name: round(f1_of(split, features, faulty), 3) for name, split in splits(pumps, days).items()}
    figures = {"pumps": pumps, "days": days, "faulty_share": round(float(faulty.mean()), 3), **found}
    figures |= sample_figures(FleetSize(4, 3, 4) if arguments.quick else FleetSize(6, 5, 4))
    if arguments.skab and Path(arguments.skab).is_dir():
        figures |= skab_figures(Path(arguments.skab), 8 if arguments.quick else 34)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:22} {one:>8}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
