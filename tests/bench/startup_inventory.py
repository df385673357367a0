"""Seconds to read an inventory of 10,000 pumps, whole and checked, against parsing the same TOML alone.

``python tests/bench/startup_inventory.py [--quick] [--json]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tomli

from pumpdeck_fleet.services.inventory_file import load_fleet

DOCS = Path(__file__).parents[2] / "docs"
SITES, DEVICES, PUMPS = 100, 25, 4


def write_inventory(folder: Path) -> str:
    """A fleet of 100 sites with 25 devices of 4 pumps each; its text."""
    example = (DOCS / "fleet.example.toml").read_text(encoding="utf-8")
    parts = [example[: example.index("[[sites]]")]]
    for site in range(SITES):
        parts.append(f'[[sites]]\nid = "site-{site}"\nname = "Site {site}"\nkind = "pad"\nlink = "ssh"\n')
        parts.append('time_zone = "Europe/London"\n')
        for device in range(DEVICES):
            parts.append(f'[[sites.devices]]\nid = "site-{site}-d{device}"\ndevice_class = "edge-x86"\naddress = "10.1.2.3"\n')
            rows = (
                f'  {{ tag = "P-{device * PUMPS + pump:03}", type = "esp", maker = "northfield", model = "NF-400", '
                f'criticality = 2, redundancy_group = "P-{device}", labels = ["wet-gas"] }},\n'
                for pump in range(PUMPS)
            )
            parts.append("pumps = [\n" + "".join(rows) + "]\n")
    text = "".join(parts)
    (folder / "makers").mkdir()
    (folder / "makers" / "northfield.toml").write_bytes((DOCS / "maker.example.toml").read_bytes())
    (folder / "fleet.toml").write_text(text, encoding="utf-8")
    return text


def times(action: Callable[[], object], runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return found


def measure(runs: int) -> dict[str, float]:
    """The figures, flat."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = write_inventory(folder)
        pumps = len(load_fleet(folder).pumps)
        ours, parse = times(lambda: load_fleet(folder), runs), times(lambda: tomli.loads(text), runs)
    return {
        "inventory_10k_s": round(min(ours), 3),
        "inventory_10k_s_median": round(statistics.median(ours), 3),
        "inventory_vs_parse_alone": round(min(ours) / min(parse), 2),
        "inventory_pumps": pumps,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="two runs instead of nine")
    options = parser.parse_args()
    figures = measure(2 if options.quick else 9)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:<28}{value:>10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
