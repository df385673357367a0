"""How fast the console answers a key in a real pty, how many bytes that takes, and Textual's DataTable in the same run.

``python tests/bench/console.py [--quick] [--json] [--pumps N]``. Times are read at the pty, from the write of the key to
the first and to the last byte of the frame; nothing is parsed while a time is taken. POSIX only (it needs a pty).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.pty_probe import PtyProbe

MAIN = str(Path(__file__).parents[1] / "support" / "console_main.py")
FILTER = "drift>0.2"
PEER_FILTER = "gannet"


@dataclass(frozen=True)
class Rounds:
    """How often each key is pressed."""

    moves: int
    pages: int
    sorts: int


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))]


def press(probe: PtyProbe, key: str, times: int) -> list[tuple[float, int]]:
    """(milliseconds to the last byte of the frame, bytes) of each press."""
    painted = [probe.key(key) for _ in range(times)]
    return [(one.last_s * 1e3, one.size) for one in painted]


def measure_console(pumps: int, rounds: Rounds) -> dict[str, float]:
    """The console over a synthetic fleet of ``pumps`` pumps at 120x40."""
    with PtyProbe([sys.executable, MAIN, "--pumps", str(pumps)]) as probe:
        probe.wait(lambda text: re.search(r"\d pumps", text) is not None)
        probe.settle(0.5)
        moved = press(probe, "down", 30) + [one for _ in range(rounds.moves // 40) for one in up_and_down(probe)]
        scrolled = press(probe, "pagedown", rounds.pages)
        probe.send("g")
        probe.settle(0.5)
        sorted_ms = [one for one, _ in press(probe, "r", rounds.sorts)]
        probe.send("/")
        probe.settle(0.3)
        filter_ms = [one for one, _ in (press(probe, letter, 1)[0] for letter in FILTER)]
        probe.send("\x1b")
        memory = probe.memory_bytes()
    times = [one for one, _ in moved]
    return {
        "key_to_frame_p50_ms": percentile(times, 0.5),
        "key_to_frame_p99_ms": percentile(times, 0.99),
        "bytes_per_cursor_move": statistics.median(size for _, size in moved),
        "page_p50_ms": percentile([one for one, _ in scrolled], 0.5),
        "page_p99_ms": percentile([one for one, _ in scrolled], 0.99),
        "sort_10k_ms": statistics.median(sorted_ms),
        "filter_10k_ms": max(filter_ms),
        "rss_mb": memory / 1e6,
    }


def up_and_down(probe: PtyProbe) -> list[tuple[float, int]]:
    """Forty moves that do not scroll."""
    return press(probe, "up", 20) + press(probe, "down", 20)


def measure_peer(pumps: int, rounds: Rounds) -> dict[str, float]:
    """Textual's DataTable with the same rows and ten of the columns."""
    with PtyProbe([sys.executable, MAIN, "--pumps", str(pumps), "--peer"]) as probe:
        probe.wait(lambda text: "P-1" in text, 120.0)
        probe.settle(0.8)
        moved = press(probe, "down", 20)
        scrolled = press(probe, "pagedown", max(3, rounds.pages // 10))
        sorted_ms = [one for one, _ in press(probe, "s", 1)]
        probe.send("/")
        probe.settle(0.5)
        filter_ms = [one for one, _ in (press(probe, letter, 1)[0] for letter in PEER_FILTER[:2])]
        memory = probe.memory_bytes()
    times = [one for one, _ in moved]
    return {
        "peer_key_to_frame_p50_ms": percentile(times, 0.5),
        "peer_key_to_frame_p99_ms": percentile(times, 0.99),
        "peer_bytes_per_cursor_move": statistics.median(size for _, size in moved),
        "peer_page_p99_ms": percentile([one for one, _ in scrolled], 0.99),
        "peer_sort_10k_ms": statistics.median(sorted_ms),
        "peer_filter_10k_ms": max(filter_ms),
        "peer_rss_mb": memory / 1e6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="few presses, 1,000 pumps")
    parser.add_argument("--pumps", type=int, default=10_000)
    options = parser.parse_args()
    pumps = 1_000 if options.quick else options.pumps
    rounds = Rounds(40, 10, 3) if options.quick else Rounds(400, 100, 15)
    figures = {"pumps": float(pumps), **measure_console(pumps, rounds), **measure_peer(pumps, rounds)}
    for name in ("key_to_frame_p50_ms", "bytes_per_cursor_move", "sort_10k_ms", "filter_10k_ms"):
        figures[f"peer_over_ours_{name}"] = figures[f"peer_{name}"] / figures[name]
    rounded = {name: round(value, 2) for name, value in figures.items()}
    if options.json:
        print(json.dumps(rounded))
        return 0
    print(f"console at 120x40 over {pumps:,} pumps; DataTable with the same rows as peer")
    for name, value in rounded.items():
        print(f"{name:<42}{value:>12,.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
