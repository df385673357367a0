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

        executor: Any = get_reusable_executor(max_workers=self._processes, timeout=IDLE_S)
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
