"""What differs between two training runs, as their records tell, and which steps had to be done anew because of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.runs import find_run, read_run
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_trainer.gate_thresholds import GateThresholds

# Parts of a spec that judge or describe what was learned and do not change it.
NOT_LEARNED = ("gates", "search", "card")
_LINEAGE = (("code", "code_digest"), ("packages", "lock_digest"), ("seed", "seed"), ("git", "git_commit"))


@dataclass(frozen=True, slots=True)
class PartChange:
    """One thing that differs. part: spec, data, code, packages, seed, git, figure or gate; None: not there."""

    part: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class StepChange:
    """One step of the pipeline: whether its key is the same for every pump, for how many it is not, and why."""

    step: str
    same: bool
    pumps: int
    why: str


@dataclass(frozen=True, slots=True)
class RunDiff:
    """Two runs, named by the digests of their records."""

    before: str
    after: str
    same_content: bool
    parts: tuple[PartChange, ...]
    steps: tuple[StepChange, ...]


@operation("runs.diff", runs_in="reader")
def diff_runs(workspace: Workspace, *, before: str, after: str) -> RunDiff:
    """Compare two runs of one or of two model lines.

    Raises:
        NotFoundError: no run, or several, begin so.
    """
    rows = [find_run(workspace, one) for one in (before, after)]
    old, new = (read_run(workspace, run=row.run) for row in rows)
    parts = diff_records(old, new)
    same = rows[0].content_digest == rows[1].content_digest
    return RunDiff(rows[0].run, rows[1].run, same, parts, _steps(old, new))


def diff_records(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[PartChange, ...]:
    """What differs between two run records."""
    return (*_spec(old, new), *_data(old, new), *_lineage(old, new), *_figures(old, new), *_gates(old, new))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical.encode(value).decode("utf-8")


def _changed(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield PartChange(part, name, _text(old.get(name)), _text(new.get(name)))


def flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; channels by their names."""
    found: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif name == "channels":
            found |= flat({one["name"]: one for one in value}, f"{prefix}channels.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _spec(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    yield from _changed("spec", flat(_completed(old["spec"])), flat(_completed(new["spec"])))


def _completed(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the thresholds that a program of that time did not know: it judged by their defaults."""
    return {**spec, "gates": {**asdict(GateThresholds()), **spec.get("gates", {})}}


def _data(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    for name in ("start_ms", "end_ms"):
        if old["request"][name] != new["request"][name]:
            yield PartChange("data", name, _text(old["request"][name]), _text(new["request"][name]))
    yield from _changed("data", *({pump: one["snapshot"] for pump, one in each["pumps"].items()} for each in (old, new)))
    yield from _changed("data", *({f"{pump} left out": why for pump, why in each["left_out"].items()} for each in (old, new)))


def _lineage(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    for part, key in _LINEAGE:
        before, after = old["lineage"].get(key), new["lineage"].get(key)
        if before != after:
            yield PartChange(part, key, _text(before), _text(after))


def _figures(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    yield from _changed("figure", old["metrics"], new["metrics"])


def _gates(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[PartChange]:
    told = ({gate["name"]: f"{gate['verdict']}: {gate['reason']}" for gate in each["gates"]} for each in (old, new))
    yield from _changed("gate", *told)


def _steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[StepChange, ...]:
    """A step's key names all that it was made from, so where a part differs every step that reads it ran anew."""
    common = _common_reasons(old, new)
    pumps = sorted({*old["pumps"], *new["pumps"]})
    rows = [pump for pump in pumps if _of(old, pump, "snapshot") != _of(new, pump, "snapshot")]
    limits = [pump for pump in pumps if _of(old, pump, "limit") != _of(new, pump, "limit")]
    by_rows = [f"rows of {len(rows)} pumps"] if rows else []
    is_shaped = any(each["spec"]["model_type"] != "maxz" for each in (old, new))
    judged = sorted({*rows, *limits, *(pumps if is_shaped and rows else ())})
    found = [_step("fit", pumps if common else rows, [*common, *by_rows])]
    if is_shaped:
        found.append(_step("shape", pumps if common or rows else [], [*common, *by_rows]))
    by_limits = [f"limits of {len(limits)} pumps"] if limits else []
    found.append(_step("evaluate", pumps if common else judged, [*common, *by_rows, *by_limits]))
    told = (flat({name: _completed(each["spec"]).get(name, {}) for name in NOT_LEARNED}) for each in (old, new))
    judging = [f"spec {one.name}" for one in _changed("spec", *told)]
    whole = [*common, *by_rows, *by_limits, *judging]
    return (*found, _step("export", pumps if whole else [], whole))


def _common_reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    specs = [{name: value for name, value in each["spec"].items() if name not in NOT_LEARNED} for each in (old, new)]
    found = [f"spec {one.name}" for one in _changed("spec", flat(specs[0]), flat(specs[1]))]
    return [*found, *(one.part for one in _lineage(old, new) if one.part not in ("git", "seed"))]


def _step(name: str, pumps: list[str], why: list[str]) -> StepChange:
    return StepChange(name, not pumps, len(pumps), ", ".join(why) if pumps else "")


def _of(record: Mapping[str, Any], pump: str, key: str) -> Any:
    return record["pumps"].get(pump, {}).get(key)
