"""Graphs that a device must never commit: each is valid ONNX with the right names, and wrong in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT


def graph(
    nodes: Sequence[Any], channels: int, initializers: Sequence[Any] = (), score_shape: Sequence[Any] = ("N",)
) -> bytes:
    """A model with the inputs and outputs of the real one and these nodes inside."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        list(nodes),
        "bad",
        [info("x", FLOAT, ["N", channels])],
        [info("score", FLOAT, list(score_shape)), info("probability", FLOAT, None), info("contributions", FLOAT, None)],
        list(initializers),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    data: bytes = model.SerializeToString()
    return data


def _tail(score: str = "s") -> list[Any]:
    node = helper.make_node
    return [
        node("Identity", [score], ["score"]),
        node("Identity", [score], ["probability"]),
        node("Identity", ["x"], ["contributions"]),
    ]


def wrong_shape(channels: int) -> bytes:
    """One score for all rows."""
    node = helper.make_node
    return graph([node("ReduceMax", ["x"], ["s"], axes=[0, 1], keepdims=0), *_tail()], channels, score_shape=[])


def not_a_number(channels: int) -> bytes:
    """0 / 0."""
    node = helper.make_node
    nodes = [
        node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
        node("Sub", ["m", "m"], ["z"]),
        node("Div", ["z", "z"], ["s"]),
    ]
    return graph([*nodes, *_tail()], channels)


def other_answers(channels: int) -> bytes:
    """Scores twice as high as the golden ones would be."""
    node = helper.make_node
    two = helper.make_tensor("two", FLOAT, [], [2.0])
    nodes = [node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0), node("Mul", ["m", "two"], ["s"])]
    return graph([*nodes, *_tail()], channels, [two])


def slow(channels: int, size: int = 700, times: int = 8) -> bytes:
    """Multiplies matrices, which depend on the row so that nothing can be folded, before it answers."""
    node = helper.make_node
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [size, size])
    zero = helper.make_tensor("zero", FLOAT, [], [0.0])
    nodes = [
        node("ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", FLOAT, [1], [1e-4])),
        node("ReduceMax", ["x"], ["top"], axes=[0, 1], keepdims=0),
        node("Mul", ["top", "zero"], ["nothing"]),
        node("Add", ["ones", "nothing"], ["m0"]),
    ]
    nodes += [node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]) for i in range(times)]
    nodes += [
        node("ReduceMax", [f"m{times}"], ["big"], axes=[0, 1], keepdims=0),
        node("Mul", ["big", "zero"], ["none"]),
        node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
        node("Add", ["m", "none"], ["s"]),
    ]
    return graph([*nodes, *_tail()], channels, [shape, zero])


def hungry(channels: int, size: tuple[int, int] = (2000, 4000)) -> bytes:
    """Wants rows x `size[0]` x channels x `size[1]` numbers: 1.6 GB for the golden rows of a drill."""
    node = helper.make_node
    # Not known before it runs: a constant shape would be folded, and fail, while loading.
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Mul", ["shape", "huge"], ["wide"]),
        node("ConstantOfShape", ["wide"], ["m0"], value=helper.make_tensor("v", FLOAT, [1], [1.0])),
        node("ReduceMax", ["m0"], ["big"], axes=[0, 1], keepdims=0),
        node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
        node("Add", ["m", "big"], ["s"]),
    ]
    huge = helper.make_tensor("huge", TensorProto.INT64, [2], np.array(size))
    return graph([*nodes, *_tail()], channels, [huge])


def endless(channels: int) -> bytes:
    """A loop that does not end."""
    node = helper.make_node
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Identity", ["was"], ["is"])],
        "body",
        [info("i", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), info("was", FLOAT, None)],
        [info("still", TensorProto.BOOL, []), info("is", FLOAT, None)],
    )
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**62])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    nodes = [node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0), node("Loop", ["trips", "yes", "m"], ["s"], body=body)]
    return graph([*nodes, *_tail()], channels, [trips, yes])
