"""Hostile ONNX files at the import: refused with a sentence, nothing registered. Each docstring names the attack."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_console import wiring
from pumpdeck_console.operations.importing import import_model
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import DamagedError, FormatError, InputError, RefusedError, TooLargeError
from pumpdeck_trainer import foreign_reader
from pumpdeck_trainer.foreign_graph import ends_of, inner
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_rules import check_graph
from pumpdeck_trainer.foreign_trial import TrialLimits, try_graph
from support.foreign_models import FLOAT, distance_model, model_bytes, pump_type_of, write_import
from support.seeded_workspace import seeded_workspace
from support.small_fleet import NOW_MS

C = 4
INT = TensorProto.INT64
SAID = ForeignInput("a", "b", "c", "d")
TAIL = node("ReduceMax", ["X"], ["raw"], axes=[1], keepdims=0)


def refused(data: bytes, words: str, kind: type[Exception] = RefusedError, said: ForeignInput = SAID) -> None:
    """The file is refused before any library of ONNX has seen it."""
    with pytest.raises(kind, match=words):
        checked(data, said)


def checked(data: bytes, said: ForeignInput = SAID) -> bytes:
    graph = read_graph(data)
    check_graph(graph)
    return inner(graph, ends_of(graph, said, C, "model.onnx"), C)


def tried(data: bytes, words: str, limits: TrialLimits | None = None) -> None:
    """The file passes the rules and is refused by its trial in a process of its own."""
    rows = np.random.default_rng(1).standard_normal((40, C)).astype(np.float32)
    with pytest.raises(RefusedError, match=words):
        try_graph(checked(data), rows, limits)


def whole(name: str, values: list[int], dims: list[int] | None = None) -> Any:
    return helper.make_tensor(name, INT, [len(values)] if dims is None else dims, values)


def edited(change: Callable[[Any], None]) -> bytes:
    """An honest file, changed."""
    model = onnx.load_from_string(model_bytes([TAIL], C))
    change(model)
    data: bytes = model.SerializeToString()
    return data


def body() -> Any:
    info = helper.make_tensor_value_info
    return helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Identity", ["was"], ["is"])],
        "body",
        [info("i", INT, []), info("on", TensorProto.BOOL, []), info("was", FLOAT, None)],
        [info("still", TensorProto.BOOL, []), info("is", FLOAT, None)],
    )


def test_an_endless_loop_is_refused() -> None:
    """A loop that never ends."""
    constants = [whole("trips", [2**62], []), helper.make_tensor("yes", TensorProto.BOOL, [], [True])]
    refused(model_bytes([node("Loop", ["trips", "yes", "X"], ["raw"], body=body())], C, constants), "Loop: holds a graph")


def test_a_branch_with_a_hidden_side_is_refused() -> None:
    """A side that no trial enters."""
    data = model_bytes([node("If", ["X"], ["raw"], then_branch=body(), else_branch=body())], C)
    refused(data, "If: holds a graph inside a node")


def test_functions_that_call_each_other_are_refused() -> None:
    """A billion laughs of model functions."""
    function = helper.make_function("mine", "Boom", ["a"], ["b"], [node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 13)])
    refused(edited(lambda model: model.functions.append(function)), "functions of its own")


def test_an_operator_from_another_library_is_refused() -> None:
    """Custom code by the name of an operator."""
    data = model_bytes([node("Attack", ["X"], ["raw"], domain="com.example")], C)
    refused(data, "may not; found com.example.Attack")


def test_an_operator_of_the_runtime_itself_is_refused() -> None:
    """The runtime's own domain holds operators that nobody looked at."""
    refused(model_bytes([node("FusedGemm", ["X", "X"], ["raw"], domain="com.microsoft")], C), "com.microsoft.FusedGemm")


def test_random_scores_are_refused() -> None:
    """Dice: a score that nobody can check."""
    refused(model_bytes([node("RandomNormalLike", ["X"], ["raw"])], C), "RandomNormalLike")


def test_numbers_in_another_file_are_refused() -> None:
    """External data: a path of the attacker's choice is read."""

    def outside(model: Any) -> None:
        tensor = model.graph.initializer.add(name="w", data_type=FLOAT, dims=[C])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../etc/passwd")

    refused(edited(outside), "keeps numbers in another file")


def test_external_data_in_an_attribute_is_refused() -> None:
    """The same one level down, in the value of a constant node."""
    tensor = TensorProto(data_type=FLOAT, dims=[C])
    tensor.external_data.add(key="location", value="C:\\secrets")
    refused(model_bytes([node("Constant", [], ["w"], value=tensor), TAIL], C), "keeps numbers in another file")


def test_a_file_beyond_the_limit_is_not_read() -> None:
    """A file larger than anything that could run on a device."""
    refused(b"\x08\x07" + b"\x00" * foreign_reader.GRAPH_MAX_BYTES, "too large", TooLargeError)


def test_a_constant_that_promises_more_than_it_holds_is_refused() -> None:
    """A shape of 4e18 numbers over no bytes: an allocation bomb in one line."""

    def bomb(model: Any) -> None:
        model.graph.initializer.add(name="w", data_type=FLOAT, dims=[2**31, 2**31])

    refused(edited(bomb), "shape that makes no sense", FormatError)


def test_constants_that_are_too_many_numbers_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shapes below the limit, above it together."""
    monkeypatch.setattr(foreign_reader, "NUMBERS_MAX", 1000)
    monkeypatch.setattr(foreign_reader._Budget, "__init__", _small_budget)
    tensors = [helper.make_tensor(f"w{number}", FLOAT, [300], [0.0] * 300) for number in range(4)]
    refused(model_bytes([TAIL], C, tensors), "too many numbers", TooLargeError)


def _small_budget(self: Any, what: str) -> None:
    self.what, self.fields, self.numbers, self.nodes, self.tensors = what, 100_000, 1000, 100, 100


def test_a_hundred_thousand_nodes_are_refused() -> None:
    """A graph that the runtime would optimise for hours."""
    nodes = [node("Identity", ["X" if not n else f"v{n - 1}"], [f"v{n}"]) for n in range(foreign_reader.NODES_MAX + 1)]
    refused(model_bytes(nodes, C), "too many nodes", TooLargeError)


def test_a_field_of_another_message_is_refused() -> None:
    """Bytes that one reader takes for a remark and another for a part."""
    refused(model_bytes([TAIL], C) + b"\xfa\x3e\x01x", "does not know", FormatError)


def test_two_graphs_in_one_file_are_refused() -> None:
    """One reader takes the first graph, another merges them."""
    refused(model_bytes([TAIL], C) * 2, "two graphs", FormatError)


def test_a_packed_number_without_end_is_refused() -> None:
    """A varint of continuation bytes only."""
    refused(b"\x3a" + b"\xff" * 4000, "cut short", FormatError)


def test_memory_by_measured_values_is_refused() -> None:
    """A value of ten thousand asks for gigabytes on the one bad day."""
    nodes = [
        node("ReduceMax", ["X"], ["m"], axes=[0, 1], keepdims=0),
        node("Cast", ["m"], ["i"], to=INT),
        node("Reshape", ["i", "one"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["big"]),
        node("ReduceSum", ["big"], ["s"], keepdims=0),
        node("ReduceMax", ["X"], ["r"], axes=[1], keepdims=0),
        node("Add", ["r", "s"], ["raw"]),
    ]
    refused(model_bytes(nodes, C, [whole("one", [1])]), "size of a value depend on what was measured")


def test_a_shape_from_an_argmax_is_measured_too() -> None:
    """The same through a place: bounded, but still by the row."""
    nodes = [node("ArgMax", ["X"], ["p"], axis=1, keepdims=0), node("Expand", ["X", "p"], ["raw"])]
    refused(model_bytes(nodes, C), "size of a value depend on what was measured")


def test_a_whole_number_division_that_ends_the_process_is_refused() -> None:
    """Zero, or the smallest number by minus one: the processor ends the scoring process."""
    for divisor in (0, -1):
        nodes = [node("Cast", ["X"], ["i"], to=INT), node("Div", ["i", "d"], ["q"]), node("Cast", ["q"], ["raw"], to=FLOAT)]
        refused(model_bytes(nodes, C, [whole("d", [divisor])]), "divides whole numbers")
    nodes = [node("Cast", ["X"], ["i"], to=INT), node("Mod", ["i", "i"], ["q"]), node("Cast", ["q"], ["raw"], to=FLOAT)]
    refused(model_bytes(nodes, C), "divides whole numbers")


def test_a_place_that_was_measured_is_refused() -> None:
    """An index beyond the end, for the rows that no trial holds."""
    nodes = [node("Cast", ["X"], ["i"], to=INT), node("Gather", ["table", "i"], ["raw"])]
    refused(model_bytes(nodes, C, [helper.make_tensor("table", FLOAT, [3], [1, 2, 3])]), "looks up a place that was measured")


def forest(**change: Any) -> bytes:
    """A regressor of one tree with two leaves."""
    parts: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": [b"BRANCH_LEQ", b"LEAF", b"LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        **change,
    }
    nodes = [node("TreeEnsembleRegressor", ["X"], ["raw"], domain="ai.onnx.ml", **parts)]
    return model_bytes(nodes, C, ml=3)


def test_the_honest_forest_is_taken() -> None:
    """What the attacks below start from is good."""
    rows = np.array([[0.0] * C, [1.0] * C], np.float32)
    assert try_graph(checked(forest()), np.tile(rows, (10, 1))).raw[:2, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {
                "nodes_modes": [b"BRANCH_LEQ", b"BRANCH_LEQ", b"LEAF"],
                "nodes_truenodeids": [1, 0, 0],
                "nodes_falsenodeids": [2, 2, 0],
            },
            "circle",
        ),
        ({"nodes_falsenodeids": [9, 0, 0]}, "leads nowhere"),
        ({"nodes_falsenodeids": [1, 0, 0]}, "circle or a knot"),
        ({"nodes_featureids": [7, 0, 0]}, "reads columns that its input has not"),
        ({"nodes_featureids": [-1, 0, 0]}, "column below the first"),
        ({"target_ids": [0, 5]}, "an answer beyond the last"),
        ({"target_nodeids": [1, 9]}, "a leaf that is no node"),
        ({"nodes_values": [0.5]}, "one entry a node"),
        ({"n_targets": 2**40}, "number of answers"),
        ({"nodes_nodeids": [0, 1, 1]}, "two nodes of one name"),
    ],
    ids=["a circle", "a branch to nowhere", "a knot", "a column too far", "a column before the first", "an answer too far",
         "a leaf that is none", "lists of other lengths", "too many answers", "twin nodes"],
)  # fmt: skip
def test_a_forest_with(change: dict[str, Any], words: str) -> None:
    """Trees that score for ever or read beyond their lists."""
    refused(forest(**change), words)


def test_support_vectors_that_do_not_fit_are_refused() -> None:
    """A list shorter than its length says: memory behind it is read."""
    parts = {"kernel_type": b"RBF", "kernel_params": [0.1, 0.0, 3.0], "n_supports": 100, "support_vectors": [0.0] * 100 * C,
             "coefficients": [1.0], "rho": [0.0]}  # fmt: skip
    refused(model_bytes([node("SVMRegressor", ["X"], ["raw"], domain="ai.onnx.ml", **parts)], C, ml=1), "coefficients, rho")


def test_coefficients_of_more_columns_than_there_are_refused() -> None:
    """A linear model over columns that no row has."""
    data = model_bytes(
        [node("LinearRegressor", ["X"], ["raw"], domain="ai.onnx.ml", coefficients=[1.0] * 3 * C, intercepts=[0.0])], C, ml=1
    )
    refused(data, "reads columns that its input has not")


def test_strings_are_refused() -> None:
    """Labels as text, which no device reads."""
    parts = {"classlabels_strings": [b"a", b"b"], "coefficients": [1.0] * 2 * C, "intercepts": [0.0, 0.0]}
    data = model_bytes([node("LinearClassifier", ["X"], ["l", "raw"], domain="ai.onnx.ml", **parts)], C, ml=1)
    refused(data, "works on strings")


def test_a_fixed_batch_is_refused() -> None:
    """A graph that works for one row and fails when the device catches up."""
    refused(model_bytes([TAIL], C, rows=1), "fixed number of rows")


def test_a_value_that_nothing_computes_is_refused() -> None:
    """A name that the runtime might find elsewhere."""
    refused(model_bytes([node("Relu", ["ghost"], ["raw"])], C), "nothing before it computes", FormatError)


def test_a_name_that_speaks_to_the_terminal_is_refused() -> None:
    """Escape sequences in the name of a tensor."""
    refused(model_bytes([node("Relu", ["X"], ["\x1b[2J"])], C, outputs=["\x1b[2J"]), "cannot be shown", FormatError)


def test_an_unknown_version_of_the_operators_is_refused() -> None:
    """Operators that change their meaning behind the reader's back."""
    refused(model_bytes([TAIL], C, opset=99), "version of the operators")


def test_ten_gigabytes_are_not_given() -> None:
    """A graph whose size depends on the number of rows alone, and is huge."""
    nodes = [
        node("Shape", ["X"], ["shape"]),
        node("Mul", ["shape", "huge"], ["wide"]),
        node("ConstantOfShape", ["wide"], ["big"], value=helper.make_tensor("v", FLOAT, [1], [1.0])),
        node("ReduceMax", ["big"], ["s"], axes=[0, 1], keepdims=0),
        node("ReduceMax", ["X"], ["m"], axes=[1], keepdims=0),
        node("Add", ["m", "s"], ["raw"]),
    ]
    tried(model_bytes(nodes, C, [whole("huge", [20_000, 40_000])]), "memory|bad_alloc|allocate")


def test_a_constant_of_ten_gigabytes_is_not_folded() -> None:
    """The bomb goes off while the graph is loaded."""
    nodes = [node("ConstantOfShape", ["shape"], ["big"]), node("ReduceSum", ["big"], ["s"], keepdims=0)]
    nodes.append(node("Add", ["X", "s"], ["raw"]))
    tried(model_bytes(nodes, C, [whole("shape", [50_000, 50_000])]), "memory|bad_alloc|allocate|Failed")


def test_a_graph_that_works_for_minutes_is_ended() -> None:
    """Multiplications without end in sight; the parent ends the child."""
    nodes = [
        node("ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", FLOAT, [1], [1e-4])),
        node("ReduceMax", ["X"], ["top"], axes=[0, 1], keepdims=0),
        node("Add", ["ones", "top"], ["m0"]),
    ]
    nodes += [node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(2000)]
    nodes += [node("ReduceMax", ["m2000"], ["s"], axes=[0, 1], keepdims=0), node("Add", ["X", "s"], ["raw"])]
    limits = TrialLimits(wall_s=4.0)
    tried(model_bytes(nodes, C, [whole("shape", [1500, 1500])]), "did not end its trial in time", limits)


def test_a_slow_graph_is_refused() -> None:
    """It ends, but no device could wait for it."""
    tried(model_bytes([TAIL], C), "is too slow", TrialLimits(row_us=0.001))


def test_a_row_that_depends_on_its_neighbours_is_refused() -> None:
    """A mean over the batch: right in the trial of many rows, wrong on a device that scores one by one."""
    nodes = [node("ReduceMean", ["X"], ["m"], axes=[0], keepdims=1), node("Sub", ["X", "m"], ["d"]),
             node("ReduceMax", ["d"], ["raw"], axes=[1], keepdims=0)]  # fmt: skip
    tried(model_bytes(nodes, C), "differently among others")


def test_answers_of_another_shape_are_refused() -> None:
    """One score for all rows."""
    tried(model_bytes([node("ReduceMax", ["X"], ["raw"], axes=[0, 1], keepdims=0)], C), "another shape")


def test_a_graph_that_the_runtime_refuses_is_refused_with_its_words() -> None:
    """Types that do not go together."""
    tried(model_bytes([node("And", ["X", "X"], ["raw"])], C), "ONNX Runtime does not run it")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
        made = seeded_workspace(tmp_path_factory.mktemp("attack") / "workspace")
        yield made
        made.close()


class _Trap:
    """Runs a program when somebody unpickles it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._path, "w"))


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.onnx", "model.skops"])
def test_a_pickle_is_never_opened(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """A pickle that runs a program, under its own name and under that of an ONNX file."""
    kind, trap = pump_type_of(workspace), tmp_path / "sprung"
    args = write_import(tmp_path / "in", kind, distance_model(kind))
    path = tmp_path / "in" / name
    path.write_bytes(pickle.dumps(_Trap(str(trap))))
    before = workspace.store.registry.models()
    with pytest.raises(RefusedError, match=r"can run any program inside it.*foreign\.export"):
        import_model(workspace, **{**args, "file": str(path)})
    assert not trap.exists()
    assert workspace.store.registry.models() == before


def test_a_hostile_file_leaves_nothing_behind(workspace: Workspace, tmp_path: Path) -> None:
    """Refused means unchanged: no version, no artifact, no run."""
    kind = pump_type_of(workspace)
    args = write_import(tmp_path / "in", kind, model_bytes([node("RandomNormalLike", ["X"], ["raw"])], len(kind.channels)))
    before = _state(workspace)
    with pytest.raises(RefusedError, match="RandomNormalLike"):
        import_model(workspace, **args)
    assert _state(workspace) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a,b\n1,2\n", "other columns"),
        (b"", "other columns"),
        (b"\xff\xfe\x00", "not CSV in UTF-8"),
        (b'"', "CSV|columns"),
    ],
)
def test_a_reference_that_is_none_is_refused(workspace: Workspace, tmp_path: Path, text: bytes, words: str) -> None:
    """A table that proves nothing."""
    kind = pump_type_of(workspace)
    args = write_import(tmp_path / "in", kind, distance_model(kind))
    Path(args["reference"]).write_bytes(text or b"\n")
    with pytest.raises((InputError, DamagedError), match=words):
        import_model(workspace, **args)


def _state(workspace: Workspace) -> tuple[object, ...]:
    files = sorted(path.name for path in workspace.artifacts_path.rglob("*")) if workspace.artifacts_path.exists() else []
    return workspace.store.registry.models(), files
