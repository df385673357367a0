"""Seconds from process start to the first real frame with the fleet, in a real pty, and the memory it takes.

``python tests/bench/startup_console.py [--workspace DIR] [--quick] [--json]``. With a workspace, ``pumpdeck -w DIR`` is
started; without one, the same console over a synthetic fleet of 240 pumps. The time is when the chunk was read that
completed the frame: the number of pumps and the key line stand on screen, not the "loading" frame that comes before.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.pty_probe import PtyProbe

MAIN = str(Path(__file__).parents[1] / "support" / "console_main.py")
SIZE = (120, 40)


def has_fleet(text: str) -> bool:
    """The real frame stands: rows, key line and count."""
    return re.search(r"\d pumps", text) is not None and "help" in text and "loading" not in text


def measure(command: list[str], runs: int) -> dict[str, float]:
    """Best and median over ``runs`` starts; the first start warms the disk cache and is not counted."""
    skeletons: list[float] = []
    frames: list[float] = []
    memory = 0
    for run in range(runs + 1):
        with PtyProbe(command, SIZE) as probe:
            skeleton = probe.wait(lambda text: "Pumpdeck" in text)
            frame = probe.wait(has_fleet)
            probe.settle(0.5)
            memory = probe.memory_bytes(with_children=False)
            probe.send("q")
            while not probe.is_over and probe.pump(1.0):
                pass
        if run:
            skeletons.append(skeleton)
            frames.append(frame)
    return {
        "first_frame_s": round(statistics.median(frames), 3),
        "first_frame_best_s": round(min(frames), 3),
        "skeleton_s": round(statistics.median(skeletons), 3),
        "first_frame_rss_mb": round(memory / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="two starts instead of nine")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, MAIN, "--pumps", "240", "--frame-cache", str(Path(folder) / "frame.json")]
        if options.workspace is not None:
            command = [sys.executable, "-m", "pumpdeck_console.main", "-w", str(options.workspace)]
        figures = measure(command, 2 if options.quick else 9)
    if options.json:
        print(json.dumps(figures))
        return 0
    print(f"console start at {SIZE[0]}x{SIZE[1]}")
    for name, value in figures.items():
        print(f"{name:<24}{value:>10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
