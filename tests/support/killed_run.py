"""A training run of some hundred pumps that a test can kill: python -m support.killed_run FOLDER WORKERS

It keeps what it finds in FOLDER, tells every step on stdout as `step done total`, and works in WORKERS other processes
(0: in none).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer.ahead import Fleetwide
from pumpdeck_trainer.cache import FolderCache
from pumpdeck_trainer.jobs import SourceMaker
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest, TrainingSource
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.workers import LokyWorkers
from support.pump_rows import PUMP_TYPE, START_MS, MemorySource, pump_frame

DAYS = 6
SOURCE = MemorySource({f"site/P-{number}": pump_frame(number, days=DAYS) for number in range(320)})
SPEC = default_pipeline(PUMP_TYPE)
REQUEST = TrainingRequest(tuple(SOURCE.frames), START_MS, START_MS + DAYS * DAY_MS)


def open_rows() -> AbstractContextManager[TrainingSource]:
    """The rows, opened in a worker."""
    return nullcontext(SOURCE)


def say(step: str, done: int, total: int) -> None:
    print(step, done, total, flush=True)


def main(argv: Sequence[str]) -> int:
    # Whoever started this may ignore Ctrl-C, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, workers = Path(argv[0]), int(argv[1])
    cache = FolderCache(folder, RealFileSystem())
    fleetwide = Fleetwide(LokyWorkers(workers), _named(), fewest=1) if workers else None
    train(SPEC, REQUEST, SOURCE, RunContext("c" * 64, "l" * 64, cache=cache, fleetwide=fleetwide, on_progress=say))
    return 0


def _named() -> SourceMaker:
    # As the main module's own it would travel by value, rows and all.
    from support import killed_run

    return killed_run.open_rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
