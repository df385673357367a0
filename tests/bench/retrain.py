"""Retraining a fleet: 5,000 pumps, 7 days, a row a minute, `maxz` with its parity gate, on loky workers and on Dask.

    python tests/bench/retrain.py [--json] [--quick] [--pumps N] [--workers N] [--dask]

Rows lie in a real store and are read and decoded by the workers, twice each: to learn from and for the replay. 250 pumps
are ingested, the others read the rows of these under names of their own, so every pump costs what it costs a fleet, and the
disk holds a twentieth. `warm`: worker processes have been started and have imported everything. `unchanged`: the same run
again, everything from the run cache. `limit_s` is what reading all rows once and one pass of numpy over them takes on the
same workers: nothing that looks at every row can be faster. CPU seconds are those of all processes together; on a machine
with other work they say more than the wall clock. Memory is the sum of the largest resident size of this process and of
each worker. With `--dask` the same run goes over a Dask cluster of this machine as well.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import LokyWorkers, Workers
from support.pump_rows import PUMP_TYPE, START_MS, pump_frame

DAYS = 7
WHOLE_FLEET = 5000
DISTINCT = 250
END_MS = START_MS + DAYS * DAY_MS


class StoredRows:
    """Rows of any pump by its number, out of a store that holds the first of them."""

    def __init__(self, store: Store, distinct: int) -> None:
        self._store = store
        self._distinct = distinct

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        return self._store.telemetry.frame(self._name(pump), start_ms, end_ms)

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        # With the number in it: to the run cache, every pump is one of its own.
        found = self._store.telemetry.chunk_digests(self._name(pump), start_ms, end_ms)
        return [(at_ms, digest(f"{pump} {chunk}".encode())) for at_ms, chunk in found]

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return ()

    def _name(self, pump: str) -> str:
        return f"site/P-{int(pump) % self._distinct}"


@contextmanager
def stored(path: Path, distinct: int) -> Iterator[StoredRows]:
    """The rows, opened in a worker."""
    store = Store.open(path, FixedClock(START_MS))
    try:
        yield StoredRows(store, distinct)
    finally:
        store.close()


def ingest(path: Path, distinct: int) -> None:
    """Fill a new store."""
    store = Store.open(path, FixedClock(START_MS), create=True)
    with store.atomic():
        for pump in range(distinct):
            store.telemetry.append(f"site/P-{pump}", pump_frame(pump, days=DAYS, cadence_ms=MINUTE_MS))
    store.close()


def read_once(job: tuple[Path, int, Sequence[int]]) -> float:
    """Read these pumps' rows and pass over them once; the sum, so that nothing is left out."""
    path, distinct, pumps = job
    total = 0.0
    with stored(path, distinct) as rows:
        for pump in pumps:
            total += float(np.abs(rows.frame(str(pump), START_MS, END_MS).values - np.float32(1)).max())
    return total


def resident_mb(_: int = 0) -> float:
    """The largest resident size of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Took:
    """What a step took: wall clock and the CPU time of this process and its workers, in seconds."""

    wall_s: float
    cpu_s: float


def cpu_s() -> float:
    """CPU seconds of this process and all it has started that still runs."""
    found = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        times = process.cpu_times()
        found += times.user + times.system
    return found


def timed(action: Callable[[], object]) -> Took:
    before, start = cpu_s(), time.perf_counter()
    action()
    return Took(time.perf_counter() - start, cpu_s() - before)


def run(context: RunContext, rows: Path, distinct: int, pumps: int) -> None:
    """One training run over so many pumps."""
    spec = default_pipeline(replace(PUMP_TYPE, cadence_s=60.0))
    request = TrainingRequest(tuple(str(pump) for pump in range(pumps)), START_MS, END_MS)
    with stored(rows, distinct) as source:
        trained = train(spec, request, source, context)
    if len(trained.pumps) != pumps or trained.refusals:
        raise SystemExit(f"not every pump was trained: {len(trained.pumps)} of {pumps}, {trained.refusals}")


def measure(workers: Workers, folder: Path, pumps: int, distinct: int) -> dict[str, float]:
    """Figures of one kind of workers."""
    rows, count = folder / "rows.db", os.cpu_count() or 1
    opened = partial(stored, rows, distinct)
    context = RunContext("c" * 64, "l" * 64, fleetwide=Fleetwide(workers, opened, fewest=1))
    cold = timed(lambda: run(context, rows, distinct, 4 * count))

    def cached() -> RunContext:
        return replace(context, cache=FolderCache(folder / type(workers).__name__, RealFileSystem()))

    warm = timed(lambda: run(cached(), rows, distinct, pumps))
    unchanged = timed(lambda: run(cached(), rows, distinct, pumps))
    return {
        "cold_start_s": round(cold.wall_s, 2),
        "warm_s": round(warm.wall_s, 2),
        "warm_cpu_s": round(warm.cpu_s, 2),
        "cpu_ms_per_pump": round(1000 * warm.cpu_s / pumps, 2),
        "unchanged_s": round(unchanged.wall_s, 2),
        "pumps_per_s": round(pumps / warm.wall_s, 1),
        "extrapolated_5000_s": round(warm.wall_s * WHOLE_FLEET / pumps, 1),
    }


def limit_s(workers: Workers, rows: Path, distinct: int, pumps: int) -> float:
    """Reading every row once, with one pass of numpy, on the same workers."""
    jobs = [(rows, distinct, range(start, min(start + 25, pumps))) for start in range(0, pumps, 25)]
    start = time.perf_counter()
    list(workers.submit(read_once, jobs))
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="retraining a fleet on loky workers")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="100 pumps")
    parser.add_argument("--pumps", type=int, default=WHOLE_FLEET)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask", action="store_true", help="on a Dask cluster of this machine as well")
    arguments = parser.parse_args(argv)
    pumps = 100 if arguments.quick else arguments.pumps
    distinct = min(DISTINCT, pumps)
    workers = LokyWorkers(arguments.workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ingest(folder / "rows.db", distinct)
        found = measure(workers, folder, pumps, distinct)
        peak = resident_mb() + sum(list(workers.submit(resident_mb, range(arguments.workers))))
        physical = limit_s(workers, folder / "rows.db", distinct, pumps)
        figures = {
            "pumps": pumps,
            **found,
            "pumps_per_s_loky": found["pumps_per_s"],
            "limit_s": round(physical, 2),
            "warm_vs_limit": round(found["warm_s"] / physical, 2),
            "peak_rss_mb": round(peak, 1),
        }
        if arguments.dask:
            from pumpdeck_trainer.dask_workers import dask_workers  # deferred: an extra

            with dask_workers("local", arguments.workers) as cluster:
                on_dask = measure(cluster, folder, pumps, distinct)
            figures |= {"warm_dask_s": on_dask["warm_s"], "pumps_per_s_dask": on_dask["pumps_per_s"]}
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:22} {one:>10}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
