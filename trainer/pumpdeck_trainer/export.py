"""ONNX graph of `maxz`, built by hand: opset 13, IR 7, fixed names, the same bytes on every run and machine.

One graph serves a whole pump type; what differs from pump to pump comes in as inputs. Sizes: N rows, C channels.

| input | type | is | output | type | is |
|---|---|---|---|---|---|
| `x` | float32 [N, C] | features, NaN = missing | `score` | float32 [N] | largest contribution |
| `centre` | float32 [C] | the block's centre | `probability` | float32 [N] | score / (score + limit) |
| `scale` | float32 [C] | the block's width | `contributions` | float32 [N, C] | widths from the centre |
| `votes` | float32 [C] | 1 votes, 0 does not | | | |
| `limit` | float32 [1] | the block's limit | | | |
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.numeric.detectors import SCORE_CAP

OPSET = 13
IR_VERSION = 7
GRAPH_NAME = "maxz"
INPUTS = ("x", "centre", "scale", "votes", "limit")
OUTPUTS = ("score", "probability", "contributions")


def maxz_onnx(channels: int) -> bytes:
    """The graph for that many channels.

    Raises:
        PumpdeckError: the ONNX checker finds the graph wrong (a defect).
    """
    model = helper.make_model(
        _graph(channels),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pumpdeck",
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PumpdeckError(f"is not a valid ONNX graph ({error})", GRAPH_NAME) from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _graph(channels: int) -> onnx.GraphProto:
    one = TensorProto.FLOAT
    node = helper.make_node
    return helper.make_graph(
        [
            node("Sub", ["x", "centre"], ["d"]),
            node("Abs", ["d"], ["a"]),
            node("Div", ["a", "scale"], ["z"]),
            node("IsNaN", ["z"], ["m"]),
            node("Where", ["m", "zero", "z"], ["f"]),
            node("Min", ["f", "cap"], ["b"]),
            node("Mul", ["b", "votes"], ["contributions"]),
            node("ReduceMax", ["contributions"], ["score"], axes=[1], keepdims=0),
            node("Add", ["score", "limit"], ["t"]),
            node("Div", ["score", "t"], ["probability"]),
        ],
        GRAPH_NAME,
        [
            helper.make_tensor_value_info("x", one, ["N", channels]),
            *(helper.make_tensor_value_info(name, one, [channels]) for name in ("centre", "scale", "votes")),
            helper.make_tensor_value_info("limit", one, [1]),
        ],
        [
            helper.make_tensor_value_info("score", one, ["N"]),
            helper.make_tensor_value_info("probability", one, ["N"]),
            helper.make_tensor_value_info("contributions", one, ["N", channels]),
        ],
        [_constant("zero", 0.0), _constant("cap", SCORE_CAP)],
    )


def _constant(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [], np.array([value], "<f4").tobytes(), raw=True)
