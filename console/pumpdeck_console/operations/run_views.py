"""What the runs screen shows: training runs, snapshots, experiments, what devices ask for; and one run in full."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.requests import RequestRow, list_requests
from pumpdeck_console.operations.runs import RunRow, find_run, list_runs, read_run
from pumpdeck_console.operations.snapshots import SnapshotRow, list_snapshots
from pumpdeck_console.wiring import Workspace

if TYPE_CHECKING:
    from pumpdeck_trainer.run_log import LogLine

EXPERIMENTS_FOLDER = "experiments"
_MOST_POINTS = 200
_MOST_LEFT_OUT = 200
_LIVE_LOOKED_AT = 4


@dataclass(frozen=True, slots=True)
class ExperimentLine:
    """One branch of a pipeline and its newest run; `run` and `verdict` are empty before the first."""

    name: str
    pump_type: str
    changes: str
    runs: int
    run: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RunsView:
    """Runs, newest first; snapshots, newest data first; open requests; and the pump types a training can be started for."""

    as_of_ms: int
    runs: tuple[RunRow, ...] = ()
    snapshots: tuple[SnapshotRow, ...] = ()
    asked: tuple[RequestRow, ...] = ()
    experiments: tuple[ExperimentLine, ...] = ()
    pump_types: tuple[str, ...] = ()
    pump_type_of: Mapping[str, str] | None = None
    """Type of each pump that a request names."""


@dataclass(frozen=True, slots=True)
class PointLine:
    """One point of a search: what it was, what it cost and found; `place` is `chosen`, `second` or empty."""

    words: str
    false_alarms: int
    days: float
    faults: int
    faults_met: int
    over_budget: bool
    place: str


@dataclass(frozen=True, slots=True)
class ToldLine:
    """One line of a run's log; event: begin, step, progress, done, pump, warning, note, gate or end; numbers as in `LogLine`."""

    at_ms: int
    event: str
    text: str
    step: str = ""
    done: int = 0
    total: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LiveLog:
    """A training under way in any process of this computer, and what it has told so far."""

    name: str
    began_ms: int
    lines: tuple[ToldLine, ...]


@dataclass(frozen=True, slots=True)
class LiveView:
    """Trainings under way, the newest first."""

    as_of_ms: int
    runs: tuple[LiveLog, ...] = ()


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One training run as its record tells it. `lineage` are (word, value) pairs; times are ms."""

    row: RunRow
    model_type: str
    start_ms: int
    end_ms: int
    pumps: int
    provisional: int
    gates: tuple[tuple[str, str, str], ...]
    metrics: tuple[tuple[str, float], ...]
    left_out: tuple[tuple[str, str], ...]
    left_out_count: int
    points: tuple[PointLine, ...]
    lineage: tuple[tuple[str, str], ...]
    log: tuple[ToldLine, ...] = ()
    """What was kept of its log; nothing for runs from before logs were kept."""


@operation("view.runs", runs_in="reader")
def runs_view(workspace: Workspace) -> RunsView:
    """The newest state of all four lists."""
    asked = list_requests(workspace)
    known = workspace.fleet.pump_by_id
    return RunsView(
        as_of_ms=workspace.clock.now_ms(),
        runs=list_runs(workspace, limit=2_000),
        snapshots=list_snapshots(workspace),
        asked=asked,
        experiments=_experiments(workspace),
        pump_types=tuple(sorted({pump.type for pump in workspace.fleet.pumps})),
        pump_type_of={row.entry.pump: known[row.entry.pump].type for row in asked if row.entry.pump in known},
    )


def _experiments(workspace: Workspace) -> tuple[ExperimentLine, ...]:
    if not any((workspace.root / EXPERIMENTS_FOLDER).glob("*.toml")):
        return ()
    from pumpdeck_console.operations.experiments import list_experiments  # deferred: the trainer; few have experiments

    return tuple(
        ExperimentLine(
            row.name, row.pump_type, ", ".join(f"{key} = {value}" for key, value in row.set.items()), row.runs, row.run,
            row.verdict,
        )
        for row in list_experiments(workspace)
    )  # fmt: skip


@operation("view.run", runs_in="reader")
def run_detail(workspace: Workspace, *, run: str) -> RunDetail:
    """One run in full. Raises: NotFoundError: no run, or several, begin so; DamagedError: its record was altered."""
    row, record = find_run(workspace, run), read_run(workspace, run=run)
    pumps: Mapping[str, Any] = record["pumps"]
    lineage, left_out = record["lineage"], sorted(record["left_out"].items())
    search = record.get("search") or {}
    return RunDetail(
        row=row,
        model_type=str(record["spec"]["model_type"]),
        start_ms=int(record["request"]["start_ms"]),
        end_ms=int(record["request"]["end_ms"]),
        pumps=len(pumps),
        provisional=sum(bool(one["limit"]["provisional"]) for one in pumps.values()),
        gates=_gates(workspace, row, record),
        metrics=tuple(sorted((str(name), float(value)) for name, value in record["metrics"].items())),
        left_out=tuple((pump, str(reason)) for pump, reason in left_out[:_MOST_LEFT_OUT]),
        left_out_count=len(left_out),
        points=_points(search),
        lineage=(
            ("run", row.run),
            ("content", row.content_digest),
            ("snapshot", row.snapshot_digest),
            ("pipeline", str(lineage["pipeline_digest"])),
            ("code", str(lineage["code_digest"])),
            ("packages", str(lineage["lock_digest"])),
            ("seed", str(lineage["seed"])),
            ("git", f"{lineage['git_commit']}{' and changes' if lineage['git_dirty'] else ''}" or "-"),
        ),
        log=_kept_log(workspace, row.run),
    )


@operation("view.live", runs_in="reader")
def live_view(workspace: Workspace) -> LiveView:
    """What runs now. Asked every second while somebody looks, so only the newest logs are opened."""
    from pumpdeck_console.operations.run_logs import list_live, read_log  # deferred: only while somebody looks

    runs = tuple(
        LiveLog(run.name, run.began_ms, _told(read_log(workspace, run=run.name).lines))
        for run in list_live(workspace, limit=_LIVE_LOOKED_AT)
        if run.state == "running"
    )
    return LiveView(workspace.clock.now_ms(), runs)


def _told(lines: Iterable[LogLine]) -> tuple[ToldLine, ...]:
    return tuple(_told_line(one) for one in lines)


def _told_line(one: LogLine) -> ToldLine:
    text = f"{one.pump}: {one.text}" if one.pump else one.text
    return ToldLine(one.at_ms, one.event, text, one.step or "", one.done or 0, one.total or 0, one.seconds)


def _kept_log(workspace: Workspace, run: str) -> tuple[ToldLine, ...]:
    from pumpdeck_console.operations.run_logs import kept_lines, log_digest  # deferred: as above

    digest = log_digest(workspace, run)
    if not digest or not workspace.artifacts.has(digest):
        return ()
    return _told(kept_lines(workspace, digest))


def _gates(workspace: Workspace, row: RunRow, record: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Those of the version it gave, which the fleet judged too; else those of the record."""
    known = workspace.store.registry.by_digest(row.content_digest) if row.version else None
    if known is not None:
        return tuple((gate.name, gate.verdict.value, gate.reason) for gate in known.gates)
    return tuple((str(gate["name"]), str(gate["verdict"]), str(gate["reason"])) for gate in record["gates"])


def _points(search: Mapping[str, Any]) -> tuple[PointLine, ...]:
    results: Sequence[Mapping[str, Any]] = search.get("points") or ()
    places = {search.get("chosen"): "chosen", search.get("runner_up"): "second"}
    grid = [dict(one["point"]) for one in results]
    same = {key for key in (grid[0] if grid else {}) if all(point.get(key) == grid[0][key] for point in grid)}
    return tuple(
        PointLine(
            words=point_words(one["point"], same),
            false_alarms=int(one["false_alarms"]),
            days=float(one["days"]),
            faults=int(one["faults"]),
            faults_met=int(one["faults_met"]),
            over_budget=bool(one["over_budget"]),
            place=places.get(number, ""),
        )
        for number, one in enumerate(results[:_MOST_POINTS])
    )


def point_words(point: Mapping[str, Any], left_out: Collection[str] = ()) -> str:
    """A point of the grid in words: `window_s 1800, model_type pca`; without what all points have in common."""
    words = [(key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in sorted(point.items())]
    return ", ".join(f"{key} {value}" for key, value in words if key not in left_out)
