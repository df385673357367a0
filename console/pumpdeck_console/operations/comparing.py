"""Two versions of a model beside each other, as their run records tell: figures, slices, alarms that appear and vanish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.runs import RUN_RECORD_MAX_BYTES
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.registry import ModelVersion

MONTH_DAYS = 30.0
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One metric of both versions; None where a version has no such figure."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class SliceChange:
    """False alarms per pump and 30 days of both versions in one slice (`site gannet`, `maker ..`, `pump model ..`,
    `criticality ..`), over common pumps and time."""

    slice: str
    pumps: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PumpChange:
    """One pump: limits, and alarms over the common time. appear, vanish: alarms of one version that meet none of the other."""

    pump: str
    limit_before: float
    limit_after: float
    alarms_before: int
    alarms_after: int
    appear: int
    vanish: int


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """One alarm over the common time that one version raises and the other does not. change: `appears` or `vanishes`."""

    pump: str
    change: str
    raised_ms: int
    cleared_ms: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Version `before` against `after`. The common time is [start, end) in ms; lone pumps stand in one version only."""

    model: str
    before: int
    after: int
    same_snapshot: bool
    start_ms: int
    end_ms: int
    figures: tuple[FigureChange, ...]
    slices: tuple[SliceChange, ...]
    pumps: tuple[PumpChange, ...]
    alarms: tuple[AlarmChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


@operation("models.compare", runs_in="reader")
def compare_versions(workspace: Workspace, *, model: str, before: str, after: str = "") -> Comparison:
    """Compare two versions, each named by number or alias; without `after` the candidate, else the champion.

    Raises:
        NotFoundError: no such model or version. RefusedError: their reference windows do not overlap.
    """
    from pumpdeck_console.operations.models import find_version  # deferred: the store; pages import the types above

    first, second = find_version(workspace, model, before), find_version(workspace, model, after)
    old, new = _record(workspace, first), _record(workspace, second)
    start = max(record["request"]["start_ms"] for record in (old, new))
    end = min(record["request"]["end_ms"] for record in (old, new))
    if start >= end:
        raise RefusedError(
            "have no time in common that both learned from",
            f"{model} {first.number} and {second.number}",
            hint="train one of them on newer rows",
        )
    common = sorted(set(old["pumps"]) & set(new["pumps"]))
    changes = tuple(_pump(pump, old["pumps"][pump], new["pumps"][pump], (start, end)) for pump in common)
    return Comparison(
        model=model,
        before=first.number,
        after=second.number,
        same_snapshot=first.lineage.snapshot_digest == second.lineage.snapshot_digest,
        start_ms=start,
        end_ms=end,
        figures=_figures(first.metrics, second.metrics),
        slices=_slices(workspace, changes, (end - start) / DAY_MS),
        pumps=changes,
        alarms=tuple(
            one for pump in common for one in _changes(pump, (old["pumps"][pump], new["pumps"][pump]), (start, end))
        ),
        only_before=tuple(sorted(set(old["pumps"]) - set(new["pumps"]))),
        only_after=tuple(sorted(set(new["pumps"]) - set(old["pumps"]))),
    )


def _record(workspace: Workspace, version: ModelVersion) -> Mapping[str, Any]:
    data = workspace.artifacts.get(version.run_record_digest)
    what = f"run record of {version.model} {version.number}"
    found: Mapping[str, Any] = canonical.parse_json(data, what, max_bytes=RUN_RECORD_MAX_BYTES)
    return found


def _figures(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[FigureChange, ...]:
    return tuple(FigureChange(name, before.get(name), after.get(name)) for name in sorted({*before, *after}))


def _pump(pump: str, before: Mapping[str, Any], after: Mapping[str, Any], common: Span) -> PumpChange:
    old, new = _alarms(before, common), _alarms(after, common)
    return PumpChange(
        pump=pump,
        limit_before=before["limit"]["limit"],
        limit_after=after["limit"]["limit"],
        alarms_before=len(old),
        alarms_after=len(new),
        appear=sum(not _meets(one, old) for one in new),
        vanish=sum(not _meets(one, new) for one in old),
    )


def _changes(pump: str, records: tuple[Mapping[str, Any], Mapping[str, Any]], common: Span) -> list[AlarmChange]:
    """Alarms of this pump that appear or vanish, in order of time."""
    old, new = (_alarms(record, common) for record in records)
    found = [AlarmChange(pump, "appears", *one) for one in new if not _meets(one, old)]
    found += [AlarmChange(pump, "vanishes", *one) for one in old if not _meets(one, new)]
    return sorted(found, key=lambda one: (one.raised_ms, one.change))


def _alarms(record: Mapping[str, Any], common: Span) -> list[Span]:
    """False alarms of the replay that touch the common time, each [raised, cleared); one that stands lasts to its end."""
    start, end = common
    spans = [(raised, end if cleared is None else cleared) for raised, cleared in record["replay"]["alarms"]]
    return [(raised, cleared) for raised, cleared in spans if raised < end and cleared >= start]


def _meets(one: Span, others: Sequence[Span]) -> bool:
    return any(one[0] <= other[1] and other[0] <= one[1] for other in others)


def _slices(workspace: Workspace, changes: Sequence[PumpChange], days: float) -> tuple[SliceChange, ...]:
    """By site, maker, pump model and criticality, over the pumps that the inventory still knows."""
    known = {pump.id: pump for pump in workspace.fleet.pumps}
    groups: dict[str, list[PumpChange]] = {}
    for change in changes:
        pump = known.get(change.pump)
        if pump is not None:
            names = [f"site {pump.site}", f"maker {pump.maker}", f"criticality {pump.criticality}"]
            for name in (*names, *([f"pump model {pump.model}"] if pump.model else ())):
                groups.setdefault(name, []).append(change)
    months = days / MONTH_DAYS
    return tuple(
        SliceChange(
            name,
            len(group),
            round(sum(one.alarms_before for one in group) / (len(group) * months), 6),
            round(sum(one.alarms_after for one in group) / (len(group) * months), 6),
        )
        for name, group in sorted(groups.items())
    )
