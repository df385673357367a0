"""`submit`: jobs of a training run in other processes, several pumps a job; a worker that dies changes nothing.

A job is a pure function of its arguments and of rows named by digest, so doing it again gives the same result; the run
cache makes a whole run idempotent. joblib's loky starts workers that outlive a job and are used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from pumpdeck_fleet.core.errors import PumpdeckError

Job = TypeVar("Job")
Result = TypeVar("Result")
ATTEMPTS = 3
IDLE_S = 60
KEEPS_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024),
    "MALLOC_TOP_PAD_": str(16 * 1024 * 1024),
}
"""Environment of a worker: glibc keeps freed memory. Arrays of a pump are made and freed by the hundred; to give each back to
the system and ask for it again, page by page, costs a tenth of a worker's time. Other C libraries do not read it."""


class Workers(Protocol):
    """Where jobs run."""

    def submit(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """The results, in the order of the jobs. `work` and jobs can be pickled."""
        ...


class LokyWorkers:
    """So many processes of this machine."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def submit(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As the port says. Raises: PumpdeckError - workers died three times over; what the work itself raises."""
        done = 0
        for _ in range(ATTEMPTS):
            try:
                for result in self._once(work, jobs[done:]):
                    yield result
                    done += 1
                return
            except _broken():
                continue
        raise PumpdeckError(f"lost its worker processes {ATTEMPTS} times", "training", hint="is there enough memory?")

    def _once(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        from joblib.externals.loky import get_reusable_executor  # deferred: small runs need no other process

        executor: Any = get_reusable_executor(max_workers=self._processes, timeout=IDLE_S, env=KEEPS_MEMORY)
        futures = [executor.submit(work, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _broken() -> type[Exception]:
    from joblib.externals.loky.process_executor import BrokenProcessPool  # deferred: as above

    found: type[Exception] = BrokenProcessPool
    return found
