"""An imported graph between the inputs and outputs that devices know: the same in ONNX and in numpy, whatever comes in."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.numeric.detectors import SCORE_CAP, PumpBlock
from pumpdeck_trainer.foreign_graph import ends_of, inner
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_rules import check_graph
from pumpdeck_trainer.foreign_scorer import ForeignModel, ForeignScorer, fit_foreign
from pumpdeck_trainer.parity import Session, extreme_rows
from support.foreign_models import model_bytes

BLOCK = PumpBlock(
    ("a", "b", "c"), *(np.array(one, np.float32) for one in ([10, 20, 30], [1, 2, 3], [0.1, 0.1, 0.1])),
    np.array([True, True, False]), 4.0,
)  # fmt: skip
ROWS = (BLOCK.centre + BLOCK.width * np.random.default_rng(2).standard_normal((500, 3))).astype(np.float32)
EXTREME = np.concatenate([ROWS[:50], extreme_rows(BLOCK)])


def scorer_of(data: bytes, zero: float = 0.0, unit: float = 1.0, **said: Any) -> ForeignScorer:
    words = ForeignInput("a", "b", "c", "d", **said)
    graph = read_graph(data)
    check_graph(graph)
    return ForeignScorer(ForeignModel(inner(graph, ends_of(graph, words, 3, "m"), 3), words, 3), zero, unit)


def length(kind: int = TensorProto.FLOAT) -> bytes:
    return model_bytes([node("ReduceL2", ["X"], ["raw"], axes=[1], keepdims=1)], 3, kind=kind)


def hole() -> bytes:
    """No number for rows above the centre of the first channel."""
    centre = helper.make_tensor("ten", TensorProto.FLOAT, [], [10.0])
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    nodes = [
        node("Gather", ["X", "first"], ["a"], axis=1),
        node("Sub", ["ten", "a"], ["below"]),
        node("Sqrt", ["below"], ["raw"]),
    ]
    return model_bytes(nodes, 3, [centre, first])


@pytest.mark.parametrize(
    "scorer",
    [
        scorer_of(length()),
        scorer_of(length(TensorProto.DOUBLE), zero=5.0, unit=0.25),
        scorer_of(length(), zero=40.0, unit=2.0, is_lower_worse=True),
        scorer_of(length(), in_widths=True),
        scorer_of(hole()),
    ],
    ids=["plain", "double", "lower is worse", "widths", "with a hole"],
)
def test_the_graph_that_ships_computes_what_numpy_says(scorer: ForeignScorer) -> None:
    score, probability, parts = Session(scorer.onnx).run(BLOCK, EXTREME)
    wanted = scorer.score(BLOCK, EXTREME)
    assert np.isfinite(wanted).all() and (wanted >= 0).all()
    assert score == pytest.approx(wanted, rel=1e-6)
    assert probability == pytest.approx(wanted / (wanted + BLOCK.limit), rel=1e-6)
    assert parts == pytest.approx(scorer.contributions(BLOCK, EXTREME), rel=1e-6)
    assert (parts[:, 2] == 0).all()


def test_ordinary_values_reach_the_graph_bit_by_bit() -> None:
    raw = scorer_of(length()).score(BLOCK, ROWS)
    assert raw == pytest.approx(np.sqrt((ROWS.astype(np.float64) ** 2).sum(axis=1)), rel=1e-6)


def test_a_score_that_is_no_number_is_the_worst_one() -> None:
    scorer = scorer_of(hole())
    row = BLOCK.centre.copy()
    row[0] += 1
    assert scorer.score(BLOCK, row[None]).tolist() == [SCORE_CAP]
    assert Session(scorer.onnx).run(BLOCK, row[None])[0].tolist() == [SCORE_CAP]


def test_a_missing_value_counts_as_the_pumps_centre() -> None:
    scorer = scorer_of(length())
    gone = BLOCK.centre.copy()
    gone[1] = np.nan
    assert scorer.score(BLOCK, gone[None]).tolist() == scorer.score(BLOCK, BLOCK.centre[None]).tolist()


def test_one_column_of_several_is_the_score() -> None:
    data = model_bytes([node("Identity", ["X"], ["raw"])], 3)
    scorer = scorer_of(data, column=2)
    assert scorer.score(BLOCK, ROWS).tolist() == ROWS[:, 2].tolist()
    assert Session(scorer.onnx).run(BLOCK, ROWS)[0].tolist() == ROWS[:, 2].tolist()


def test_zero_and_unit_come_from_healthy_rows() -> None:
    model = scorer_of(length()).model
    scorer = fit_foreign(model, [(BLOCK, ROWS)])
    healthy = scorer.score(BLOCK, ROWS)
    assert np.median(healthy) == pytest.approx(0, abs=0.02)
    assert np.quantile(healthy, 0.75) == pytest.approx(1.349 / 2, rel=0.15)
    with pytest.raises(GateRefusedError, match="too few healthy rows"):
        fit_foreign(model, [(BLOCK, ROWS[:5])])


def test_a_scorer_travels_to_another_process() -> None:
    scorer = fit_foreign(scorer_of(length()).model, [(BLOCK, ROWS)])
    scorer.score(BLOCK, ROWS)
    there = pickle.loads(pickle.dumps(scorer))
    assert there.score(BLOCK, ROWS).tolist() == scorer.score(BLOCK, ROWS).tolist()
    assert there.digest == scorer.digest
