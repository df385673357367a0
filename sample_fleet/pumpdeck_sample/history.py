"""The sample fleet's past: thirty days of rows as the files a site would hand over, the crew's labels, and the truth.

Most sites hand over Parquet, one file per pump type; the sites of a single maker hand over that maker's CSV with its own
channel names, units, `;` and decimal comma. Nothing here is read back by the product except through its ordinary ingest.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS, format_ms
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.ports import FileSystem

from .faults import Scenario
from .fleet import climates_of, pumps_to_simulate
from .live import spool_name
from .makers import MAKER_BY_ID
from .physics import FleetSimulator, SimulatedRows
from .processes import I64
from .scenario import is_alarm_expected
from .seeds import Chance
from .sites import SITE_BY_ID

HISTORY_DAYS = 30
COARSE_STEP_MS = 10 * MINUTE_MS
FINE_STEP_MS = MINUTE_MS
CSV_DECIMALS = 3


@dataclass(frozen=True)
class HistoryFile:
    """One file of the history. `maker` is set where channels bear a maker's names; `rows` counts its data rows."""

    path: Path
    site: str
    pump_type: str
    rows: int
    maker: str = ""


@dataclass(frozen=True)
class History:
    """What was written, and the rows themselves."""

    start_ms: int
    end_ms: int
    files: tuple[HistoryFile, ...]
    labels: Path
    truth: Path
    rows: tuple[SimulatedRows, ...]

    @property
    def reference_end_ms(self) -> int:
        """Where a reference window must end: on the last day some pumps fail and nobody has labelled it yet."""
        return self.end_ms - DAY_MS


def history_times(end_ms: int, days: int = HISTORY_DAYS) -> I64:
    """Times of the history's rows: one in ten minutes, and one a minute on the last day; the last row is at `end_ms`."""
    day_start = end_ms - DAY_MS
    coarse_count = (days - 1) * DAY_MS // COARSE_STEP_MS
    coarse = day_start - np.arange(coarse_count, dtype=np.int64)[::-1] * COARSE_STEP_MS
    fine = day_start + np.arange(1, DAY_MS // FINE_STEP_MS + 1, dtype=np.int64) * FINE_STEP_MS
    return np.concatenate([coarse, fine])


def simulate_history(
    fleet: Fleet, scenario: Scenario, end_ms: int, seed: int, days: int = HISTORY_DAYS
) -> list[SimulatedRows]:
    """All rows of the fleet's history, one entry per pump type."""
    simulator = FleetSimulator(
        pumps_to_simulate(fleet.pumps), climates_of([site.id for site in fleet.sites]), scenario, Chance(seed)
    )
    return simulator.advance(history_times(end_ms, days))


def write_history(
    fleet: Fleet, scenario: Scenario, rows: Sequence[SimulatedRows], folder: Path, fs: FileSystem
) -> History:
    """Write the history into `folder`: data files, `labels.csv` and `truth.json`."""
    fs.mkdir(folder)
    files = [
        _write_site(fleet, site.id, of_type, folder)
        for site in fleet.sites
        for of_type in rows
        if any(pump_id.startswith(f"{site.id}/") for pump_id in of_type.pump_ids)
    ]
    start_ms, end_ms = int(rows[0].at_ms[0]), int(rows[0].at_ms[-1])
    labels, truth = folder / "labels.csv", folder / "truth.json"
    replace_file(fs, labels, labels_csv(scenario).encode("utf-8"))
    told = truth_of(scenario, rows, (start_ms, end_ms))
    replace_file(fs, truth, json.dumps(told, indent=2, sort_keys=True).encode("utf-8"))
    return History(start_ms, end_ms, tuple(files), labels, truth, tuple(rows))


def labels_csv(scenario: Scenario) -> str:
    """What the crew had found before the history ends: one line per fault that is over."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pump", "start", "end", "verdict", "kind", "by", "at", "note"])
    for fault in scenario.faults:
        if fault.end_ms is not None:
            start, end = format_ms(fault.onset_ms), format_ms(fault.end_ms)
            writer.writerow(
                [fault.pump_id, start, end, "fault", fault.kind, "maintenance crew", end, "found and repaired"]
            )
    return text.getvalue()


def truth_of(scenario: Scenario, rows: Sequence[SimulatedRows], span_ms: tuple[int, int]) -> dict[str, Any]:
    """Every fault and drift of the scenario, for people and tests that judge the product. Times in milliseconds UTC."""
    start_ms, end_ms = span_ms
    day_start_ms = end_ms - DAY_MS
    return {
        "format": 1,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "rows": sum(len(of_type.pump_ids) * int(of_type.at_ms.size) for of_type in rows),
        "faults": [
            {
                "pump": fault.pump_id,
                "kind": fault.kind.value,
                "channel": fault.channel,
                "onset_ms": fault.onset_ms,
                "end_ms": fault.end_ms,
                "ramp_s": fault.ramp_s,
                "severity": fault.severity,
                "alarm_expected_last_day": is_alarm_expected(fault, day_start_ms, end_ms),
            }
            for fault in scenario.faults
        ],
        "drifts": [
            {"pump": drift.pump_id, "onset_ms": drift.onset_ms, "share_per_day": drift.share_per_day}
            for drift in scenario.drifts
        ],
    }


def write_last_day(
    fleet: Fleet, rows: Sequence[SimulatedRows], inboxes: Mapping[str, Path], fs: FileSystem
) -> dict[str, int]:
    """Drop the last day's rows into the spool folders `inboxes` (by device id); returns rows written by device."""
    written: dict[str, int] = {}
    pumps_by_device = fleet.pumps_by_device
    for device, inbox in inboxes.items():
        fs.mkdir(inbox)
        wanted = {pump.id: pump.tag for pump in pumps_by_device[device]}
        written[device] = 0
        for of_type in rows:
            chosen = [index for index, pump_id in enumerate(of_type.pump_ids) if pump_id in wanted]
            if not chosen:
                continue
            since = int(np.searchsorted(of_type.at_ms, of_type.at_ms[-1] - DAY_MS, side="right"))
            tags = [wanted[of_type.pump_ids[index]] for index in chosen]
            name = spool_name(int(of_type.at_ms[since]), of_type.pump_type)
            data = _spool_csv(of_type, chosen, tags, since)
            replace_file(fs, inbox / name, data)
            written[device] += len(chosen) * (of_type.at_ms.size - since)
    return written


def _spool_csv(of_type: SimulatedRows, chosen: Sequence[int], tags: Sequence[str], since: int) -> bytes:
    at_ms = of_type.at_ms[since:]
    columns: list[pa.Array] = [
        pa.array(np.repeat(at_ms, len(chosen))),
        pa.array(list(tags) * at_ms.size),
    ]
    columns += [pa.array(channel[chosen, since:].T.ravel(), from_pandas=True) for channel in of_type.values]
    return _csv_bytes(["time", "pump", *of_type.channels], columns, ",")


def _csv_bytes(header: Sequence[str], columns: Sequence[pa.Array], separator: str) -> bytes:
    table = pa.table(list(columns), names=[str(number) for number in range(len(columns))])
    sink = io.BytesIO()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter=separator, quoting_style="none")
    pyarrow.csv.write_csv(table, sink, options)
    return separator.join(header).encode("utf-8") + b"\n" + sink.getvalue()


def _write_site(fleet: Fleet, site: str, of_type: SimulatedRows, folder: Path) -> HistoryFile:
    chosen = [index for index, pump_id in enumerate(of_type.pump_ids) if pump_id.startswith(f"{site}/")]
    rows = len(chosen) * int(of_type.at_ms.size)
    maker = SITE_BY_ID[site].csv_maker
    if maker:
        path = folder / f"{site}-{of_type.pump_type}.csv"
        path.write_bytes(_maker_csv(fleet, site, of_type, chosen, maker))
    else:
        path = folder / f"{site}-{of_type.pump_type}.parquet"
        pyarrow.parquet.write_table(_table(of_type, chosen), path, compression="zstd", compression_level=1)
    return HistoryFile(path, site, of_type.pump_type.value, rows, maker)


def _table(of_type: SimulatedRows, chosen: Sequence[int]) -> pa.Table:
    count = of_type.at_ms.size
    codes = pa.array(np.repeat(np.arange(len(chosen), dtype=np.int16), count))
    pumps = pa.DictionaryArray.from_arrays(codes, [of_type.pump_ids[index] for index in chosen])
    times = pa.array(np.tile(of_type.at_ms, len(chosen)), type=pa.timestamp("ms", tz="UTC"))
    channels = [pa.array(channel[chosen].ravel(), from_pandas=True) for channel in of_type.values]
    return pa.table([times, pumps, *channels], names=["time", "pump", *of_type.channels])


def _maker_csv(fleet: Fleet, site: str, of_type: SimulatedRows, chosen: Sequence[int], maker: str) -> bytes:
    """A maker's logger file: local time of the site without an offset, the maker's names and units, `;` and `,`."""
    profile = MAKER_BY_ID[maker].profile
    alias_of = {channel: alias for alias, channel in profile.aliases.items()}
    zone = ZoneInfo(fleet.site(site).time_zone)
    stamps = pa.array([_local(int(at_ms), zone) for at_ms in of_type.at_ms])
    positions = pa.array(np.tile(np.arange(of_type.at_ms.size), len(chosen)))
    pumps = pa.array([of_type.pump_ids[index] for index in chosen])
    owners = pa.array(np.repeat(np.arange(len(chosen)), of_type.at_ms.size))
    columns = [stamps.take(positions), pumps.take(owners)]
    aliases = [alias_of[channel] for channel in of_type.channels]
    for alias, values in zip(aliases, of_type.values, strict=True):
        factor, offset = profile.scales.get(alias, (1.0, 0.0))
        raw = np.round((values[chosen].ravel().astype(np.float64) - offset) / factor, CSV_DECIMALS)
        columns.append(pa.array(raw, from_pandas=True))
    header, _, body = _csv_bytes(["Time", "Tag", *aliases], columns, ";").partition(b"\n")
    return header + b"\r\n" + body.replace(b".", b",").replace(b"\n", b"\r\n")


def _local(at_ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
