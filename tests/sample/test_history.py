"""The history is what a site would hand over: readable, complete, and true to the rows that were simulated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_sample.fleet import FleetSize, build_fleet
from pumpdeck_sample.history import (
    HISTORY_DAYS,
    History,
    history_times,
    simulate_history,
    write_history,
    write_last_day,
)
from pumpdeck_sample.makers import MAKER_BY_ID
from pumpdeck_sample.scenario import demo_scenario

END_MS = 1_760_000_040_000
SEED = 7


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return build_fleet(FleetSize(2, 2, 4), SEED, architecture="x86_64", os_name="linux")


@pytest.fixture(scope="module")
def history(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> History:
    scenario = demo_scenario(fleet, END_MS, SEED)
    rows = simulate_history(fleet, scenario, END_MS, SEED)
    return write_history(fleet, scenario, rows, tmp_path_factory.mktemp("history"), RealFileSystem())


def test_the_times_are_ten_minutes_apart_then_one_minute_on_the_last_day() -> None:
    at_ms = history_times(END_MS)
    assert at_ms.size == 29 * 144 + 1440 == 5616
    assert at_ms[-1] == END_MS
    assert at_ms[0] == END_MS - HISTORY_DAYS * DAY_MS + 10 * MINUTE_MS
    steps = np.diff(at_ms)
    assert set(steps[:4175]) == {10 * MINUTE_MS}
    assert set(steps[4175:]) == {MINUTE_MS}


def test_every_pump_has_every_row(fleet: Fleet, history: History) -> None:
    assert sum(file.rows for file in history.files) == len(fleet.pumps) * 5616
    assert {file.site for file in history.files} == {"gannet", "wadi-rahl"}
    assert {bool(file.maker) for file in history.files} == {True, False}


def test_a_parquet_file_holds_the_rows_that_were_simulated(history: History) -> None:
    file = next(file for file in history.files if file.path.suffix == ".parquet")
    table = pyarrow.parquet.read_table(file.path)
    of_type = next(rows for rows in history.rows if rows.pump_type == file.pump_type)
    assert table.column_names == ["time", "pump", *of_type.channels]
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    pumps = np.array(table["pump"].to_pylist())
    for row, pump_id in enumerate(of_type.pump_ids):
        chosen = pumps == pump_id
        if not chosen.any():
            continue
        assert (table["time"].cast("int64").to_numpy()[chosen] == of_type.at_ms).all()
        for column, name in enumerate(of_type.channels):
            np.testing.assert_array_equal(table[name].to_numpy()[chosen], of_type.values[column, row])


def test_a_makers_csv_gives_back_the_rows_by_its_profile(history: History) -> None:
    """Read with the csv module and the maker's profile alone: names, units, `;`, decimal comma, local time."""
    file = next(file for file in history.files if file.maker)
    profile = MAKER_BY_ID[file.maker].profile
    of_type = next(rows for rows in history.rows if rows.pump_type == file.pump_type)
    with file.path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream, delimiter=";"))
    assert len(lines) == file.rows
    row = of_type.pump_ids.index(lines[0]["Tag"])
    for number in (0, 1, 4176, 5615):
        for alias, text in lines[number].items():
            if alias in ("Time", "Tag"):
                continue
            channel = profile.aliases[alias]
            factor, offset = profile.scales.get(alias, (1.0, 0.0))
            value = of_type.values[of_type.channels.index(channel), row, number]
            assert float(text.replace(",", ".")) * factor + offset == pytest.approx(float(value), abs=2e-3)
    assert lines[-1]["Time"] == "2025-10-09 12:54:00"  # 08:54 UTC in Dubai


def test_the_truth_names_every_fault_and_the_labels_only_what_is_over(fleet: Fleet, history: History) -> None:
    truth = json.loads(history.truth.read_text(encoding="utf-8"))
    assert truth["rows"] == len(fleet.pumps) * 5616
    assert truth["end_ms"] == END_MS
    assert [fault["pump"] for fault in truth["faults"]] == [
        fault.pump_id for fault in demo_scenario(fleet, END_MS, SEED).faults
    ]
    assert truth["faults"][0]["alarm_expected_last_day"] is True
    assert history.labels.read_text(encoding="utf-8").splitlines()[0].startswith("pump,start,end,verdict,kind")


def test_the_full_fleets_labels_hold_the_repaired_fault() -> None:
    from pumpdeck_sample.history import labels_csv

    full = build_fleet(FleetSize(), SEED, architecture="x86_64", os_name="linux")
    lines = labels_csv(demo_scenario(full, END_MS, SEED)).splitlines()
    assert len(lines) == 2
    assert ",fault,imbalance," in lines[1]


def test_the_last_day_lies_in_each_devices_inbox_once(fleet: Fleet, history: History, tmp_path: Path) -> None:
    inboxes = {device.id: tmp_path / device.id / "spool" / "in" for device in fleet.devices}
    written = write_last_day(fleet, history.rows, inboxes, RealFileSystem())
    assert written == {device.id: 4 * 1440 for device in fleet.devices}
    for device, inbox in inboxes.items():
        seen: dict[str, list[int]] = {}
        for path in sorted(inbox.iterdir()):
            assert path.suffix == ".csv"
            for line in csv.DictReader(path.open(encoding="utf-8", newline="")):
                seen.setdefault(line["pump"], []).append(int(line["time"]))
        assert set(seen) == {pump.tag for pump in fleet.pumps_by_device[device]}
        for times in seen.values():
            assert times == list(range(END_MS - DAY_MS + MINUTE_MS, END_MS + MINUTE_MS, MINUTE_MS))


def test_a_reading_that_never_came_is_an_empty_cell(fleet: Fleet, history: History, tmp_path: Path) -> None:
    from pumpdeck_sample.physics import SimulatedRows

    rows = history.rows[0]
    values = rows.values.copy()
    values[2, 0, -1] = np.nan
    holed = SimulatedRows(rows.pump_type, rows.pump_ids, rows.channels, rows.at_ms, values, rows.truth)
    device = fleet.pump(rows.pump_ids[0]).device
    write_last_day(fleet, [holed], {device: tmp_path / "in"}, RealFileSystem())
    (path,) = (tmp_path / "in").iterdir()
    line = next(line for line in csv.DictReader(path.open(encoding="utf-8", newline="")) if int(line["time"]) == END_MS)
    assert line[rows.channels[2]] == ""
    assert line[rows.channels[0]] != ""


def test_the_ordinary_ingest_takes_every_file_without_a_word_of_advice(
    fleet: Fleet, history: History, tmp_path: Path
) -> None:
    """No option is given: makers' names, units, separators and zones come from the inventory and the files themselves."""
    from pumpdeck_fleet.core.clock import FixedClock
    from pumpdeck_fleet.services.ingest import ingest_file
    from pumpdeck_fleet.store.store import Store

    with Store.open(tmp_path / "pumpdeck.db", FixedClock(END_MS), create=True) as store:
        reports = [ingest_file(store, fleet, file.path) for file in history.files]
        assert [(report.accepted, report.flagged, report.refused) for report in reports] == [
            (file.rows, 0, 0) for file in history.files
        ]
        for of_type in history.rows:
            for row, pump_id in enumerate(of_type.pump_ids):
                frame = store.telemetry.frame(pump_id, 0, END_MS + 1)
                order = [frame.channels.index(name) for name in of_type.channels]
                np.testing.assert_array_equal(frame.at_ms, of_type.at_ms)
                np.testing.assert_allclose(frame.values[:, order], of_type.values[:, row].T, rtol=1e-5, atol=2e-3)
