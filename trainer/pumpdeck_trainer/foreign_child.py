"""The first run of an imported graph, in a process of its own: `graph.onnx` and `rows.bin` of a folder in, `answers.bin` out."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import below: the runtime's Linux wheels phone home by default

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil

from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.frame import Float64
from pumpdeck_trainer.foreign_trial import (
    ADDRESS_BYTES,
    ANSWERS,
    CPU_S,
    FILE_MAX_BYTES,
    GRAPH,
    HOPELESS_US,
    LARGEST_ROWS,
    ROWS,
    SINGLE_ROWS,
    WHY,
)

_TRIES = 3
_WARM_UP = 5
_TIMED = 200
_TIMING_S = 1.0


def limit_this_process() -> None:
    """Memory and processor time, where the system can bound them; the parent watches both anyway."""
    try:
        import resource  # deferred: Windows has none
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Graph:
    def __init__(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 4
        began = time.perf_counter()
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.load_ms = (time.perf_counter() - began) * 1000
        (taken,) = self._session.get_inputs()
        self._type = np.float64 if taken.type == "tensor(double)" else np.float32
        self.outputs = [one.name for one in self._session.get_outputs()]

    def run(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """All answers as float64, with the shapes they have."""
        found = self._session.run(None, {"x": rows.astype(self._type)})
        return {name: _numbers(name, one, len(rows)) for name, one in zip(self.outputs, found, strict=True)}

    def call(self, row: np.ndarray) -> None:
        """One row, nothing else: to be timed."""
        self._session.run(None, {"x": row})

    def typed(self, rows: np.ndarray) -> np.ndarray:
        return rows.astype(self._type)


def _numbers(name: str, found: Any, rows: int) -> np.ndarray:
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise RefusedError("gives something else than numbers", name, found=type(found).__name__)
    if found.ndim not in (1, 2) or found.shape[0] != rows or found.size > 1024 * rows:
        expected = f"[{rows}] or [{rows}, columns]"
        raise RefusedError("gives answers of another shape", name, expected=expected, found=list(found.shape))
    return found.astype(np.float64)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, relative to the value or to the spread of all; NaN is equal to NaN."""
    both = np.isnan(one) & np.isnan(other)
    finite = other[np.isfinite(other)]
    spread = float(finite.std()) if len(finite) else 0.0
    with np.errstate(invalid="ignore"):
        away = np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), max(spread, 1e-9))
    away = np.where(both | (one == other), 0.0, away)
    return float(np.where(np.isnan(away), np.inf, away).max(initial=0.0))


def examine(onnx: bytes, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Answers of all rows and what the graph costs."""
    graph = _Graph(onnx)
    _stop_if_hopeless(graph, rows[:1])
    found = graph.run(rows)
    again = graph.run(rows)
    repeat = max(_apart(found[name], again[name]) for name in graph.outputs)
    some = rows[:: max(len(rows) // SINGLE_ROWS, 1)][:SINGLE_ROWS]
    together = graph.run(some)
    single = [graph.run(row[None]) for row in some]
    alone = max(_apart(np.concatenate([one[name] for one in single]), together[name]) for name in graph.outputs)
    graph.run(np.resize(rows, (LARGEST_ROWS, rows.shape[1])))
    p50, p99 = _time_rows(graph, rows[:1])
    figures = np.array([graph.load_ms, p50, p99, _peak_mb(), repeat, alone])
    return {**found, "figures": figures}


def _peak_mb() -> float:
    """The most memory that this process has held, where the system tells; else what it holds now. In MB."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [line.split() for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        if found:
            return int(found[0][1]) / 1024
    return float(psutil.Process().memory_info().rss) / 1024 / 1024


def _stop_if_hopeless(graph: _Graph, row: np.ndarray) -> None:
    """One row, after one that warms up: what is far beyond any limit needs no further look. A busy moment is no verdict."""
    graph.run(row)
    took_us = HOPELESS_US + 1
    for _ in range(_TRIES):
        if took_us <= HOPELESS_US:
            break
        began = time.perf_counter()
        graph.run(row)
        took_us = (time.perf_counter() - began) * 1e6
    if took_us > HOPELESS_US:
        raise RefusedError("it is too slow", expected=f"at most {HOPELESS_US:.0f} us a row", found=f"{took_us:.0f} us")


def _time_rows(graph: _Graph, row: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of one row in microseconds."""
    typed = graph.typed(row)
    times: list[int] = []
    began = time.perf_counter()
    while len(times) < _WARM_UP + _TIMED and (len(times) <= _WARM_UP or time.perf_counter() - began < _TIMING_S):
        start = time.perf_counter_ns()
        graph.call(typed)
        times.append(time.perf_counter_ns() - start)
    timed: Float64 = np.array(times[_WARM_UP:], np.float64) / 1000
    return float(np.percentile(timed, 50)), float(np.percentile(timed, 99))


def main() -> int:
    """One graph. Status 3: refused, and `why.txt` says why."""
    limit_this_process()
    folder = Path(sys.argv[1])
    try:
        rows = decode_arrays((folder / ROWS).read_bytes(), "rows", max_bytes=FILE_MAX_BYTES)["x"]
        answers = examine((folder / GRAPH).read_bytes(), rows)
    except PumpdeckError as error:
        (folder / WHY).write_text(error.sentence(), encoding="utf-8", newline="\n")
        return 3
    except MemoryError:
        (folder / WHY).write_text("it needs more memory than it may", encoding="utf-8", newline="\n")
        return 3
    except Exception as error:  # noqa: BLE001 - the runtime's own classes have no other common base
        text = " ".join(str(error).split())[:300]
        (folder / WHY).write_text(f"ONNX Runtime does not run it ({text})", encoding="utf-8", newline="\n")
        return 3
    (folder / ANSWERS).write_bytes(encode_arrays(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
