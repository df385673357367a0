"""What runs inside a trial process: load the staged copy, give it its golden inputs, measure, report one line of JSON."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pumpdeck_agent.loaded import LoadedPackage, load_package
from pumpdeck_agent.platform_here import limit_this_process, resident_mb
from pumpdeck_agent.runtime import FEATURES, OUTPUTS, Model, ModelCache
from pumpdeck_agent.trial import REPORT_MAX_BYTES, TrialReport, TrialRequest, failed
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import SelfTest
from pumpdeck_fleet.numeric.arrays import decode_arrays
from pumpdeck_packaging.manifest import MANIFEST_MAX_BYTES, MANIFEST_NAME, ModelEntry, Settings, parse_manifest

GOLDEN_MAX_BYTES = 16 * 1024 * 1024
_REQUEST_MAX_BYTES = 16 * 1024
_WARM_UP = 20
_TIMED = 200
_FEWEST = 5
_ROUNDS = 3
_TIMING_S = 1.0
# Below this a relative difference says nothing: both answers are "at the baseline".
_SMALLEST = 1e-3


@dataclass(frozen=True, slots=True)
class _Golden:
    rows: int
    largest_difference: float
    flags_equal: bool


def run_trial(request: TrialRequest) -> TrialReport:
    """Try one staged copy in this very process, which must be a child: its memory is limited from here on."""
    fs = RealFileSystem()
    try:
        limit_this_process(_memory_bytes(request), math.ceil(request.wall_s))
        package = load_package(fs, Path(request.folder), request.manifest_digest, ModelCache())
        return _judge(package)
    except PumpdeckError as error:
        return failed(error.sentence())
    except MemoryError:
        return failed("the model needs more memory than it may")


def _memory_bytes(request: TrialRequest) -> int:
    # The limit must hold before the graph is loaded; the manifest alone says what it is.
    data = RealFileSystem().read_bytes(Path(request.folder) / MANIFEST_NAME, MANIFEST_MAX_BYTES)
    return parse_manifest(data).settings.memory_limit_mb * 1024 * 1024


def _judge(package: LoadedPackage) -> TrialReport:
    settings = package.manifest.settings
    total = _Golden(0, 0.0, True)
    for entry in package.manifest.models:
        golden = _run_golden(package, entry)
        total = _Golden(
            total.rows + golden.rows,
            max(total.largest_difference, golden.largest_difference),
            total.flags_equal and golden.flags_equal,
        )
    p50_us, p99_us = _latency(package, settings)
    rss_mb = resident_mb()
    figures = SelfTest(total.rows, total.largest_difference, total.flags_equal, p50_us, p99_us, rss_mb)
    return TrialReport(not (reason := _verdict(figures, settings)), reason, figures)


def _verdict(figures: SelfTest, settings: Settings) -> str:
    if not figures.flags_equal:
        return "a golden row is on the other side of the limit on this device"
    if figures.largest_difference > settings.golden_tolerance:
        found, allowed = figures.largest_difference, settings.golden_tolerance
        return f"golden answers differ by {found:.2e}, allowed are {allowed:.0e}"
    if figures.p99_us > settings.latency_limit_us:
        return f"too slow: p99 {figures.p99_us:.0f} us a row, allowed are {settings.latency_limit_us:.0f}"
    if figures.rss_mb > settings.memory_limit_mb:
        return f"too much memory: {figures.rss_mb:.0f} MB, allowed are {settings.memory_limit_mb}"
    return ""


def _run_golden(package: LoadedPackage, entry: ModelEntry) -> _Golden:
    model = package.models[entry.pump_type]
    arrays = decode_arrays(package.files[entry.golden], entry.golden, max_bytes=GOLDEN_MAX_BYTES)
    if FEATURES not in arrays or "score" not in arrays or not len(arrays[FEATURES]):
        raise PumpdeckError("holds no golden rows", entry.golden)
    answers = model.run(model.feeds(arrays))
    largest = 0.0
    for name in OUTPUTS:
        if name in arrays:
            largest = max(largest, _difference(name, answers[name], arrays[name]))
    limit = np.asarray(arrays["limit"], np.float32).reshape(-1)[0] if "limit" in arrays else np.float32(np.inf)
    equal = np.array_equal(answers["score"] > limit, arrays["score"] > limit)
    return _Golden(len(arrays[FEATURES]), largest, bool(equal))


def _difference(name: str, found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest relative difference.

    Raises:
        PumpdeckError: another shape, or a number that is none.
    """
    if found.shape != expected.shape:
        raise PumpdeckError("has the wrong shape", f"golden answer {name}", expected=expected.shape, found=found.shape)
    if not np.isfinite(found).all():
        raise PumpdeckError("is not a number", f"golden answer {name}")
    if not found.size:
        return 0.0
    away = np.abs(found.astype(np.float64) - expected) / np.maximum(np.abs(expected.astype(np.float64)), _SMALLEST)
    return float(away.max())


def _latency(package: LoadedPackage, settings: Settings) -> tuple[float, float]:
    """Median and 99th percentile of one row in microseconds: the worst graph, the best of a few rounds."""
    worst = (0.0, 0.0)
    # Pumps of one type share a graph, and its time does not depend on their parameters.
    for pump in {pump.entry.pump_type: pump for pump in package.pumps.values()}.values():
        row = pump.block.centre.reshape(1, -1).copy()
        best = (math.inf, math.inf)
        for _ in range(_ROUNDS):
            best = min(best, _time_rows(pump.model, row, pump.parameters), key=lambda pair: pair[1])
            # One busy moment of the device must not condemn a model; one far beyond the limit needs no second look.
            if best[1] <= settings.latency_limit_us or best[0] > 3 * settings.latency_limit_us:
                break
        worst = max(worst, best, key=lambda pair: pair[1])
        if worst[1] > settings.latency_limit_us:
            break
    return worst


def _time_rows(model: Model, row: NDArray[np.float32], parameters: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Median and 99th percentile in microseconds; a slow model is timed with as many rows as fit the time for it."""
    times: list[int] = []
    began = time.perf_counter()
    while len(times) < _WARM_UP + _TIMED:
        start = time.perf_counter_ns()
        score = model.score(row, parameters)
        times.append(time.perf_counter_ns() - start)
        if not np.isfinite(score).all():
            raise PumpdeckError("is not a number", "score of a pump at its baseline")
        if len(times) >= _FEWEST and time.perf_counter() - began > _TIMING_S:
            break
    timed = np.array(times[min(_WARM_UP, len(times) - _FEWEST) :])
    return float(np.percentile(timed, 50)) / 1000, float(np.percentile(timed, 99)) / 1000


def rounded(report: TrialReport) -> TrialReport:
    """The report with figures cut to what they are worth, so that receipts stay short."""
    if report.self_test is None:
        return report
    test = report.self_test
    figures = replace(
        test,
        largest_difference=float(f"{test.largest_difference:.3g}"),
        p50_us=round(test.p50_us, 1),
        p99_us=round(test.p99_us, 1),
        rss_mb=round(test.rss_mb, 1),
    )
    return replace(report, self_test=figures)


def main() -> int:
    """One trial: the request on standard input, the report on standard output."""
    data = sys.stdin.buffer.read(_REQUEST_MAX_BYTES)
    request = canonical.decode(TrialRequest, data, "trial request", max_bytes=_REQUEST_MAX_BYTES)
    report = canonical.encode(rounded(run_trial(request)))
    if len(report) > REPORT_MAX_BYTES:
        report = canonical.encode(failed("the trial's report is too long"))
    sys.stdout.buffer.write(report + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
