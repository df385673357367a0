"""The workspace for notebooks: pandas frames, read only. docs/data.md shows it at work.

    with open_workspace("fleet") as ws:
        ws.pumps()

Nothing here writes: the store is opened read-only, and it may be read while the console and its worker are at work. Times are
pandas timestamps in UTC. Errors are those of the command line (`PumpdeckError`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pumpdeck_console import wiring
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import FormatError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from pumpdeck_fleet.numeric.frame import TelemetryFrame

Moment = str | datetime | int
"""RFC 3339 or a day (`2026-01-31`), a datetime with a zone, or epoch milliseconds."""


def open_workspace(path: str | Path | None = None) -> NotebookWorkspace:
    """The workspace in that folder, else in PUMPDECK_WORKSPACE, else in the platform's data folder.

    Raises:
        NotFoundError: there is none.
    """
    with wiring.open_workspace(Path(path) if path is not None else None) as found:
        return NotebookWorkspace(found.reader())


class NotebookWorkspace:
    """One workspace, seen by one thread. Use it with `with`, or call `close`."""

    def __init__(self, workspace: wiring.Workspace) -> None:
        """Use `open_workspace`."""
        self._workspace = workspace

    def pumps(self, query: str = "") -> pd.DataFrame:
        """A row a pump that `query` (docs/query.md) selects: what the inventory and the store know of it."""
        from pumpdeck_console.operations.fleet import list_pumps, query_row  # deferred: one of several

        sites = self._workspace.fleet.site_by_id
        rows = [dict(query_row(row, sites[row.pump.site])) for row in list_pumps(self._workspace, query=query)]
        return _with_times(_table(rows), {"seen": "seen"})

    def telemetry(
        self, pump: str, since: Moment | None = None, until: Moment | None = None, *, scores: bool = False
    ) -> pd.DataFrame:
        """Rows of one pump with `since <= time < until` by time: a column a channel, and `flags`.

        Without `since` the last 24 hours known. `scores`: what the device computed.

        Raises:
            NotFoundError: no such pump. UsageError: a time that cannot be read, or an empty interval.
        """
        from pumpdeck_console.operations.telemetry import read_rows  # deferred: one of several

        start_ms, end_ms = _ms(since), _ms(until)
        return _rows(read_rows(self._workspace, pump=pump, start_ms=start_ms, end_ms=end_ms, scores=scores))

    def snapshots(self) -> pd.DataFrame:
        """A row a frozen training set, newest data first."""
        from pumpdeck_console.operations.snapshots import list_snapshots  # deferred: one of several

        return _with_times(_table(map(dataclasses.asdict, list_snapshots(self._workspace))), {"data_end_ms": "data_end"})

    def snapshot(self, digest: str) -> pd.DataFrame:
        """All rows of a snapshot by pump and time, each chunk proven by its digest; `left_out` says why a row taught nothing.

        Raises:
            NotFoundError: it is not held here. DamagedError: a chunk was altered.
        """
        import pandas as pd  # deferred: heavy

        from pumpdeck_console.operations.snapshots import find_snapshot  # deferred: one of several

        source = find_snapshot(self._workspace, digest)
        frames = {}
        for pump in source.pumps:
            frame = _rows(source.rows(pump))
            frame["left_out"] = ""
            for start_ms, end_ms, reason in source.part(pump).left_out:
                inside = (frame.index >= _time(start_ms)) & (frame.index < _time(end_ms))
                frame.loc[inside, "left_out"] = reason
            frames[pump] = frame
        return pd.concat(frames, names=["pump", "time"]) if frames else _table([])

    def runs(self) -> pd.DataFrame:
        """A row a training run, newest first."""
        from pumpdeck_console.operations.runs import list_runs  # deferred: one of several

        return _with_times(_table(map(dataclasses.asdict, list_runs(self._workspace, limit=10_000))), {"at_ms": "at"})

    def run(self, run: str) -> Mapping[str, Any]:
        """The whole record of one run. Raises: NotFoundError."""
        from pumpdeck_console.operations.runs import read_run  # deferred: one of several

        return read_run(self._workspace, run=run)

    def models(self) -> pd.DataFrame:
        """A row a model version: aliases, worst gate, lineage, and a column `metric_<name>` for each figure."""
        from pumpdeck_console.operations.models import list_models  # deferred: one of several

        rows = []
        for row in list_models(self._workspace):
            version = row.version
            rows.append(
                {
                    "model": version.model,
                    "version": version.number,
                    "pump_type": version.pump_type,
                    "model_type": version.model_type,
                    "aliases": ",".join(alias.value for alias in row.aliases),
                    "gates": row.verdict.value,
                    "pumps": len(version.pumps),
                    "pumps_running": row.pumps_running,
                    "content_digest": version.content_digest,
                    "snapshot_digest": version.lineage.snapshot_digest,
                    "run": version.run_record_digest,
                    "created_ms": version.created_ms,
                    **{f"metric_{name}": value for name, value in sorted(version.metrics.items())},
                }
            )
        return _with_times(_table(rows), {"created_ms": "created"})

    def close(self) -> None:
        """Close the store."""
        self._workspace.close()

    def __enter__(self) -> NotebookWorkspace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # deferred: heavy

    return pd.DataFrame(list(rows))


def _with_times(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Epoch milliseconds as timestamps, under a new name; 0 and nothing become NaT."""
    import pandas as pd  # deferred: heavy

    for old in columns:
        if old in table:
            table[old] = pd.to_datetime(table[old].where(table[old] != 0), unit="ms", utc=True)
    return table.rename(columns=dict(columns))


def _rows(frame: TelemetryFrame) -> pd.DataFrame:
    import pandas as pd  # deferred: heavy

    index = pd.DatetimeIndex(pd.to_datetime(frame.at_ms, unit="ms", utc=True), name="time")
    table = pd.DataFrame(frame.values, index=index, columns=list(frame.channels))
    table["flags"] = frame.flags
    return table


def _time(at_ms: int) -> pd.Timestamp:
    import pandas as pd  # deferred: heavy

    # Labels may end at the end of all time, which pandas does not reach.
    return pd.Timestamp(min(at_ms, 9_000_000_000_000), unit="ms", tz="UTC")


def _ms(moment: Moment | None) -> int | None:
    if moment is None or isinstance(moment, int):
        return moment
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise UsageError("has no time zone", str(moment), expected="a datetime with tzinfo")
        return round(moment.timestamp() * 1000)
    text = f"{moment}T00:00:00Z" if len(moment) == len("2026-01-31") else moment
    try:
        return parse_ms(text)
    except FormatError as error:
        raise UsageError("is not a time", moment, expected="2026-01-31 or 2026-01-31T06:00:00Z") from error
