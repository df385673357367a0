"""Doing a training run again, without the cache, and proving that the same comes out."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.foreign_files import load_foreign
from pumpdeck_console.operations.held_source import held_source
from pumpdeck_console.operations.runs import RunRow, list_runs, read_run
from pumpdeck_console.operations.training import StoreSource
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_trainer.lineage import code_digest, lock_digest
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import TrainingRequest, TrainingSource, take_snapshot
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """same: every byte that reaches a device came out again. same_code, same_lock: whether that had to be expected."""

    run: str
    model: str
    version: int
    content_digest: str
    replayed_digest: str
    same: bool
    same_code: bool
    same_lock: bool


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
    return ReplayReport(
        run=row.run,
        model=row.model,
        version=row.version,
        content_digest=row.content_digest,
        replayed_digest=trained.content_digest,
        same=trained.content_digest == row.content_digest,
        same_code=code_digest() == lineage["code_digest"],
        same_lock=lock_digest() == lineage["lock_digest"],
    )


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
