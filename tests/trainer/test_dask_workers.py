"""Training on a Dask cluster: the same bytes as on this machine's own workers, also when one of its workers is killed."""

from __future__ import annotations

import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import PumpdeckError, UnreachableError, UsageError
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import LokyWorkers, Workers
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource
from support.worker_rows import FRAMES, die, open_frames

pytest.importorskip("distributed", reason="the extra dask is not installed")
from pumpdeck_trainer.dask_workers import dask_workers

REQUEST = TrainingRequest(tuple(FRAMES), START_MS, START_MS + 30 * DAY_MS)


def trained(workers: Workers, source: object) -> tuple[bytes, ...]:
    """The artifacts of a run on these workers."""
    context = RunContext("c" * 64, "l" * 64, fleetwide=Fleetwide(workers, source, fewest=2))  # type: ignore[arg-type]
    return tuple(train(default_pipeline(PUMP_TYPE), REQUEST, MemorySource(FRAMES), context).artifacts())


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_dask_gives_lokys_bytes_with_a_worker_killed(tmp_path: Path) -> None:
    flag = tmp_path / "kill one"
    on_loky = trained(LokyWorkers(2), open_frames)
    with dask_workers("local", 2) as workers:
        assert trained(workers, open_frames) == on_loky
        flag.touch()
        assert trained(workers, partial(open_frames, str(flag))) == on_loky
    assert not flag.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_a_job_that_kills_every_worker_is_our_own_error() -> None:
    with dask_workers("local", 1) as workers, pytest.raises(PumpdeckError, match="Dask workers"):
        list(workers.submit(die, [1]))


def test_a_scheduler_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="does not answer"), dask_workers(address, 1):
            pass


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not an address"), dask_workers("carrier-pigeon://x", 1):
        pass
