"""What scoring costs on a device: catch-up, one row, memory, start-up, sketch sizes.

``python tests/bench/score.py [--json] [--quick]``. `added_p99_us`: what range check, window, baseline, our call, alarm logic and
the record in the spool buffer add to one bare run of the graph, row by row, at the 99th percentile; that run is the peer.
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
from http.client import HTTPConnection
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.loaded import LoadedPump, load_package
from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.pump_scoring import PumpScoring
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.spool_binary import encode_segment
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.numeric.sketch import encode_sketch, make_sketch
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
    figures |= one_row(bench, 2_000 if quick else 20_000, 1 if quick else 3)
    figures |= service(device(folder / "one", TAGS[:1]), 500 if quick else 10_000, "")
    twenty = tuple(f"P-{number}" for number in range(200, 220))
    figures |= service(device(folder / "twenty", twenty), 25 if quick else 500, "_20_pumps")
    figures |= start_up()
    figures |= sketches(bench, quick)
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


def loaded_pump(agent: Agent) -> LoadedPump:
    state = agent.installer.ready()
    assert state.active is not None
    folder = agent.layout.package(state.active.sha256)
    return load_package(agent.platform.fs, folder, state.active.manifest, ModelCache()).pumps["p-101a"]


def one_row(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    """From a decoded row to the alarm state and the record in the spool buffer, against the bare runtime in the same loop.

    Rows a minute, window 5 min: every hour and every window turns in here. Saving, every few seconds, is apart.
    """
    pump = loaded_pump(bench.agent())
    session, parameters = pump.model._session, dict(pump.parameters)
    clock, found = time.perf_counter_ns, []
    for number in range(rounds):
        rows = quiet_rows(count, number)
        scoring = PumpScoring(bench.device, "0" * 64, pump, bench.limits)
        bare, whole = np.empty(count), np.empty(count)
        for place in range(count):
            row, at_ms = rows[place], NOW_MS + 60_000 * place
            start = clock()
            scoring.push(at_ms, row)
            whole[place] = clock() - start
            feeds = {"x": row.reshape(1, -1), **parameters}
            start = clock()
            session.run(["score"], feeds)
            bare[place] = clock() - start
            if place % 250 == 249:
                scoring.settled_figures()
        bare, whole = bare[100:] / 1000, whole[100:] / 1000
        found.append([np.percentile(bare, 99), np.percentile(whole, 99), np.percentile(whole, 50) - np.percentile(bare, 50)])
    added = sorted(whole_p99 - bare_p99 for bare_p99, whole_p99, _ in found)
    middle = np.median(np.array(found), axis=0)
    return {
        "bare_p99_us": float(middle[0]),
        "row_p99_us": float(middle[1]),
        "added_p50_us": float(middle[2]),
        "added_p99_us": float(statistics.median(added)),
        "added_p99_us_best": float(added[0]),
    }


def service(bench: Bench, rows: int, suffix: str) -> dict[str, float]:
    """A real `serve`: rows by HTTP for each pump, then its memory as the kernel counts it. A verifying child's peak beside it."""
    (bench.root / "serve.json").write_text('{"endpoint": {"port": 0}}', encoding="utf-8")
    command = [sys.executable, "-m", "pumpdeck_agent.main"]
    process = subprocess.Popen([*command, "serve", "--root", str(bench.root)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    client = HTTPConnection("127.0.0.1", int(process.stderr.readline().decode().rpartition(":")[2]))
    values, seconds = quiet_rows(rows, 1).tolist(), []
    for place in range(rows):
        for tag in bench.tags:
            row = {"pump": tag, "time": NOW_MS + 60_000 * place, **dict(zip(NAMES, values[place], strict=True))}
            body = json.dumps(row)
            began = time.perf_counter()
            client.request("POST", "/score", body, {"Content-Type": "application/json"})
            response = client.getresponse()
            response.read()
            seconds.append(time.perf_counter() - began)
            assert response.status == 200
    resident, peak = (_status_mb(process.pid, field) for field in ("VmRSS", "VmHWM"))
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()
    child = [sys.executable, "-c", RESUME, str(bench.root)]
    resume_mb = float(subprocess.run(child, capture_output=True, text=True, check=True).stdout.split()[-1])
    p50, p99 = (float(np.percentile(seconds, share)) * 1e6 for share in (50, 99))
    figures = {"agent_rss_mb": resident, "agent_peak_mb": peak, "agent_scores": float(rows * len(bench.tags))}
    figures |= {"post_score_p50_us": p50, "post_score_p99_us": p99, "verifying_child_peak_mb": resume_mb}
    return {name + suffix: value for name, value in figures.items()}


RESUME = """
import sys
from pumpdeck_agent.main import main
from pumpdeck_agent.platform_here import resident_mb
assert main(["resume", "--root", sys.argv[1]]) == 0
print(resident_mb())
"""


def _status_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


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


def sketches(bench: Bench, quick: bool) -> dict[str, float]:
    edges = loaded_pump(bench.agent()).edges
    sizes = {}
    for name, rows in (("sketch_minute_bytes", 1_440), ("sketch_hz_bytes", 8_640 if quick else 86_400)):
        at = NOW_MS + 86_400_000 // rows * np.arange(rows, dtype=np.int64)
        sizes[name] = float(len(encode_sketch(make_sketch(edges, at, quiet_rows(rows, 9)))))
    return sizes


if __name__ == "__main__":
    sys.exit(main())
