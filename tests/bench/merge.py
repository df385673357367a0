"""Two workspaces meet: how fast rows come over, what a sync with nothing new costs, and a backup against `cp` and `sha256sum`.

    python tests/bench/merge.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pumpdeck_console.operations.backups import backup
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.merge import merge_store

T0 = 1_767_225_600_000
CHANNELS = ("flow_m3_h", "motor_current_a", "pressure_bar", "speed_rpm", "vibration_mm_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pumps, days = (20, 5) if options.quick else (240, 30)
    with tempfile.TemporaryDirectory(prefix="pumpdeck-merge-") as name:
        figures = measure(Path(name), pumps, days)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for key, value in figures.items():
        sys.stdout.write(f"{key:28} {value:12.2f}\n")


def measure(folder: Path, pumps: int, days: int) -> dict[str, float]:
    mine, theirs = made(folder / "mine"), made(folder / "theirs")
    rows = fill(theirs.store, pumps, days)
    first_s = timed(lambda: merged(mine.store, theirs.store))
    again_s = min(timed(lambda: merged(mine.store, theirs.store)) for _ in range(3))
    noise = np.random.default_rng(1)
    for _ in range(50):
        mine.artifacts.put(noise.bytes(1_000_000))
    backup_s = timed(lambda: backup(mine, to=str(folder / "backup")))
    second_s = timed(lambda: backup(mine, to=str(folder / "backup")))
    peer_s = min(timed(lambda: copied(mine.root, folder / "copy")) for _ in range(3))
    size = sum(path.stat().st_size for path in mine.root.rglob("*") if path.is_file())
    mine.close()
    theirs.close()
    return {
        "rows": rows,
        "rows_per_s": rows / first_s,
        "nothing_new_s": again_s,
        "backup_mb": size / 1e6,
        "backup_s": backup_s,
        "backup_vs_cp_sha": backup_s / peer_s,
        "second_backup_vs_cp_sha": second_s / peer_s,
    }


def made(root: Path) -> Workspace:
    init_workspace(root)
    return open_workspace(root)


def fill(store: Store, pumps: int, days: int) -> int:
    """One row in ten minutes for every pump; the number of rows."""
    at_ms = np.arange(T0, T0 + days * DAY_MS, 600_000, dtype=np.int64)
    noise = np.random.default_rng(7)
    with store.atomic():
        for number in range(pumps):
            values = noise.normal(100, 5, (len(at_ms), len(CHANNELS))).round(2).astype(np.float32)
            frame = TelemetryFrame(CHANNELS, at_ms, values, np.zeros(len(at_ms), np.uint16))
            store.telemetry.append(f"site{number % 12}/P-{number}", frame)
    return pumps * len(at_ms)


def merged(mine: Store, theirs: Store) -> None:
    with mine.atomic():
        merge_store(mine, theirs)


def copied(source: Path, target: Path) -> None:
    """What `cp -r` and `sha256sum` of the copy do."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        if path.is_file():
            hashlib.sha256(path.read_bytes()).hexdigest()


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
