"""How long a person waits at the start: every `startup_*.py` beside this script, in a process of its own.

``python tests/bench/startup.py [--quick] [--json]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one flat object instead of a table")
    parser.add_argument("--quick", action="store_true", help="few runs")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for script in sorted(Path(__file__).parent.glob("startup_*.py")):
        command = [sys.executable, str(script), "--json", *(["--quick"] if options.quick else [])]
        figures |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:<28}{value!s:>10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
