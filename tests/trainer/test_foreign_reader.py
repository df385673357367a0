"""The bounded reader of ONNX files and the rules of what an imported graph may compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_fleet.core.errors import FormatError, RefusedError
from pumpdeck_trainer.export import maxz_onnx
from pumpdeck_trainer.foreign_reader import Tensor, read_graph
from pumpdeck_trainer.foreign_rules import check_graph, operators_of
from support.foreign_models import FLOAT, model_bytes


def relu(**more: object) -> bytes:
    return model_bytes([node("Relu", ["X"], ["raw"])], 3, **more)


def test_our_own_graph_is_read_as_onnx_reads_it() -> None:
    data = maxz_onnx(5)
    found, wanted = read_graph(data), onnx.load_from_string(data).graph
    assert [one.op for one in found.nodes] == [one.op_type for one in wanted.node]
    assert [(one.inputs, one.outputs) for one in found.nodes] == [(tuple(n.input), tuple(n.output)) for n in wanted.node]
    assert {one.name: one.dims for one in found.inputs}["x"] == ("N", 5)
    assert found.opsets == {"": 13}
    reduce = next(one for one in found.nodes if one.op == "ReduceMax")
    assert reduce.attributes == {"axes": (1,), "keepdims": 0}


@pytest.mark.parametrize("packed", [True, False], ids=["raw bytes", "typed fields"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, [1.5, -2.25, 3e8]),
        (TensorProto.DOUBLE, [1.5, -2.25, 3e300]),
        (TensorProto.INT64, [1, -2, 2**62]),
        (TensorProto.INT32, [1, -2, 2**30]),
        (TensorProto.BOOL, [True, False, True]),
        (TensorProto.INT8, [1, -2, 127]),
    ],
)
def test_constants_of_every_type_are_read_bit_by_bit(kind: int, values: list[float], packed: bool) -> None:
    array = np.array(values, helper.tensor_dtype_to_np_dtype(kind))
    given = array.tobytes() if packed else values
    tensor = helper.make_tensor("c", kind, [3], given, raw=packed)
    held = read_graph(model_bytes([node("Identity", ["c"], ["raw"])], 3, [tensor])).tensors["c"]
    assert held == Tensor("c", kind, (3,), array.tobytes())


def test_constants_that_are_listed_as_inputs_as_in_old_files_are_none() -> None:
    constant = helper.make_tensor("c", FLOAT, [3], [1, 2, 3])
    model = onnx.load_from_string(model_bytes([node("Add", ["X", "c"], ["raw"])], 3, [constant]))
    model.graph.input.append(helper.make_tensor_value_info("c", FLOAT, [3]))
    assert [one.name for one in read_graph(model.SerializeToString()).inputs] == ["X"]


def test_remarks_of_exporters_are_no_reason_to_refuse() -> None:
    model = onnx.load_from_string(relu())
    model.doc_string, model.graph.doc_string, model.graph.node[0].doc_string = "made", "by", "hand"
    model.metadata_props.add(key="sha", value="1")
    model.graph.node[0].metadata_props.add(key="pkg", value="torch")
    check_graph(read_graph(model.SerializeToString()))


@pytest.mark.parametrize("cut", [1, 7, 40, -1, -9])
def test_a_cut_file_is_no_graph(cut: int) -> None:
    with pytest.raises((FormatError, RefusedError)):
        check_graph(read_graph(relu()[:cut]))


def test_what_a_classifier_looks_up_by_its_best_class_is_no_measured_place() -> None:
    classes = helper.make_tensor("classes", TensorProto.INT64, [3], [0, 1, 2])
    nodes = [
        node("ArgMax", ["X"], ["best"], axis=1, keepdims=0),
        node("Gather", ["classes", "best"], ["label"]),
        node("Cast", ["label"], ["raw"], to=FLOAT),
    ]
    graph = read_graph(model_bytes(nodes, 3, [classes]))
    check_graph(graph)
    assert operators_of(graph) == ("ArgMax", "Cast", "Gather")


def test_whole_numbers_may_be_divided_by_a_constant_that_is_not_zero() -> None:
    two = helper.make_tensor("two", TensorProto.INT64, [1], [2])
    nodes = [node("Cast", ["X"], ["i"], to=TensorProto.INT64), node("Div", ["i", "two"], ["d"])]
    nodes.append(node("Cast", ["d"], ["raw"], to=FLOAT))
    check_graph(read_graph(model_bytes(nodes, 3, [two])))
