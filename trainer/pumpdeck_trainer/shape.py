"""The shape of a model type: what is learned from all pumps together, and scoring a pump anew by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.frame import Float32, Float64, Int64
from pumpdeck_trainer.baseline import Inputs, scores_of
from pumpdeck_trainer.foreign_scorer import ForeignModel, fit_foreign
from pumpdeck_trainer.labelled import SUPERVISED, LabelledPump
from pumpdeck_trainer.learning import Fit, Learned, PumpRows, inputs_of, split_ms
from pumpdeck_trainer.limits import maxima_of
from pumpdeck_trainer.model_types import fit_scorer
from pumpdeck_trainer.scorer import MaxZScorer, Scorer
from pumpdeck_trainer.scorer import widths as widths_of
from pumpdeck_trainer.spec import PipelineSpec
from pumpdeck_trainer.supervised import HeldOut, Supervised, fit_supervised

EARLY_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Shape:
    """What a model type learned from all pumps together: over the whole reference window, and without its held-out end.

    has_early: false where the held-out end took so many labels along that the rest could teach nothing. without: supervised
    types only, for each pump a scorer that never saw its rows; held_out: their figures.
    """

    spec: PipelineSpec
    scorer: Scorer
    early: Scorer
    has_early: bool = True
    without: Mapping[str, Scorer] = field(default_factory=dict)
    held_out: HeldOut | None = None

    @property
    def digest(self) -> str:
        """For keys of the run cache."""
        told = [self.scorer.digest, self.early.digest, *sorted({one.digest for one in self.without.values()})]
        return canonical.digest(" ".join(told).encode())

    def unseen(self, pump: str) -> Shape:
        """The shape that judges this pump: of a supervised type one that has not learned from the pump's own labels."""
        return replace(self, scorer=self.without.get(pump, self.scorer), without={})


def fit_shape(pumps: Mapping[str, Learned], spec: PipelineSpec, foreign: ForeignModel | None = None) -> Shape:
    """The shape from the samples of all pumps, in the order given; an imported graph is only read by them, not learned.

    Raises:
        GateRefusedError: too few rows, or labels.
    """
    if foreign is not None:
        inputs = inputs_of(spec)
        reader = fit_foreign(foreign, [(one.fit.plain_block(inputs), one.sample) for one in pumps.values()])
        return Shape(spec, reader, reader)
    if spec.model_type in SUPERVISED:
        return _fit_labelled(pumps, spec)
    known = shape_ahead(spec)
    if known:
        return known
    learned = list(pumps.values())
    inputs = inputs_of(spec)
    full = [sample_widths(one.sample, one.fit, inputs) for one in learned]
    scorer = fit_scorer(spec.model_type, np.concatenate(full), inputs.votes, spec.seed)
    before = [sample_widths(one.sample[: one.sample_early], one.early, inputs) for one in learned if one.early]
    if not before:
        return Shape(spec, scorer, scorer)
    return Shape(spec, scorer, fit_scorer(spec.model_type, np.concatenate(before), inputs.votes, spec.seed))


def shape_ahead(spec: PipelineSpec) -> Shape | None:
    """The shape of a type that learns nothing from other pumps (`maxz`): the one that `fit_shape` will give."""
    if spec.model_type != MaxZScorer.model_type:
        return None
    scorer = MaxZScorer(len(spec.channels))
    return Shape(spec, scorer, scorer)


def _fit_labelled(pumps: Mapping[str, Learned], spec: PipelineSpec) -> Shape:
    inputs = inputs_of(spec)

    def fitted(parts: list[LabelledPump], **more: int) -> Supervised:
        return fit_supervised(spec.model_type, parts, (inputs.votes, spec.seed), **more)

    found = fitted([_labelled(pump, one, one.fit, inputs) for pump, one in pumps.items()])
    shape = Shape(spec, found.scorer, found.scorer, False, found.without, found.held_out)
    try:
        parts = [_labelled(pump, one, one.early, inputs) for pump, one in pumps.items() if one.early]
        # Its pumps are left out for its scaling alone: no figure about pumps that were not seen comes from it.
        early = fitted(parts, most_folds=EARLY_FOLDS)
    except GateRefusedError:
        return shape
    return replace(shape, early=early.scorer, has_early=True)


def _labelled(pump: str, learned: Learned, fit: Fit, inputs: Inputs) -> LabelledPump:
    """The pump's rows with verdicts in widths from the fit's centre; those of the early fit lie before the held-out end."""
    is_early = fit is not learned.fit
    sample = learned.sample[: learned.sample_early] if is_early else learned.sample
    ill = learned.ill.before(learned.split_ms) if is_early else learned.ill
    return LabelledPump(
        pump=pump,
        healthy=sample_widths(sample, fit, inputs),
        ill=sample_widths(ill.rows, fit, inputs),
        fault=ill.fault,
        kinds=ill.kinds,
        healthy_stands_for=learned.used / max(len(learned.sample), 1),
        ill_stands_for=ill.stands_for,
    )


def sample_widths(sample: Float32, fit: Fit, inputs: Inputs) -> Float64:
    """Feature rows in widths from the pump's centre, for a shape to learn from."""
    return widths_of(fit.plain_block(inputs), sample)


def rescore(pump: PumpRows, learned: Learned, shape: Shape) -> Learned:
    """The same pump with the block maxima of the shape's scores instead of those of `maxz`."""
    spec = shape.spec
    at_ms, features = pump.learned
    early = learned.early if shape.has_early else None
    if early is not None:
        before = at_ms < split_ms(at_ms, spec)
        early = rescored(early, at_ms[before], features[before], (spec, shape.early))
    return replace(learned, fit=rescored(learned.fit, at_ms, features, (spec, shape.scorer)), early=early)


def rescored(fit: Fit, at_ms: Int64, features: Float32, by: tuple[PipelineSpec, Scorer]) -> Fit:
    """The fit with the block maxima of this scorer."""
    spec, scorer = by
    scores = scores_of(fit.plain_block(inputs_of(spec)), at_ms, features, (spec.alarm, scorer.score))
    return replace(fit, maxima=maxima_of(scores, spec.blocks))
