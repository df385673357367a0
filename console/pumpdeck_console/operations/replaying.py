"""Doing a training run again, without the cache, and proving that the same comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.foreign_files import load_foreign
from pumpdeck_console.operations.held_source import held_source
from pumpdeck_console.operations.runs import RUN_RECORD_MAX_BYTES, RunRow, list_runs, read_run
from pumpdeck_console.operations.training import StoreSource
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_trainer.answers import EXACT_TYPES, Trained, compare_answers
from pumpdeck_trainer.lineage import code_digest, lock_digest
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest, TrainingSource, take_snapshot
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec
from pumpdeck_trainer.trained import TrainedModel


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """same: every byte that reaches a device came out again. same_code, same_lock: whether that had to be expected.

    differing: parts of the run record that came out other (search, metrics, gates, ..), names and times of code aside.
    same_answers: the same bytes or, for a model type that depends on the linear-algebra kernel, alarm flags and scores within
    the tolerance of the parity gate on `rows_compared` rows; flags_equal, largest_difference: None where bytes are the same, or
    the files to compare with are not here.
    """

    run: str
    model: str
    version: int
    content_digest: str
    replayed_digest: str
    same: bool
    same_code: bool
    same_lock: bool
    same_answers: bool
    differing: tuple[str, ...] = ()
    rows_compared: int = 0
    flags_equal: float | None = None
    largest_difference: float | None = None


@dataclass(frozen=True, eq=False)
class Recorded:
    """A run as it was: its row, the record, and the bytes that answered then (None: not here)."""

    row: RunRow
    record: Mapping[str, Any]
    trained: Trained | None


@operation("runs.replay", runs_in="worker")
def replay_run(workspace: Workspace, *, run: str, on_progress: Progress = no_progress) -> ReplayReport:
    """Train again from the recorded spec, pumps and time; nothing is registered and nothing cached is used.

    Raises:
        NotFoundError: no such run. RefusedError: its snapshot is not held, and its rows or labels are
        no longer what they were.
    """
    record = read_run(workspace, run=run)
    row = next(one for one in list_runs(workspace, limit=10_000) if one.run.startswith(run.lower()))
    lineage, asked = record["lineage"], record["request"]
    pumps = tuple(sorted({*record["pumps"], *record["left_out"]}))
    request = TrainingRequest(pumps, asked["start_ms"], asked["end_ms"])
    source = _rows_of(workspace, row, request, lineage["snapshot_digest"])
    data = workspace.artifacts.get(lineage["pipeline_digest"])
    spec = canonical.decode(PipelineSpec, data, "recorded pipeline", max_bytes=SPEC_MAX_BYTES)
    foreign = load_foreign(workspace, spec)
    context = RunContext(code_digest(), lock_digest(), on_progress=on_progress, foreign=foreign)
    trained = train(spec, request, source, context)
    return replay_report(Recorded(row, record, _recorded(workspace, row, record)), trained, request, source)


def replay_report(held: Recorded, trained: TrainedModel, request: TrainingRequest, source: TrainingSource) -> ReplayReport:
    """What came out against what was recorded; answers are compared where bytes differ."""
    row, lineage = held.row, held.record["lineage"]
    same = trained.content_digest == row.content_digest
    report = ReplayReport(
        run=row.run,
        model=row.model,
        version=row.version,
        content_digest=row.content_digest,
        replayed_digest=trained.content_digest,
        same=same,
        same_code=trained.lineage.code_digest == lineage["code_digest"],
        same_lock=trained.lineage.lock_digest == lineage["lock_digest"],
        same_answers=same,
        differing=_differing(held.record, trained),
    )
    if same or held.trained is None:
        return report
    now = Trained(trained.onnx, {one.pump: one.block for one in trained.pumps})
    answers = compare_answers(held.trained, now, trained.spec, request, source)
    return replace(
        report,
        same_answers=trained.spec.model_type not in EXACT_TYPES and answers.agree(trained.spec.gates),
        rows_compared=answers.rows,
        flags_equal=answers.equal_flags,
        largest_difference=answers.relative,
    )


def _differing(record: Mapping[str, Any], trained: TrainedModel) -> tuple[str, ...]:
    now = canonical.parse_json(trained.run_record, "run record", max_bytes=RUN_RECORD_MAX_BYTES)
    return tuple(name for name in sorted({*record, *now} - {"lineage"}) if record.get(name) != now.get(name))


def _recorded(workspace: Workspace, row: RunRow, record: Mapping[str, Any]) -> Trained | None:
    """Graph and blocks of then; None where they are not here any more, as after retention."""
    version = workspace.store.registry.by_digest(row.content_digest)
    get = workspace.artifacts.get
    try:
        blocks = {pump: get(one["block"]) for pump, one in record["pumps"].items()}
        return Trained(get(version.onnx_digest), blocks) if version is not None else None
    except NotFoundError:
        return None


def _rows_of(workspace: Workspace, row: RunRow, request: TrainingRequest, digest: str) -> TrainingSource:
    """The snapshot that is held; for runs older than that, the rows as they are now, when they are still the same."""
    if workspace.store.snapshots.has(digest):
        return held_source(workspace, digest)
    source = StoreSource(workspace)
    found = take_snapshot(source, request).digest
    if found != digest:
        raise RefusedError(
            "cannot be replayed: its snapshot is not held here, and its rows or labels have changed since",
            f"run {row.run[:12]}",
            expected=f"snapshot {digest[:12]}",
            found=found[:12],
        )
    return source
