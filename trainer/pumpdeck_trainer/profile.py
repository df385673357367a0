"""Profile of a graph: threads x spinning x batch, each in a fresh process, so that no setting lives off another one's warmth."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import Progress

BATCHES = (1, 60, 1440)
CHILD_LIMIT_S = 30.0
REQUEST_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What one child measures: the pump's block as the graph's inputs, rows a call, and how long it may take."""

    threads: int
    spinning: bool
    batch: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    votes: tuple[float, ...]
    limit: float
    seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class ProfileFigures:
    """One setting measured. p50_us, p99_us: of one call of `batch` rows. cpu_us: processor time of a call that follows a
    pause, threads that go on spinning included; cpu_pct: that time at the pump's cadence, in per cent of one core.
    """

    threads: int
    spinning: bool
    batch: int
    load_ms: float
    p50_us: float
    p99_us: float
    rows_per_s: float
    cpu_us: float
    cpu_pct: float
    rss_mb: float


def settings_to_try(most_threads: int) -> tuple[tuple[int, bool], ...]:
    """(threads, spinning); a single thread has nobody to wait for, so it never spins."""
    return ((1, False), *((threads, spin) for threads in range(2, most_threads + 1) for spin in (False, True)))


def sweep(
    onnx: bytes, requests: Sequence[ProfileRequest], cadence_s: float, on_progress: Progress
) -> tuple[ProfileFigures, ...]:
    """The figures of each request, one fresh process after the other: measured at once they would disturb each other.

    Raises:
        PumpdeckError: a child did not answer.
    """
    found = []
    for done, request in enumerate(requests):
        on_progress("profile", done, len(requests))
        figures = _measure(onnx, request)
        # A batch stands for as many rows that were waited for.
        share = 100 * figures.cpu_us / 1e6 / (cadence_s * request.batch)
        found.append(replace(figures, cpu_pct=round(share, 4)))
    on_progress("profile", len(requests), len(requests))
    return tuple(found)


def _measure(onnx: bytes, request: ProfileRequest) -> ProfileFigures:
    command = [sys.executable, "-m", "pumpdeck_trainer.profile_child"]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            input=canonical.encode(request) + b"\n" + onnx,
            capture_output=True,
            timeout=CHILD_LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PumpdeckError(f"did not end within {CHILD_LIMIT_S:g} s", "profile") from error
    if done.returncode:
        tail = " ".join(done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:])
        raise PumpdeckError(f"ended with status {done.returncode} ({tail})", "profile")
    return canonical.decode(ProfileFigures, done.stdout, "profile", max_bytes=ANSWER_MAX_BYTES)
