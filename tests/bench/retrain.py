"""Retraining a fleet: 5,000 pumps, 7 days, a row a minute, `maxz` with its parity gate, on loky workers.

    python tests/bench/retrain.py [--json] [--quick] [--pumps N] [--workers N]

Rows are made from the seed inside the worker that needs them; the time that takes is measured apart and taken off, since
no fleet spends it. `warm`: worker processes have been started and have imported everything. `unchanged`: the same run
again, everything from the run cache. Memory is the sum of the largest resident size of this process and of each worker.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.pipeline import Fleetwide, RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import LokyWorkers
from support.pump_rows import PUMP_TYPE, START_MS, pump_frame

DAYS = 7
WHOLE_FLEET = 5000


class SeededRows:
    """Rows of any pump from its number; keeps no pump."""

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        return pump_frame(int(pump), days=DAYS, cadence_ms=MINUTE_MS)

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        return [(start_ms, digest(f"{pump} {start_ms} {end_ms}".encode()))]

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return ()


def seeded() -> AbstractContextManager[SeededRows]:
    """The rows, opened in a worker."""
    return nullcontext(SeededRows())


def resident_mb(_: int = 0) -> float:
    """The largest resident size of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_rows(pumps: Sequence[int]) -> float:
    """Seconds that making the rows of these pumps takes, once."""
    start = time.perf_counter()
    for pump in pumps:
        pump_frame(pump, days=DAYS, cadence_ms=MINUTE_MS)
    return time.perf_counter() - start


def timed(context: RunContext, pumps: int) -> float:
    """Seconds of one run."""
    spec = default_pipeline(replace(PUMP_TYPE, cadence_s=60.0))
    request = TrainingRequest(tuple(str(pump) for pump in range(pumps)), START_MS, START_MS + DAYS * DAY_MS)
    start = time.perf_counter()
    trained = train(spec, request, SeededRows(), context)
    took = time.perf_counter() - start
    if len(trained.pumps) != pumps or trained.refusals:
        raise SystemExit(f"not every pump was trained: {len(trained.pumps)} of {pumps}, {trained.refusals}")
    return took


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="retraining a fleet on loky workers")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="100 pumps")
    parser.add_argument("--pumps", type=int, default=WHOLE_FLEET)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    pumps = 100 if arguments.quick else arguments.pumps
    workers = LokyWorkers(arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext("c" * 64, "l" * 64, fleetwide=Fleetwide(workers, seeded, fewest=1))
        cold_s = timed(context, 2 * arguments.workers)
        cached = partial(replace, context)
        made = list(workers.submit(make_rows, [range(start, start + 25) for start in range(0, 100, 25)]))
        # Twice each: once to learn from, once for the replay.
        making_s = 2 * float(np.mean(made)) / 25 * pumps / arguments.workers
        run_s = timed(cached(cache=FolderCache(Path(folder), RealFileSystem())), pumps)
        unchanged_s = timed(cached(cache=FolderCache(Path(folder), RealFileSystem())), pumps)
    peak = resident_mb() + sum(list(workers.submit(resident_mb, range(arguments.workers))))
    warm_s = run_s - making_s
    figures = {
        "pumps": pumps,
        "cold_start_s": round(cold_s, 2),
        "with_making_rows_s": round(run_s, 2),
        "warm_s": round(warm_s, 2),
        "pumps_per_s_loky": round(pumps / warm_s, 1),
        "unchanged_s": round(unchanged_s, 2),
        "peak_rss_mb": round(peak, 1),
        "extrapolated_5000_s": round(warm_s * WHOLE_FLEET / pumps, 1),
    }
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:22} {one:>10}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
