"""`submit` over Dask: the same jobs on the workers of a cluster. Needs the extra `dask`; loaded only when asked for.

The workers must see the rows under the same path (a shared folder) and run the same Pumpdeck. Dask gives a job whose worker
died to another one; a job is a pure function, so a second run of it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from pumpdeck_fleet.core.errors import PumpdeckError, UnreachableError, UsageError
from pumpdeck_trainer.workers import ATTEMPTS, KEEPS_MEMORY, Job, Result, Workers

LOCAL = "local"
CONNECT_S = 10
_EXTRA = "pip install 'pumpdeck[dask]'"


class DaskWorkers:
    """The workers behind a connected `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """As the port says. Raises: PumpdeckError - a job's workers died too often, or the scheduler went away."""
        from distributed.client import FutureCancelledError  # deferred: an extra
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        futures = [self._client.submit(work, job, pure=False) for job in jobs]
        try:
            for place, future in enumerate(futures):
                yield future.result()
                # Dask keeps what a future points at: results of thousands of pumps would pile up on the workers.
                future.release()
                futures[place] = None
        except KilledWorker as error:
            raise PumpdeckError("lost its Dask workers", "training", hint="is there enough memory?") from error
        except (CommClosedError, FutureCancelledError, TimeoutError) as error:
            raise UnreachableError("went away while it trained", "the Dask scheduler", hint="run it again") from error
        finally:
            for future in futures:
                if future is not None:
                    future.cancel()


@contextmanager
def dask_workers(address: str, processes: int) -> Iterator[Workers]:
    """Workers of the scheduler at `address` (`tcp://host:8786`), or of a cluster of this machine's own for `local`.

    Raises:
        UsageError: the extra is not installed, or the address is none.
        UnreachableError: nobody answers there.
    """
    try:
        import dask  # deferred: an extra
        from distributed import Client
    except ImportError as error:
        raise UsageError("needs Dask, which is not installed", "--scheduler", hint=_EXTRA) from error
    # A worker that dies takes its job with it: after so many the job is to blame.
    dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS})
    with _cluster(address, processes) as target:
        try:
            client = Client(target, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise UnreachableError("does not answer", f"Dask scheduler {address}", hint=str(error)) from error
        except ValueError as error:
            raise UsageError(
                "is not an address", f"--scheduler {address}", expected="tcp://HOST:PORT or local", hint=str(error)
            ) from error
        with client:
            yield DaskWorkers(client)


@contextmanager
def _cluster(address: str, processes: int) -> Iterator[Any]:
    if address != LOCAL:
        yield address
        return
    import dask  # deferred: an extra
    from distributed import LocalCluster

    # Dask would have its workers give back freed memory at every turn.
    spawned = {**dask.config.get("distributed.nanny.pre-spawn-environ", {}), **KEEPS_MEMORY}
    dask.config.set({"distributed.nanny.pre-spawn-environ": spawned})
    cluster: AbstractContextManager[Any] = LocalCluster(
        n_workers=processes, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )
    with cluster as made:
        yield made
