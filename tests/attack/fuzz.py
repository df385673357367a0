"""Foreign bytes by the hundred thousand against every parser of Pumpdeck: accepted or refused by a named error, never a crash.

    python tests/attack/fuzz.py [--inputs 1000000] [--seed 1] [--only NAME] [--json]

The same seed gives the same inputs. A crash is any exception that is not a leaf of `PumpdeckError`, and an altered input that is
accepted where only signed bytes may be. Exit code 1 when there is one; its input is printed in base64.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from pumpdeck_fleet.core.errors import PumpdeckError
from support.fuzz_doors import all_targets
from support.fuzz_targets import Target

SLOWEST_MS = 2_000.0
"""No input of at most 1 MiB may hold a parser up for longer."""
GROWTH_MB = 256.0
"""No parser may make the process grow by more."""


@dataclass
class Tally:
    """What became of one parser's inputs."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    growth_mb: float = 0.0
    crashes: dict[str, str] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)


def run_target(target: Target, inputs: int, seed: int) -> Tally:
    """Feed one parser."""
    tally, before = Tally(target.name), _peak_mb()
    rng = random.Random(f"{seed} {target.name}")
    for _ in range(inputs):
        feed(target, target.make(rng), tally)
    tally.growth_mb = _peak_mb() - before
    return tally


def feed(target: Target, data: bytes, tally: Tally) -> None:
    """One input."""
    tally.inputs += 1
    # Processor time: what else the computer does is not the parser's fault.
    start = time.process_time()
    try:
        target.parse(data)
    except PumpdeckError as error:
        tally.refused += 1
        tally.errors.add(type(error).__name__)
        if type(error) is PumpdeckError or not str(error):
            _crash(tally, "an error without a name of its own", data)
    except Exception as error:  # noqa: BLE001 - every other exception is the finding
        _crash(tally, f"{type(error).__name__}: {error}"[:160], data)
    else:
        tally.accepted += 1
        if target.honest is not None and data not in target.honest:
            _crash(tally, "accepted, though altered", data)
    tally.slowest_ms = max(tally.slowest_ms, 1000 * (time.process_time() - start))


def _crash(tally: Tally, what: str, data: bytes) -> None:
    if len(tally.crashes) < 20 and (
        what not in tally.crashes or len(data) < len(base64.b64decode(tally.crashes[what]))
    ):
        tally.crashes[what] = base64.b64encode(data).decode("ascii")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_all(inputs: int, seed: int, only: str = "") -> list[Tally]:
    """At least that many inputs, spread over all parsers by their shares."""
    warnings.simplefilter("error", RuntimeWarning)
    with tempfile.TemporaryDirectory(prefix="pumpdeck-fuzz-") as name:
        targets = [one for one in all_targets(Path(name)) if only in one.name]
        whole = sum(one.share for one in targets)
        return [
            run_target(one, -(-int(inputs * one.share) // int(whole) if whole >= 1 else -inputs), seed)
            for one in targets
        ]


def table(tallies: Sequence[Tally], took_s: float) -> str:
    """For people."""
    lines = [
        f"{'parser':34}{'inputs':>9}{'accepted':>10}{'refused':>9}{'crashes':>9}{'slowest ms':>12}{'growth MB':>11}"
    ]
    for one in tallies:
        lines.append(
            f"{one.name:34}{one.inputs:>9}{one.accepted:>10}{one.refused:>9}{len(one.crashes):>9}{one.slowest_ms:>12.1f}{one.growth_mb:>11.1f}"
        )
    lines.append(
        f"{sum(one.inputs for one in tallies)} inputs, {sum(len(one.crashes) for one in tallies)} crashes, {took_s:.0f} s"
    )
    return "\n".join(lines)


def figures(tallies: Sequence[Tally]) -> dict[str, float]:
    """For other programs."""
    return {
        "inputs": sum(one.inputs for one in tallies),
        "parsers": len(tallies),
        "accepted": sum(one.accepted for one in tallies),
        "refused": sum(one.refused for one in tallies),
        "crashes": sum(len(one.crashes) for one in tallies),
        "slowest_ms": round(max(one.slowest_ms for one in tallies), 1),
        "growth_mb": round(sum(one.growth_mb for one in tallies), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="parsers whose name holds this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    tallies = run_all(options.inputs, options.seed, options.only)
    print(json.dumps(figures(tallies)) if options.json else table(tallies, time.perf_counter() - start))
    for one in tallies:
        for what, data in one.crashes.items():
            print(f"{one.name}: {what}: {data[:4000]}", file=sys.stderr)
    return 1 if any(one.crashes for one in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
