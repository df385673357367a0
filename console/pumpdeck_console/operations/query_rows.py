"""What a query sees of model versions, training runs and snapshots: the fields of docs/query.md, one mapping a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.query_fields import MODELS, OWN, RUNS, SNAPSHOTS, Vocabulary
from pumpdeck_fleet.core.registry import FOREIGN

if TYPE_CHECKING:
    from pumpdeck_console.operations.models import ModelRow
    from pumpdeck_console.operations.runs import RunRow
    from pumpdeck_console.operations.snapshots import SnapshotRow

Facts = dict[str, Any]
R = TypeVar("R")


def model_facts(row: ModelRow) -> Facts:
    """The fields of one model version."""
    version = row.version
    return {
        "name": f"{version.model} v{version_name(version.number)}",
        "model": version.model,
        "version": version.number,
        "type": version.pump_type,
        "model_type": version.model_type,
        "alias": tuple(alias.value for alias in row.aliases),
        "gates": row.verdict.value,
        "pumps": len(version.pumps),
        "running": row.pumps_running,
        "made": version.created_ms,
        "digest": version.content_digest,
        "note": version.note,
        "origin": FOREIGN if version.origin else OWN,
        "made_by": version.origin.made_by if version.origin else None,
    }


def run_facts(row: RunRow) -> Facts:
    """The fields of one training run."""
    return {
        "run": row.run,
        "name": f"{row.model} v{version_name(row.version)}" if row.version else row.model,
        "model": row.model,
        "version": row.version or None,
        "type": row.pump_type or None,
        "state": row.state,
        "kind": row.kind,
        "at": row.at_ms,
        "actor": row.actor,
        "snapshot": row.snapshot_digest,
        "content": row.content_digest,
        "reason": row.reason,
    }


def snapshot_facts(row: SnapshotRow) -> Facts:
    """The fields of one snapshot."""
    return {
        "snapshot": row.snapshot_digest,
        "type": row.pump_type,
        "model": row.model or None,
        "versions": len(row.versions),
        "alias": row.aliases,
        "pumps": row.pumps,
        "held": "yes" if row.held else "no",
        "end": row.data_end_ms or None,
    }


def select_models(rows: Iterable[ModelRow], query: str, now_ms: int) -> tuple[ModelRow, ...]:
    """The versions that `query` selects, in their order. Raises: QueryError."""
    return _select(rows, model_facts, (query, MODELS), now_ms)


def select_runs(rows: Iterable[RunRow], query: str, now_ms: int) -> tuple[RunRow, ...]:
    """The runs that `query` selects, in their order. Raises: QueryError."""
    return _select(rows, run_facts, (query, RUNS), now_ms)


def select_snapshots(rows: Iterable[SnapshotRow], query: str, now_ms: int) -> tuple[SnapshotRow, ...]:
    """The snapshots that `query` selects, in their order. Raises: QueryError."""
    return _select(rows, snapshot_facts, (query, SNAPSHOTS), now_ms)


def _select(
    rows: Iterable[R], facts: Callable[[R], Facts], asked: tuple[str, Vocabulary], now_ms: int
) -> tuple[R, ...]:
    query, kind = asked
    if not query.strip():
        return tuple(rows)
    from pumpdeck_fleet.core.query import parse_query  # deferred: most lists have no query

    return tuple(parse_query(query, kind).select(rows, facts, now_ms))
