"""Bringing files of rows into the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import FormatError, UsageError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.telemetry import IngestReport
from pumpdeck_fleet.services.ingest import ingest_file
from pumpdeck_fleet.services.ingest_options import IngestOptions


@operation("ingest", runs_in="worker")
def ingest_files(
    workspace: Workspace,
    *,
    paths: Sequence[str],
    options: Mapping[str, Any] | None = None,
    on_progress: Progress = no_progress,
) -> tuple[IngestReport, ...]:
    """Take in each file: all of it or nothing, each in a transaction with its audit entry.

    `options` are fields of `IngestOptions`. A file that was taken in before, read the same way, changes nothing and says so.

    Raises:
        InputError: names file, line and column of the first file that cannot be used; those before it stay.
        UsageError: an option is not one.
    """
    chosen = parse_options(options or {})
    reports = []
    for path in paths:
        name = Path(path).name

        def told(step: str, done: int, total: int, name: str = name) -> None:
            on_progress(f"{name}: {step}", done, total)

        reports.append(_ingest(workspace, path, chosen, told))
    return tuple(reports)


@operation("ingest.list", runs_in="reader")
def list_ingests(workspace: Workspace) -> tuple[IngestReport, ...]:
    """What was taken in, oldest first."""
    return tuple(workspace.store.sources.all())


def parse_options(options: Mapping[str, Any]) -> IngestOptions:
    """Ingest options from plain values.

    Raises:
        UsageError: an unknown option or a value of the wrong type.
    """
    try:
        return canonical.from_plain(IngestOptions, dict(options), "ingest options")
    except FormatError as error:
        raise UsageError(error.what, error.which, expected=error.expected, found=error.found) from error


def _ingest(workspace: Workspace, path: str, options: IngestOptions, on_progress: Progress) -> IngestReport:
    with workspace.store.atomic() as store:
        report = ingest_file(store, workspace.fleet, Path(path), options, on_progress)
        if report.accepted or report.flagged or report.refused:
            words = f"{report.accepted} rows new, {report.already} known, {report.flagged} flagged, {report.refused} refused"
            if report.start_ms is not None and report.end_ms is not None:
                words += f", {format_ms(report.start_ms)} to {format_ms(report.end_ms)}"
            digests = {"file": report.digest}
            store.audit.append(workspace.actor, "ingest", Path(path).name, reason=words, digests=digests)
    return report
