"""Training runs, as the audit chain and the run records tell them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.query_rows import select_runs
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.audit import AuditEntry
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.merging import parse_version_name

RUN_RECORD_MAX_BYTES = 16 * 1024 * 1024
TRAIN_ACTION = "train.run"
IMPORT_ACTION = "import.run"
REFUSED_ACTION = "train.refused"
IMPORT_REFUSED_ACTION = "import.refused"
KINDS = {
    TRAIN_ACTION: "trained",
    REFUSED_ACTION: "trained",
    IMPORT_ACTION: "imported",
    IMPORT_REFUSED_ACTION: "imported",
}
"""Audit action of a run -> what people call it."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, a training or an import: `run` is the digest of its record, its identity; `at_ms` is when it was registered.

    `state` is `done`, or `refused` by a gate; `version` is 0 and `pump_type` empty where nothing was registered.
    """

    run: str
    model: str
    version: int
    at_ms: int
    actor: str
    snapshot_digest: str
    content_digest: str
    reason: str
    state: str = "done"
    pump_type: str = ""
    kind: str = KINDS[TRAIN_ACTION]


@operation("runs.list", runs_in="reader")
def list_runs(workspace: Workspace, *, query: str = "", limit: int = 200) -> tuple[RunRow, ...]:
    """The newest `limit` runs that `query` selects, newest first.

    Raises:
        QueryError: the query cannot be read.
    """
    found: deque[RunRow] = deque(maxlen=None if query.strip() else limit)
    for entry in entries(workspace):
        if entry.action in KINDS:
            found.append(_row(workspace, entry))
    return select_runs(reversed(found), query, workspace.clock.now_ms())[:limit]


def _row(workspace: Workspace, entry: AuditEntry) -> RunRow:
    digests, is_refused = entry.digests, entry.action in (REFUSED_ACTION, IMPORT_REFUSED_ACTION)
    model, _, number = ("", "", "") if is_refused else entry.subject.rpartition(" ")
    known = None if is_refused else workspace.store.registry.by_digest(digests.get("content", ""))
    return RunRow(
        run=digests.get("run", ""),
        model=model or entry.subject,
        version=known.number if known else parse_version_name(number) or 0,
        at_ms=entry.at_ms,
        actor=entry.actor,
        snapshot_digest=digests.get("snapshot", ""),
        content_digest=digests.get("content", ""),
        reason=entry.reason,
        state="refused" if is_refused or (known and known.refusals) else "done",
        pump_type=known.pump_type if known else "",
        kind=KINDS[entry.action],
    )


def find_run(workspace: Workspace, run: str) -> RunRow:
    """The run with that digest, or the only one that begins so.

    Raises:
        NotFoundError: no run, or several, begin so.
    """
    matches = {row.run: row for row in list_runs(workspace, limit=10_000) if row.run.startswith(run.lower())}
    if len(matches) != 1 or not run:
        raise NotFoundError(
            "no such training run" if not matches else "several runs begin so",
            run,
            hint="list them with: pumpdeck runs",
        )
    return next(iter(matches.values()))


def read_run(workspace: Workspace, *, run: str) -> Mapping[str, Any]:
    """The whole record of a run, named by its digest or the first characters of it.

    Raises:
        NotFoundError: no run, or several, begin so.
    """
    found_run = find_run(workspace, run).run
    data = workspace.artifacts.get(found_run)
    found: Mapping[str, Any] = canonical.parse_json(
        data, f"run record {found_run[:12]}", max_bytes=RUN_RECORD_MAX_BYTES
    )
    return found
