"""What is learned from one pump: baselines, reference edges, block maxima, and rows for what all pumps teach together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, LimitBranch, PumpBlock, to_float32
from pumpdeck_fleet.numeric.edges import edges_of_ranked, encode_edges, ranked_columns
from pumpdeck_fleet.numeric.features import has_full_window, window_columns
from pumpdeck_fleet.numeric.frame import Float32, Float64, Int64, TelemetryFrame
from pumpdeck_trainer.baseline import (
    PARITY_ROWS,
    Baseline,
    Inputs,
    fit_baseline,
    sensor_floor,
    spread_places,
    value_spread,
)
from pumpdeck_trainer.calm import Calm, calm_limit, undisturbed
from pumpdeck_trainer.foreign_scorer import ForeignScorer
from pumpdeck_trainer.labelled import SUPERVISED, IllRows, healthy_places, ill_rows, no_ill_rows
from pumpdeck_trainer.limits import BlockMaxima, BlockRule, FittedLimit, limit_of_maxima, maxima_of
from pumpdeck_trainer.scorer import MaxZScorer, Scorer
from pumpdeck_trainer.source import CleanRows
from pumpdeck_trainer.spec import PipelineSpec

ENTRY_MAX_BYTES = 1_000_000
SHAPE_ROWS = 400


def inputs_of(spec: PipelineSpec) -> Inputs:
    """The detector's view of the spec's channels."""
    return Inputs(
        tuple(channel.name for channel in spec.channels),
        np.array([channel.resolution for channel in spec.channels]),
        np.array([channel.votes for channel in spec.channels]),
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """Baseline and block maxima of some stretch of a pump's reference window, without the scores themselves.

    centre, scale, floor, end_centre: float32 [c].
    """

    centre: Float32
    scale: Float32
    floor: Float32
    end_centre: Float32
    maxima: BlockMaxima

    @classmethod
    def of(cls, baseline: Baseline, rule: BlockRule) -> Fit:
        """What is worth keeping of a baseline."""
        maxima = maxima_of(baseline.scores, rule)
        return cls(baseline.centre, baseline.scale, baseline.floor, baseline.end_centre, maxima)

    def block(self, inputs: Inputs, limit: FittedLimit, *, shipped: bool) -> PumpBlock:
        """The pump block: as shipped (centre at the end of the window) or for the replay (centre at its start)."""
        centre = self.end_centre if shipped else self.centre
        return PumpBlock(
            inputs.channels,
            centre,
            self.scale,
            self.floor,
            inputs.votes,
            to_float32(limit.limit),
            limit.branch,
            limit.provisional,
        )

    def plain_block(self, inputs: Inputs) -> PumpBlock:
        """The block as at the start of the reference window, with a limit that no score passes."""
        return PumpBlock(inputs.channels, self.centre, self.scale, self.floor, inputs.votes, to_float32(SCORE_CAP))

    def arrays(self, prefix: str) -> dict[str, Float32 | Float64]:
        """The fit as named arrays, for the cache."""
        return {
            f"{prefix}baseline": np.stack([self.centre, self.scale, self.floor, self.end_centre]),
            f"{prefix}daily": self.maxima.daily,
            f"{prefix}short": self.maxima.short,
            f"{prefix}factor": np.array([self.maxima.small_sample]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> Fit:
        """Back from the cache."""
        maxima = BlockMaxima(arrays[f"{prefix}daily"], arrays[f"{prefix}short"], float(arrays[f"{prefix}factor"][0]))
        centre, scale, floor, end_centre = arrays[f"{prefix}baseline"]
        return cls(centre, scale, floor, end_centre, maxima)


@dataclass(frozen=True, eq=False)
class Learned:
    """Everything later steps need of one pump. early: the fit to the window without its held-out end (None: no hold-out).

    edges: bytes of the reference edges. sample: feature rows for the shape and the parity gate, of which the first
    `sample_early` lie before the held-out end, which begins at `split_ms`. rows, used: before and after cleaning. flags: rows
    by quality flag. ill: rows of labelled faults, where the model type learns from them. calm: from which limits on the pump
    needs no replay, where that can be told.
    """

    fit: Fit
    early: Fit | None
    edges: bytes
    sample: Float32
    sample_early: int
    rows: int
    used: int
    excluded: Mapping[str, int]
    first_ms: int
    last_ms: int
    flags: Mapping[str, int] = field(default_factory=dict)
    split_ms: int = 0
    ill: IllRows = field(default_factory=lambda: no_ill_rows(0))
    calm: Calm | None = None

    def to_bytes(self) -> bytes:
        """For the run cache; `from_bytes` gives an equal one."""
        told = [self.rows, self.used, self.first_ms, self.last_ms, self.excluded, self.early is not None]
        told += [self.sample_early, self.flags, self.split_ms, self.ill.kinds]
        arrays: dict[str, np.ndarray] = {
            **self.fit.arrays("fit_"),
            **(self.early.arrays("early_") if self.early else {}),
            "edges": np.frombuffer(self.edges, np.uint8),
            "sample": self.sample,
            **self.ill.arrays(),
            "calm": np.array(astuple(self.calm) if self.calm else (), np.float64),
            "told": np.frombuffer(canonical.encode(told), np.uint8),
        }
        return encode_arrays(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Learned:
        """Raises: FormatError, TooLargeError."""
        arrays = decode_arrays(data, "cached fit", max_bytes=ENTRY_MAX_BYTES)
        told = canonical.parse_json(arrays["told"].tobytes(), "cached fit", max_bytes=ENTRY_MAX_BYTES)
        rows, used, first_ms, last_ms, excluded, has_early, sample_early, flags, split, kinds = told
        return cls(
            fit=Fit.from_arrays(arrays, "fit_"),
            early=Fit.from_arrays(arrays, "early_") if has_early else None,
            edges=arrays["edges"].tobytes(),
            sample=arrays["sample"],
            sample_early=sample_early,
            rows=rows,
            used=used,
            excluded=excluded,
            first_ms=first_ms,
            last_ms=last_ms,
            flags=flags,
            split_ms=split,
            ill=IllRows.from_arrays(arrays, kinds),
            calm=Calm(*arrays["calm"].tolist()) if len(arrays["calm"]) else None,
        )


class PumpRows:
    """A pump's cleaned rows and their features, computed once when first asked for."""

    def __init__(self, rows: CleanRows, spec: PipelineSpec) -> None:
        self.rows = rows
        self._window_ms = spec.features.window_ms

    @cached_property
    def learned(self) -> tuple[Int64, Float32]:
        """Times and features of the training rows that stand on full windows."""
        return self._features(self.rows.learned)

    @cached_property
    def judged(self) -> tuple[Int64, Float32]:
        """Times and features of the rows a device would have scored, labelled faults included."""
        if self.rows.judged is self.rows.learned:
            return self.learned
        return self._features(self.rows.judged)

    def _features(self, frame: TelemetryFrame) -> tuple[Int64, Float32]:
        # Kept channel by channel, which is how numpy is fast; what is handed out is a view of it, row by row.
        columns, counts = window_columns(frame.at_ms, np.ascontiguousarray(frame.values.T), self._window_ms)
        full = has_full_window(counts.T)
        first = int(full.argmax()) if len(full) else 0
        # As a rule only the first rows lack a full window: then nothing is copied.
        if full[first:].all():
            return frame.at_ms[first:], columns[:, first:].T
        return frame.at_ms[full], columns[:, full].T


def split_ms(at_ms: Int64, spec: PipelineSpec) -> int:
    """Where the hold-out begins: at the stated share before the last row."""
    return int(at_ms[-1] - round((at_ms[-1] - at_ms[0]) * spec.holdout))


def learn(pump: PumpRows, spec: PipelineSpec) -> Learned:
    """Baselines, edges and block maxima of one pump.

    Raises:
        GateRefusedError: too few rows, or a channel without any value.
    """
    inputs, rule = inputs_of(spec), spec.blocks
    at_ms, features = pump.learned
    frame = pump.rows.learned
    ranked = ranked_columns(frame.values)
    floor = sensor_floor(ranked, inputs)
    baseline = fit_baseline(at_ms, features, floor, inputs, spec.alarm)
    absent = [name for name, found in zip(inputs.channels, ranked, strict=True) if not len(found)]
    if absent:
        raise GateRefusedError("has channels without any value", "reference window", found=", ".join(absent))
    early = None
    if spec.holdout:
        split = split_ms(at_ms, spec)
        before = int(np.searchsorted(at_ms, split))
        # The floor belongs to the instruments, not to how the pump ran: it is the whole window's.
        early = fit_baseline(at_ms[:before], features[:before], floor, inputs, spec.alarm)
    spread, ill = _chosen(pump, spec)
    widths = np.maximum(value_spread(frame.values), baseline.floor)
    return Learned(
        fit=Fit.of(baseline, rule),
        early=Fit.of(early, rule) if early else None,
        edges=encode_edges(edges_of_ranked(inputs.channels, ranked, widths)),
        sample=np.ascontiguousarray(features[spread]),
        sample_early=int((at_ms[spread] < split_ms(at_ms, spec)).sum()) if spec.holdout else len(spread),
        rows=pump.rows.total,
        used=len(frame),
        excluded=pump.rows.excluded,
        first_ms=int(frame.at_ms[0]),
        last_ms=int(frame.at_ms[-1]),
        flags=pump.rows.flags,
        split_ms=split_ms(at_ms, spec),
        ill=ill,
        calm=_calm(pump, (baseline, early), spec),
    )


def _calm(pump: PumpRows, fits: tuple[Baseline, Baseline | None], spec: PipelineSpec) -> Calm | None:
    """For `maxz`, whose scores ask for nothing but the pump's own fit; None where labelled faults are to be sought."""
    (at_ms, features), (baseline, early), inputs = pump.judged, fits, inputs_of(spec)
    faults = (one for one in pump.rows.verdicts if one.is_fault)
    if spec.model_type != MaxZScorer.model_type or any(one.touches(at_ms) for one in faults):
        return None
    columns, alarm = features.T, spec.alarm
    block = baseline.block(inputs, SCORE_CAP)
    is_same = pump.rows.judged is pump.rows.learned
    found = baseline.replayed if is_same else undisturbed(block, at_ms, columns, alarm)
    limit = calm_limit(block, (at_ms, columns), found, alarm)
    days = float(at_ms[-1] - at_ms[0]) / DAY_MS
    later = int(np.searchsorted(at_ms, split_ms(pump.learned[0], spec) + spec.features.window_ms))
    if early is None or later >= len(at_ms):
        return Calm(limit, 0.0, days, 0.0)
    # As it would be shipped: from the end of what it learned from.
    block = replace(early, centre=early.end_centre).block(inputs, SCORE_CAP)
    end = (at_ms[later:], columns[:, later:])
    early_limit = calm_limit(block, end, undisturbed(block, *end, alarm), alarm)
    return Calm(limit, early_limit, days, float(at_ms[-1] - at_ms[later]) / DAY_MS)


def _chosen(pump: PumpRows, spec: PipelineSpec) -> tuple[Int64, IllRows]:
    """Places of the healthy rows that a shape learns from, and rows of labelled faults for the types that learn from these."""
    at_ms, features = pump.learned
    if spec.model_type not in SUPERVISED:
        most = PARITY_ROWS if spec.model_type == MaxZScorer.model_type else SHAPE_ROWS
        return spread_places(len(features), most), no_ill_rows(features.shape[1])
    horizon_ms = round(spec.search.label_horizon_s * 1000) + spec.features.window_ms
    faults = [one for one in pump.rows.verdicts if one.is_fault]
    places = healthy_places(at_ms, pump.rows.verdicts, SHAPE_ROWS, horizon_ms)
    return places, ill_rows(*pump.judged, faults, spec.features.window_ms)


def own_limit(
    maxima: BlockMaxima, pooled: FittedLimit | None, spec: PipelineSpec, scorer: Scorer | None = None
) -> FittedLimit:
    """`fit_limit` from what was learned, never above what a row of this scorer can pass."""
    found = limit_of_maxima(maxima, spec.blocks, spec.budget, pooled=pooled)
    if scorer is None:
        return found
    if isinstance(scorer, ForeignScorer) and scorer.stated is not None:
        # Not the pump's own: devices are told so by the branch they know for that.
        return replace(found, limit=scorer.stated, branch=LimitBranch.POOLED, provisional=True)
    highest = scorer.ceiling if scorer.ceiling is not None else found.limit
    limit = min(max(found.limit, scorer.least), max(highest, 0.0))
    return found if limit == found.limit else replace(found, limit=to_float32(limit))
