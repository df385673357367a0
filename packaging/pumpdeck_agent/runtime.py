"""ONNX Runtime on a device: one thread, no arena, sessions kept by payload digest. The only importer of onnxruntime here."""

from __future__ import annotations

import os

# Its Linux wheels call home unless told otherwise before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import FormatError, PumpdeckError, RefusedError
from pumpdeck_fleet.numeric.detectors import PumpBlock
from pumpdeck_fleet.numeric.frame import Float32

OUTPUTS = ("score", "probability", "contributions")
FEATURES = "x"
PARAMETERS = ("centre", "scale", "votes", "limit")
_MAX_SESSIONS = 16
# The smallest valid ONNX model: y = Identity(x).
_EMPTY_GRAPH = (
    b'\x08\x07\x12\x00:9\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01N'
    b"b\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01NB\x04\n\x00\x10\r"
)
_TYPES = {"tensor(float)": np.float32, "tensor(bool)": np.bool_}

Arrays = Mapping[str, NDArray[Any]]
RowCall = Callable[[Float32], float]
"""The score of one feature row float32 [c]."""


class Model:
    """One loaded graph: features and a pump's parameters in, score, probability and contributions out."""

    def __init__(self, onnx: bytes, what: str, *, threads: int = 1, spinning: bool = False) -> None:
        try:
            self._session = ort.InferenceSession(onnx, _options(threads, spinning), providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises classes of its own C++ module that have no common base but Exception.
            raise FormatError(f"cannot be loaded ({str(error)[:300]})", what) from error
        self._what = what
        self._types = {one.name: _TYPES.get(one.type) for one in self._session.get_inputs()}
        self._ranks = {one.name: len(one.shape) for one in self._session.get_inputs()}
        known = {FEATURES, *PARAMETERS}
        if FEATURES not in self._types or not set(self._types) <= known or None in self._types.values():
            raise FormatError("has inputs that no pump block fills", what, expected=sorted(known), found=sorted(self._types))
        outputs = tuple(one.name for one in self._session.get_outputs())
        if not set(OUTPUTS) <= set(outputs):
            raise FormatError("lacks outputs", what, expected=", ".join(OUTPUTS), found=", ".join(outputs))

    def parameters(self, block: PumpBlock) -> dict[str, NDArray[Any]]:
        """What the graph takes of a pump block, ready to be fed."""
        values = {"centre": block.centre, "scale": block.width, "votes": block.votes, "limit": np.float32(block.limit)}
        return {name: self._fit(name, np.asarray(value)) for name, value in values.items() if name in self._types}

    def score(self, features: Float32, parameters: Arrays) -> Float32:
        """Score float32 [n] of feature rows float32 [n, c]."""
        found = self._run(["score"], {FEATURES: features, **parameters})["score"]
        if found.shape != (len(features),):
            raise FormatError("gives scores of another shape", self._what, expected=(len(features),), found=found.shape)
        return np.asarray(found, np.float32)

    def row_call(self, parameters: Arrays) -> RowCall:
        """The same for one row at a time, without an allocation by the runtime's binding where that proves to work here."""
        channels = len(parameters["centre"]) if "centre" in parameters else 0
        if channels:
            # What the bound call finds wrong with the graph, if anything, the plain one says when a row comes.
            with contextlib.suppress(PumpdeckError):
                return _BoundCall(self._session, parameters, channels, self._what)
        return lambda features: float(self.score(features.reshape(1, -1), parameters)[0])

    def answers(self, features: Float32, parameters: Arrays) -> dict[str, NDArray[Any]]:
        """All outputs for feature rows float32 [n, c]."""
        return self._run(list(OUTPUTS), {FEATURES: features, **parameters})

    def feeds(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """The graph's inputs among these arrays, in the types it declares.

        Raises:
            FormatError: one is missing.
        """
        missing = sorted(set(self._types) - set(arrays))
        if missing:
            raise FormatError("lack inputs of the graph", f"golden inputs of {self._what}", expected=missing)
        return {name: self._fit(name, arrays[name]) for name in self._types}

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """All outputs for ready inputs (see `feeds`)."""
        return self._run(list(OUTPUTS), feeds)

    def _fit(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        typed = np.ascontiguousarray(value, dtype=self._types[name])
        return typed.reshape(-1) if self._ranks[name] == 1 else typed.reshape(()) if self._ranks[name] == 0 else typed

    def _run(self, names: list[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise RefusedError(f"the model failed ({str(error)[:300]})", self._what) from error


class _BoundCall:
    """One graph, one pump: input, parameters and score stay where the runtime knows them. Not for two threads at once.

    Raises on construction: FormatError, RefusedError: the runtime cannot, or does not read and write these very places.
    """

    def __init__(self, session: Any, parameters: Arrays, channels: int, what: str) -> None:
        self._what = what
        self._row = np.zeros((1, channels), np.float32)
        self._score = np.zeros(1, np.float32)
        self._run = session.run_with_iobinding
        try:
            # Both stay referenced: the binding does not keep them alive.
            self._held = (dict(parameters), ort.OrtValue.ortvalue_from_numpy(self._score))
            self._binding = session.io_binding()
            self._binding.bind_cpu_input(FEATURES, self._row)
            for name, value in parameters.items():
                self._binding.bind_cpu_input(name, value)
            self._binding.bind_ortvalue_output("score", self._held[1])
            self._prove(session, parameters)
        except Exception as error:
            raise FormatError(f"cannot be bound ({str(error)[:300]})", what) from error

    def __call__(self, features: Float32) -> float:
        """The score of one feature row float32 [c]. Raises: RefusedError: the model failed."""
        self._row[0] = features
        try:
            self._run(self._binding)
        except Exception as error:
            raise RefusedError(f"the model failed ({str(error)[:300]})", self._what) from error
        return self._score.item()

    def _prove(self, session: Any, parameters: Arrays) -> None:
        found = set()
        for value in (0.0, 1.0, 1000.0, -50.0, 0.0):
            row = np.full((1, self._row.shape[1]), value, np.float32)
            (expected,) = session.run(["score"], {FEATURES: row, **parameters})
            if expected.shape != (1,) or expected.dtype != np.float32 or self(row[0]) != float(expected[0]):
                raise ValueError("the bound call answers otherwise")
            found.add(float(expected[0]))
        if len(found) < 2:
            raise ValueError("nothing proves that the bound call reads its input")


class ModelCache:
    """Loaded graphs by payload digest: the pumps of a device share one, and a new package with the same graph costs nothing."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def get(self, digest: str, onnx: bytes, *, threads: int = 1, spinning: bool = False) -> Model:
        """The model of these bytes. Raises: FormatError."""
        model = self._models.get(digest)
        if model is None:
            while len(self._models) >= _MAX_SESSIONS:
                self._models.pop(next(iter(self._models)))
            model = Model(onnx, f"model {digest[:12]}", threads=threads, spinning=spinning)
            self._models[digest] = model
        return model


def _options(threads: int, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena keeps what a burst once needed; a device that scores a row a minute wants that memory back.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def warm_up() -> None:
    """Make the runtime do what it does at its first graph only, so that forks of this process start with it done."""
    session = ort.InferenceSession(_EMPTY_GRAPH, _options(1, False), providers=["CPUExecutionProvider"])
    session.run(["y"], {"x": np.zeros(1, np.float32)})


def runtime_version() -> str:
    """The version of ONNX Runtime that is loaded."""
    return str(ort.__version__)


def execution_providers() -> tuple[str, ...]:
    """What ONNX Runtime could run on here, best first."""
    return tuple(ort.get_available_providers())
