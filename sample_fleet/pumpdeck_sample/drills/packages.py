"""Small packages whose graphs, blocks, edges and golden answers are real: what the drills install."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.inventory import Channel, DeviceClass
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_fleet.numeric.arrays import encode_arrays
from pumpdeck_fleet.numeric.detectors import PumpBlock, contributions, encode_block, probability, to_float32
from pumpdeck_fleet.numeric.edges import encode_edges, fit_edges
from pumpdeck_packaging.package import BuiltPackage, ModelContent, PackageContent, PumpContent, build_package
from pumpdeck_trainer.export import OPSET, maxz_onnx

NOW_MS = 1_770_000_000_000
DEVICE = "gannet-d1"
SITE = "gannet"
TAGS = ("P-101A", "P-101B")
EDGE = DeviceClass("edge-x86", "x86_64", "linux", "1.18", 13, 512, 50)
CHANNELS = (
    Channel("suction_pressure_bar", "bar", 0.0, 250.0, 0.1),
    Channel("motor_temperature_c", "degC", -20.0, 250.0, 0.1),
    Channel("vibration_mm_s", "mm/s", 0.0, 50.0, 0.01),
    Channel("speed_rpm", "rpm", 0.0, 4200.0, 1.0, False),
)
NAMES = tuple(channel.name for channel in CHANNELS)
CENTRE = np.array([40.0, 90.0, 3.0, 3000.0], np.float32)
SCALE = np.array([2.0, 3.0, 0.4, 20.0], np.float32)
LIMIT = 4.0
WINDOW_S = 300.0


def block(shift: float = 0.0) -> PumpBlock:
    """Baseline of one pump."""
    return PumpBlock(
        channels=NAMES,
        centre=CENTRE + np.float32(shift),
        scale=SCALE,
        floor=np.array([c.resolution for c in CHANNELS], np.float32),
        votes=np.array([c.votes for c in CHANNELS]),
        limit=to_float32(LIMIT),
    )


def quiet_rows(count: int, seed: int) -> NDArray[np.float32]:
    """Ordinary rows around the baseline, float32 [n, c]."""
    rng = np.random.default_rng(seed)
    return (CENTRE + rng.standard_normal((count, len(NAMES))) * SCALE * 0.5).astype(np.float32)


def golden(one: PumpBlock, **changes: NDArray[Any]) -> bytes:
    """Golden inputs and answers; `changes` spoils some."""
    rows = quiet_rows(24, 5)
    rows[:3] += np.float32(40)
    answers = contributions(one, rows)
    score = answers.max(axis=1)
    arrays = {
        "x": rows,
        "centre": one.centre,
        "scale": one.width,
        "votes": one.votes.astype(np.float32),
        "limit": np.array([one.limit], np.float32),
        "score": score,
        "probability": probability(score, one.limit).astype(np.float32),
        "contributions": answers,
    }
    return encode_arrays(arrays | changes)


def lineage(seed: int) -> Lineage:
    """Where the model came from, as far as a drill goes."""
    snapshot, pipeline, code, lock = (canonical.digest(word) for word in (b"snapshot", b"pipeline", b"code", b"lock"))
    return Lineage(snapshot, pipeline, code, lock, seed, "abc", True)


def package(
    device: str = DEVICE,
    tags: tuple[str, ...] = TAGS,
    *,
    shift: float = 0.0,
    onnx: bytes | None = None,
    golden_bytes: bytes | None = None,
    seed: int = 7,
    card: bytes = b"# Card\n",
) -> BuiltPackage:
    """A package for the drill's device. Another `shift` or `seed` gives another package; `card` may be as long as one likes."""
    one = block(shift)
    graph = maxz_onnx(len(NAMES)) if onnx is None else onnx
    answers = golden_bytes or golden(one)
    digest = canonical.digest(graph)
    model = ModelContent("esp", "esp-health", "maxz", digest, graph, answers, card, OPSET, lineage(seed))
    edges = encode_edges(fit_edges(NAMES, quiet_rows(2000, 11), np.maximum(SCALE, 0.1).astype(np.float64)))
    pumps = tuple(
        PumpContent(tag, "esp", encode_block(one), edges, CHANNELS, WINDOW_S, one.limit, 0.7, 120.0, 86_400.0) for tag in tags
    )
    return build_package(PackageContent(device, EDGE, (model,), pumps, NOW_MS - DAY_MS))
