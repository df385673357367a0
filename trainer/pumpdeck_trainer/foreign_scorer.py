"""An imported graph as a scorer of the pipeline: the graph's own answers, read as its spec says.

What goes in and what comes out is computed here in numpy a second time, so that the parity gate compares the graph that ships
with something else than itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock, contributions, to_float32
from pumpdeck_fleet.numeric.frame import Float32, Float64
from pumpdeck_trainer.foreign_input import FOREIGN, ForeignInput
from pumpdeck_trainer.scorer import Z_CAP, Scorer

SPREAD_OF_QUARTILES = 1.349
"""Distance of the quartiles of a normal law, in its standard deviations."""
FEWEST_ROWS = 30


@dataclass(frozen=True, eq=False)
class ReferenceRows:
    """Rows and the scores that whoever made the file saw for them: float32 [n, c], float64 [n], in the file's own unit."""

    rows: Float32
    scores: Float64


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """An imported graph that passed its trial (`foreign_graph.inner`), what is said of it, and its reference, if there is one."""

    inner: bytes
    said: ForeignInput
    channels: int
    reference: ReferenceRows | None = None

    def raw(self, rows: Float32) -> Float64:
        """The graph's own score float64 [n] of ready rows float32 [n, c]."""
        found = _answers(self.inner, rows)[0]
        return np.asarray(found[:, self.said.column] if found.ndim == 2 else found, np.float64)

    @property
    def rank(self) -> int:
        """Of the graph's answer: 1 or 2."""
        return int(_answers(self.inner, np.zeros((1, self.channels), np.float32))[0].ndim)


@lru_cache(maxsize=4)
def _session(inner: bytes) -> Any:
    from pumpdeck_trainer.parity import open_session  # deferred: a run that is refused early needs no runtime

    return open_session(inner)


def _answers(inner: bytes, rows: Float32) -> list[np.ndarray]:
    session = _session(inner)
    (taken,) = session.get_inputs()
    typed = rows.astype(np.float64) if taken.type == "tensor(double)" else rows
    found: list[np.ndarray] = session.run(None, {"x": typed})
    return found


class ForeignScorer(Scorer):
    """An imported graph with the zero and unit of its scores. stated: the limit that its spec states, as devices read it."""

    model_type = FOREIGN

    def __init__(self, model: ForeignModel, zero: float, unit: float) -> None:
        super().__init__(model.channels)
        self.model = model
        self.zero = to_float32(zero)
        self.unit = to_float32(unit)
        self.factor = to_float32(model.said.sign / self.unit)
        self.stated = None if model.said.limit is None else self._stated(model.said.limit)

    def _stated(self, limit: float) -> float:
        found = to_float32((limit - self.zero) * self.factor)
        if not 0 < found < SCORE_CAP:
            raise GateRefusedError(
                "the stated limit lies among the scores of healthy rows",
                "score.limit",
                expected=f"{'less' if self.model.said.is_lower_worse else 'more'} than {self.zero:.6g}",
                found=f"{limit:.6g}",
            )
        return found

    def score(self, block: PumpBlock, features: Float32) -> Float32:
        raw = self.model.raw(ready_rows(block, features, self.model.said)).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = (raw - np.float32(self.zero)) * np.float32(self.factor)
        safe = np.where(np.isnan(steps), np.float32(SCORE_CAP), steps)
        return np.asarray(np.clip(safe, np.float32(0), np.float32(SCORE_CAP)), np.float32)

    def contributions(self, block: PumpBlock, features: Float32) -> Float32:
        if not self.model.said.contributions:
            return contributions(block, features)
        told = np.abs(_answers(self.model.inner, ready_rows(block, features, self.model.said))[1].astype(np.float32))
        known = np.where(np.isnan(told), np.float32(0), told)
        return np.asarray(np.minimum(known, np.float32(SCORE_CAP)) * block.votes, np.float32)

    def graph(self) -> bytes:
        # Deferred: a run that is refused early needs no onnx.
        from pumpdeck_trainer.foreign_graph import Ends, ScoreMap, wrapped
        from pumpdeck_trainer.foreign_reader import read_graph

        said, held = self.model.said, read_graph(self.model.inner)
        ends = Ends("x", held.inputs[0].kind, "raw", "parts" if said.contributions else "")
        column = said.column if self.model.rank == 2 else 0
        return wrapped(held, ends, self.channels, said, ScoreMap(self.zero, self.factor, self.model.rank, column))


def ready_rows(block: PumpBlock, features: Float32, said: ForeignInput) -> Float32:
    """What reaches the imported graph, float32 [n, c]: missing values are the pump's centre, the rest is cut at 1,000 widths."""
    with np.errstate(over="ignore", invalid="ignore"):
        far = block.width * np.float32(Z_CAP)
        there = np.where(np.isnan(features), block.centre, features)
        within = np.minimum(np.maximum(there, block.centre - far), block.centre + far)
        return np.asarray((within - block.centre) / block.width if said.in_widths else within, np.float32)


@dataclass
class Healthy:
    """Raw scores of healthy rows, gathered pump by pump."""

    parts: list[Float64] = field(default_factory=list)

    @property
    def scores(self) -> Float64:
        return np.concatenate(self.parts) if self.parts else np.zeros(0)


def fit_foreign(model: ForeignModel, pumps: Sequence[tuple[PumpBlock, Float32]]) -> ForeignScorer:
    """The scorer; zero is the median and unit the spread of its scores on healthy rows of all pumps, unless they are stated.

    Raises:
        GateRefusedError: too few rows, a healthy row without a score, or a stated limit that makes no sense.
    """
    healthy = Healthy([model.raw(ready_rows(block, features, model.said)) for block, features in pumps])
    scores = healthy.scores
    if len(scores) < FEWEST_ROWS:
        raise GateRefusedError(
            "has too few healthy rows to be read by", FOREIGN, expected=f"at least {FEWEST_ROWS}", found=len(scores)
        )
    lost = int((~np.isfinite(scores)).sum())
    if lost:
        raise GateRefusedError("gives no number for healthy rows", FOREIGN, found=f"{lost} of {len(scores)}")
    zero = float(np.median(scores)) if model.said.zero is None else model.said.zero
    unit = _spread(scores) if model.said.unit is None else model.said.unit
    return ForeignScorer(model, zero, unit)


def _spread(scores: Float64) -> float:
    low, high = np.quantile(scores, (0.25, 0.75)).tolist()
    found = (high - low) / SPREAD_OF_QUARTILES or float(scores.std())
    # A detector that says the very same of every healthy row is read in its own unit.
    return found if found > 1e-9 else 1.0
