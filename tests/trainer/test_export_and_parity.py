from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.arrays import decode_arrays
from pumpdeck_fleet.numeric.detectors import PumpBlock, contributions, probability, score_rows, to_float32
from pumpdeck_trainer.export import INPUTS, OUTPUTS, maxz_onnx
from pumpdeck_trainer.golden import make_golden, typical_block
from pumpdeck_trainer.parity import ParityResult, Session, compare, extreme_rows, parity_gate
from pumpdeck_trainer.scorer import MaxZScorer
from pumpdeck_trainer.spec import GateThresholds
from support.pump_rows import small_block

GRAPH_DIGEST_OF_8 = "355c613b00a563493af688915c78e075db9c5290195713e6464c481a6b86d3d4"


def some_block(channels: int = 8, seed: int = 0) -> PumpBlock:
    rng = np.random.default_rng(seed)
    return PumpBlock(
        channels=tuple(f"c{place}" for place in range(channels)),
        centre=(rng.standard_normal(channels) * 100).astype(np.float32),
        scale=rng.uniform(0.01, 10, channels).astype(np.float32),
        floor=rng.uniform(0, 1, channels).astype(np.float32),
        votes=np.arange(channels) % 5 != 4,
        limit=to_float32(4.3),
    )


def features_of(block: PumpBlock, rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (block.centre + block.width * rng.standard_normal((rows, len(block.channels))) * 2).astype(np.float32)


def test_the_graph_has_the_same_small_bytes_on_every_run_and_machine() -> None:
    data = maxz_onnx(8)
    assert data == maxz_onnx(8)
    assert len(data) < 600
    assert digest(data) == GRAPH_DIGEST_OF_8


def test_the_graph_is_opset_13_ir_7_with_fixed_names() -> None:
    model = onnx.load_from_string(maxz_onnx(3))
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (7, [("", 13)])
    assert model.graph.name == "maxz"
    assert tuple(one.name for one in model.graph.input) == INPUTS
    assert tuple(one.name for one in model.graph.output) == OUTPUTS


@pytest.mark.parametrize("channels", [1, 4, 8, 32])
def test_onnx_runtime_gives_the_numpy_references_answers_to_the_bit(channels: int) -> None:
    block = replace(some_block(channels), votes=np.ones(channels, np.bool_))
    rows = np.concatenate([features_of(block), extreme_rows(block)])
    score, chance, parts = Session(maxz_onnx(channels)).run(block, rows)
    assert np.array_equal(score, score_rows(block, rows))
    assert np.array_equal(parts, contributions(block, rows))
    np.testing.assert_allclose(chance, probability(score, block.limit), rtol=1e-6)


def test_one_row_alone_and_inside_a_batch_gets_the_same_score() -> None:
    block = some_block()
    rows, session = features_of(block, 40), Session(maxz_onnx(8))
    single = np.concatenate([session.run(block, row[None])[0] for row in rows])
    assert np.array_equal(single, session.run(block, rows)[0])


def test_the_parity_gate_passes_the_shipped_graph() -> None:
    block = some_block()
    result = compare(Session(maxz_onnx(8)), score_rows, [(block, features_of(block))], seed=1)
    assert result.rows > 400
    assert (result.equal_flags, result.relative) == (1.0, 0.0)
    assert parity_gate(result, GateThresholds()).verdict is GateVerdict.PASS


def test_the_parity_gate_refuses_a_graph_that_computes_something_else() -> None:
    block = some_block()

    def other(chosen: PumpBlock, rows: np.ndarray) -> np.ndarray:
        return score_rows(replace(chosen, centre=chosen.centre + chosen.width * np.float32(0.05)), rows)

    result = compare(Session(maxz_onnx(8)), other, [(block, features_of(block))], seed=1)
    assert parity_gate(result, GateThresholds()).verdict is GateVerdict.REFUSE


@pytest.mark.parametrize(
    "result", [ParityResult(0, 0.0, 0.0), ParityResult(10_000, 0.9998, 0.0), ParityResult(100, 1.0, 0.0011)]
)
def test_the_parity_gate_refuses_at_its_thresholds_and_without_rows(result: ParityResult) -> None:
    assert parity_gate(result, GateThresholds()).verdict is GateVerdict.REFUSE


def test_an_answer_that_is_not_a_number_is_never_equal() -> None:
    block = some_block()

    def broken(chosen: PumpBlock, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), np.nan, np.float32)

    result = compare(Session(maxz_onnx(8)), broken, [(block, features_of(block))], seed=1)
    assert result.relative == np.inf


def test_bytes_that_are_no_graph_are_our_own_error() -> None:
    with pytest.raises(PumpdeckError, match="does not load"):
        Session(b"not a graph")


def test_golden_answers_are_what_onnx_runtime_gives() -> None:
    block = typical_block([some_block(seed=seed) for seed in range(5)])
    data = make_golden(block, 3, MaxZScorer(8), Session(maxz_onnx(8)).run)
    golden = decode_arrays(data, "golden", max_bytes=100_000)
    assert set(golden) == {*INPUTS, *OUTPUTS}
    score, chance, parts = Session(maxz_onnx(8)).run(block, golden["x"])
    assert np.array_equal(score, golden["score"])
    assert np.array_equal(parts, golden["contributions"])
    np.testing.assert_allclose(chance, golden["probability"], rtol=1e-6)
    assert (golden["score"] > block.limit).any() and (golden["score"] < block.limit).any()
    assert np.isnan(golden["x"]).any()
    assert data == make_golden(block, 3, MaxZScorer(8), Session(maxz_onnx(8)).run)


def test_the_typical_pump_is_the_median() -> None:
    blocks = [replace(small_block(), centre=np.full(4, level, np.float32)) for level in (1, 2, 50)]
    assert typical_block(blocks).centre.tolist() == [2, 2, 2, 2]
