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

from onnx.helper import make_node as node

from pumpdeck_fleet.numeric.detectors import SCORE_CAP
from pumpdeck_trainer.graph import INPUTS, IR_VERSION, OPSET, OUTPUTS, build, constant

__all__ = ["INPUTS", "IR_VERSION", "OPSET", "OUTPUTS", "maxz_onnx"]

GRAPH_NAME = "maxz"


def maxz_onnx(channels: int) -> bytes:
    """The graph for that many channels.

    Raises:
        PumpdeckError: the ONNX checker finds the graph wrong (a defect).
    """
    nodes = [
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
    ]
    return build(GRAPH_NAME, channels, nodes, [constant("zero", 0.0), constant("cap", SCORE_CAP)])
