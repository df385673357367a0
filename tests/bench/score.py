"""What scoring costs on a device: catch-up, one row, memory, start-up, sketch sizes.

``python tests/bench/score.py [--json] [--quick]``. `added_p99_us`: what range check, window, baseline, our call, alarm logic and
the record in the spool buffer add to one bare run of the graph, row by row, at the 99th percentile; that run is the peer.
`added_over_bound_*`: the same against the fastest call the runtime has; `added_cpu_*`: in the thread's own processor time, which
leaves out what a busy machine takes away. `*_rss_mb`: as the kernel counts resident memory,
libraries shared with other processes included; `*_pss_mb`: those by share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.spool_binary import encode_segment
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from support.bench_rows import one_row, sketches
from support.bench_service import delivery, service
from support.devices import NAMES, NOW_MS, Bench, package, quiet_rows

TAGS = ("P-101A", "P-101B", "P-102A", "P-102B")
DAY_S = 86_400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.quick)
    if options.json:
        print(json.dumps(figures))
        return 0
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:,.2f}")
    return 0


def measure(folder: Path, quick: bool) -> dict[str, float]:
    bench = device(folder / "four", TAGS)
    figures = catch_up_day(device(folder / "day", TAGS[:1]), 2 if quick else 7)
    figures |= catch_up_text(bench, 1440, 3 if quick else 9)
    figures |= one_row(2_000 if quick else 20_000, 1 if quick else 5)
    figures |= service(device(folder / "one", TAGS[:1]), 500 if quick else 10_000, "")
    twenty = tuple(f"P-{number}" for number in range(200, 220))
    figures |= service(device(folder / "twenty", twenty), 25 if quick else 500, "_20_pumps")
    figures |= delivery(Bench(folder / "delivered", tags=TAGS, fs=RealFileSystem(), locks=FileLocks()))
    figures |= start_up()
    figures |= sketches(quick)
    return figures


def device(folder: Path, tags: tuple[str, ...]) -> Bench:
    """An installed device on the real disk."""
    bench = Bench(folder, tags=tags, fs=RealFileSystem(), locks=FileLocks())
    bench.install(package(bench.device, tags))
    return bench


def local_scorer(bench: Bench) -> Scorer:
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    scorer.package()
    return scorer


def catch_up_day(bench: Bench, rounds: int) -> dict[str, float]:
    """One pump, a day of rows a second in one binary segment, to records and outbox on the real disk; as CSV beside it."""
    scorer, seconds = local_scorer(bench), []
    for number in range(rounds):
        at = NOW_MS + 1000 * np.arange(number * DAY_S, (number + 1) * DAY_S, dtype=np.int64)
        frame = TelemetryFrame(NAMES, at, np.round(quiet_rows(DAY_S, number), 2), np.zeros(DAY_S, np.uint16))
        (bench.root / "spool" / "in" / f"{number:03d}.pdc").write_bytes(encode_segment(bench.tags[0], frame))
        seconds.append(_pass(scorer, DAY_S))
    at = NOW_MS + 1000 * np.arange(rounds * DAY_S, (rounds + 1) * DAY_S, dtype=np.int64)
    bench.spool("999.csv", {bench.tags[0]: np.round(quiet_rows(DAY_S, 99), 2)}, at)
    csv_s = _pass(scorer, DAY_S)
    return {
        "catch_up_rows_per_s": DAY_S / statistics.median(seconds),
        "catch_up_rows_per_s_best": DAY_S / min(seconds),
        "catch_up_csv_rows_per_s": DAY_S / csv_s,
    }


def catch_up_text(bench: Bench, rows: int, rounds: int) -> dict[str, float]:
    """Four pumps, a day of rows a minute as CSV, from file to records and outbox on the real disk."""
    scorer, seconds = local_scorer(bench), []
    for number in range(rounds):
        at = NOW_MS + 60_000 * np.arange(number * rows, (number + 1) * rows)
        bench.spool(f"{number:03d}.csv", {tag: quiet_rows(rows, number) for tag in TAGS}, at)
        seconds.append(_pass(scorer, rows * len(TAGS)))
    return {"catch_up_4_pumps_csv_rows_per_s": rows * len(TAGS) / statistics.median(seconds)}


def _pass(scorer: Scorer, rows: int) -> float:
    began = time.perf_counter()
    counts = scorer.score_spool()
    seconds = time.perf_counter() - began
    assert counts.rows == rows
    return seconds


def start_up() -> dict[str, float]:
    """What our own modules add to the start of a process."""
    libraries = min(_start_ms("import numpy, onnxruntime") for _ in range(5))
    ours = min(_start_ms("import numpy, onnxruntime, pumpdeck_agent.serve, pumpdeck_agent.main") for _ in range(5))
    return {"agent_start_ms": ours - libraries}


def _start_ms(statement: str) -> float:
    """Processor time of a new process, so that a busy machine does not count."""
    # With byte code kept, as on an installed device; a development environment may have it switched off.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "pumpdeck-bench-pycache")
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = os.times()
    return (after.children_user + after.children_system - before.children_user - before.children_system) * 1000


if __name__ == "__main__":
    sys.exit(main())
