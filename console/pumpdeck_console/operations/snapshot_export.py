"""A snapshot as Parquet files `site=<id>/date=<day>/rows.parquet` for notebooks, with a manifest that names it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.snapshots import find_snapshot
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.errors import ConflictError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.numeric.frame import TelemetryFrame

MANIFEST_FILE = "snapshot.json"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    snapshot_digest: str
    files: int
    rows: int
    bytes: int


@operation("snapshots.export", runs_in="worker")
def export_snapshot(
    workspace: Workspace, *, snapshot: str, to: str, on_progress: Progress = no_progress
) -> ExportReport:
    """Write every row of a snapshot, each chunk proven by its digest first; the manifest is written last.

    A folder without its manifest is an export that was cut. The folder must be empty or not there.

    Raises:
        ConflictError: the folder holds something. NotFoundError, DamagedError: as `show_snapshot`.
    """
    source = find_snapshot(workspace, snapshot)
    folder = Path(to)
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError("the folder is not empty", str(folder), hint="name a new one")
    by_site: dict[str, list[str]] = defaultdict(list)
    for pump in source.pumps:
        by_site[pump.partition("/")[0]].append(pump)
    files: dict[str, Any] = {}
    rows = size = 0
    for place, (site, pumps) in enumerate(sorted(by_site.items())):
        on_progress("export", place, len(by_site))
        frames = [(pump, source.rows(pump)) for pump in pumps]
        for day in _days(frames):
            data = _parquet([(pump, frame.between(day, day + DAY_MS)) for pump, frame in frames])
            name = f"site={site}/date={format_ms(day)[:10]}/rows.parquet"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(workspace.fs, folder / name, data)
            files[name] = canonical.digest(data)
            size += len(data)
        rows += sum(len(frame) for _, frame in frames)
    pumps_of = {pump: canonical.digest(source.part(pump).encode()) for pump in source.pumps}
    told = {"format": 1, "snapshot": source.digest, "pumps": pumps_of, "rows": rows, "files": files}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(workspace.fs, folder / MANIFEST_FILE, canonical.encode(told))
    on_progress("export", len(by_site), len(by_site))
    return ExportReport(source.digest, len(files), rows, size)


def _days(frames: list[tuple[str, TelemetryFrame]]) -> list[int]:
    return sorted({int(day) * DAY_MS for _, frame in frames for day in set((frame.at_ms // DAY_MS).tolist())})


def _parquet(frames: list[tuple[str, TelemetryFrame]]) -> bytes:
    """Columns pump, time (UTC), one a channel (null: missing), flags."""
    import io

    import pyarrow as pa  # deferred: heavy
    import pyarrow.parquet as pq

    held = [(pump, frame) for pump, frame in frames if len(frame)]
    channels = tuple(sorted({name for _, frame in held for name in frame.channels}))
    tables = []
    for pump, frame in held:
        values = frame.select(channels).values
        columns = {
            "pump": pa.array([pump] * len(frame), pa.string()),
            "time": pa.array(frame.at_ms, pa.timestamp("ms", tz="UTC")),
            **{name: pa.array(values[:, i], pa.float32(), from_pandas=True) for i, name in enumerate(channels)},
            "flags": pa.array(frame.flags, pa.uint16()),
        }
        tables.append(pa.table(columns))
    out = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), out, compression="zstd")
    return out.getvalue()
