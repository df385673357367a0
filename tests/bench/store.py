"""The store against plain ways to keep the same rows: a SQLite table with one row each, and Parquet (zstd), in the same run.

``python tests/bench/store.py [--quick] [--json]``. Rows are those of sensors: 8 channels in decimal steps, slow walks, one
row a minute. `*_vs_rows` is the ratio to the row table (over 1 is better here). Every figure is the best of `--repeat`
runs, the median stands beside it in the table; ingest counts the commit.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store

T0 = 1_767_225_600_000
CHANNELS = tuple(f"channel_{index}_bar" for index in range(8))
STEPS = np.array([0.1, 0.1, 0.1, 1.0, 0.1, 0.01, 0.1, 0.01])
LAST_PUMPS = 5_000


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    pumps: int
    days: int
    repeat: int
    last_pumps: int

    @property
    def rows(self) -> int:
        return self.pumps * self.days * 1440


def sensor_frame(seed: int, rows: int) -> TelemetryFrame:
    """Rows of one pump, one a minute: noise round a slow walk, in the sensor's steps."""
    chance = np.random.default_rng(seed)
    walk = np.cumsum(chance.normal(0, 0.3, (rows, 8)), axis=0) + chance.normal(0, 3, (rows, 8))
    values = (np.rint((walk * 5 + 400) * STEPS / 0.1) * STEPS).round(2).astype(np.float32)
    at_ms = T0 + np.arange(rows, dtype=np.int64) * MINUTE_MS
    return TelemetryFrame(CHANNELS, at_ms, values, np.zeros(rows, np.uint16))


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Chunks:
    """Our store."""

    name = "store"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"
        self._store = Store.open(self._path, FixedClock(T0), create=True)

    def ingest(self, frames: list[TelemetryFrame]) -> None:
        with self._store.atomic():
            for number, frame in enumerate(frames):
                self._store.telemetry.append(f"site/P-{number}", frame)

    def day(self, pump: int, start_ms: int) -> int:
        return len(self._store.telemetry.frame(f"site/P-{pump}", start_ms, start_ms + DAY_MS))

    def last(self) -> int:
        return len(self._store.telemetry.last())

    def bytes(self) -> int:
        self._store.close()
        return self._path.stat().st_size


class Rows:
    """One SQLite row for each telemetry row: WAL, synchronous FULL, key (pump, time)."""

    name = "row table"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rows.db"
        self._sql = sqlite3.connect(self._path, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        channels = ", ".join(f"c{index} REAL" for index in range(8))
        self._sql.execute(
            f"CREATE TABLE row (pump INTEGER, at_ms INTEGER, flags INTEGER, {channels}, PRIMARY KEY (pump, at_ms)) WITHOUT ROWID"
        )

    def ingest(self, frames: list[TelemetryFrame]) -> None:
        self._sql.execute("BEGIN IMMEDIATE")
        for number, frame in enumerate(frames):
            values = zip(frame.at_ms.tolist(), frame.flags.tolist(), frame.values.tolist(), strict=True)
            rows = ((number, at, flags, *row) for at, flags, row in values)
            self._sql.executemany("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._sql.execute("COMMIT")

    def day(self, pump: int, start_ms: int) -> int:
        sql = "SELECT * FROM row WHERE pump = ? AND at_ms >= ? AND at_ms < ?"
        rows = self._sql.execute(sql, (pump, start_ms, start_ms + DAY_MS)).fetchall()
        return len(np.array(rows))

    def last(self) -> int:
        (pumps,) = self._sql.execute("SELECT max(pump) + 1 FROM row").fetchone()
        newest = "SELECT * FROM row WHERE pump = ? ORDER BY at_ms DESC LIMIT 1"
        return len([self._sql.execute(newest, (pump,)).fetchone() for pump in range(pumps)])

    def bytes(self) -> int:
        self._sql.close()
        return self._path.stat().st_size


def measure_kind(kind: type[Chunks] | type[Rows], sizes: Sizes, frames: list[TelemetryFrame]) -> dict[str, list[float]]:
    """Seconds of each run of each figure, and bytes a row."""
    found: dict[str, list[float]] = {"ingest": [], "day": [], "last": [], "bytes": []}
    for _ in range(sizes.repeat):
        with tempfile.TemporaryDirectory() as folder:
            store = kind(Path(folder))
            found["ingest"].append(seconds(lambda: store.ingest(frames)))  # noqa: B023 - called at once
            start = T0 + (sizes.days - 1) * DAY_MS
            pumps = range(min(sizes.pumps, 40))
            days = [seconds(lambda: check(store.day(pump, start), 1440)) for pump in pumps]  # noqa: B023
            found["day"].append(statistics.median(days))
            found["bytes"].append(store.bytes() / sizes.rows)
    with tempfile.TemporaryDirectory() as folder:
        store = kind(Path(folder))
        few = [sensor_frame(1, 30)] * sizes.last_pumps
        store.ingest(few)
        found["last"] = [seconds(lambda: check(store.last(), sizes.last_pumps)) for _ in range(5)]
    return found


def check(found: int, expected: int) -> None:
    """A benchmark of the wrong answer is worth nothing."""
    if found != expected:
        raise SystemExit(f"expected {expected} rows, found {found}")


def parquet_bytes(sizes: Sizes, frames: list[TelemetryFrame]) -> float:
    """Bytes a row in one Parquet file, zstd, sorted by pump and time."""
    times = pa.array(np.concatenate([frame.at_ms for frame in frames]), pa.timestamp("ms", "UTC"))
    pumps = pa.array(np.repeat(np.arange(sizes.pumps, dtype=np.int16), sizes.days * 1440))
    values = np.concatenate([frame.values for frame in frames])
    table = pa.table([times, pumps, *values.T], names=["time", "pump", *CHANNELS])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(table, path, compression="zstd")
        return path.stat().st_size / sizes.rows


def figures_of(sizes: Sizes) -> dict[str, float]:
    """Every figure, flat."""
    frames = [sensor_frame(number, sizes.days * 1440) for number in range(sizes.pumps)]
    ours, rows = measure_kind(Chunks, sizes, frames), measure_kind(Rows, sizes, frames)
    parquet = parquet_bytes(sizes, frames)
    return {
        "ingest_rows_per_s": round(sizes.rows / min(ours["ingest"])),
        "ingest_rows_per_s_median": round(sizes.rows / statistics.median(ours["ingest"])),
        "bytes_per_row": round(min(ours["bytes"]), 2),
        "last_5000_ms": round(min(ours["last"]) * 1000, 2),
        "last_5000_ms_median": round(statistics.median(ours["last"]) * 1000, 2),
        "day_of_one_pump_ms": round(min(ours["day"]) * 1000, 3),
        "day_of_one_pump_ms_median": round(statistics.median(ours["day"]) * 1000, 3),
        "ingest_vs_rows": round(min(rows["ingest"]) / min(ours["ingest"]), 2),
        "bytes_vs_rows": round(min(rows["bytes"]) / min(ours["bytes"]), 2),
        "bytes_vs_parquet": round(parquet / min(ours["bytes"]), 2),
        "last_vs_rows": round(min(rows["last"]) / min(ours["last"]), 2),
        "day_vs_rows": round(min(rows["day"]) / min(ours["day"]), 2),
        "rows": sizes.rows,
        "last_pumps": sizes.last_pumps,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows, one run")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    sizes = Sizes(10, 3, 1, 500) if options.quick else Sizes(60, 14, options.repeat, LAST_PUMPS)
    figures = figures_of(sizes)
    if options.json:
        print(json.dumps(figures))
        return 0
    print(f"{sizes.pumps} pumps, {sizes.days} days, one row a minute, 8 channels: {sizes.rows:,} rows; best of {sizes.repeat}")
    for name, value in figures.items():
        print(f"{name:<28}{value:>14,}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
