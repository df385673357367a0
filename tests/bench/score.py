"""What scoring costs on a device: catch-up, one row, memory, start-up, sketch sizes.

``python tests/bench/score.py [--json] [--quick]``. `added_p99_us` is what window, baseline, alarm logic and our call add to one
bare run of the graph, row by row, at the 99th percentile; its peer, the bare runtime, is measured in the same loop.
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

import numpy as np

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.loaded import LoadedPump, load_package
from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.numeric.alarm import AlarmTracker
from pumpdeck_fleet.numeric.features import WindowMean
from pumpdeck_fleet.numeric.sketch import encode_sketch, make_sketch
from support.devices import NOW_MS, Bench, package, quiet_rows

TAGS = ("P-101A", "P-101B", "P-102A", "P-102B")
CHILD = """
import sys
from pathlib import Path
from pumpdeck_agent.commands import this_platform
from pumpdeck_agent.config import Layout
from pumpdeck_agent.platform_here import resident_mb
from pumpdeck_agent.serve import make_scorer
scorer = make_scorer(this_platform(), Layout(Path(sys.argv[1])))
rows = scorer.score_spool().rows
print(rows, resident_mb())
"""


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
    bench = Bench(folder, tags=TAGS, fs=RealFileSystem(), locks=FileLocks())
    bench.install(package(bench.device, TAGS))
    figures = catch_up(bench, 1440, 3 if quick else 9)
    figures |= one_row(bench, 2_000 if quick else 20_000)
    figures |= process(bench, 500 if quick else 2_500)
    figures |= sketches(bench, quick)
    return figures


def catch_up(bench: Bench, rows: int, rounds: int) -> dict[str, float]:
    """Four pumps, a day of rows a minute, from file to records and outbox on the real disk."""
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    scorer.score_spool()
    seconds = []
    for number in range(rounds):
        at = NOW_MS + 60_000 * np.arange(number * rows, (number + 1) * rows)
        bench.spool(f"{number:03d}.csv", {tag: quiet_rows(rows, number) for tag in TAGS}, at)
        began = time.perf_counter()
        counts = scorer.score_spool()
        seconds.append(time.perf_counter() - began)
        assert counts.rows == rows * len(TAGS)
    best, median = min(seconds), statistics.median(seconds)
    return {
        "catch_up_rows_per_s": rows * len(TAGS) / median,
        "catch_up_rows_per_s_best": rows * len(TAGS) / best,
        "catch_up_s": median,
    }


def loaded_pump(agent: Agent) -> LoadedPump:
    state = agent.installer.ready()
    assert state.active is not None
    folder = agent.layout.package(state.active.sha256)
    return load_package(agent.platform.fs, folder, state.active.manifest, ModelCache()).pumps["p-101a"]


def one_row(bench: Bench, count: int) -> dict[str, float]:
    """From a decoded row to the alarm state, against the bare runtime on the same rows."""
    pump = loaded_pump(bench.agent())
    rows = quiet_rows(count, 3)
    session, parameters = pump.model._session, dict(pump.parameters)
    window, tracker = WindowMean(pump.spec), AlarmTracker(pump.block, pump.settings)
    bare, whole = np.empty(count), np.empty(count)
    clock = time.perf_counter_ns
    for place in range(count):
        row = rows[place]
        at_ms = NOW_MS + 60_000 * place
        start = clock()
        features = window.push(at_ms, row)
        corrected = tracker.correct(at_ms, features)
        score = pump.model.score(corrected.reshape(1, -1), pump.parameters)
        tracker.push(at_ms, features, float(score[0]))
        whole[place] = clock() - start
        feeds = {"x": row.reshape(1, -1), **parameters}
        start = clock()
        session.run(["score"], feeds)
        bare[place] = clock() - start
    bare, whole = bare[100:] / 1000, whole[100:] / 1000
    return {
        "bare_p99_us": float(np.percentile(bare, 99)),
        "row_p99_us": float(np.percentile(whole, 99)),
        "added_p50_us": float(np.percentile(whole, 50) - np.percentile(bare, 50)),
        "added_p99_us": float(np.percentile(whole, 99) - np.percentile(bare, 99)),
    }


def process(bench: Bench, rows: int) -> dict[str, float]:
    """Memory of a scoring process after its rows, and what our own modules add to the start of one."""
    for number in range(0, rows, 250):
        at = NOW_MS + 60_000 * np.arange(100_000 + number, 100_250 + number)
        bench.spool(f"rows-{number:06d}.csv", {tag: quiet_rows(250, number) for tag in TAGS}, at)
    done = subprocess.run([sys.executable, "-c", CHILD, str(bench.root)], capture_output=True, text=True, check=True)
    scored, resident = done.stdout.split()
    assert int(scored) == rows * len(TAGS)
    libraries = min(_start_ms("import numpy, onnxruntime") for _ in range(5))
    ours = min(_start_ms("import numpy, onnxruntime, pumpdeck_agent.serve, pumpdeck_agent.main") for _ in range(5))
    return {"agent_rss_mb": float(resident), "agent_scored_rows": float(scored), "agent_start_ms": ours - libraries}


def _start_ms(statement: str) -> float:
    """Processor time of a new process, so that a busy machine does not count."""
    # With byte code kept, as on an installed device; a development environment may have it switched off.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "pumpdeck-bench-pycache")
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = os.times()
    return (after.children_user + after.children_system - before.children_user - before.children_system) * 1000


def sketches(bench: Bench, quick: bool) -> dict[str, float]:
    edges = loaded_pump(bench.agent()).edges
    sizes = {}
    for name, rows in (("sketch_minute_bytes", 1_440), ("sketch_hz_bytes", 8_640 if quick else 86_400)):
        at = NOW_MS + 86_400_000 // rows * np.arange(rows, dtype=np.int64)
        sizes[name] = float(len(encode_sketch(make_sketch(edges, at, quiet_rows(rows, 9)))))
    return sizes


if __name__ == "__main__":
    sys.exit(main())
