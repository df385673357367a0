"""Every shipped model type, trainer against ONNX Runtime, on 10,000 training, perturbed and extreme rows.

    python tests/bench/parity.py [--json] [--quick]

Each type is fitted as the pipeline does it, on 8 seeded pumps (supervised types: with labelled faults), with each pump's own
limit. Per pump and stretch of its window the gate's own rows are compared: rows learned from, the same perturbed by 0.1, 1 and
10 widths, missing, infinite, huge ones and ones exactly at the limit. The device's own code answers beside the trainer's session.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pumpdeck_agent.runtime import Model
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_trainer.jobs import rows_of
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.learning import inputs_of, learn, own_limit
from pumpdeck_trainer.limits import pool_limit
from pumpdeck_trainer.parity import Session, parity_rows
from pumpdeck_trainer.shape import Shape, fit_shape, rescore
from pumpdeck_trainer.spec import MODEL_TYPES, default_pipeline
from support.labelled_pumps import labelled_source
from support.pump_rows import PUMP_TYPE, START_MS

SPAN = (START_MS, START_MS + 30 * DAY_MS)
ROWS = 10_000
STRETCHES = 4


def fitted(model_type: str) -> tuple[Shape, list[tuple[object, np.ndarray]]]:
    """The shape, and of each pump its shipped block and features float32 [n, c]."""
    spec = replace(default_pipeline(PUMP_TYPE), model_type=model_type)
    source = labelled_source(8, 3 if model_type in SUPERVISED else 0)
    rows = {pump: rows_of(source, pump, spec, SPAN) for pump in source.frames}
    learned = {pump: learn(one, spec) for pump, one in rows.items()}
    shape = fit_shape(learned, spec)
    if model_type != "maxz":
        learned = {pump: rescore(rows[pump], one, shape) for pump, one in learned.items()}
    pooled = pool_limit([one.fit.maxima for one in learned.values()], spec.blocks, spec.budget)
    limits = {pump: own_limit(one.fit.maxima, pooled, spec, shape.scorer) for pump, one in learned.items()}
    return shape, [
        (one.fit.block(inputs_of(spec), limits[pump], shipped=True), rows[pump].judged[1]) for pump, one in learned.items()
    ]


def compared(model_type: str, most: int) -> dict[str, float]:
    """The figures of one type."""
    shape, pumps = fitted(model_type)
    session, device, rng = Session(shape.scorer.onnx), Model(shape.scorer.onnx, model_type), np.random.default_rng(1)
    rows = equal = 0
    worst = worst_parts = 0.0
    for place in range(STRETCHES * len(pumps)):
        block, features = pumps[place % len(pumps)]
        tried = parity_rows(block, features[place // len(pumps) :: STRETCHES], rng)
        ours, parts = shape.scorer.score(block, tried), shape.scorer.contributions(block, tried)
        for theirs in (session.run(block, tried)[0], device.score(tried, device.parameters(block))):
            equal += int(((ours > block.limit) == (theirs > block.limit)).sum())
            apart = np.abs(ours.astype(np.float64) - theirs) / np.maximum(np.abs(ours), 1e-6)
            worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max()))
        size = np.maximum(np.abs(parts).max(axis=1, keepdims=True), 1e-3)
        worst_parts = max(worst_parts, float((np.abs(parts - session.run(block, tried)[2]) / size).max()))
        rows += len(tried)
        if rows >= most:
            break
    return {
        f"rows_{model_type}": rows,
        f"flags_equal_pct_{model_type}": 100 * equal / (2 * rows),
        f"max_rel_diff_{model_type}": float(f"{worst:.3g}"),
        f"max_rel_diff_contributions_{model_type}": float(f"{worst_parts:.3g}"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="trainer against ONNX Runtime, every shipped model type")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="1,000 rows a type")
    arguments = parser.parse_args(argv)
    most = 1_000 if arguments.quick else ROWS
    figures: dict[str, float] = {}
    for model_type in MODEL_TYPES:
        figures |= compared(model_type, most)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:40} {one:g}" for name, one in figures.items()))
    good = all(
        figures[f"rows_{kind}"] >= most
        and figures[f"flags_equal_pct_{kind}"] >= 99.99
        and figures[f"max_rel_diff_{kind}"] <= 1e-3
        for kind in MODEL_TYPES
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
