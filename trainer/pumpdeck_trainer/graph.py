"""Building blocks of Pumpdeck's own ONNX graphs: opset 13, IR 7, fixed names, the same bytes on every run and machine.

Every graph has the inputs and outputs that `export.py` lists. The shapes (pca, gmm, ..) share a front: features become
widths from the pump's own centre, missing ones 0, those beyond `Z_CAP` are cut, those without a vote 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_trainer.scorer import Z_CAP

OPSET = 13
ML_OPSET = 1
IR_VERSION = 7
INPUTS = ("x", "centre", "scale", "votes", "limit")
OUTPUTS = ("score", "probability", "contributions")
_FLOAT = TensorProto.FLOAT


def build(
    name: str, channels: int, nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], *, ml: bool = False
) -> bytes:
    """Canonical bytes of a graph with the common inputs and outputs; `ml` adds the operators of tree ensembles.

    Raises:
        PumpdeckError: the ONNX checker finds the graph wrong (a defect).
    """
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        name,
        [
            value("x", _FLOAT, ["N", channels]),
            *(value(one, _FLOAT, [channels]) for one in ("centre", "scale", "votes")),
            value("limit", _FLOAT, [1]),
        ],
        [
            value("score", _FLOAT, ["N"]),
            value("probability", _FLOAT, ["N"]),
            value("contributions", _FLOAT, ["N", channels]),
        ],
        list(constants),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    if ml:
        opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pumpdeck")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PumpdeckError(f"is not a valid ONNX graph ({error})", name) from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def constant(name: str, values: float | NDArray[np.floating]) -> onnx.TensorProto:
    """A float32 initializer, little-endian."""
    array = np.asarray(values, "<f4")
    return helper.make_tensor(name, _FLOAT, array.shape, array.tobytes(), raw=True)


def whole(name: str, values: int | Sequence[int]) -> onnx.TensorProto:
    """An int64 initializer; of one number a scalar."""
    array = np.asarray(values, "<i8")
    return helper.make_tensor(name, TensorProto.INT64, array.shape, array.tobytes(), raw=True)


def front() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from `x` to `z` float32 [N, C] (`scorer.widths`)."""
    node = helper.make_node
    return (
        [
            node("Sub", ["x", "centre"], ["d"]),
            node("Div", ["d", "scale"], ["w"]),
            node("IsNaN", ["w"], ["m"]),
            node("Where", ["m", "zero", "w"], ["f"]),
            node("Clip", ["f", "low", "high"], ["b"]),
            node("Mul", ["b", "votes"], ["z"]),
        ],
        [constant("zero", 0.0), constant("low", -Z_CAP), constant("high", Z_CAP)],
    )


def chance() -> list[onnx.NodeProto]:
    """Nodes from `score` to `probability`."""
    return [
        helper.make_node("Add", ["score", "limit"], ["t"]),
        helper.make_node("Div", ["score", "t"], ["probability"]),
    ]


def odds() -> list[onnx.NodeProto]:
    """Nodes from `raised`, log-odds on the scale of scores, to `score` and its calibrated `probability`."""
    return [
        helper.make_node("Max", ["raised", "least"], ["score"]),
        # Spelled out: the runtime's Sigmoid is an approximation, wrong in the fourth digit of a small probability.
        helper.make_node("Sub", ["even", "score"], ["against"]),
        helper.make_node("Exp", ["against"], ["odds_against"]),
        helper.make_node("Add", ["odds_against", "unit"], ["total"]),
        helper.make_node("Reciprocal", ["total"], ["probability"]),
    ]
