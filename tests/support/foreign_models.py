"""Files as they come from outside: graphs of skl2onnx and hand-made ones, their specs and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_trainer.foreign_reference import write_reference
from support.trained_workspace import kind_of

FLOAT = TensorProto.FLOAT


def model_bytes(
    nodes: Sequence[Any],
    channels: int,
    constants: Sequence[Any] = (),
    *,
    outputs: Sequence[str] = ("raw",),
    opset: int = 13,
    ml: int = 0,
    rows: Any = "N",
    kind: int = FLOAT,
) -> bytes:
    """An ONNX file with one input `X`."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes), "made elsewhere", [info("X", kind, [rows, channels])], [info(name, FLOAT, None) for name in outputs],
        list(constants),
    )  # fmt: skip
    sets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", ml)] if ml else [])
    data: bytes = helper.make_model(graph, opset_imports=sets, ir_version=7, producer_name="elsewhere").SerializeToString()
    return data


def distance_model(kind: PumpType) -> bytes:
    """Distance from the middle of every channel's range in hundredths of it, all channels together: higher is worse."""
    middle = [(one.low + one.high) / 2 for one in kind.channels]
    width = [(one.high - one.low) / 100 for one in kind.channels]
    count = len(middle)
    nodes = [
        node("Sub", ["X", "middle"], ["away"]),
        node("Div", ["away", "width"], ["steps"]),
        node("Mul", ["steps", "steps"], ["squares"]),
        node("ReduceMean", ["squares"], ["mean"], axes=[1], keepdims=0),
        node("Sqrt", ["mean"], ["raw"]),
    ]
    constants = [helper.make_tensor(name, FLOAT, [count], values) for name, values in (("middle", middle), ("width", width))]
    return model_bytes(nodes, count, constants)


def distance_of(kind: PumpType, rows: np.ndarray) -> np.ndarray:
    """What `distance_model` computes, in double precision."""
    middle = np.array([(one.low + one.high) / 2 for one in kind.channels])
    width = np.array([(one.high - one.low) / 100 for one in kind.channels])
    return np.sqrt((((rows.astype(np.float64) - middle) / width) ** 2).mean(axis=1))


def spec_text(kind: PumpType, *, score: str = 'worse = "higher"', inputs: str = 'rows = "raw"', alarm: str = "") -> str:
    """A whole spec; `score`, `inputs`, `alarm`: more lines of these tables."""
    channels = ", ".join(f'{{name = "{one.name}", unit = "{one.unit}"}}' for one in kind.channels)
    return (
        f'format = 1\npump_type = "{kind.id}"\n\n[origin]\nmade_by = "Institute of Pumps"\nlicence = "CC-BY-4.0"\n'
        f'says = "thesis of 2024, bench rows of another fleet"\n\n[inputs]\nchannels = [{channels}]\n{inputs}\n\n'
        f'[score]\nmeaning = "distance from the healthy bench"\n{score}\n\n[alarm]\n{alarm}\n'
    )


def rows_of(kind: PumpType, count: int, seed: int = 7) -> np.ndarray:
    """Healthy-looking rows float32 [n, c], and some that are not."""
    middle = np.array([(one.low + one.high) / 2 for one in kind.channels])
    width = np.array([(one.high - one.low) / 100 for one in kind.channels])
    noise = np.random.default_rng(seed).standard_normal((count, len(middle)))
    noise[:: max(count // 10, 1)] *= 6
    return (middle + width * noise).astype(np.float32)


def write_import(folder: Path, kind: PumpType, data: bytes, *, reference: bool = True, **spec: str) -> dict[str, str]:
    """Files of an import in a folder, and the arguments of the operation that takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "spec.toml").write_text(spec_text(kind, **spec), encoding="utf-8", newline="\n")
    found = {"file": str(folder / "model.onnx"), "spec": str(folder / "spec.toml")}
    if reference:
        rows = rows_of(kind, 200)
        known = write_reference(rows, distance_of(kind, rows), [one.name for one in kind.channels])
        (folder / "reference.csv").write_bytes(known)
        found["reference"] = str(folder / "reference.csv")
    return found


def pump_type_of(workspace: Workspace) -> PumpType:
    """The pump type that has rows."""
    return workspace.fleet.pump_types[kind_of(workspace)]
