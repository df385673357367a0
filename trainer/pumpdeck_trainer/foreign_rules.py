"""What an imported graph may compute: known operators, no loops, sizes that depend on the number of rows and on nothing measured.

With these rules the time and the memory of a graph are the same for every row: what a trial run has shown holds for all rows that
a device will ever meet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core.errors import FormatError, RefusedError
from pumpdeck_trainer.foreign_reader import BOOL, DOUBLE, FLOAT, INT64, ITEM_BYTES, TYPE_NAMES, Graph, Node, Tensor
from pumpdeck_trainer.foreign_trees import check_ml_node

ML = "ai.onnx.ml"
LEAST_OPSET, MOST_OPSET, MOST_ML_OPSET = 9, 21, 3

_STANDARD = """
Abs Acos Add And ArgMax ArgMin Asin Atan BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Cos Div Dropout
Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mod Mul Neg Not Or PRelu Pow Reciprocal ReduceL1
ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu
Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
Unsqueeze Where Xor
"""
_LEARNED = """
ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor Normalizer SVMClassifier
SVMRegressor Scaler TreeEnsembleClassifier TreeEnsembleRegressor
"""
OPERATORS: Mapping[str, frozenset[str]] = {"": frozenset(_STANDARD.split()), ML: frozenset(_LEARNED.split())}

_SIZED_BY: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that say how large an answer is."""
_COMPARES = frozenset(["And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"])
_FINDS = frozenset({"ArgMax", "ArgMin", "TopK"})
"""Operators that answer with places: within bounds, whatever was measured."""
_KEEPS_PLACES = frozenset(["Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat"])
_INT_CODES = {2: "B", 3: "b", 6: "i", 7: "q"}
_HINTS = {
    "ZipMap": "export the classifier with the option zipmap=False",
    "Scan": "nearest neighbours cannot be imported; distances to a few centres can",
    "Loop": "unroll it, or leave it out",
    "If": "compute both sides and choose with Where",
    "CDist": "nearest neighbours cannot be imported; distances to a few centres can",
}


@dataclass
class _Known:
    """What is known of the values so far: their ONNX types, which of them come from measured rows, and which are places."""

    graph: Graph
    what: str
    types: dict[str, int] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)


def check_graph(graph: Graph, what: str = "model.onnx") -> None:
    """Every rule, in the order of the file.

    Raises:
        RefusedError: the sentence names the operator or value. FormatError: it is no graph: a name without a value, or two.
    """
    _check_opsets(graph, what)
    names = [one.name for one in graph.inputs]
    if not names or len(set(names)) != len(names) or "" in names:
        raise FormatError("has no input, or two of one name", what)
    known = _Known(graph, what, {one.name: one.kind for one in graph.inputs}, set(names))
    for tensor in graph.tensors.values():
        _check_tensor(tensor, what)
        known.types[tensor.name] = tensor.kind
    for node in graph.nodes:
        _check_node(node, known)
        _check_sizes(node, known)
        _check_wholes(node, known)
        _follow(node, known)
    lacking = [one.name for one in graph.outputs if one.name not in known.types]
    if lacking or not graph.outputs:
        raise FormatError("has no output, or one that nothing computes", what, found=", ".join(lacking[:3]))


def _follow(node: Node, known: _Known) -> None:
    """Note what a node's answers are."""
    made = [name for name in node.outputs if name]
    known.types |= {name: _type_of(node, place, known) for place, name in enumerate(node.outputs) if name}
    came = {name for name in node.inputs if name}
    if node.op == "Shape" or not came & known.measured:
        return
    known.measured |= set(made)
    if node.op in _FINDS or (node.op in _KEEPS_PLACES and came & known.measured <= known.places):
        known.places |= set(node.outputs[-1:])


def _type_of(node: Node, place: int, known: _Known) -> int:
    """ONNX type of a node's answer."""
    if node.domain == ML:
        if node.op == "ArrayFeatureExtractor":
            return known.types[node.inputs[0]]
        if node.op == "LabelEncoder":
            return INT64 if node.attributes.get("values_int64s") else FLOAT
        return INT64 if node.op.endswith("Classifier") and place == 0 else FLOAT
    if node.op == "Cast":
        return _whole(node, "to")
    if node.op in _COMPARES:
        return BOOL
    if node.op in ("Shape", "ArgMax", "ArgMin") or (node.op == "TopK" and place == 1):
        return INT64
    if node.op in ("Constant", "ConstantOfShape"):
        value = node.attributes.get("value")
        return value.kind if isinstance(value, Tensor) else FLOAT
    taken = node.inputs[1 if node.op == "Where" else 0]
    return known.types[taken]


def operators_of(graph: Graph) -> tuple[str, ...]:
    """The operators that a graph uses, sorted."""
    return tuple(sorted({node.kind for node in graph.nodes}))


def _check_opsets(graph: Graph, what: str) -> None:
    if not LEAST_OPSET <= graph.opset <= MOST_OPSET:
        expected = f"{LEAST_OPSET} to {MOST_OPSET}"
        raise RefusedError("uses a version of the operators that is not known here", what, expected=expected, found=graph.opset)
    found = graph.opsets.get(ML, 1)
    if not 1 <= found <= MOST_ML_OPSET:
        hint = f"export it with target_opset={{'': 13, '{ML}': {MOST_ML_OPSET}}}"
        raise RefusedError(f"uses a version of {ML} that is not known here", what, expected="1 to 3", found=found, hint=hint)


def _check_tensor(tensor: Tensor, what: str) -> None:
    if tensor.kind not in ITEM_BYTES:
        raise RefusedError("holds what is no number", f"{what}: {tensor.name!r}", found=TYPE_NAMES.get(tensor.kind, tensor.kind))


def _check_node(node: Node, known: _Known) -> None:
    which = f"{known.what}: {node.kind}"
    if node.op not in OPERATORS.get(node.domain, frozenset()):
        hint = _HINTS.get(node.op, "docs/models.md lists what an imported graph may compute")
        raise RefusedError("uses an operator that an imported graph may not", known.what, found=node.kind, hint=hint)
    for name in node.inputs:
        if name and name not in known.types:
            raise FormatError("takes what nothing before it computes", which, found=repr(name))
    made = [name for name in node.outputs if name]
    if not made or len(set(made)) != len(made) or set(known.types) & set(made):
        raise FormatError("gives a value that is there already", which, found=", ".join(made[:3]))
    if not any(node.inputs) and node.op != "Constant":
        raise FormatError("takes nothing", which)
    _check_attributes(node, which)
    if node.domain == ML:
        check_ml_node(node, which)


def _check_attributes(node: Node, which: str) -> None:
    if node.op == "Cast" and node.attributes.get("to") not in ITEM_BYTES:
        found = TYPE_NAMES.get(_whole(node, "to"), f"type {_whole(node, 'to')}")
        raise RefusedError("makes something else than numbers", which, found=found)
    if node.op == "BatchNormalization" and _whole(node, "training_mode"):
        raise RefusedError("goes on learning while it scores", which, hint="export it for inference")
    if node.op == "Dropout" and len(node.inputs) > 2:
        raise RefusedError("throws dice while it scores", which, hint="export it for inference")
    for name, value in node.attributes.items():
        if isinstance(value, Tensor) and value.kind not in ITEM_BYTES:
            raise RefusedError("holds what is no number", which, found=name)


def _whole(node: Node, name: str) -> int:
    found = node.attributes.get(name, 0)
    return found if isinstance(found, int) else 0


def _check_sizes(node: Node, known: _Known) -> None:
    for name in _sizing(node):
        if name in known.measured:
            raise RefusedError(
                "makes the size of a value depend on what was measured",
                f"{known.what}: {node.kind}",
                found=name,
                hint="such a graph takes more memory on a bad day than in any trial",
            )


def _check_wholes(node: Node, known: _Known) -> None:
    """Arithmetic that ends the process for some rows: whole numbers divided by what was measured, places out of bounds."""
    which = f"{known.what}: {node.kind}"
    if node.op in ("Div", "Mod") and len(node.inputs) == 2:
        kind, divisor = known.types[node.inputs[0]], known.graph.tensors.get(node.inputs[1])
        if kind not in (FLOAT, DOUBLE) and (divisor is None or not _is_harmless(divisor)):
            hint = "cast to float first"
            raise RefusedError("divides whole numbers by what may be zero", which, found=node.inputs[1], hint=hint)
    index = node.inputs[1] if node.op in ("Gather", "ArrayFeatureExtractor") and len(node.inputs) == 2 else ""
    if index in known.measured and index not in known.places:
        raise RefusedError("looks up a place that was measured: it may lie beyond the end", which, found=index)


def _is_harmless(divisor: Tensor) -> bool:
    code = _INT_CODES.get(divisor.kind)
    if code is None:
        return False
    values = struct.unpack(f"<{len(divisor.data) // struct.calcsize(code)}{code}", divisor.data)
    # The smallest whole number divided by -1 overflows, which ends the process as surely as a zero.
    return not {0, -1} & set(values)


def _sizing(node: Node) -> Iterable[str]:
    places = _SIZED_BY.get(node.op, ()) if not node.domain else ()
    return (node.inputs[place] for place in places if place < len(node.inputs) and node.inputs[place])
