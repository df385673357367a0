"""For data scientists: an estimator of their own as files that `pumpdeck models import` takes.

It runs in their process, where the estimator lives: a pickle never travels, because whoever reads one runs what is inside. What
travels is an ONNX file that skl2onnx made, a spec, and a reference: rows with the scores the estimator itself gives them.

    from pumpdeck_trainer.foreign import Statement, export

    said = Statement(pump_type="esp", channels=(("motor_temperature_c", "degC"), ..), ..)
    export(IsolationForest().fit(rows), rows, said, folder)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pumpdeck_fleet.core.errors import GateRefusedError, InputError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.numeric.frame import Float32, Float64
from pumpdeck_trainer.baseline import spread_places
from pumpdeck_trainer.foreign_graph import ends_of, inner
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_reference import FEWEST, write_reference
from pumpdeck_trainer.foreign_rules import check_graph
from pumpdeck_trainer.foreign_trial import try_graph
from pumpdeck_trainer.graph import OPSET
from pumpdeck_trainer.spec import GateThresholds

MODEL, SPEC, REFERENCE = "model.onnx", "spec.toml", "reference.csv"
REFERENCE_ROWS = 1000
METHODS = ("score_samples", "decision_function", "predict_proba", "predict")
_ML_OPSET = 3
_NOISE = (0.1, 1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Statement:
    """What only its maker knows of an estimator; it becomes the spec of the import (docs/foreign.example.toml).

    channels: name and unit of each column, in order. method: of the estimator, gives the score; column: of its answer, the last
    one by default. is_raw: the columns are single readings, else means over `window_s`. in_widths: the columns are widths from
    each pump's own centre instead of values in the channels' units.
    """

    pump_type: str
    channels: tuple[tuple[str, str], ...]
    made_by: str
    licence: str
    says: str
    meaning: str
    worse: str
    method: str = "score_samples"
    column: int = -1
    is_raw: bool = False
    window_s: float | None = None
    in_widths: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """The files, and how far the graph's scores are from the estimator's own on `rows` rows, relative to their spread."""

    model: Path
    spec: Path
    reference: Path
    rows: int
    relative: float


def export(estimator: Any, rows: ArrayLike, said: Statement, to: Path, *, seed: int = 1) -> Exported:
    """Write the estimator as an ONNX file with its spec and reference into the folder `to`.

    rows: [n, c], healthy and ill, as the estimator was fitted to; disturbed copies are tried as well.

    Raises:
        InputError: rows or statement make no sense. RefusedError: skl2onnx cannot convert it, or an import would refuse it.
        GateRefusedError: the converted graph computes something else than the estimator. Nothing is written then.
    """
    held = np.asarray(rows, np.float32)
    if held.ndim != 2 or held.shape[1] != len(said.channels) or len(held) < FEWEST or not np.isfinite(held).all():
        expected = f"at least {FEWEST} finite rows of {len(said.channels)} columns"
        raise InputError("cannot be exported with", "rows", expected=expected, found=f"shape {held.shape}")
    if said.method not in METHODS or said.worse not in ("higher", "lower"):
        expected = f"one of {', '.join(METHODS)}; higher or lower"
        raise InputError("is unknown", "method or worse", expected=expected, found=f"{said.method}, {said.worse}")
    data, output = _converted(estimator, held, said)
    tried = _tried_rows(held, seed)
    wanted, column = _scores(estimator, tried, said)
    relative = _compare(data, tried, wanted, (said, output, column))
    some = spread_places(len(tried), REFERENCE_ROWS)
    names = [name for name, _ in said.channels]
    fs = RealFileSystem()
    if not fs.exists(to):
        fs.mkdir(to)
    replace_file(fs, to / MODEL, data)
    replace_file(fs, to / REFERENCE, write_reference(tried[some], wanted[some], names))
    replace_file(fs, to / SPEC, _spec(said, output, column).encode("utf-8"))
    return Exported(to / MODEL, to / SPEC, to / REFERENCE, len(tried), relative)


def _converted(estimator: Any, rows: Float32, said: Statement) -> tuple[bytes, str]:
    """The ONNX file and the name of the output that holds the score."""
    from skl2onnx import to_onnx  # deferred: it costs seconds

    options, output = _options(estimator, said.method)
    try:
        model = to_onnx(estimator, rows[:1], target_opset={"": OPSET, "ai.onnx.ml": _ML_OPSET}, options=options)
    except Exception as error:  # skl2onnx has no common class for what it cannot do
        reason = " ".join(str(error).split())[:300]
        raise RefusedError(f"cannot be converted ({reason})", type(estimator).__name__) from error
    # skl2onnx puts a random name and the names of its own parts into the file.
    model.graph.name, model.doc_string, model.graph.doc_string = "exported", "", ""
    names = [one.name for one in model.graph.output]
    found = output if output in names else names[0] if len(names) == 1 else ""
    if not found:
        raise RefusedError("gives no such score after conversion", said.method, found=", ".join(names))
    data: bytes = model.SerializeToString(deterministic=True)
    return data, found


def _options(estimator: Any, method: str) -> tuple[dict[int, dict[str, bool]] | None, str]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    if method == "score_samples":
        return {id(last): {"score_samples": True}}, "score_samples"
    if method == "predict":
        return None, "variable"
    if not hasattr(last, "classes_"):
        return None, "scores"
    return {id(estimator): {"zipmap": False, "raw_scores": method == "decision_function"}}, "probabilities"


def _tried_rows(rows: Float32, seed: int) -> Float32:
    """The rows, and as many disturbed by a tenth, one and ten of their spreads."""
    some = rows[spread_places(len(rows), REFERENCE_ROWS)]
    rng = np.random.default_rng(seed)
    width = rows.std(axis=0, dtype=np.float64)
    noisy = [some + rng.standard_normal(some.shape) * size * width for size in _NOISE]
    return np.concatenate([some, *noisy]).astype(np.float32)


def _scores(estimator: Any, rows: Float32, said: Statement) -> tuple[Float64, int]:
    """What the estimator itself says, and the column that was taken."""
    if not hasattr(estimator, said.method):
        raise InputError("is no method of the estimator", said.method, found=type(estimator).__name__)
    found = np.asarray(getattr(estimator, said.method)(rows), np.float64)
    if found.ndim == 1:
        # A classifier of two classes tells one number, its graph both: the second is the one it means.
        return found, 1 if said.method == "decision_function" and len(getattr(estimator, "classes_", ())) == 2 else 0
    column = said.column % found.shape[1]
    return found[:, column], column


def _compare(data: bytes, rows: Float32, wanted: Float64, by: tuple[Statement, str, int]) -> float:
    said, output, column = by
    graph = read_graph(data, MODEL)
    check_graph(graph, MODEL)
    spoken = ForeignInput(said.made_by, said.licence, said.says, said.meaning, output=output)
    count = len(said.channels)
    answers = try_graph(inner(graph, ends_of(graph, spoken, count, MODEL), count), rows)
    raw = answers.raw if answers.raw.ndim == 1 else answers.raw[:, min(column, answers.raw.shape[1] - 1)]
    spread = max(float(wanted.std()), 1e-9)
    relative = float((np.abs(raw - wanted) / np.maximum(np.abs(wanted), spread)).max())
    most = GateThresholds().parity_relative
    if not relative <= most:
        raise GateRefusedError(
            "computes something else after conversion than the estimator itself",
            said.method,
            expected=f"scores at most {most:g} apart",
            found=f"{relative:.3g}",
            hint="skl2onnx works in single precision and converts some estimators wrongly: scale the columns, or take another",
        )
    return relative


def _spec(said: Statement, output: str, column: int) -> str:
    channels = ", ".join(f"{{name = {_quoted(name)}, unit = {_quoted(unit)}}}" for name, unit in said.channels)
    window = f"window_s = {float(said.window_s)!r}\n" if said.window_s is not None else ""
    return (
        f"format = 1\npump_type = {_quoted(said.pump_type)}\n\n[origin]\nmade_by = {_quoted(said.made_by)}\n"
        f"licence = {_quoted(said.licence)}\nsays = {_quoted(said.says)}\n\n[inputs]\nchannels = [{channels}]\n"
        f"rows = {_quoted('raw' if said.is_raw else 'window')}\n{window}"
        f"values = {_quoted('widths' if said.in_widths else 'units')}\n\n[score]\nmeaning = {_quoted(said.meaning)}\n"
        f"output = {_quoted(output)}\ncolumn = {column}\nworse = {_quoted(said.worse)}\n"
    )


def _quoted(text: str) -> str:
    """A TOML string: the escapes of JSON are TOML's own."""
    return json.dumps(text, ensure_ascii=False)
