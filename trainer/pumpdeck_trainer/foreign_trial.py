"""Before anything here loads an imported graph, a process of its own does: bounded in memory and time, with nothing to lose."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.frame import Float32, Float64

GRAPH, ROWS, ANSWERS, WHY = "graph.onnx", "rows.bin", "answers.bin", "why.txt"
FILE_MAX_BYTES = 64 * 1024 * 1024
ADDRESS_BYTES = 4 * 1024 * 1024 * 1024
"""Address space of the child: what it may ask for. What it may hold is `TrialLimits.rss_mb`."""
CPU_S = 120
LARGEST_ROWS = 4096
"""So many rows go through a graph at once on a device that catches up (`segment_rows` in `pumpdeck_agent/config.py`)."""
SINGLE_ROWS = 64
HOPELESS_US = 250_000.0
"""A row that takes so long, on however busy a computer, ends the trial at once."""
ALONE_MAX = 1e-4
"""Two ways to group the same rows may differ by rounding, not by more."""
_WATCH_S = 0.02
_PASSED_ON = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """wall_s: how long the whole may take. rss_mb: memory it may hold. row_us: how long one row may take, in the median."""

    wall_s: float = 60.0
    rss_mb: float = 1024.0
    row_us: float = 50_000.0


@dataclass(frozen=True, eq=False)
class TrialAnswers:
    """What the graph answered. raw: float64 [n] or [n, k]; parts: float64 [n, c] or None. peak_mb: as the parent saw it."""

    raw: Float64
    parts: Float64 | None
    load_ms: float
    p50_us: float
    p99_us: float
    peak_mb: float


def try_graph(onnx: bytes, rows: Float32, limits: TrialLimits | None = None, what: str = "model.onnx") -> TrialAnswers:
    """Run the graph on rows float32 [n, c] in a child.

    Raises:
        RefusedError: too slow, too large, it died, the runtime refuses it, it throws dice, or a row's answer depends on its
            neighbours.
    """
    limits = limits or TrialLimits()
    with tempfile.TemporaryDirectory(prefix="pumpdeck-trial-") as name:
        folder = Path(name)
        (folder / GRAPH).write_bytes(onnx)
        (folder / ROWS).write_bytes(encode_arrays({"x": rows}))
        peak_mb = _run(folder, limits, what)
        try:
            found = decode_arrays((folder / ANSWERS).read_bytes(), "answers", max_bytes=FILE_MAX_BYTES)
        except (OSError, PumpdeckError) as error:
            raise RefusedError("gave no answers in its trial", what) from error
    return _checked(found, len(rows), peak_mb, (limits, what))


def _checked(found: dict[str, np.ndarray], rows: int, peak_mb: float, by: tuple[TrialLimits, str]) -> TrialAnswers:
    limits, what = by
    figures, raw = found.get("figures"), found.get("raw")
    if figures is None or figures.shape != (6,) or raw is None or len(raw) != rows:
        raise RefusedError("gave no answers in its trial", what)
    load_ms, p50, p99, rss_mb, repeat, alone = figures.tolist()
    if repeat > 0:
        raise RefusedError("answers the same rows differently the second time", what, found=f"{repeat:.2g} apart")
    if alone > ALONE_MAX:
        hint = "a device scores row by row"
        raise RefusedError("answers a row differently among others", what, found=f"{alone:.2g} apart", hint=hint)
    if p50 > limits.row_us:
        raise RefusedError("is too slow", what, expected=f"at most {limits.row_us:.0f} us a row", found=f"{p50:.0f} us")
    return TrialAnswers(raw, found.get("parts"), load_ms, p50, p99, max(peak_mb, rss_mb))


def _run(folder: Path, limits: TrialLimits, what: str) -> float:
    """Wait for the child and return the most memory it held, in MB."""
    command = [sys.executable, "-m", "pumpdeck_trainer.foreign_child", str(folder)]
    with (folder / "said.txt").open("wb") as said:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_environment(), cwd=folder
        )
        try:
            peak_mb = _watch(child, limits, what)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
    if child.returncode == 3:
        raise RefusedError(f"failed its trial: {(folder / WHY).read_text(encoding='utf-8')[:400]}", what)
    if child.returncode != 0:
        ended = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        hint = "a graph that does that here would do it on devices"
        raise RefusedError("ended its trial process", what, found=ended, hint=hint)
    return peak_mb


def _watch(child: subprocess.Popen[bytes], limits: TrialLimits, what: str) -> float:
    peak_mb = 0.0
    resident = _resident(child.pid)
    began = time.monotonic()
    while True:
        try:
            child.wait(timeout=_WATCH_S)
            return peak_mb
        except subprocess.TimeoutExpired:
            pass
        peak_mb = max(peak_mb, resident())
        if peak_mb > limits.rss_mb:
            most = f"at most {limits.rss_mb:.0f} MB"
            raise RefusedError("needs too much memory", what, expected=most, found=f"{peak_mb:.0f} MB")
        if time.monotonic() - began > limits.wall_s:
            raise RefusedError("did not end its trial in time", what, expected=f"at most {limits.wall_s:g} s")


def _resident(pid: int) -> Callable[[], float]:
    """Memory of the process in MB; 0 once it has ended."""
    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return lambda: 0.0

    def now() -> float:
        try:
            return float(process.memory_info().rss) / 1024 / 1024
        except psutil.Error:
            return 0.0

    return now


def _environment() -> dict[str, str]:
    """Nothing of the console's own: no workspace, no agent socket, no secrets."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONPATH": paths, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
