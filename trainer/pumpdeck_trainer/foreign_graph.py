"""An imported graph written anew: only what was checked, under names of our own, inside the inputs and outputs that devices know.

`inner` is the graph alone: `x` in, `raw` out (and `parts`). `wrapped` is what ships. Before the graph a missing value becomes the
pump's centre and one beyond 1,000 widths is cut; behind it the score is read as the spec says, and a score that is no number
becomes the highest one: a model that fails must not look like a pump that is well.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.numeric.detectors import SCORE_CAP
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import DOUBLE, FLOAT, Attribute, Graph, Node, Tensor, Value
from pumpdeck_trainer.foreign_rules import ML
from pumpdeck_trainer.foreign_trees import columns_of
from pumpdeck_trainer.graph import constant, whole
from pumpdeck_trainer.scorer import Z_CAP

_NODE = helper.make_node
_SAME_COLUMNS = frozenset({"Cast", "Identity", "Scaler", "Imputer", "Normalizer"})


@dataclass(frozen=True, slots=True)
class Ends:
    """Which tensors of a graph are used. kind: ONNX type of the input."""

    tensor: str
    kind: int
    output: str
    contributions: str


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """How a raw score becomes the score of a device: (raw - zero) * factor. rank, column: of the graph's answer."""

    zero: float
    factor: float
    rank: int
    column: int


def ends_of(graph: Graph, said: ForeignInput, channels: int, what: str) -> Ends:
    """The input and outputs that the spec names, or the only ones there are.

    Raises:
        RefusedError: no such tensor, or one of another shape or type than a row of channels.
    """
    named = {one.name: one for one in graph.inputs}
    if (not said.tensor and len(named) > 1) or (said.tensor and said.tensor not in named):
        hint = "name one with inputs.tensor; a graph with one input for each channel cannot be imported"
        raise RefusedError("has other inputs", what, expected=said.tensor or "one", found=", ".join(sorted(named)), hint=hint)
    taken = named[said.tensor or next(iter(named))]
    if len(named) > 1:
        raise RefusedError("asks for more than a row of channels", what, expected=taken.name, found=", ".join(sorted(named)))
    _check_input(taken, channels, what)
    outputs = [one.name for one in graph.outputs]
    for key, name in (("score.output", said.output), ("score.contributions", said.contributions)):
        if name and name not in outputs:
            raise RefusedError("has no such output", f"{what}: {key}", expected=", ".join(outputs), found=name)
    if not said.output and len(outputs) > 1:
        hint = "name the one with the score: output under [score] of the spec"
        raise RefusedError("has several outputs", what, found=", ".join(outputs), hint=hint)
    return Ends(taken.name, taken.kind, said.output or outputs[0], said.contributions)


def _check_input(taken: Value, channels: int, what: str) -> None:
    which = f"{what}: input {taken.name!r}"
    if taken.kind not in (FLOAT, DOUBLE):
        raise RefusedError("takes something else than numbers", which, expected="float or double", found=f"type {taken.kind}")
    dims = taken.dims
    if dims is None or len(dims) != 2:
        hint = "a device hands in rows of channels; what needs several rows at once cannot be imported"
        raise RefusedError("has another shape", which, expected=f"[rows, {channels}]", found=list(dims or ()), hint=hint)
    if isinstance(dims[0], int) and dims[0] > 0:
        hint = "export it with a free first dimension (dynamic_axes)"
        raise RefusedError("takes a fixed number of rows", which, expected="any", found=dims[0], hint=hint)
    if isinstance(dims[1], int) and dims[1] > 0 and dims[1] != channels:
        raise RefusedError("takes another number of channels than the spec names", which, expected=channels, found=dims[1])


def inner(graph: Graph, ends: Ends, channels: int) -> bytes:
    """The checked graph alone: `x` [N, C] in its own type, `raw` and, where it gives them, `parts`.

    Raises:
        RefusedError: a node reads columns that are not there.
    """
    writer = _Writer(graph, ends, channels)
    nodes, made = writer.nodes("x")
    nodes.append(_NODE("Cast", [made[ends.output]], ["raw"], to=DOUBLE))
    outputs = ["raw"]
    if ends.contributions:
        nodes.append(_NODE("Cast", [made[ends.contributions]], ["parts"], to=DOUBLE))
        outputs.append("parts")
    x = helper.make_tensor_value_info("x", ends.kind, ["N", channels])
    told = [helper.make_tensor_value_info(name, DOUBLE, None) for name in outputs]
    data: bytes = _model(graph, helper.make_graph(nodes, "foreign-inner", [x], told, writer.constants)).SerializeToString(
        deterministic=True
    )
    return data


def wrapped(graph: Graph, ends: Ends, channels: int, said: ForeignInput, score: ScoreMap) -> bytes:
    """The graph that ships, with the inputs and outputs of `export.py`.

    Raises:
        RefusedError: as `inner`, or the ONNX checker finds it wrong.
    """
    writer = _Writer(graph, ends, channels)
    nodes = _before(ends, said.in_widths)
    more, made = writer.nodes("row")
    nodes += [*more, *_after(made[ends.output], score), *_shares(made.get(ends.contributions, ""))]
    value = helper.make_tensor_value_info
    inputs = [value("x", FLOAT, ["N", channels])]
    inputs += [value(name, FLOAT, [channels]) for name in ("centre", "scale", "votes")]
    inputs.append(value("limit", FLOAT, [1]))
    outputs = [value("score", FLOAT, ["N"]), value("probability", FLOAT, ["N"]), value("contributions", FLOAT, ["N", channels])]
    own = [constant("reach", Z_CAP), constant("none", 0.0), constant("cap", SCORE_CAP)]
    own += [constant("zero", score.zero), constant("factor", score.factor)]
    own += [whole("column", score.column)] if score.rank == 2 else []
    made_graph = helper.make_graph(nodes, "foreign", inputs, outputs, [*own, *writer.constants])
    model = _model(graph, made_graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RefusedError(f"is not a valid graph ({' '.join(str(error).split())[:200]})", "model.onnx") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _before(ends: Ends, in_widths: bool) -> list[onnx.NodeProto]:
    """From `x` to `row`."""
    nodes = [
        _NODE("IsNaN", ["x"], ["missing"]),
        _NODE("Where", ["missing", "centre", "x"], ["there"]),
        _NODE("Mul", ["scale", "reach"], ["far"]),
        _NODE("Sub", ["centre", "far"], ["lowest"]),
        _NODE("Add", ["centre", "far"], ["highest"]),
        _NODE("Max", ["there", "lowest"], ["above"]),
        _NODE("Min", ["above", "highest"], ["within"]),
    ]
    last = "within"
    if in_widths:
        nodes += [_NODE("Sub", [last, "centre"], ["away"]), _NODE("Div", ["away", "scale"], ["widths"])]
        last = "widths"
    return [*nodes, _NODE("Cast", [last], ["row"], to=ends.kind)]


def _after(raw: str, score: ScoreMap) -> list[onnx.NodeProto]:
    """From the graph's answer to `score` and `probability`."""
    pick = _NODE("Gather", [raw, "column"], ["picked"], axis=1) if score.rank == 2 else _NODE("Identity", [raw], ["picked"])
    return [
        pick,
        _NODE("Cast", ["picked"], ["said"], to=TensorProto.FLOAT),
        _NODE("Sub", ["said", "zero"], ["beyond"]),
        _NODE("Mul", ["beyond", "factor"], ["steps"]),
        _NODE("IsNaN", ["steps"], ["failed"]),
        _NODE("Where", ["failed", "cap", "steps"], ["safe"]),
        _NODE("Max", ["safe", "none"], ["lifted"]),
        _NODE("Min", ["lifted", "cap"], ["score"]),
        _NODE("Add", ["score", "limit"], ["total"]),
        _NODE("Div", ["score", "total"], ["probability"]),
    ]


def _shares(parts: str) -> list[onnx.NodeProto]:
    """`contributions`: the graph's own, else how far each channel stands from the pump's centre in widths."""
    if parts:
        nodes = [_NODE("Cast", [parts], ["told"], to=TensorProto.FLOAT), _NODE("Abs", ["told"], ["size"])]
    else:
        nodes = [_NODE("Sub", ["x", "centre"], ["off"]), _NODE("Div", ["off", "scale"], ["ratio"])]
        nodes.append(_NODE("Abs", ["ratio"], ["size"]))
    return [
        *nodes,
        _NODE("IsNaN", ["size"], ["unknown"]),
        _NODE("Where", ["unknown", "none", "size"], ["known"]),
        _NODE("Min", ["known", "cap"], ["bounded"]),
        _NODE("Mul", ["bounded", "votes"], ["contributions"]),
    ]


class _Writer:
    """Writes the nodes that the wanted outputs need, each value under a short name of its own."""

    def __init__(self, graph: Graph, ends: Ends, channels: int) -> None:
        self._graph = graph
        self._ends = ends
        self._names: dict[str, str] = {"": ""}
        self._columns = {ends.tensor: channels}
        self.constants: list[onnx.TensorProto] = []

    def nodes(self, row: str) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """The nodes, fed by `row`, and the new name of each value."""
        self._names[self._ends.tensor] = row
        kept = self._needed()
        used = {name for node in kept for name in node.inputs} | {self._ends.output, self._ends.contributions}
        for name, tensor in self._graph.tensors.items():
            if name in used:
                self.constants.append(_tensor(tensor, self._name(name)))
        found: list[onnx.NodeProto] = []
        for node in kept:
            found += self._node(node)
        return found, self._names

    def _needed(self) -> list[Node]:
        wanted = {self._ends.output, self._ends.contributions} - {""}
        kept: list[Node] = []
        for node in reversed(self._graph.nodes):
            if wanted & set(node.outputs):
                kept.append(node)
                wanted |= set(node.inputs)
        return kept[::-1]

    def _name(self, name: str) -> str:
        if name not in self._names:
            self._names[name] = f"v{len(self._names)}"
        return self._names[name]

    def _node(self, node: Node) -> list[onnx.NodeProto]:
        inputs = [self._name(name) for name in node.inputs]
        outputs = [self._name(name) for name in node.outputs]
        self._follow_columns(node)
        guard = self._guard(node, inputs)
        proto = helper.make_node(node.op, inputs, outputs, domain=node.domain)
        proto.attribute.extend(
            _attribute(name, value) for name, value in sorted(node.attributes.items()) if value != ()
        )
        return [*guard, proto]

    def _guard(self, node: Node, inputs: list[str]) -> list[onnx.NodeProto]:
        """Where nothing says how many columns a node gets, those it reads are picked: the runtime checks that they exist."""
        wanted = columns_of(node) if node.domain == ML else 0
        if not wanted:
            return []
        have = self._columns.get(node.inputs[0])
        if have is not None and have < wanted:
            raise RefusedError("reads columns that its input has not", node.kind, expected=f"at most {have}", found=wanted)
        if have is not None:
            return []
        first, picked = f"{inputs[0]}_first{wanted}", f"{inputs[0]}_{len(self.constants)}"
        if all(one.name != first for one in self.constants):
            self.constants.append(whole(first, list(range(wanted))))
        guard = _NODE("Gather", [inputs[0], first], [picked], axis=1)
        inputs[0] = picked
        return [guard]

    def _follow_columns(self, node: Node) -> None:
        index = self._graph.tensors.get(node.inputs[1]) if node.op == "Gather" and len(node.inputs) == 2 else None
        if index is not None and len(index.dims) == 1 and node.attributes.get("axis", 0) == 1:
            self._columns[node.outputs[0]] = index.dims[0]
        elif node.op in _SAME_COLUMNS and node.inputs[0] in self._columns:
            self._columns[node.outputs[0]] = self._columns[node.inputs[0]]


def _tensor(tensor: Tensor, name: str) -> onnx.TensorProto:
    return helper.make_tensor(name, tensor.kind, tensor.dims, tensor.data, raw=True)


def _attribute(name: str, value: Attribute) -> onnx.AttributeProto:
    return helper.make_attribute(name, _tensor(value, "") if isinstance(value, Tensor) else value)


def _model(graph: Graph, made: onnx.GraphProto) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", graph.opset)]
    if any(node.domain == ML for node in made.node):
        opsets.append(helper.make_opsetid(ML, graph.opsets.get(ML, 1)))
    return helper.make_model(made, opset_imports=opsets, ir_version=_ir_version(graph.opset), producer_name="pumpdeck")


def _ir_version(opset: int) -> int:
    """The oldest version of the file format that may hold these operators, and 7 at least, as our own graphs."""
    return 7 if opset < 15 else 8 if opset < 19 else 9 if opset < 21 else 10
