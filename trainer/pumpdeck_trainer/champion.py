"""The champion on the candidate's rows: what it would have alarmed on the very rows by which the candidate is judged.

Both are judged on the held-out end of the reference window, which the candidate's early fit has not seen; the champion
starts some days before it, so that its adaptive baseline has arrived where a device that ran it would stand. A pump with
labelled faults is replayed whole, because faults are few and the candidate never learns from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_fleet.numeric.detectors import PumpBlock, decode_block
from pumpdeck_fleet.numeric.features import has_full_window, window_means
from pumpdeck_fleet.numeric.frame import Float32, Int64
from pumpdeck_trainer.judging import Contest, Judged, Span, false_alarms, hits_of, replay, sought_faults
from pumpdeck_trainer.learning import PumpRows, split_ms
from pumpdeck_trainer.scorer import MaxZScorer, Scorer
from pumpdeck_trainer.source import Exclusion
from pumpdeck_trainer.spec import PipelineSpec

ARRIVES_IN_TAU = 2.0


@dataclass(frozen=True, eq=False)
class Champion:
    """A registered version as its devices run it: spec, graph, and the bytes of each pump's block."""

    content_digest: str
    number: int
    spec: PipelineSpec
    onnx: bytes
    blocks: Mapping[str, bytes]
    data_end_ms: int
    lineage: Lineage

    def only(self, pumps: Iterable[str]) -> Champion:
        """The same with the blocks of these pumps: what one job needs."""
        return replace(self, blocks={pump: self.blocks[pump] for pump in pumps if pump in self.blocks})

    def fits(self, spec: PipelineSpec) -> bool:
        """True when the candidate's rows hold every channel that the champion reads."""
        return {one.name for one in self.spec.channels} <= {one.name for one in spec.channels}


class GraphScorer(Scorer):
    """A registered graph in ONNX Runtime, where no estimator is at hand any more."""

    model_type = "graph"

    def __init__(self, channels: int, onnx: bytes) -> None:
        from pumpdeck_trainer.parity import Session  # deferred: most champions are `maxz` and need no runtime

        super().__init__(channels)
        self._onnx = onnx
        self._session = Session(onnx)

    def score(self, block: PumpBlock, features: Float32) -> Float32:
        return self._session.run(block, features)[0]

    def contributions(self, block: PumpBlock, features: Float32) -> Float32:
        return self._session.run(block, features)[2]

    def graph(self) -> bytes:
        return self._onnx


@lru_cache(maxsize=4)
def _scorer(model_type: str, channels: int, onnx: bytes) -> Any:
    return MaxZScorer(channels) if model_type == MaxZScorer.model_type else GraphScorer(channels, onnx)


def contest(
    pump: PumpRows, judged: Judged, faults: Iterable[Exclusion], spec: PipelineSpec, champion: tuple[str, Champion]
) -> Judged:
    """`judged` with the champion's replay on the same rows beside it; unchanged where the champion cannot be compared.

    `champion` comes with the name of the pump. Without a held-out end both are judged on the whole window, which the
    candidate has learned from.
    """
    name, held = champion
    if name not in held.blocks or not held.fits(spec):
        return judged
    at_ms, features = _features(pump, spec, held.spec)
    channels = tuple(one.name for one in held.spec.channels)
    block = decode_block(held.blocks[name], channels, f"block of {name}")
    by = (held.spec, _scorer(held.spec.model_type, len(channels), held.onnx))
    sought = sought_faults(list(faults), pump.judged[0])
    is_held_out = judged.holdout_days > 0
    # The limits of the rows that both are judged by, as the candidate's hold-out has them.
    start = split_ms(pump.learned[0], spec) + spec.features.window_ms if is_held_out else int(at_ms[0])
    early_ms = round(ARRIVES_IN_TAU * held.spec.alarm.tau_s * 1000) if is_held_out else 0
    chosen = at_ms >= (0 if sought else start - early_ms)
    spans: list[Span] = replay(block, at_ms[chosen], features[chosen], by) if chosen.any() else []
    false = [span for span in false_alarms(spans, sought) if span[0] >= start]
    end = int(at_ms[-1]) if len(at_ms) else start
    return replace(
        judged,
        contest=Contest(
            candidate_alarms=judged.holdout_alarms if is_held_out else len(judged.alarms),
            champion_alarms=len(false),
            days=judged.holdout_days if is_held_out else judged.days,
            seen_days=min(max(held.data_end_ms - start, 0), max(end - start, 0)) / DAY_MS,
            hits=hits_of(spans, sought),
        ),
    )


def _features(pump: PumpRows, spec: PipelineSpec, theirs: PipelineSpec) -> tuple[Int64, Float32]:
    """Times and features as the champion sees them: its own window and its own channels."""
    names = [one.name for one in spec.channels]
    places = [names.index(one.name) for one in theirs.channels]
    if theirs.features.window_ms == spec.features.window_ms:
        at_ms, features = pump.judged
        return at_ms, features if places == list(range(len(names))) else np.ascontiguousarray(features[:, places])
    frame = pump.rows.judged
    features, counts = window_means(
        frame.at_ms, np.ascontiguousarray(frame.values[:, places]), theirs.features.window_ms
    )
    full = has_full_window(counts)
    return frame.at_ms[full], features[full]
