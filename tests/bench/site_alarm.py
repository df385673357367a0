"""How soon the site knows: from a row on the disk, or by HTTP, to the alarm in the site's file and in its hook, no console there.

``python tests/bench/site_alarm.py [--json] [--quick]``. A real `serve` with its default settings (the spool is looked at twice a
second); each round raises an alarm and clears it. `heartbeat_gap_s`: the longest between two heartbeats, set to one a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_fleet.core.files import RealFileSystem
from support.devices import NAMES, NOW_MS, Bench, package, quiet_rows

TAG = "P-101A"
HOOK = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).write_text(sys.argv[2] + ' ' + repr(time.time()))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), 2 if options.quick else 10)
    if options.json:
        print(json.dumps(figures))
        return 0
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:,.3f}")
    return 0


def measure(folder: Path, rounds: int) -> dict[str, float]:
    bench = Bench(folder, tags=(TAG,), fs=RealFileSystem(), locks=FileLocks())
    bench.install(package(bench.device, (TAG,)))
    hooked = folder / "hooked"
    alarms = {"hook": [sys.executable, "-c", HOOK, str(hooked)], "heartbeat_s": 1.0}
    (bench.root / "serve.json").write_text(json.dumps({"endpoint": {"port": 0}, "alarms": alarms}), encoding="utf-8")
    command = [sys.executable, "-m", "pumpdeck_agent.main", "serve", "--root", str(bench.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        port = int(process.stderr.readline().decode().rpartition(":")[2])
        return watch(bench, hooked, rounds, HTTPConnection("127.0.0.1", port))
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def watch(bench: Bench, hooked: Path, rounds: int, client: HTTPConnection) -> dict[str, float]:
    site, beats = bench.root / "site-alarms.json", []
    by_file, by_hook, by_post, minute = [], [], [], 0
    for number in range(rounds):
        for is_posted, found in ((False, by_file), (True, by_post)):
            # Quiet until the window is full of it, then the fault; the limit's persistence is two minutes of rows.
            send(bench, client, minute, quiet_rows(20, number), False)
            until(lambda: states(site, beats) == [])
            faulty = quiet_rows(10, number)
            faulty[:, 2] += np.float32(30)
            hooked.unlink(missing_ok=True)
            began = send(bench, client, minute + 20, faulty, is_posted)
            until(lambda: states(site, beats) == ["raised"])
            found.append(time.time() - began)
            until(lambda: hooked.exists() and hooked.read_text().startswith("raised "))
            by_hook.append(float(hooked.read_text().split()[1]) - began)
            minute += 30
    gaps = [(after - before) / 1000 for before, after in itertools.pairwise(beats)]
    return {
        "alarm_announced_s": max(by_file + by_post),
        "alarm_announced_median_s": statistics.median(by_file),
        "alarm_announced_http_median_s": statistics.median(by_post),
        "alarm_hook_s": max(by_hook),
        "heartbeat_gap_s": max(gaps),
        "alarms": float(len(by_file) + len(by_post)),
    }


def send(bench: Bench, client: HTTPConnection, minute: int, rows: np.ndarray, is_posted: bool) -> float:
    """The rows, in one file or one request; returns when they were there to be scored."""
    at = NOW_MS + 60_000 * np.arange(minute, minute + len(rows))
    if not is_posted:
        bench.spool("rows.csv.part", {TAG: rows}, at)
        folder = bench.root / "spool" / "in"
        (folder / "rows.csv.part").rename(folder / f"{minute:06d}.csv")
        return time.time()
    sent = [
        {"pump": TAG, "time": int(one), **dict(zip(NAMES, map(float, row), strict=True))}
        for one, row in zip(at, rows, strict=True)
    ]
    began = time.time()
    client.request("POST", "/score", json.dumps({"rows": sent}), {"Content-Type": "application/json"})
    response = client.getresponse()
    response.read()
    assert response.status == 200
    return began


def states(site: Path, beats: list[int]) -> list[str] | None:
    """States of the alarms that stand, as the site reads them; heartbeats are noted on the way."""
    try:
        found = json.loads(site.read_bytes())
    except FileNotFoundError:
        return None
    if not beats or found["heartbeat_ms"] != beats[-1]:
        beats.append(found["heartbeat_ms"])
    return [one["state"] for one in found["alarms"]]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main())
