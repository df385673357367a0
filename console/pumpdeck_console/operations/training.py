"""Training: rows from the store through the trainer's pipeline into the registry, with artifacts and audit in one go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.held_source import hold_snapshot, open_held
from pumpdeck_console.operations.models import worst_verdict
from pumpdeck_console.operations.overriding import NEVER_OVERRIDDEN
from pumpdeck_console.operations.profiling import GraphSize, profile_gate
from pumpdeck_console.operations.quality_gates import judge_in_fleet, load_champion
from pumpdeck_console.operations.run_logs import RunRecorder, recording
from pumpdeck_console.operations.runs import REFUSED_ACTION, TRAIN_ACTION
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import GateRefusedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.inventory import Pump, PumpType
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import Alias, GateVerdict, ModelVersion
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.services.inventory_file import maintenance_of, reference_start_ms
from pumpdeck_fleet.store import Store
from pumpdeck_trainer.ahead import FEWEST_PUMPS, Fleetwide
from pumpdeck_trainer.cache import FolderCache, NoCache, RunCache
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.foreign_reader import graph_opset
from pumpdeck_trainer.foreign_scorer import ForeignModel
from pumpdeck_trainer.full_card import CardFacts, write_full_card
from pumpdeck_trainer.lineage import code_digest, lock_digest
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.profile import ProfileFigures
from pumpdeck_trainer.run_log import Listener, WatchedCache, no_listener
from pumpdeck_trainer.source import MAINTENANCE, Exclusion, TrainingRequest
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec, default_pipeline, parse_pipeline
from pumpdeck_trainer.trained import TrainedModel
from pumpdeck_trainer.workers import LokyWorkers, Workers

_GIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a person may say about a training: without the cache every step runs again; 0 as `until_ms` is the last row.

    foreign: the imported graph that is judged instead of one that is learned.
    """

    use_cache: bool = True
    note: str = ""
    until_ms: int = 0
    scheduler: str = ""
    foreign: ForeignModel | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """How a result enters the registry. An imported one never becomes candidate by itself: a person asks for it by number.

    measured: of the graph, for the gate `profile`. artifacts: files that came with it.
    """

    options: TrainOptions
    action: str = TRAIN_ACTION
    refused_action: str = REFUSED_ACTION
    takes_alias: bool = True
    measured: ProfileFigures | None = None
    artifacts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedRow:
    """What became of one pump type; `is_new` is false for content known before.

    `version` is 0 when nothing was registered (parity); what another gate refused is registered without an alias.
    """

    pump_type: str
    model: str
    version: int
    is_new: bool
    run: str
    content_digest: str
    snapshot_digest: str
    pumps: int
    left_out: int
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrainReport:
    """One row for each pump type."""

    models: tuple[TrainedRow, ...]


@operation("train", runs_in="worker")
def train_models(
    workspace: Workspace,
    *,
    pump_type: str = "",
    use_cache: bool = True,
    note: str = "",
    until_ms: int = 0,
    only_requested: bool = False,
    scheduler: str = "",
    on_progress: Progress = no_progress,
    on_log: Listener = no_listener,
) -> TrainReport:
    """Train one pump type, or every type that has rows. The result is registered with alias `candidate`.

    With `only_requested`, types of pumps only for which a device asks for a new model; none may be left. A training that is
    not refused answers what was asked for its pumps, asked to or not.
    With `until_ms`, rows from that time on are not learned from: the models can then be judged by them. Large runs work in
    other processes of this machine, or on the Dask cluster of `scheduler` (an address, or `local`).
    `on_log` hears every line of the log of each run; `runs.log` reads the same from another process.

    Raises:
        NotFoundError: no such pump type. GateRefusedError: a gate refused the only type that was trained.
        RefusedError: there are no rows to learn from.
    """
    types = _types(workspace, pump_type)
    if only_requested:
        asked = {entry.pump for entry in workspace.store.retraining.open()}
        wanted = {pump.type for pump in workspace.fleet.pumps if pump.id in asked}
        types = [one for one in types if one.id in wanted]
    options = TrainOptions(use_cache, note, until_ms, scheduler)
    with _workers(scheduler) as workers:
        rows = tuple(_train_type(workspace, one, (options, workers), (on_progress, on_log)) for one in types)
    if len(rows) == 1 and rows[0].verdict == GateVerdict.REFUSE:
        hint = f"see it with: pumpdeck models show {rows[0].model} {rows[0].version}" if rows[0].version else ""
        raise GateRefusedError("a quality gate refused what was trained", rows[0].model, found=rows[0].reason, hint=hint)
    return TrainReport(rows)


class StoreSource:
    """`trainer.source.TrainingSource` over the store: rows, chunk digests, and what must not be learned from."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        return self._workspace.store.telemetry.frame(pump, start_ms, end_ms)

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> Sequence[tuple[int, str]]:
        return self._workspace.store.telemetry.chunk_digests(pump, start_ms, end_ms)

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        """Labelled faults, rows called healthy, maintenance, and everything before the last dated change of pump or device."""
        found = [
            Exclusion(label.start_ms, label.end_ms, _taught(label))
            for label in self._workspace.store.labels.of(pump, 0, canonical.MAX_SAFE_INTEGER)
        ]
        start_ms = reference_start_ms(self._workspace.fleet, pump, self._workspace.clock.now_ms())
        found += [Exclusion(*span, MAINTENANCE) for span in maintenance_of(self._workspace.fleet, pump)]
        return [*found, Exclusion(0, start_ms, "before the last dated change")] if start_ms else found


def _taught(label: Label) -> str:
    """What a label tells a training."""
    return f"fault:{label.kind}" if label.verdict is Verdict.FAULT else f"healthy:{label.verdict.value}"


def load_pipeline(workspace: Workspace, pump_type: PumpType) -> PipelineSpec:
    """The spec in `pipelines/<pump type>.toml`, or the built-in defaults where there is no such file.

    Raises:
        InputError: names file and key.
    """
    path = workspace.pipelines_path / f"{pump_type.id}.toml"
    try:
        text = workspace.fs.read_bytes(path, SPEC_MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return default_pipeline(pump_type)
    return parse_pipeline(text, pump_type, str(path))


def _types(workspace: Workspace, pump_type: str) -> list[PumpType]:
    known = workspace.fleet.pump_types
    if pump_type and pump_type not in known:
        raise NotFoundError("no such pump type", pump_type, expected=", ".join(sorted(known)))
    facts = workspace.store.facts()
    with_rows = {pump.type for pump in workspace.fleet.pumps if pump.id in facts and facts[pump.id].rows}
    chosen = [known[name] for name in sorted(with_rows) if not pump_type or name == pump_type]
    if not chosen:
        raise RefusedError(
            "there are no rows to learn from", pump_type or "train", hint="bring some: pumpdeck ingest FILE"
        )
    return chosen


@contextmanager
def _workers(scheduler: str) -> Iterator[Workers]:
    processes = os.cpu_count() or 1
    if not scheduler:
        yield LokyWorkers(processes)
        return
    from pumpdeck_trainer.dask_workers import dask_workers  # deferred: an extra

    with dask_workers(scheduler, processes) as workers:
        yield workers


def _train_type(
    workspace: Workspace, pump_type: PumpType, by: tuple[TrainOptions, Workers], tell: tuple[Progress, Listener]
) -> TrainedRow:
    spec = load_pipeline(workspace, pump_type)
    champion = load_champion(workspace, spec.model)

    def told(step: str, done: int, total: int) -> None:
        tell[0](f"{pump_type.id}: {step}", done, total)

    with recording(workspace, pump_type.id, f"train {spec.model}, type {spec.model_type}", tell[1]) as recorder:
        trained = train_held(workspace, (pump_type, spec), by, (told, recorder), champion)
        row = register(workspace, trained, champion, Registration(by[0]), recorder)
        recorder.ends(outcome_of(row), f"{row.model} v{row.version}{f', {row.reason}' if row.reason else ''}")
    return row


def outcome_of(row: TrainedRow) -> str:
    """The last word of a run's log."""
    if row.verdict == GateVerdict.REFUSE:
        return "refused"
    return "registered" if row.is_new else "known"


def train_held(
    workspace: Workspace,
    what: tuple[PumpType, PipelineSpec],
    by: tuple[TrainOptions, Workers],
    tell: tuple[Progress, RunRecorder],
    champion: Champion | None = None,
) -> TrainedModel:
    """Freeze a snapshot and train by that spec from it; nothing is registered."""
    (pump_type, spec), (options, workers), (on_progress, recorder) = what, by, tell
    log = recorder.log

    def told(step: str, done: int, total: int) -> None:
        log.progress(step, done, total)
        on_progress(step, done, total)

    pumps = [pump for pump in workspace.fleet.pumps if pump.type == pump_type.id]
    commit, dirty = git_state(workspace.root)
    request = _request(workspace, spec, pumps, options)
    # Held before anything is read: rows that come in meanwhile change nothing, and a run that is cut finds it again.
    source = hold_snapshot(workspace.store, StoreSource(workspace), request)
    # Who names a cluster wants it used, however few the pumps.
    fewest = 1 if options.scheduler else FEWEST_PUMPS
    context = RunContext(
        code_digest=code_digest(),
        lock_digest=lock_digest(),
        git_commit=commit,
        git_dirty=dirty,
        cache=WatchedCache(_cache(workspace, options), log.found_cached),
        on_progress=told,
        fleetwide=Fleetwide(workers, partial(open_held, workspace.root, source.digest), fewest),
        champion=champion,
        observer=log,
        foreign=options.foreign,
    )
    return train(spec, request, source, context)


def _cache(workspace: Workspace, options: TrainOptions) -> RunCache:
    return FolderCache(workspace.artifacts_path, workspace.fs) if options.use_cache else NoCache()


def _request(workspace: Workspace, spec: PipelineSpec, pumps: Sequence[Pump], options: TrainOptions) -> TrainingRequest:
    spans = {pump.id: span for pump in pumps if (span := workspace.store.telemetry.span(pump.id)) is not None}
    end_ms = options.until_ms or max(span[1] for span in spans.values()) + 1
    return TrainingRequest(tuple(sorted(spans)), end_ms - round(spec.reference_days * DAY_MS), end_ms)


def register(
    workspace: Workspace, trained: TrainedModel, champion: Champion | None, how: Registration, recorder: RunRecorder
) -> TrainedRow:
    """Judge by the gates of the fleet, then store version, artifacts and audit entry; a refused one gets no alias."""
    size = GraphSize(len(trained.onnx), graph_opset(trained.spec.model_type, trained.onnx))
    measured = (how.measured, trained.spec.gates.profile_latency_warn) if how.measured else None
    fits = profile_gate(workspace, trained.spec.pump_type, size, measured)
    judged = judge_in_fleet(workspace, trained, champion)
    gates = (*trained.gates, *judged.gates, fits)
    for gate in gates[len(trained.gates) :]:
        recorder.log.gate(gate)
    against = champion.number if champion else 0
    card = write_full_card(CardFacts(trained, gates, judged.slices, judged.coverage, against))
    # Artifacts are named by their digest: written before the transaction, a cut leaves files that nothing names.
    workspace.artifacts.put_all((*trained.artifacts(), canonical.encode(trained.spec), card, *how.artifacts))
    version = replace(
        trained.version(0, workspace.clock.now_ms(), how.options.note),
        gates=gates,
        judged_against=against,
        full_card_digest=canonical.digest(card),
    )
    digests = {
        "run": version.run_record_digest,
        "snapshot": trained.lineage.snapshot_digest,
        "content": trained.content_digest,
        "log": workspace.artifacts.put(recorder.encode()),
        **({"source": trained.spec.foreign.source} if trained.spec.foreign else {}),
    }
    with workspace.store.atomic() as store:
        hard = [gate for gate in version.refusals if gate.name in NEVER_OVERRIDDEN]
        if hard:
            reason = f"{hard[0].name}: {hard[0].reason}"
            store.audit.append(workspace.actor, how.refused_action, trained.model, reason=reason, digests=digests)
            return _row(trained, version, is_new=False, reason=reason)
        is_new = store.registry.by_digest(trained.content_digest) is None
        number = store.registry.add(version)
        # What was registered first keeps the verdicts of its day.
        kept = store.registry.version(trained.model, number)
        said = "" if is_new else "the same content as before"
        warned = [gate.name for gate in kept.gates if gate.verdict is GateVerdict.WARN]
        if warned:
            said = "; ".join([*([said] if said else []), f"warned by {', '.join(warned)}"])
        if kept.refusals:
            said = f"{kept.refusals[0].name}: {kept.refusals[0].reason}"
        elif how.takes_alias:
            store.registry.set_alias(trained.model, Alias.CANDIDATE, number)
            _answer_requests(workspace, store, trained, how.options)
        store.audit.append(workspace.actor, how.action, f"{trained.model} {number}", reason=said, digests=digests)
    return _row(trained, kept, is_new=is_new, reason=said)


def _answer_requests(workspace: Workspace, store: Store, trained: TrainedModel, options: TrainOptions) -> None:
    """What was asked for before the last row that was learned from is answered, for pumps that are in the model."""
    run, now_ms = canonical.digest(trained.run_record), workspace.clock.now_ms()
    for entry in store.retraining.open({pump.pump for pump in trained.pumps}):
        if not options.until_ms or entry.at_ms < options.until_ms:
            store.retraining.put(entry.answer(run, trained.model, trained.content_digest, now_ms))
            digests = {"item": entry.digest, "run": run}
            store.audit.append(workspace.actor, "retrain.answered", entry.pump, reason=entry.reason, digests=digests)


def _row(trained: TrainedModel, version: ModelVersion, *, is_new: bool, reason: str) -> TrainedRow:
    return TrainedRow(
        pump_type=trained.spec.pump_type,
        model=trained.model,
        version=version.number,
        is_new=is_new,
        run=canonical.digest(trained.run_record),
        content_digest=trained.content_digest,
        snapshot_digest=trained.lineage.snapshot_digest,
        pumps=len(trained.pumps),
        left_out=len(trained.left_out),
        verdict=worst_verdict(version).value,
        reason=reason,
    )


def git_state(root: Path) -> tuple[str, bool]:
    """Commit and dirty flag of a workspace that is kept in git; ("", False) for one that is not, or without git."""
    if not (root / ".git").exists():
        return "", False
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(
            _git(root, "status", "--porcelain", "--", "fleet.toml", "makers", "pipelines", "policies.toml")
        )
    except (OSError, subprocess.SubprocessError):
        return "", False


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S, encoding="utf-8")
    return done.stdout.strip()
