"""The doors of an import: ONNX files, the spec and the reference beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_fleet.services.inventory_file import parse_fleet
from pumpdeck_fleet.services.toml_file import read_toml
from pumpdeck_trainer.export import maxz_onnx
from pumpdeck_trainer.foreign_graph import ends_of, inner
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_reference import parse_reference
from pumpdeck_trainer.foreign_rules import check_graph
from pumpdeck_trainer.foreign_spec import parse_foreign
from pumpdeck_trainer.spec import default_pipeline
from support.foreign_models import FLOAT, model_bytes
from support.fuzz_samples import DOCS
from support.fuzz_targets import Target, bytes_maker, text_of

_SAID = ForeignInput("a", "b", "c", "d", output="raw")
_COLUMNS = ("a", "b", "c")


def tree_model(**change: Any) -> bytes:
    """A regressor of one tree over three columns."""
    parts: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [1, 0, 0],
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
    return model_bytes([node("TreeEnsembleRegressor", ["X"], ["raw"], domain="ai.onnx.ml", **parts)], 3, ml=3)


def linear_model() -> bytes:
    """Scaled, weighed, squashed: constants of several kinds, one of them in a node."""
    weights = helper.make_tensor("w", FLOAT, [3, 1], [0.1, 0.2, 0.3])
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
    nodes = [
        node("Constant", [], ["k"], value=helper.make_tensor("v", FLOAT, [3], [1.0, 2.0, 3.0])),
        node("Mul", ["X", "k"], ["m"]),
        node("MatMul", ["m", "w"], ["y"]),
        node("Sigmoid", ["y"], ["s"]),
        node("Reshape", ["s", "shape"], ["raw"]),
    ]
    return model_bytes(nodes, 3, [weights, shape])


def example_kind(folder: Path) -> PumpType:
    """The pump type of the examples in `docs/`."""
    maker = folder / "foreign" / "northfield.toml"
    maker.parent.mkdir(exist_ok=True)
    maker.write_bytes((DOCS / "maker.example.toml").read_bytes())
    return parse_fleet(read_toml(DOCS / "fleet.example.toml"), [read_toml(maker)]).pump_types["esp"]


def foreign_doors(folder: Path) -> list[Target]:
    """What comes in with `models import`; nothing here is loaded by a runtime."""
    kind = example_kind(folder)
    base = default_pipeline(kind)
    graphs = [tree_model(), linear_model(), maxz_onnx(3)]
    spec = (DOCS / "foreign.example.toml").read_bytes()
    rows = "\n".join(["a,b,c,score", *(f"{n}.5,{n},-1e3,{n / 7!r}" for n in range(25))]).encode()

    def checked(data: bytes) -> object:
        graph = read_graph(data)
        check_graph(graph)
        return graph

    def written(data: bytes) -> object:
        graph = read_graph(data)
        check_graph(graph)
        return inner(graph, ends_of(graph, _SAID, 3, "model.onnx"), 3)

    return [
        Target("onnx file", checked, bytes_maker(graphs), 0.5),
        Target("onnx file, written anew", written, bytes_maker(graphs[:2]), 0.3),
        Target("foreign spec", lambda data: parse_foreign(text_of(data), kind, base, "spec.toml"), bytes_maker([spec]), 0.1),
        Target("reference csv", lambda data: parse_reference(data, _COLUMNS, "reference.csv"), bytes_maker([rows]), 0.3),
    ]
