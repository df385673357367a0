"""Retraining a fleet: 5,000 pumps, 7 days, a row a minute, `maxz` with its parity gate, on loky workers and on Dask.

    python tests/bench/retrain.py [--json] [--quick] [--pumps N] [--workers N] [--dask]

Rows lie in a real store under a held snapshot; workers read them through it as a training does, each chunk proven by its
digest. 250 pumps are ingested, the others read the rows of these under names of their own, so every pump costs what it costs a
fleet, and the disk holds a twentieth. `warm`: worker processes have been started and have imported everything. `unchanged`: the
same run again, everything from the run cache. `limit_s` is what reading all rows once and one pass of numpy over them takes on
the same workers: nothing that looks at every row can be faster. CPU seconds are those of all processes together, and
`two_cores_5000_s` is half of them for 5,000 pumps: what two cores with nothing else to do need at least. On a machine with other
work they say more than the wall clock. Memory is the sum of the largest resident size of this process and of each worker.
`stage_*`: CPU of a pump by stage, the median of 40 pumps in one worker; `again`: reading and replaying a pump whose verdict
does not follow from what was learned (`looked_twice_pct` of all). With `--dask` the same run goes over a Dask cluster of this
machine as well.
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

from pumpdeck_console.operations.held_source import HeldSource
from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.snapshots import PumpSnapshot
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.jobs import JudgeJob, rows_of
from pumpdeck_trainer.judging import judge
from pumpdeck_trainer.learning import Learned, PumpRows, learn, own_limit
from pumpdeck_trainer.limits import pool_limit
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.shape import shape_ahead
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import Job, LokyWorkers, Result, Workers
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

        self._held = HeldSource(store, *store.snapshots.digests())

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        return self._held.frame(self._name(pump), start_ms, end_ms)

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
        names = [f"site/P-{pump}" for pump in range(distinct)]
        found = {name: store.telemetry.chunk_digests(name, START_MS, END_MS) for name in names}
        store.snapshots.hold({name: PumpSnapshot(START_MS, END_MS, tuple(one), ()) for name, one in found.items()})
    store.close()


def stages(job: tuple[Path, int]) -> dict[str, float]:
    """CPU milliseconds of a pump by stage: the median of 40 pumps, each done three times and the fastest taken."""
    path, distinct = job
    spec = default_pipeline(replace(PUMP_TYPE, cadence_s=60.0))
    shape = shape_ahead(spec)
    assert shape
    found: dict[str, list[float]] = {}

    def timed_ms(name: str, step: Callable[[], Result]) -> Result:
        taken = []
        for _ in range(3):
            start = time.process_time()
            result = step()
            taken.append(1000 * (time.process_time() - start))
        found.setdefault(name, []).append(min(taken))
        return result

    with stored(path, distinct) as rows:
        for pump in range(min(distinct, 40)):
            read = timed_ms("read", lambda: rows_of(rows, str(pump), spec, (START_MS, END_MS)).rows)  # noqa: B023
            timed_ms("features", lambda: PumpRows(read, spec).learned)  # noqa: B023
            ready = PumpRows(read, spec)
            at_ms, _ = ready.learned
            learned = timed_ms("learn", lambda: learn(ready, spec))  # noqa: B023
            timed_ms("pack", lambda: Learned.from_bytes(learned.to_bytes()))  # noqa: B023
            pooled = pool_limit([learned.fit.maxima], spec.blocks, spec.budget)
            limit = own_limit(learned.fit.maxima, pooled, spec)
            timed_ms("replay", lambda: judge(ready, learned, (limit, limit), (), shape))  # noqa: B023
            assert len(at_ms)
    return {name: float(np.median(one)) for name, one in found.items()}


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


class Counted:
    """Workers that count the pumps whose rows were looked at a second time."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.again = 0

    def submit(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        self.again += sum(len(job.pumps) for job in jobs if isinstance(job, JudgeJob))
        return self._workers.submit(work, jobs)


def measure(plain: Workers, folder: Path, pumps: int, distinct: int) -> dict[str, float]:
    """Figures of one kind of workers."""
    rows, count = folder / "rows.db", os.cpu_count() or 1
    opened, workers = partial(stored, rows, distinct), Counted(plain)
    context = RunContext("c" * 64, "l" * 64, fleetwide=Fleetwide(workers, opened, fewest=1))
    cold = timed(lambda: run(context, rows, distinct, 4 * count))

    def cached() -> RunContext:
        return replace(context, cache=FolderCache(folder / type(plain).__name__, RealFileSystem()))

    workers.again = 0

    warm = timed(lambda: run(cached(), rows, distinct, pumps))
    again = workers.again
    unchanged = timed(lambda: run(cached(), rows, distinct, pumps))
    return {
        "cold_start_s": round(cold.wall_s, 2),
        "warm_s": round(warm.wall_s, 2),
        "warm_cpu_s": round(warm.cpu_s, 2),
        "cpu_ms_per_pump": round(1000 * warm.cpu_s / pumps, 2),
        "two_cores_5000_s": round(warm.cpu_s / pumps * WHOLE_FLEET / 2, 1),
        "looked_twice_pct": round(100 * again / pumps, 1),
        "unchanged_s": round(unchanged.wall_s, 2),
        "unchanged_cpu_s": round(unchanged.cpu_s, 2),
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
        (by_stage,) = workers.submit(stages, [(folder / "rows.db", distinct)])
        figures = {
            "pumps": pumps,
            **found,
            **{f"stage_{name}_ms": round(one, 2) for name, one in by_stage.items()},
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
