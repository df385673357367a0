"""Experiments: named branches of a pipeline. Running one trains and keeps a run record; no version, no alias ever comes of it.

An experiment is a file `experiments/<name>.toml` of the workspace: which pump type, and which keys of its spec are other.
Merging writes those keys into `pipelines/<pump type>.toml`; the next training then is an ordinary one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli
import tomlkit

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.run_diff import diff_records
from pumpdeck_console.operations.run_logs import recording
from pumpdeck_console.operations.runs import RUN_RECORD_MAX_BYTES
from pumpdeck_console.operations.training import TrainOptions, train_held
from pumpdeck_console.operations.vouching import Circle, seal_chains, voices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, InputError, NotFoundError, UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.statements import Kind, count_people
from pumpdeck_trainer.run_log import Listener, no_listener
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec, parse_pipeline
from pumpdeck_trainer.workers import LokyWorkers

FOLDER = "experiments"
RUN_ACTION = "experiment.run"
MERGE_ACTION = "experiment.merge"
_MISSING = "(default)"


@dataclass(frozen=True, slots=True)
class ExperimentFile:
    """`experiments/<name>.toml`. base: what the keys said in the pipeline when the experiment was started, as JSON."""

    format: int
    pump_type: str
    set: dict[str, Any]
    base: dict[str, str]


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """One experiment and its newest run; empty digests before the first."""

    name: str
    pump_type: str
    set: Mapping[str, Any]
    runs: int
    run: str
    content_digest: str
    snapshot_digest: str
    verdict: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CompareRow:
    """One figure, gate, key of the spec or part of the data that differs."""

    part: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The change of the spec file; missing_people: how many more must say the same before it is written."""

    name: str
    pump_type: str
    changed: tuple[tuple[str, str, str], ...]
    merged: bool
    missing_people: int


@operation("experiments.start", runs_in="worker")
def start_experiment(workspace: Workspace, *, name: str, pump_type: str, changes: Sequence[str]) -> ExperimentRow:
    """A new branch of the pipeline of `pump_type` with `changes` such as `features.window_s=1800`.

    Raises:
        ConflictError: there is such an experiment. InputError: the spec would not be one. NotFoundError: no such pump type.
    """
    check_name(name, "experiment")
    path = _path(workspace, name)
    if workspace.fs.exists(path):
        raise ConflictError("there is such an experiment already", name, hint=f"drop it first: pumpdeck experiments drop {name}")
    chosen = dict(_parse_change(one) for one in changes)
    if not chosen:
        raise UsageError("changes nothing", name, expected="--set KEY=VALUE")
    kind = _kind(workspace, pump_type)
    document = _document(workspace, kind)
    held = ExperimentFile(1, pump_type, chosen, {key: _said(document, key) for key in chosen})
    _spec(workspace, held, name)
    if not workspace.fs.exists(path.parent):
        workspace.fs.mkdir(path.parent)
    text = tomlkit.dumps({"format": 1, "pump_type": pump_type, "set": chosen, "base": held.base})
    replace_file(workspace.fs, path, text.encode("utf-8"))
    with workspace.store.atomic() as store:
        said = ", ".join(f"{key} = {_json(value)}" for key, value in chosen.items())
        store.audit.append(workspace.actor, "experiment.start", f"{name} {pump_type}", reason=said)
    return _row(workspace, name)


@operation("experiments.run", runs_in="worker")
def run_experiment(
    workspace: Workspace,
    *,
    name: str,
    until_ms: int = 0,
    on_progress: Progress = no_progress,
    on_log: Listener = no_listener,
) -> ExperimentRow:
    """Train the branch; what it shares with other runs comes from the cache. Nothing is registered.

    Raises:
        NotFoundError: no such experiment.
    """
    held = _load(workspace, name)
    spec, kind = _spec(workspace, held, name), _kind(workspace, held.pump_type)
    by = (TrainOptions(until_ms=until_ms), LokyWorkers(1))
    with recording(workspace, name, f"experiment {name} of {kind.id}, type {spec.model_type}", on_log) as recorder:
        trained = train_held(workspace, (kind, spec), by, (partial(_told, on_progress, name), recorder))
        for data in (trained.run_record, canonical.encode(trained.spec)):
            workspace.artifacts.put(data)
        digests = {
            "run": canonical.digest(trained.run_record),
            "snapshot": trained.lineage.snapshot_digest,
            "content": trained.content_digest,
            "log": workspace.artifacts.put(recorder.encode()),
        }
        with workspace.store.atomic() as store:
            store.audit.append(workspace.actor, RUN_ACTION, f"{name} {held.pump_type}", digests=digests)
    return _row(workspace, name)


def _told(on_progress: Progress, name: str, step: str, done: int, total: int) -> None:
    on_progress(f"{name}: {step}", done, total)


@operation("experiments.list", runs_in="reader")
def list_experiments(workspace: Workspace) -> tuple[ExperimentRow, ...]:
    """All experiments by name."""
    folder = workspace.root / FOLDER
    names = sorted(path.stem for path in folder.glob("*.toml")) if folder.is_dir() else []
    return tuple(_row(workspace, name) for name in names)


@operation("experiments.compare", runs_in="reader")
def compare_experiments(workspace: Workspace, *, before: str, after: str = "") -> tuple[CompareRow, ...]:
    """The newest runs of two experiments; without `after`, of `before` against the candidate or champion of its pump type.

    Raises:
        NotFoundError: one of them has no run.
    """
    first, second = (before, after) if after else ("", before)
    new = _record(workspace, _row(workspace, second).run, second)
    if first:
        old = _record(workspace, _row(workspace, first).run, first)
    else:
        registry, model = workspace.store.registry, new["model"]
        version = registry.alias(model, Alias.CANDIDATE) or registry.alias(model, Alias.CHAMPION)
        old = _record(workspace, version.run_record_digest if version else "", model)
    return tuple(CompareRow(one.part, one.name, one.before, one.after) for one in diff_records(old, new))


@operation("experiments.merge", runs_in="worker")
def merge_experiment(workspace: Workspace, *, name: str, reason: str) -> MergeReport:
    """Write the changed keys into the pipeline's file, comments kept, once enough people said so (`merge_approvals`).

    Raises:
        UsageError: no reason. NotFoundError: the experiment was never run. ConflictError: the pipeline says something else
        for a key than when the experiment was started.
    """
    if not reason.strip():
        raise UsageError("needs a reason", f"merge {name}", hint="add --reason; it goes into the audit chain")
    held, row = _load(workspace, name), _row(workspace, name)
    if not row.run:
        raise NotFoundError("was never run", name, hint=f"run it: pumpdeck experiments run {name}")
    kind = _kind(workspace, held.pump_type)
    text = _merged(workspace, kind, held, name)
    changed = tuple((key, held.base.get(key, _MISSING), _json(value)) for key, value in held.set.items())
    digests = {"run": row.run, "content": row.content_digest, "spec": canonical.digest(text.encode("utf-8"))}
    pen = Circle(workspace).any_pen()
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, MERGE_ACTION, f"{name} {held.pump_type}", reason=reason.strip(), digests=digests)
        pen.write(workspace, Kind.MERGE, name, {**digests, "actor": workspace.actor})
        seal_chains(workspace, pen)
        heard = voices(workspace, Kind.MERGE, name, digests, MERGE_ACTION)
        missing = max(workspace.policies.experiments.merge_approvals - count_people(heard), 0)
        if not missing:
            if not workspace.fs.exists(workspace.pipelines_path):
                workspace.fs.mkdir(workspace.pipelines_path)
            # Inside: when the file cannot be written, the audit entry is not made either; written twice it says the same.
            replace_file(workspace.fs, workspace.pipelines_path / f"{kind.id}.toml", text.encode("utf-8"))
    return MergeReport(name, held.pump_type, changed, not missing, missing)


@operation("experiments.drop", runs_in="worker")
def drop_experiment(workspace: Workspace, *, name: str, reason: str = "") -> None:
    """Remove the branch; its run records and audit entries stay.

    Raises:
        NotFoundError: no such experiment.
    """
    held = _load(workspace, name)
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, "experiment.drop", f"{name} {held.pump_type}", reason=reason)
        workspace.fs.unlink(_path(workspace, name))


def _path(workspace: Workspace, name: str) -> Path:
    return workspace.root / FOLDER / f"{check_name(name, 'experiment')}.toml"


def _load(workspace: Workspace, name: str) -> ExperimentFile:
    try:
        text = workspace.fs.read_bytes(_path(workspace, name), SPEC_MAX_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        raise NotFoundError("no such experiment", name, hint="list them with: pumpdeck experiments") from error
    found = tomli.loads(text)
    if found.get("format") != 1 or not isinstance(found.get("set"), dict) or not isinstance(found.get("base"), dict):
        raise InputError("is no experiment", f"{FOLDER}/{name}.toml", expected="format = 1, pump_type, [set], [base]")
    return ExperimentFile(1, str(found.get("pump_type")), found["set"], found["base"])


def _kind(workspace: Workspace, pump_type: str) -> PumpType:
    known = workspace.fleet.pump_types
    if pump_type not in known:
        raise NotFoundError("no such pump type", pump_type, expected=", ".join(sorted(known)))
    return known[pump_type]


def _document(workspace: Workspace, kind: PumpType) -> tomlkit.TOMLDocument:
    try:
        data = workspace.fs.read_bytes(workspace.pipelines_path / f"{kind.id}.toml", SPEC_MAX_BYTES)
    except FileNotFoundError:
        data = f'format = 1\npump_type = "{kind.id}"\n'.encode()
    return tomlkit.parse(data.decode("utf-8"))


def _apply(document: tomlkit.TOMLDocument, changes: Mapping[str, Any]) -> str:
    for key, value in changes.items():
        *tables, last = key.split(".")
        place: Any = document
        for table in tables:
            place = place.setdefault(table, tomlkit.table())
        place[last] = value
    return tomlkit.dumps(document)


def _spec(workspace: Workspace, held: ExperimentFile, name: str) -> PipelineSpec:
    kind = _kind(workspace, held.pump_type)
    return parse_pipeline(_apply(_document(workspace, kind), held.set), kind, f"experiment {name}")


def _merged(workspace: Workspace, kind: PumpType, held: ExperimentFile, name: str) -> str:
    document = _document(workspace, kind)
    for key, value in held.set.items():
        now = _said(document, key)
        if now not in (held.base.get(key, _MISSING), _json(value)):
            raise ConflictError(
                "the pipeline was changed since the experiment was started",
                f"{kind.id}: {key}",
                expected=held.base.get(key, _MISSING),
                found=now,
                hint="start it anew from the pipeline of now",
            )
    text = _apply(document, held.set)
    parse_pipeline(text, kind, f"experiment {name}")
    return text


def _said(document: tomlkit.TOMLDocument, key: str) -> str:
    place: Any = document.unwrap()
    for part in key.split("."):
        if not isinstance(place, dict) or part not in place:
            return _MISSING
        place = place[part]
    return _json(place)


def _json(value: Any) -> str:
    return canonical.encode(value).decode("utf-8")


def _parse_change(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or key.split(".")[0] in ("format", "pump_type"):
        raise UsageError("is not a change of a spec", text, expected="KEY=VALUE, such as features.window_s=1800")
    try:
        return key.strip(), tomli.loads(f"v = {value}")["v"]
    except tomli.TOMLDecodeError:
        return key.strip(), value


def _row(workspace: Workspace, name: str) -> ExperimentRow:
    held = _load(workspace, name)
    subject = f"{name} {held.pump_type}"
    began = [entry for entry in entries(workspace) if entry.subject == subject]
    starts = [place for place, entry in enumerate(began) if entry.action == "experiment.start"]
    runs = [entry for entry in began[starts[-1] if starts else 0 :] if entry.action == RUN_ACTION]
    if not runs:
        return ExperimentRow(name, held.pump_type, held.set, 0, "", "", "", "", {})
    digests = runs[-1].digests
    record = _record(workspace, digests["run"], name)
    verdicts = {gate["verdict"] for gate in record["gates"]}
    verdict = next((one for one in ("refuse", "warn") if one in verdicts), "pass")
    told = (digests["run"], digests["content"], digests["snapshot"], verdict, record["metrics"])
    return ExperimentRow(name, held.pump_type, held.set, len(runs), *told)


def _record(workspace: Workspace, run: str, which: str) -> Mapping[str, Any]:
    if not run:
        raise NotFoundError("has no run to compare", which, hint="run it: pumpdeck experiments run NAME")
    data = workspace.artifacts.get(run)
    found: Mapping[str, Any] = canonical.parse_json(data, f"run record {run[:12]}", max_bytes=RUN_RECORD_MAX_BYTES)
    return found
