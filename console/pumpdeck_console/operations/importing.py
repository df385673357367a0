"""Importing a model that was learned elsewhere: read, bounded, tried apart, then judged by every gate that can judge it.

A file that fails before the gates leaves nothing behind. What passes is registered as `foreign`, without an alias.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.quality_gates import load_champion
from pumpdeck_console.operations.run_logs import recording
from pumpdeck_console.operations.runs import IMPORT_ACTION, IMPORT_REFUSED_ACTION
from pumpdeck_console.operations.training import (
    Registration,
    TrainedRow,
    TrainOptions,
    load_pipeline,
    outcome_of,
    register,
    train_held,
)
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import GateRefusedError, InputError, NotFoundError, RefusedError
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.frame import Float32
from pumpdeck_trainer.foreign_graph import ends_of, inner
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reader import GRAPH_MAX_BYTES, Graph, read_graph
from pumpdeck_trainer.foreign_reference import REFERENCE_MAX_BYTES, parse_reference
from pumpdeck_trainer.foreign_rules import check_graph, operators_of
from pumpdeck_trainer.foreign_scorer import ForeignModel, ReferenceRows
from pumpdeck_trainer.foreign_spec import ForeignSpec, parse_foreign
from pumpdeck_trainer.foreign_trial import TrialAnswers, try_graph
from pumpdeck_trainer.profile import ProfileFigures
from pumpdeck_trainer.run_log import Listener, no_listener
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, ChannelSpec
from pumpdeck_trainer.workers import LokyWorkers

PROBE_ROWS = 256
REFERENCE_TRIED = 2048
_PICKLES = (".joblib", ".pkl", ".pickle", ".skops", ".pt", ".pth", ".h5", ".keras", ".sav")
_PICKLE_HEADS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x89HDF")


@dataclass(frozen=True, slots=True)
class ImportCheck:
    """What a file is, found without registering anything. Times are of this computer."""

    file: str
    source_digest: str
    pump_type: str
    model: str
    opset: int
    nodes: int
    operators: str
    bytes: int
    channels: str
    score: str
    load_ms: float
    row_us: float
    peak_mb: float
    reference_rows: int


@dataclass(frozen=True, eq=False)
class _Tried:
    """A file that passed its trial."""

    spec: ForeignSpec
    model: ForeignModel
    graph: Graph
    answers: TrialAnswers
    files: tuple[bytes, ...]


@operation("models.check_import", runs_in="worker")
def check_import(workspace: Workspace, *, file: str, spec: str, pump_type: str = "", reference: str = "") -> ImportCheck:
    """Read and try the file as an import would, and register nothing.

    Raises:
        As `import_model`, up to the gates.
    """
    tried = _try(workspace, {"file": file, "spec": spec, "reference": reference}, pump_type)
    said, pipeline, answers = tried.model.said, tried.spec.pipeline, tried.answers
    return ImportCheck(
        file=said.file,
        source_digest=said.source,
        pump_type=pipeline.pump_type,
        model=pipeline.model,
        opset=tried.graph.opset,
        nodes=len(tried.graph.nodes),
        operators=" ".join(operators_of(tried.graph)),
        bytes=len(tried.model.inner),
        channels=", ".join(f"{one.name} ({one.unit})" for one in pipeline.channels),
        score=f"{said.output or 'the only output'}, {'lower' if said.is_lower_worse else 'higher'} is worse",
        load_ms=round(answers.load_ms, 1),
        row_us=round(answers.p50_us, 1),
        peak_mb=round(answers.peak_mb, 1),
        reference_rows=len(tried.model.reference.rows) if tried.model.reference else 0,
    )


@operation("models.import", runs_in="worker")
def import_model(
    workspace: Workspace,
    *,
    file: str,
    spec: str,
    pump_type: str = "",
    reference: str = "",
    note: str = "",
    on_progress: Progress = no_progress,
    on_log: Listener = no_listener,
) -> TrainedRow:
    """Import an ONNX file as a version of the pump type's model. `spec`, `reference`: files beside it.

    Raises:
        InputError: spec or reference are wrong. TooLargeError, FormatError: the file is none, or too large.
        RefusedError: it is a pickle, computes what it may not, or failed its trial. GateRefusedError: a gate refused it;
        it is registered without an alias, unless its answers are not those of its reference.
    """
    on_progress("trial", 0, 1)
    tried = _try(workspace, {"file": file, "spec": spec, "reference": reference}, pump_type)
    on_progress("trial", 1, 1)
    kind = workspace.fleet.pump_types[tried.spec.pipeline.pump_type]
    champion = load_champion(workspace, tried.spec.pipeline.model)
    options = TrainOptions(note=note, foreign=tried.model)
    by = (options, LokyWorkers(os.cpu_count() or 1))
    pipeline = replace(tried.spec.pipeline, foreign=tried.model.said)
    how = Registration(
        options,
        IMPORT_ACTION,
        IMPORT_REFUSED_ACTION,
        takes_alias=False,
        measured=_measured(tried.answers),
        artifacts=tried.files,
    )
    with recording(workspace, kind.id, f"import {Path(file).name} as {pipeline.model}", on_log) as recorder:
        trained = train_held(workspace, (kind, pipeline), by, (on_progress, recorder), champion)
        row = register(workspace, trained, champion, how, recorder)
        recorder.ends(outcome_of(row), f"{row.model} v{row.version}{f', {row.reason}' if row.reason else ''}")
    if row.verdict == GateVerdict.REFUSE:
        hint = f"see it with: pumpdeck models show {row.model} {row.version}" if row.version else "nothing was registered"
        raise GateRefusedError("a quality gate refused what was imported", row.model, found=row.reason, hint=hint)
    return row


def _try(workspace: Workspace, paths: Mapping[str, str], pump_type: str) -> _Tried:
    data = _source(workspace, Path(paths["file"]))
    text = _bytes(workspace, Path(paths["spec"]), SPEC_MAX_BYTES).decode("utf-8", "replace")
    kind = _kind(workspace, text, pump_type, paths["spec"])
    spec = parse_foreign(text, kind, load_pipeline(workspace, kind), paths["spec"])
    channels, name = spec.pipeline.channels, Path(paths["file"]).name
    graph = read_graph(data, name)
    check_graph(graph, name)
    ends = ends_of(graph, spec.said, len(channels), name)
    checked = inner(graph, ends, len(channels))
    known = _bytes(workspace, Path(paths["reference"]), REFERENCE_MAX_BYTES) if paths["reference"] else b""
    reference = parse_reference(known, [one.name for one in channels], paths["reference"]) if known else None
    said = replace(
        spec.said,
        file=name,
        output=ends.output,
        source=canonical.digest(data),
        graph=canonical.digest(checked),
        reference=canonical.digest(known) if known else "",
    )
    answers = try_graph(checked, _probe(channels, said, reference), what=name)
    _check_answers(answers, said, len(channels), name)
    model = ForeignModel(checked, said, len(channels), reference)
    return _Tried(spec, model, graph, answers, tuple(one for one in (data, checked, known) if one))


def _source(workspace: Workspace, path: Path) -> bytes:
    data = _bytes(workspace, path, GRAPH_MAX_BYTES)
    if path.suffix.lower() in _PICKLES or data.startswith(_PICKLE_HEADS):
        raise RefusedError(
            "is not ONNX but an estimator as its library saves it; reading such a file can run any program inside it",
            path.name,
            hint="in your own Python: pumpdeck_trainer.foreign.export(estimator, rows, ...) writes the ONNX file, its reference "
            "and a spec, which can be imported (docs/models.md)",
        )
    return data


def _bytes(workspace: Workspace, path: Path, limit: int) -> bytes:
    try:
        return workspace.fs.read_bytes(path, limit)
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", str(path)) from error


def _kind(workspace: Workspace, text: str, pump_type: str, what: str) -> PumpType:
    known = workspace.fleet.pump_types
    if not pump_type:
        named = [name for name in known if f'pump_type = "{name}"' in text]
        pump_type = named[0] if len(named) == 1 else ""
    if pump_type not in known:
        hint = "name it with --pump-type" if not pump_type else ""
        raise NotFoundError("no such pump type", pump_type or what, expected=", ".join(sorted(known)), hint=hint)
    return known[pump_type]


def _probe(channels: tuple[ChannelSpec, ...], said: ForeignInput, reference: ReferenceRows | None) -> Float32:
    """Rows for the first run: over the whole range of every sensor, at its ends and, where there is one, of the reference."""
    low = np.array([one.low for one in channels])
    high = np.array([one.high for one in channels])
    rng = np.random.default_rng(1)
    rows = [low + (high - low) * rng.random((PROBE_ROWS, len(channels))), low[None], high[None], (low + high)[None] / 2]
    if said.in_widths:
        rows = [rng.standard_normal((PROBE_ROWS, len(channels))) * 3, np.full((1, len(channels)), 1000.0)]
    if reference is not None:
        rows.append(reference.rows[:REFERENCE_TRIED].astype(np.float64))
    return np.concatenate(rows).astype(np.float32)


def _check_answers(answers: TrialAnswers, said: ForeignInput, channels: int, what: str) -> None:
    columns = answers.raw.shape[1] if answers.raw.ndim == 2 else 1
    if said.column >= columns:
        raise RefusedError("has no such column", f"{what}: score.column", expected=f"0 to {columns - 1}", found=said.column)
    parts = answers.parts
    if said.contributions and (parts is None or parts.shape != (len(answers.raw), channels)):
        found = list(parts.shape) if parts is not None else "nothing"
        raise RefusedError(
            "gives contributions of another shape", what, expected=f"[rows, {channels}]", found=found
        )


def _measured(answers: TrialAnswers) -> ProfileFigures:
    rows_per_s = round(1e6 / max(answers.p50_us, 1e-3), 1)
    return ProfileFigures(
        threads=1,
        spinning=False,
        batch=1,
        load_ms=round(answers.load_ms, 2),
        p50_us=round(answers.p50_us, 1),
        p99_us=round(answers.p99_us, 1),
        rows_per_s=rows_per_s,
        cpu_us=round(answers.p50_us, 1),
        cpu_pct=0.0,
        rss_mb=round(answers.peak_mb, 1),
    )
