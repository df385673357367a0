"""Thirty days without a network: a row a minute and pump, restarts, power cuts, an outbox that is full after the first day.

``python tests/bench/long_run.py [--json] [--quick]``. The clock is the rows'; the disk is in memory and forgets what was not
synced when the power goes, at random steps, in five ways. `alarms_lost` and `alarms_twice` compare the outbox with the trainer's
replay of the same rows. The run fails when either is not 0, or when the device's files grow beyond their limit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import AlarmNotice, ReturnKind
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTracker
from pumpdeck_fleet.numeric.detectors import score_rows
from pumpdeck_fleet.numeric.features import FeatureSpec, WindowMean
from support.devices import NAMES, NOW_MS, WINDOW_S, Bench, block, package, quiet_rows
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut

ROOT = Path("/device")
LIMITS = AgentLimits(keep_free_bytes=0, outbox_max_bytes=64 * 1024, outbox_max_items=400, spool_max_bytes=64 * 1024)
# Outbox and spool at their limits, a package, a state, a record and a file being written for each pump.
DISK_MAX_BYTES = 64 * 1024 + 64 * 1024 + 256 * 1024
# Steps that change the disk while an hour of rows is scored: a cut hits one of them.
STEPS_AN_HOUR = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), 3 if options.quick else 30)
    if options.json:
        print(json.dumps(figures))
    else:
        width = max(map(len, figures))
        for name, value in figures.items():
            print(f"{name:<{width}}  {value:,.0f}")
    is_sound = figures["alarms_lost"] == figures["alarms_twice"] == 0
    return 0 if is_sound and figures["disk_peak_bytes"] <= DISK_MAX_BYTES else 1


@dataclass
class Device:
    """A device that loses its power now and then."""

    bench: Bench
    chance: random.Random
    models: ModelCache
    cuts: int = 0
    restarts: int = 0
    peak_bytes: int = 0

    def scorer(self) -> Scorer:
        platform = self.bench.platform
        self.bench.platform = Platform(self.bench.fs, platform.clock, platform.locks, platform.is_clock_synced)
        agent = self.bench.agent()
        self.restarts += 1
        return Scorer(self.bench.platform, agent.layout, agent.config, LIMITS, self.models)

    def score(self, scorer: Scorer) -> Scorer:
        """Score what waits; after a cut begin again with what the disk still knows."""
        disk = self.bench.fs
        assert isinstance(disk, ForgetfulDisk)
        is_cut = self.chance.random() < 0.15
        disk.cut_at = disk.steps + self.chance.randrange(STEPS_AN_HOUR) if is_cut else None
        try:
            scorer.score_spool()
        except PowerCut:
            self.cuts += 1
            self.bench.fs = disk.after_cut(self.chance.choice(list(Loss)), seed=self.cuts)
            return self.score(self.scorer())
        disk.cut_at = None
        self.peak_bytes = max(self.peak_bytes, _size(disk, ROOT))
        return scorer


def measure(folder: Path, days: int) -> dict[str, float]:
    disk = ForgetfulDisk()
    bench = Bench(folder, fs=disk, root=ROOT, limits=LIMITS)
    bench.install(package())
    disk.sync_all()
    device = Device(bench, random.Random(7), ModelCache())
    count = days * 1440
    at = NOW_MS + 60_000 * np.arange(count, dtype=np.int64)
    rows = {tag: faulty_rows(count, seed) for seed, tag in enumerate(bench.tags)}
    began, scorer = time.perf_counter(), device.scorer()
    for number in range(count // 60):
        part = slice(number * 60, number * 60 + 60)
        bench.spool(f"{number:06d}.csv", {tag: values[part] for tag, values in rows.items()}, at[part])
        if number % 24 == 23:
            scorer = device.scorer()
        scorer = device.score(scorer)
    found = alarms_of(bench)
    expected = [change for tag, values in rows.items() for change in replay(tag, at, values)]
    status = bench.status()
    return {
        "days": float(days),
        "rows": float(sum(pump["scored_rows"] for pump in status["pumps"].values())),
        "rows_expected": float(count * len(rows)),
        "power_cuts": float(device.cuts),
        "restarts": float(device.restarts),
        "alarms_expected": float(len(expected)),
        "alarms_lost": float(len(set(expected) - set(found))),
        "alarms_twice": float(len(found) - len(set(expected) & set(found))),
        "outbox_dropped": float(status["outbox"]["dropped"]),
        "outbox_bytes": float(status["outbox"]["bytes"]),
        "disk_peak_bytes": float(device.peak_bytes),
        "simulated_per_second": days * 86_400 / (time.perf_counter() - began),
    }


def faulty_rows(count: int, seed: int) -> np.ndarray:
    """Ordinary rows with a fault of an hour or so every day."""
    rows, chance = quiet_rows(count, seed), random.Random(seed)
    for day in range(0, count, 1440):
        start = day + chance.randrange(1300)
        rows[start : start + chance.randrange(10, 120), 2] += np.float32(6)
    return rows


def replay(tag: str, at: np.ndarray, rows: np.ndarray) -> list[tuple[str, int, bool]]:
    """Alarms raised and cleared, by the trainer's replay."""
    one = block()
    features = WindowMean(FeatureSpec(NAMES, WINDOW_S)).extend(at, rows)
    trace = AlarmTracker(one, AlarmSettings(0.7, 120.0, 86_400.0)).extend(at, features, lambda x: score_rows(one, x))
    changed = np.flatnonzero(np.diff(trace.alarmed.astype(np.int8), prepend=np.int8(0)))
    return [(tag, int(at[place]), bool(trace.alarmed[place])) for place in changed.tolist()]


def alarms_of(bench: Bench) -> list[tuple[str, int, bool]]:
    """What the outbox holds of them; nobody ever collected it."""
    found, box = [], bench.agent().outbox
    while True:
        items, more = box.take(1 << 20)
        for item, data in items:
            if item.kind is ReturnKind.ALARM:
                notice = canonical.decode(AlarmNotice, data, "notice", max_bytes=4096)
                found.append((notice.pump, notice.at_ms, notice.raised))
        if not more or not any(item.kind is ReturnKind.ALARM for item, _ in items):
            return found
        box.remove([item.digest for item, _ in items])


def _size(disk: ForgetfulDisk, folder: Path) -> int:
    total = 0
    for name in disk.listdir(folder):
        try:
            total += disk.size(folder / name)
        except FileNotFoundError:
            total += _size(disk, folder / name)
    return total


if __name__ == "__main__":
    sys.exit(main())
