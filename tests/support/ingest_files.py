"""A fleet of three pumps and files of telemetry for it, good and bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pumpdeck_fleet.core.clock import FixedClock, format_ms
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.services.inventory_file import load_fleet
from pumpdeck_fleet.store import Store

T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOW_MS = T0 + 365 * 86_400_000
CHANNELS = ("flow_m3_h", "suction_pressure_bar", "speed_rpm")

FLEET_TOML = """
format = 1
name = "Ingest"

[device_classes.edge-x86]
architecture = "x86_64"
os = "linux"
onnxruntime = "1.18"
highest_opset = 13
memory_mb = 512
cpu_quota_pct = 50

[pump_types.esp]
title = "ESP"
cadence_s = 60
channels = [
  { name = "flow_m3_h", unit = "m3/h", low = 0, high = 1000, resolution = 0.1 },
  { name = "suction_pressure_bar", unit = "bar", low = 0, high = 250, resolution = 0.1 },
  { name = "speed_rpm", unit = "rpm", low = 0, high = 4000, resolution = 1 },
]

[[sites]]
id = "gannet"
name = "Gannet"
kind = "platform"
link = "ssh"
time_zone = "Europe/London"

[[sites.devices]]
id = "gannet-d1"
device_class = "edge-x86"
pumps = [
  { tag = "P-101A", type = "esp", maker = "northfield" },
  { tag = "P-101B", type = "esp", maker = "northfield" },
]

[[sites]]
id = "desert"
name = "Desert"
kind = "pad"
link = "courier"
time_zone = "Asia/Dubai"

[[sites.devices]]
id = "desert-d1"
device_class = "edge-x86"
pumps = [{ tag = "W-1", type = "esp", maker = "northfield" }]
"""

MAKER_TOML = """
format = 1
id = "northfield"
title = "Northfield Pumps"

[aliases]
"Flow" = "flow_m3_h"
"Suct.Press" = "suction_pressure_bar"
"Druck Saugseite °" = "suction_pressure_bar"
"Speed" = "speed_rpm"

[scales]
"Suct.Press" = [0.0689476, 0.0]
"""


def make_fleet(folder: Path) -> Fleet:
    """The fleet, read from files."""
    (folder / "makers").mkdir(parents=True, exist_ok=True)
    (folder / "fleet.toml").write_text(FLEET_TOML, encoding="utf-8")
    (folder / "makers" / "northfield.toml").write_text(MAKER_TOML, encoding="utf-8")
    return load_fleet(folder)


def make_store(folder: Path, now_ms: int = NOW_MS) -> Store:
    """An empty store."""
    return Store.open(folder / "pumpdeck.db", FixedClock(now_ms), create=True)


def values_at(row: int) -> tuple[float, float, float]:
    """Flow, suction pressure and speed of a row: they move, and mean nothing."""
    return 100.0 + row % 7, 20.0 + (row % 11) / 10, 3000.0 + row % 13


def csv_text(
    rows: int = 5,
    *,
    separator: str = ",",
    decimal: str = ".",
    header: Sequence[str] = ("time", "pump", *CHANNELS),
    pump: str = "gannet/P-101A",
    time: Callable[[int], str] = lambda row: format_ms(T0 + row * 60_000),
) -> str:
    """Rows of one pump, one a minute."""
    lines = [separator.join(header)]
    for row in range(rows):
        numbers = [f"{value:.1f}".replace(".", decimal) for value in values_at(row)]
        lines.append(separator.join([time(row), pump, *numbers]))
    return "\n".join(lines) + "\n"


def write_text(folder: Path, text: str, *, encoding: str = "utf-8", name: str = "rows.csv") -> Path:
    """The text as a file."""
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def content(store: Store) -> list[tuple[str, list[tuple[int, str]]]]:
    """Everything the store holds of telemetry, by digest: equal when nothing changed."""
    return [(pump, store.telemetry.chunk_digests(pump, 0, 2**45)) for pump in store.telemetry.pumps()]
