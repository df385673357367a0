"""Seconds that `pumpdeck pumps --json` takes on the 240-pump fleet, start of the process included, and what it imports.

``python tests/bench/startup_cli.py [--quick] [--json]``. Beside it the same interpreter that only imports click: the floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_fleet.core.clock import HOUR_MS, MINUTE_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store.facts import SCORE_CHANNELS
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from support.small_fleet import NOW_MS, small_fleet, small_workspace

BAD = ("sklearn", "pandas", "onnxruntime", "textual", "paramiko", "httpx")
_LIST = "import sys; from pumpdeck_console.main import main; code = main(sys.argv[1:])"
_MODULES = f"{_LIST}; sys.stderr.write('\\n'.join(sorted(sys.modules)))"
SITES, DEVICES = 12, 5


def make_workspace(root: Path) -> None:
    """12 sites, 60 devices, 240 pumps, each with rows, scores, a package that its device runs, and a drift figure."""
    with small_workspace(root, fleet=small_fleet(SITES, DEVICES)) as workspace:
        at_ms = np.arange(NOW_MS - 6 * HOUR_MS, NOW_MS, MINUTE_MS, dtype=np.int64)
        flags = np.zeros(len(at_ms), dtype=np.uint16)
        told = np.tile(np.array([1.0, 4.0, 0.0, 0.1], dtype=np.float32), (len(at_ms), 1))
        with workspace.store.atomic() as store:
            for device, pumps in workspace.fleet.pumps_by_device.items():
                package = device.encode().hex().ljust(64, "0")[:64]
                held = tuple(PackagePump(pump.id, f"{pump.type}-health", 1, 4.0) for pump in pumps)
                store.packages.put(PackageRow(package, device, pumps[0].site, 7_800, 30_720, NOW_MS, held))
                store.devices.put_identity(device, "pem", "0" * 64, "", NOW_MS)
                for pump in pumps:
                    store.scores.append(pump.id, TelemetryFrame(SCORE_CHANNELS, at_ms, told, flags))
                    store.telemetry.append(pump.id, TelemetryFrame(("flow_m3_h",), at_ms, told[:, :1].copy(), flags))
                    store.drift.put(pump.id, NOW_MS, {"flow_m3_h": 0.1}, 0.1)


def seconds(command: Sequence[str], runs: int) -> list[float]:
    """Wall time of each run of the command."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        took.append(time.perf_counter() - began)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="few runs")
    options = parser.parse_args()
    runs = 3 if options.quick else 11
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        make_workspace(root)
        words = ["-w", str(root), "pumps", "--json"]
        command = [sys.executable, "-c", _LIST, *words]
        listed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        took = seconds(command, runs)
        floor = seconds([sys.executable, "-c", "import click"], runs)
        said = subprocess.run(
            [sys.executable, "-c", _MODULES, *words], check=True, capture_output=True, text=True
        ).stderr
    bad = sorted(set(BAD) & set(said.splitlines()))
    figures = {
        "cli_list_s": round(statistics.median(took), 3),
        "cli_list_best_s": round(min(took), 3),
        "cli_list_vs_click": round(min(took) / min(floor), 2),
        "cli_list_modules_bad": len(bad),
        "cli_list_pumps": len(listed),
    }
    if options.json:
        print(json.dumps(figures))
        return 0
    print(
        f"pumpdeck pumps --json on {len(listed)} pumps, {runs} runs; must not import {', '.join(BAD)}: {bad or 'none'}"
    )
    for name, value in figures.items():
        print(f"{name:<24}{value!s:>10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
