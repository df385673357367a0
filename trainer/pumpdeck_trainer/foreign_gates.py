"""Quality gates of an imported file: its reference, its graph, and what cannot be judged because it was learned elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.frame import Float32
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_rules import operators_of
from pumpdeck_trainer.foreign_scorer import ForeignScorer, ready_rows
from pumpdeck_trainer.parity import ParityResult, parity_rows
from pumpdeck_trainer.spec import GateThresholds

NAMED = 8
TRIED_PUMPS = 50
PASS, WARN, REFUSE = GateVerdict.PASS, GateVerdict.WARN, GateVerdict.REFUSE


def reference_gate(scorer: ForeignScorer, limits: Sequence[float], thresholds: GateThresholds) -> QualityGate:
    """The graph against the scores that whoever made the file saw, by the thresholds of parity; without any, a warning.

    Differences count relative to the score or, near zero, to the spread of the reference. Flags are those at the median limit.
    """
    reference = scorer.model.reference
    if reference is None:
        reason = "no reference was given: nothing here proves that the file computes what its maker saw"
        return QualityGate("reference", WARN, reason)
    found, wanted = scorer.model.raw(reference.rows), reference.scores
    floor = max(float(wanted.std()), 1e-9)
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - wanted) / np.maximum(np.abs(wanted), floor)
    worst = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
    limit = scorer.zero + scorer.model.said.sign * float(np.median(limits)) * scorer.unit
    sign = scorer.model.said.sign
    equal = float(((sign * found > sign * limit) == (sign * wanted > sign * limit)).mean())
    result = ParityResult(len(wanted), equal, worst)
    good = result.equal_flags >= thresholds.parity_flags and result.relative <= thresholds.parity_relative
    reason = f"{result.rows} rows of the reference: {100 * equal:.4f} % equal alarm flags, scores differ by {worst:.2g}"
    return QualityGate("reference", PASS if good else REFUSE, reason, min(worst, 1e9), thresholds.parity_relative)


def graph_gate(scorer: ForeignScorer, pumps: Mapping[str, tuple[PumpBlock, Float32]], seed: int) -> QualityGate:
    """What the graph is, and how it takes disturbed and extreme rows: no number for them warns, no difference at all refuses."""
    graph = read_graph(scorer.model.inner)
    rng = np.random.default_rng(seed)
    chosen = [pumps[name] for name in sorted(pumps)[:TRIED_PUMPS]]
    tried = [parity_rows(block, features, rng) for block, features in chosen]
    raw = np.concatenate(
        [scorer.model.raw(ready_rows(block, rows, scorer.model.said)) for (block, _), rows in zip(chosen, tried, strict=True)]
    )
    lost = int((~np.isfinite(raw)).sum())
    used = operators_of(graph)
    named = ", ".join(used[:NAMED]) + (f" and {len(used) - NAMED} more" if len(used) > NAMED else "")
    words = f"{len(graph.nodes)} nodes, opset {graph.opset}, {len(scorer.onnx)} bytes: {named}"
    if len(np.unique(raw[np.isfinite(raw)])) < 2:
        return QualityGate("graph", REFUSE, f"answers the same whatever row it is shown; {words}")
    if lost:
        words += f"; no number for {lost} of {len(raw)} disturbed and extreme rows: such rows count as the worst"
    return QualityGate("graph", WARN if lost else PASS, words, float(lost))


def foreign_gate(scorer: ForeignScorer) -> QualityGate:
    """That it is foreign, and what therefore no figure here can say."""
    said = scorer.model.said
    reason = (
        f"foreign: made by {said.made_by}, licence {said.licence}. What it learned from is not known here: rows of the hold-out "
        "may be among it, and leaving pumps out (unseen_pumps) and search do not apply"
    )
    return QualityGate("foreign", WARN, reason)
