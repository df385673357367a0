"""D12: a thousand updates in a row while the device scores. Nothing may leak, no row may be lost."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import ScoreCounts, Scorer
from pumpdeck_agent.trial import TrialRunner
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_sample.drills.bench import DrillSite, UnsyncedFileSystem, enrol, install, parse_receipt
from pumpdeck_sample.drills.packages import NAMES, NOW_MS, TAGS, package, quiet_rows

ROWS = 20
STEP_MS = 1000


@dataclass
class _Feed:
    """Rows for the spool, each later than the one before."""

    folder: Path
    files: int = 0

    def write(self, fs: UnsyncedFileSystem) -> None:
        """One more file."""
        values = quiet_rows(ROWS, self.files)
        lines = [",".join(("time", "pump", *NAMES))]
        for number, row in enumerate(values):
            at_ms = NOW_MS + (self.files * ROWS + number) * STEP_MS
            cells = ",".join(repr(float(value)) for value in row)
            lines += [f"{at_ms},{tag},{cells}" for tag in TAGS]
        replace_file(fs, self.folder / f"{self.files:08d}.csv", ("\n".join(lines) + "\n").encode("utf-8"))
        self.files += 1


class _Scoring(threading.Thread):
    """Feeds and scores until it is told to stop, then scores what is left."""

    def __init__(self, agent: Agent, fs: UnsyncedFileSystem) -> None:
        super().__init__(name="scoring")
        self.stopping = threading.Event()
        self.counts = ScoreCounts()
        self.feed = _Feed(agent.layout.spool_in)
        self.errors: list[str] = []
        self._fs = fs
        self._scorer = Scorer(agent.platform, agent.layout, agent.config, agent.limits, ModelCache())

    def run(self) -> None:
        while not self.stopping.is_set():
            self.feed.write(self._fs)
            self._score()
            self.stopping.wait(0.02)
        self._score()

    def _score(self) -> None:
        try:
            self.counts = self.counts.plus(self._scorer.score_spool())
        except (PumpdeckError, OSError) as error:
            # Tried again with the next file, as `serve` does; only what is never scored is lost.
            self.errors.append(str(error))


def drill_updates(folder: Path, pool: TrialRunner, updates: int) -> dict[str, Any]:
    """`updates` installs by turns of three packages, each tried, committed, collected and acknowledged."""
    site, fs = DrillSite(folder), UnsyncedFileSystem()
    maker = enrol(fs, site, folder / "device")
    agent = maker.agent(fs, pool, locks=FileLocks())
    built = [package(shift=shift) for shift in (0.0, 0.5, 0.9)]
    scoring = _Scoring(agent, fs)
    process = psutil.Process()
    committed, first, last = 0, (0, 0, 0), (0, 0, 0)
    try:
        for number in range(updates):
            receipt = parse_receipt(
                install(agent, built[number % 3], site.assign(built[number % 3], f"task-{number}")).body, maker.identity
            )
            committed += receipt.outcome is Outcome.COMMITTED
            agent.ack([item["digest"] for item in agent.collect(1 << 22).fields["items"]])
            if number == 0:
                scoring.start()
            if number == updates // 4:
                first = _held(process, agent)
        last = _held(process, agent)
    finally:
        scoring.stopping.set()
        scoring.join()
    written = scoring.feed.files * ROWS * len(TAGS)
    return {
        "tried": updates,
        "not_committed": updates - committed,
        "rows": written,
        "rows_lost": written - scoring.counts.rows,
        "rows_refused": scoring.counts.refused_rows + scoring.counts.late_rows,
        "scoring_errors": len(scoring.errors),
        "descriptors_leaked": max(0, last[0] - first[0] - 2),
        "files_leaked": max(0, last[1] - first[1] - 12),
        "memory_grown_kb": max(0, last[2] - first[2]) // 1024,
        "evidence": scoring.errors[:3],
    }


def _held(process: psutil.Process, agent: Agent) -> tuple[int, int, int]:
    """Open descriptors, files under the device's folder (the spool apart), resident bytes."""
    gc.collect()
    files = sum(1 for path in agent.layout.root.rglob("*") if "spool" not in path.parts)
    descriptors = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return descriptors, files, process.memory_info().rss
