"""A bounded reader of ONNX files from outside: bytes into plain frozen types, before any library of ONNX sees them.

It reads the wire form of protocol buffers itself, knows exactly the fields of the messages it may meet, and counts what it has
read: nothing is recursive, nothing is read that a named limit has not allowed. Subgraphs, functions, training parts, sparse and
external tensors are refused here, because nothing that follows needs them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core.errors import FormatError, RefusedError, TooLargeError
from pumpdeck_trainer.foreign_input import FOREIGN

OWN_OPSET = 13
GRAPH_MAX_BYTES = 16 * 1024 * 1024
NODES_MAX = 4096
TENSORS_MAX = 4096
NUMBERS_MAX = 4_000_000
FIELDS_MAX = 6_000_000
NAME_MAX = 512
RANK_MAX = 8

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, DOUBLE = 1, 2, 3, 6, 7, 8, 9, 11
ITEM_BYTES: Mapping[int, int] = {FLOAT: 4, UINT8: 1, INT8: 1, INT32: 4, INT64: 8, BOOL: 1, DOUBLE: 8}
"""Bytes of one number, by ONNX data type: the types that a graph may hold."""
TYPE_NAMES = {FLOAT: "float", DOUBLE: "double", STRING: "string", 10: "float16", 16: "bfloat16"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CODES = {INT32: "i", INT64: "q", UINT8: "B", INT8: "b", BOOL: "?"}
Field = tuple[int, int, int, bytes]
"""Number, wire type, whole number (of a varint) and bytes (of everything else)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant: its numbers little-endian, row by row."""

    name: str
    kind: int
    dims: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of the graph. dims: a number, a name, or empty where the file says nothing; None: no shape at all."""

    name: str
    kind: int
    dims: tuple[int | str, ...] | None


Attribute = float | int | bytes | Tensor | tuple[float, ...] | tuple[int, ...] | tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def kind(self) -> str:
        """The operator with its domain, as people write it."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything of an ONNX file that computes."""

    opsets: Mapping[str, int]
    producer: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def opset(self) -> int:
        """Of the standard operators."""
        return self.opsets[""]


@dataclass(slots=True)
class _Budget:
    what: str
    fields: int = FIELDS_MAX
    numbers: int = NUMBERS_MAX
    nodes: int = NODES_MAX
    tensors: int = TENSORS_MAX

    def spend(self, name: str, count: int = 1) -> None:
        left = getattr(self, name) - count
        if left < 0:
            limit = {"fields": FIELDS_MAX, "numbers": NUMBERS_MAX, "nodes": NODES_MAX, "tensors": TENSORS_MAX}[name]
            raise TooLargeError(f"holds too many {name}", self.what, expected=f"at most {limit}")
        setattr(self, name, left)


def graph_opset(model_type: str, onnx: bytes) -> int:
    """The version of the operators that a shipped graph needs: one for all of our own."""
    return _head(onnx, _Budget("model.onnx"))[0][""] if model_type == FOREIGN else OWN_OPSET


def read_graph(data: bytes, what: str = "model.onnx") -> Graph:
    """The graph of an ONNX file.

    Raises:
        TooLargeError: one of the limits above. FormatError: not an ONNX file, or cut.
        RefusedError: it holds something that an imported graph may not: subgraphs, functions, external data, strings.
    """
    if len(data) > GRAPH_MAX_BYTES:
        raise TooLargeError("is too large to be imported", what, expected=f"at most {GRAPH_MAX_BYTES} bytes", found=len(data))
    if not data:
        raise FormatError("is empty", what, expected="an ONNX file")
    budget = _Budget(what)
    return _graph(*_head(data, budget), budget)


def _head(data: bytes, budget: _Budget) -> tuple[dict[str, int], str, bytes]:
    """Versions of the operators, who wrote the file, and the graph's own bytes, unread."""
    what, opsets, producer = budget.what, dict[str, int](), ""
    graph: bytes | None = None
    for number, wire, _, body in _fields(data, budget):
        if number == 7 and wire == _BYTES:
            if graph is not None:
                raise FormatError("holds two graphs", what)
            graph = body
        elif number == 8 and wire == _BYTES:
            domain, version = _opset(body, budget)
            if opsets.get(domain, version) != version:
                raise FormatError("names two versions of one set of operators", what, found=repr(domain))
            opsets[domain] = version
        elif number == 2:
            producer = _text(body, budget)
        elif number in (20, 25):
            part = "training steps" if number == 20 else "functions of its own"
            raise RefusedError(f"holds {part}, which an imported graph may not", what, hint="export it for inference, inlined")
        else:
            _only(number, (1, 3, 4, 5, 6, 14), "model", budget)
    if graph is None or "" not in opsets:
        raise FormatError("is not an ONNX model", what, expected="a graph and the version of its operators")
    return opsets, producer, graph


def _graph(opsets: dict[str, int], producer: str, body: bytes, budget: _Budget) -> Graph:
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    ends: dict[int, list[Value]] = {11: [], 12: []}
    for number, wire, _, part in _fields(body, budget):
        if number == 1 and wire == _BYTES:
            budget.spend("nodes")
            nodes.append(_node(part, budget))
        elif number == 5 and wire == _BYTES:
            tensor = _tensor(part, budget)
            if not tensor.name or tensor.name in tensors:
                raise FormatError("holds a constant without a name of its own", budget.what, found=repr(tensor.name))
            tensors[tensor.name] = tensor
        elif number in ends and wire == _BYTES:
            ends[number].append(_value(part, budget))
        elif number == 15:
            raise RefusedError("holds sparse constants, which an imported graph may not", budget.what)
        else:
            _only(number, (2, 10, 13, 14, 16), "graph", budget)
    # Before version 4 of the file format every constant was listed as an input, too.
    inputs = tuple(one for one in ends[11] if one.name not in tensors)
    return Graph(opsets, producer, tuple(nodes), tensors, inputs, tuple(ends[12]))


def _node(body: bytes, budget: _Budget) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    told = {3: "", 4: "", 7: ""}
    attributes: list[bytes] = []
    for number, wire, _, part in _fields(body, budget):
        if number in (1, 2) and wire == _BYTES:
            (inputs if number == 1 else outputs).append(_text(part, budget))
        elif number in told and wire == _BYTES:
            told[number] = _text(part, budget)
        elif number == 5 and wire == _BYTES:
            attributes.append(part)
        else:
            _only(number, (6, 9), "node", budget)
    op, domain = told[4], "" if told[7] == "ai.onnx" else told[7]
    found: dict[str, Attribute] = {}
    for part in attributes:
        name, value = _attribute(part, op, budget)
        if name in found:
            raise FormatError("says one thing twice", f"{budget.what}: {op}", found=name)
        found[name] = value
    return Node(op, domain, told[3], tuple(inputs), tuple(outputs), found)


@dataclass(slots=True)
class _Raw:
    """The parts of an attribute as they are met."""

    name: str = ""
    kind: int = 0
    number: int = 0
    real: float = 0.0
    text: bytes = b""
    tensor: Tensor | None = None
    reals: list[float] = field(default_factory=list)
    wholes: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)


def _attribute(body: bytes, op: str, budget: _Budget) -> tuple[str, Attribute]:
    raw, which = _Raw(), f"{budget.what}: {op}"
    for number, wire, whole, part in _fields(body, budget):
        if number in (6, 11) and wire == _BYTES:
            hint = "loops, branches and scans have no bound that can be checked: export the model without them"
            raise RefusedError("holds a graph inside a node, which an imported graph may not", which, hint=hint)
        if number == 1 and wire == _BYTES:
            raw.name = _text(part, budget)
        elif number == 20:
            raw.kind = whole
        elif number == 2 and wire == _FIXED32:
            (raw.real,) = struct.unpack("<f", part)
        elif number == 3 and wire == _VARINT:
            raw.number = _signed(whole)
        elif number == 4 and wire == _BYTES:
            raw.text = _short(part, budget)
        elif number == 5 and wire == _BYTES:
            raw.tensor = _tensor(part, budget)
        elif number == 7:
            raw.reals += _floats(wire, part, budget)
        elif number == 8:
            raw.wholes += _wholes(wire, whole, part, budget)
        elif number == 9 and wire == _BYTES:
            budget.spend("numbers")
            raw.texts.append(_short(part, budget))
        else:
            _only(number, (13,), "attribute", budget)
    return raw.name, _chosen(raw, which)


def _chosen(raw: _Raw, which: str) -> Attribute:
    values: dict[int, Attribute | None] = {
        1: raw.real,
        2: raw.number,
        3: raw.text,
        4: raw.tensor,
        6: tuple(raw.reals),
        7: tuple(raw.wholes),
        8: tuple(raw.texts),
    }
    value = values.get(raw.kind)
    if value is None:
        raise FormatError("has a setting of a kind that an imported graph may not have", which, found=f"{raw.name}: {raw.kind}")
    return value


def _tensor(body: bytes, budget: _Budget) -> Tensor:
    budget.spend("tensors")
    dims: list[int] = []
    kind, name = 0, ""
    packed: bytes | None = None
    reals: dict[int, list[bytes]] = {4: [], 10: []}
    wholes: list[int] = []
    for number, wire, whole, part in _fields(body, budget):
        if number == 1:
            dims += _wholes(wire, whole, part, budget)
        elif number == 2 and wire == _VARINT:
            kind = whole
        elif number == 8 and wire == _BYTES:
            name = _text(part, budget)
        elif number == 9 and wire == _BYTES:
            packed = part
        elif number in reals:
            reals[number].append(part)
        elif number in (5, 7):
            wholes += _wholes(wire, whole, part, budget)
        elif number == 13 or (number == 14 and whole != 0):
            hint = "save it as one file, without external data"
            raise RefusedError("keeps numbers in another file", budget.what, found=name, hint=hint)
        else:
            _only(number, (12, 14, 16), "constant", budget)
    return _filled(Tensor(name, kind, tuple(dims), b""), packed, reals, wholes, budget)


def _filled(
    head: Tensor, packed: bytes | None, reals: Mapping[int, list[bytes]], wholes: list[int], budget: _Budget
) -> Tensor:
    which = f"{budget.what}: constant {head.name!r}"
    size = ITEM_BYTES.get(head.kind)
    if size is None:
        raise RefusedError("holds what is no number", which, found=TYPE_NAMES.get(head.kind, f"type {head.kind}"))
    if len(head.dims) > RANK_MAX or any(not 0 <= one <= NUMBERS_MAX for one in head.dims):
        raise FormatError("has a shape that makes no sense", which, found=head.dims[: RANK_MAX + 1])
    count = math.prod(head.dims)
    if count > NUMBERS_MAX:
        raise TooLargeError("holds too many numbers", which, expected=f"at most {NUMBERS_MAX}", found=count)
    budget.spend("numbers", count)
    if packed is not None:
        data = packed
    elif head.kind in (FLOAT, DOUBLE):
        data = b"".join(reals[4 if head.kind == FLOAT else 10])
    else:
        data = _pack(head.kind, wholes, which)
    if len(data) != count * size:
        raise FormatError("has not as many numbers as its shape says", which, expected=count, found=len(data) // size)
    return Tensor(head.name, head.kind, head.dims, data)


def _pack(kind: int, wholes: list[int], which: str) -> bytes:
    try:
        return struct.pack(f"<{len(wholes)}{_CODES[kind]}", *wholes)
    except struct.error as error:
        raise FormatError("holds a number that its type cannot hold", which) from error


def _value(body: bytes, budget: _Budget) -> Value:
    name, kind = "", 0
    dims: tuple[int | str, ...] | None = None
    for number, wire, _, part in _fields(body, budget):
        if number == 1 and wire == _BYTES:
            name = _text(part, budget)
        elif number == 2 and wire == _BYTES:
            for inner, _, _, kept in _fields(part, budget):
                if inner == 1:
                    kind, dims = _tensor_type(kept, budget)
        else:
            _only(number, (3, 4), "input or output", budget)
    return Value(name, kind, dims)


def _tensor_type(body: bytes, budget: _Budget) -> tuple[int, tuple[int | str, ...] | None]:
    kind = 0
    dims: tuple[int | str, ...] | None = None
    for number, _, whole, part in _fields(body, budget):
        if number == 1:
            kind = whole
        elif number == 2:
            dims = tuple(_dim(one, budget) for inner, _, _, one in _fields(part, budget) if inner == 1)
    if dims is not None and len(dims) > RANK_MAX:
        raise FormatError("has too many dimensions", budget.what, expected=f"at most {RANK_MAX}", found=len(dims))
    return kind, dims


def _dim(body: bytes, budget: _Budget) -> int | str:
    found: int | str = ""
    for number, wire, whole, part in _fields(body, budget):
        if number == 1 and wire == _VARINT:
            found = _signed(whole)
        elif number == 2 and wire == _BYTES:
            found = _text(part, budget)
    return found


def _opset(body: bytes, budget: _Budget) -> tuple[str, int]:
    domain, version = "", 0
    for number, wire, whole, part in _fields(body, budget):
        if number == 1 and wire == _BYTES:
            domain = _text(part, budget)
        elif number == 2:
            version = _signed(whole)
    return "" if domain == "ai.onnx" else domain, version


def _fields(body: bytes, budget: _Budget) -> Iterator[Field]:
    """The fields of one message, in order."""
    place, end = 0, len(body)
    while place < end:
        # Spelled out: a forest has a million of them, most of one byte each.
        budget.fields -= 1
        if budget.fields < 0:
            budget.spend("fields")
        key = body[place]
        place += 1
        if key >= 0x80:
            key, place = _varint(body, place - 1, budget)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            if place < end and body[place] < 0x80:
                whole, place = body[place], place + 1
            else:
                whole, place = _varint(body, place, budget)
            yield number, wire, whole, b""
            continue
        if wire == _BYTES:
            size, place = _varint(body, place, budget)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise FormatError("is not an ONNX file", budget.what, found=f"wire type {wire}")
        if number == 0 or size > end - place:
            raise FormatError("is cut short or is not an ONNX file", budget.what)
        yield number, wire, 0, body[place : place + size]
        place += size


def _varint(body: bytes, place: int, budget: _Budget) -> tuple[int, int]:
    value = shift = 0
    while place < len(body) and shift < 70:
        byte = body[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
    raise FormatError("is cut short or is not an ONNX file", budget.what)


def _signed(whole: int) -> int:
    return whole - (1 << 64) if whole >= 1 << 63 else whole


def _wholes(wire: int, whole: int, part: bytes, budget: _Budget) -> list[int]:
    """Whole numbers, one by one or packed."""
    if wire == _VARINT:
        budget.spend("numbers")
        return [_signed(whole)]
    if wire != _BYTES:
        raise FormatError("is not an ONNX file", budget.what, found=f"wire type {wire} for whole numbers")
    found, place = [], 0
    while place < len(part):
        budget.spend("numbers")
        value, place = _varint(part, place, budget)
        found.append(_signed(value))
    return found


def _floats(wire: int, part: bytes, budget: _Budget) -> list[float]:
    if wire not in (_FIXED32, _BYTES) or len(part) % 4:
        raise FormatError("is not an ONNX file", budget.what, found=f"wire type {wire} for numbers")
    budget.spend("numbers", len(part) // 4)
    return list(struct.unpack(f"<{len(part) // 4}f", part))


def _short(part: bytes, budget: _Budget) -> bytes:
    if len(part) > NAME_MAX:
        raise TooLargeError("holds a text that is too long", budget.what, expected=f"at most {NAME_MAX} bytes", found=len(part))
    return bytes(part)


def _text(part: bytes, budget: _Budget) -> str:
    try:
        text = _short(part, budget).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("holds a name that is not UTF-8", budget.what) from error
    if not text.isprintable():
        raise FormatError("holds a name that cannot be shown", budget.what, found=repr(text[:40]))
    return text


def _only(number: int, ignored: tuple[int, ...], of: str, budget: _Budget) -> None:
    """Refuse fields that are neither read nor known to be mere remarks."""
    if number not in ignored:
        raise FormatError(f"has a part of a {of} that this reader does not know", budget.what, found=f"field {number}")
