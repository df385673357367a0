"""The last step of a training run: what was learned and judged of all pumps becomes a result with gates, card and record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.registry import Lineage, QualityGate
from pumpdeck_fleet.numeric.detectors import PumpBlock, encode_block
from pumpdeck_trainer.card import write_card
from pumpdeck_trainer.coverage import ranges_of, regimes_of
from pumpdeck_trainer.foreign_scorer import ForeignScorer
from pumpdeck_trainer.gates import backtest_gate, beyond_budget, data_gate, metrics_of, rate_gate, unseen_gate
from pumpdeck_trainer.golden import make_golden, typical_block
from pumpdeck_trainer.judging import Judged
from pumpdeck_trainer.learning import Learned, inputs_of
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.run_log import OVER_BUDGET, RunObserver
from pumpdeck_trainer.run_record import Findings, write_record
from pumpdeck_trainer.search import SearchOutcome
from pumpdeck_trainer.shape import Shape
from pumpdeck_trainer.source import Snapshot, TrainingRequest
from pumpdeck_trainer.spec import GateThresholds, PipelineSpec
from pumpdeck_trainer.trained import TrainedModel, TrainedPump

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Made:
    """All that a run has found, by pump where it is of one pump. search: where there was a grid."""

    spec: PipelineSpec
    request: TrainingRequest
    snapshot: Snapshot
    lineage: Lineage
    shape: Shape
    learned: Mapping[str, Learned]
    limits: Mapping[str, FittedLimit]
    judged: Mapping[str, Judged]
    left_out: Mapping[str, str]
    search: SearchOutcome | None = None


def assemble(made: Made, observer: RunObserver) -> TrainedModel:
    """The result, with the verdicts of its own gates in it; `observer` hears them, and which pumps are beyond their budget."""
    spec = made.spec
    learned, judged, limits = list(made.learned.values()), list(made.judged.values()), list(made.limits.values())
    inputs = inputs_of(spec)
    blocks = {pump: one.fit.block(inputs, made.limits[pump], shipped=True) for pump, one in made.learned.items()}
    parity, golden = _compare(made, blocks)
    pumps = tuple(
        _trained(pump, (one, made.judged[pump]), made.limits[pump], blocks[pump], ranges_of(one, spec))
        for pump, one in made.learned.items()
    )
    for pump, alarms in beyond_budget(pumps, spec):
        observer.trouble("evaluate", pump, OVER_BUDGET, f"{alarms} false alarms in its last 30 days")
    metrics = metrics_of(learned, judged, limits)
    held_out = made.shape.held_out
    if held_out:
        metrics |= held_out.metrics()
    if isinstance(made.shape.scorer, ForeignScorer):
        metrics |= {"foreign_zero": made.shape.scorer.zero, "foreign_unit": made.shape.scorer.unit}
    gates = (
        parity,
        *_rates(judged, spec.gates),
        backtest_gate(pumps, spec),
        data_gate(learned, len(made.left_out), spec),
        *([unseen_gate(held_out, spec.gates)] if held_out else []),
        *_foreign_gates(made, blocks),
    )
    for gate in gates:
        observer.gate(gate)
    span = (min(one.first_ms for one in learned), max(one.last_ms for one in learned))
    findings = Findings(pumps, judged, made.left_out, metrics, gates, made.search, held_out)
    return TrainedModel(
        spec=spec,
        onnx=made.shape.scorer.onnx,
        golden=golden,
        card=write_card(spec, span, limits, metrics, (gates, made.lineage)),
        run_record=write_record(spec, made.request, made.snapshot, made.lineage, findings),
        pumps=pumps,
        left_out=made.left_out,
        metrics=metrics,
        gates=gates,
        lineage=made.lineage,
        data_start_ms=span[0],
        data_end_ms=span[1],
        regimes=regimes_of(learned, spec),
        search=made.search,
        held_out=held_out,
    )


def _rates(judged: list[Judged], thresholds: GateThresholds) -> tuple[QualityGate, QualityGate]:
    """Replay and hold-out against the alarm thresholds."""
    alarms, days = sum(len(one.alarms) for one in judged), sum(one.days for one in judged)
    held, held_days = sum(one.holdout_alarms for one in judged), sum(one.holdout_days for one in judged)
    return (
        rate_gate("replay", alarms, days, thresholds),
        rate_gate("holdout", held, held_days, thresholds),
    )


def _foreign_gates(made: Made, blocks: Mapping[str, PumpBlock]) -> tuple[QualityGate, ...]:
    """What is asked of an imported graph alone; nothing for our own."""
    scorer, spec = made.shape.scorer, made.spec
    if not isinstance(scorer, ForeignScorer):
        return ()
    # Deferred: only an import needs them.
    from pumpdeck_trainer.foreign_gates import foreign_gate, graph_gate, reference_gate

    pumps = {pump: (block, made.learned[pump].sample) for pump, block in blocks.items()}
    limits = [block.limit for block in blocks.values()]
    return (reference_gate(scorer, limits, spec.gates), graph_gate(scorer, pumps, spec.seed), foreign_gate(scorer))


def _compare(made: Made, blocks: Mapping[str, PumpBlock]) -> tuple[QualityGate, bytes]:
    """The verdict of the parity gate on the shared graph, and golden rows of it."""
    # Deferred: onnxruntime costs a third of a second, and a run that is refused earlier does not need it.
    from pumpdeck_trainer.parity import Session, compare, parity_gate

    spec, scorer = made.spec, made.shape.scorer
    session = Session(scorer.onnx)
    pairs = [(block, made.learned[pump].sample) for pump, block in blocks.items()]
    result = compare(session, scorer.score, pairs, spec.seed)
    golden = make_golden(typical_block(list(blocks.values())), spec.seed, scorer, session.run)
    return parity_gate(result, spec.gates), golden


def _trained(pump: str, found: tuple[Learned, Judged], limit: FittedLimit, block: PumpBlock, ranges: Ranges) -> TrainedPump:
    learned, judged = found
    return TrainedPump(
        pump=pump,
        block=encode_block(block),
        edges=learned.edges,
        limit=limit,
        rows=learned.rows,
        used=learned.used,
        excluded=learned.excluded,
        replay_alarms=len(judged.alarms),
        judged=judged,
        last_ms=learned.last_ms,
        flags=learned.flags,
        ranges=ranges,
    )
