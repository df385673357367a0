"""The same training under other threads, BLAS kernels and hash seeds: are the bytes the same, and the answers?

    python tests/bench/digests.py [--json] [--quick]

Each setting is a fresh process that trains every model type on the same seeded rows (8 pumps, 30 days; supervised types: with
labelled faults), cache off, and scores the same 10,000 rows with the graph it made. Compared with the first setting: content
digests, alarm flags and scores; `kernels` counts the kernels that the algebra library really used.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

SETTINGS: dict[str, dict[str, str]] = {
    "first": {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    "again": {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    "hash seed": {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "4711"},
    "2 threads": {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"},
    "kernel Sandybridge": {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Sandybridge", "PYTHONHASHSEED": "0"},
    "kernel Nehalem": {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem", "PYTHONHASHSEED": "0"},
}
EXACT = ("maxz", "iforest")
PUMPS = 8


def child() -> int:
    """Train everything here and write digests and scores to standard output."""
    from threadpoolctl import threadpool_info

    from pumpdeck_fleet.core.clock import DAY_MS
    from pumpdeck_fleet.numeric.detectors import decode_block
    from pumpdeck_trainer.labelled import SUPERVISED
    from pumpdeck_trainer.parity import Session
    from pumpdeck_trainer.pipeline import RunContext, train
    from pumpdeck_trainer.source import TrainingRequest
    from pumpdeck_trainer.spec import MODEL_TYPES, default_pipeline
    from support.labelled_pumps import labelled_source
    from support.pump_rows import CHANNELS, PUMP_TYPE, START_MS, MemorySource, pump_frame

    frames = {f"site/P-{number}": pump_frame(number) for number in range(1, PUMPS + 1)}
    request = TrainingRequest(tuple(frames), START_MS, START_MS + 30 * DAY_MS)
    context = RunContext("c" * 64, "l" * 64)
    kernels = {one["architecture"] for one in threadpool_info() if one["user_api"] == "blas"}
    answers: dict[str, np.ndarray] = {"kernel": np.array(",".join(sorted(kernels)))}
    for name in MODEL_TYPES:
        source = labelled_source(PUMPS) if name in SUPERVISED else MemorySource(frames)
        trained = train(replace(default_pipeline(PUMP_TYPE), model_type=name), request, source, context)
        block = decode_block(trained.pumps[0].block, CHANNELS)
        away = np.random.default_rng(9).standard_normal((10_000, len(CHANNELS))) * np.linspace(0.1, 8, 10_000)[:, None]
        score = Session(trained.onnx).run(block, (block.centre + away * block.width).astype(np.float32))[0]
        answers[f"{name}_digest"] = np.frombuffer(bytes.fromhex(trained.content_digest), np.uint8)
        answers[f"{name}_score"], answers[f"{name}_flags"] = score, score > block.limit
    held = io.BytesIO()
    np.savez(held, **answers)
    sys.stdout.buffer.write(held.getvalue())
    return 0


def run(setting: dict[str, str]) -> dict[str, np.ndarray]:
    """The child under a setting."""
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, check=True)
    with np.load(io.BytesIO(done.stdout)) as held:
        return dict(held)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="are bytes and answers the same under other settings")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="three settings instead of six")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        return child()
    names = list(SETTINGS)[:3] if arguments.quick else list(SETTINGS)
    found = {name: run(SETTINGS[name]) for name in names}
    first = found[names[0]]
    types = [key.removesuffix("_digest") for key in first if key.endswith("_digest")]
    kernels = {name: str(one["kernel"]) for name, one in found.items()}
    print(f"kernels of the algebra library: {', '.join(sorted(set(kernels.values())))}", file=sys.stderr)
    figures: dict[str, float] = {"kernels": len(set(kernels.values()))}
    for kind in types:
        others = [found[name] for name in names[1:]]
        same = [np.array_equal(first[f"{kind}_digest"], one[f"{kind}_digest"]) for one in others]
        score = first[f"{kind}_score"]
        apart = max(float((np.abs(one[f"{kind}_score"] - score) / np.maximum(score, 1e-6)).max()) for one in others)
        flags = min(float((one[f"{kind}_flags"] == first[f"{kind}_flags"]).mean()) for one in others)
        figures |= {f"{kind}_identical": sum(same), f"{kind}_largest_difference": float(f"{apart:.2g}")}
        figures[f"{kind}_flags_equal_pct"] = 100 * flags
        differing = ", ".join(name for name, good in zip(names[1:], same, strict=True) if not good) or "none"
        print(f"{kind}: {sum(same)} of {len(same)} digests identical; differs under: {differing}", file=sys.stderr)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:32} {one:g}" for name, one in figures.items()))
    exact = all(figures[f"{kind}_identical"] == len(names) - 1 for kind in EXACT)
    close = all(figures[f"{kind}_largest_difference"] <= 1e-3 and figures[f"{kind}_flags_equal_pct"] >= 99.99 for kind in types)
    return 0 if exact and close else 1


if __name__ == "__main__":
    sys.exit(main())
