"""Bring a CSV or Parquet file into the store: everything that can be used, or nothing; the same file twice changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import InputError, NotFoundError
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.telemetry import IngestProblem, IngestReport
from pumpdeck_fleet.services.ingest_columns import ColumnPlan
from pumpdeck_fleet.services.ingest_intake import Intake
from pumpdeck_fleet.services.ingest_options import IngestOptions
from pumpdeck_fleet.services.ingest_sources import open_source
from pumpdeck_fleet.store import Store

__all__ = ["IngestOptions", "ingest_file"]

HASH_BLOCK_BYTES = 4 * 1024 * 1024


def ingest_file(
    store: Store,
    fleet: Fleet,
    path: Path,
    options: IngestOptions | None = None,
    on_progress: Progress | None = None,
) -> IngestReport:
    """What became of the file's rows; they and the report are committed together, with the caller's transaction if there is one.

    Raises:
        NotFoundError: no such file, pump, site or maker.
        InputError: the file cannot be used; names file, line and column. Nothing was imported.
        BusyError: another program holds the store.
    """
    options = options or IngestOptions()
    report_progress = on_progress or _silent
    _check_file(path)
    digest = _digest(path, fleet, options, report_progress)
    known = store.sources.seen(digest)
    if known is not None:
        return _already(path, known)
    try:
        source = open_source(path, options)
        plan = ColumnPlan(source.header, source.columns, fleet, options)
        with store.atomic():
            intake = Intake(store, fleet, source, plan, options)
            for block in source.blocks(plan.time, plan.pump, plan.values):
                intake.take(block)
                report_progress("rows", *source.progress())
            report = intake.report(str(path), digest)
            store.sources.add(report)
    except OSError as error:
        raise InputError(f"cannot be read ({error})", str(path), hint="copy it again") from error
    return report


def _silent(_step: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _check_file(path: Path) -> None:
    if not path.exists():
        raise NotFoundError("no such file", str(path))
    if not path.is_file():
        raise InputError("is not a file", str(path), expected="a CSV or Parquet file")
    if path.stat().st_size == 0:
        raise InputError("is empty", str(path), expected="a header line and rows", found="0 bytes")


def _digest(path: Path, fleet: Fleet, options: IngestOptions, on_progress: Callable[[str, int, int], None]) -> str:
    """What makes an ingest the same: the file's bytes, the options, and the inventory that gives names their meaning."""
    whole = hashlib.sha256(canonical.encode({"fleet": fleet.digest, "options": options}))
    done, total = 0, path.stat().st_size
    try:
        with path.open("rb") as stream:
            while block := stream.read(HASH_BLOCK_BYTES):
                whole.update(block)
                done += len(block)
                on_progress("check", done, total)
    except OSError as error:
        raise InputError(f"cannot be read ({error})", str(path), hint="copy it again") from error
    return whole.hexdigest()


def _already(path: Path, known: IngestReport) -> IngestReport:
    told = IngestProblem("this very file was ingested before; nothing changed", str(path), known.accepted + known.already)
    return IngestReport(
        path=str(path),
        digest=known.digest,
        accepted=0,
        flagged=0,
        refused=0,
        already=known.accepted + known.already,
        pumps=known.pumps,
        start_ms=known.start_ms,
        end_ms=known.end_ms,
        problems=(told,),
    )
