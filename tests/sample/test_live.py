"""New rows arrive once a minute for every pump, go on where they stopped, and never come twice."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import FormatError, NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_sample.live import BACKLOG_MAX_MS, LiveFeed, Pace
from pumpdeck_sample.plan import SimulationPlan, read_plan, write_plan

END_MS = 1_760_000_040_000
PLAN = SimulationPlan(
    format=1,
    seed=7,
    sites=2,
    devices_per_site=1,
    pumps_per_device=4,
    architecture="x86_64",
    os_name="linux",
    end_ms=END_MS,
    authorised_key="ssh-ed25519 AAAA",
    ports={"gannet-d1": 2201},
)


def inboxes(tmp_path: Path) -> dict[str, Path]:
    found = {device.id: tmp_path / device.id for device in PLAN.fleet().devices}
    for path in found.values():
        path.mkdir(parents=True, exist_ok=True)
    return found


def rows_in(inbox: Path) -> list[tuple[int, str]]:
    found = []
    for path in sorted(inbox.iterdir()):
        with path.open(encoding="utf-8", newline="") as stream:
            found += [(int(line["time"]), line["pump"]) for line in csv.DictReader(stream)]
    return found


def test_each_minute_brings_one_row_of_each_pump_and_no_minute_comes_twice(tmp_path: Path) -> None:
    boxes = inboxes(tmp_path)
    feed = LiveFeed(PLAN, boxes, END_MS, RealFileSystem())
    assert feed.feed(END_MS + 59_000) == set()
    assert feed.feed(END_MS + MINUTE_MS) == set(boxes)
    assert feed.feed(END_MS + MINUTE_MS) == set()
    assert feed.feed(END_MS + 4 * MINUTE_MS + 1) == set(boxes)
    assert feed.fed_ms == END_MS + 4 * MINUTE_MS
    for device, inbox in boxes.items():
        tags = [pump.tag for pump in PLAN.fleet().pumps_by_device[device]]
        expected = {(END_MS + minute * MINUTE_MS, tag) for minute in range(1, 5) for tag in tags}
        rows = rows_in(inbox)
        assert len(rows) == len(expected)
        assert set(rows) == expected


def test_a_long_pause_is_made_up_for_by_one_day_at_most(tmp_path: Path) -> None:
    boxes = inboxes(tmp_path)
    until = END_MS + 10 * DAY_MS
    LiveFeed(PLAN, boxes, END_MS, RealFileSystem()).feed(until)
    times = sorted({at_ms for at_ms, _ in rows_in(boxes["gannet-d1"])})
    assert times[0] == until - BACKLOG_MAX_MS + MINUTE_MS
    assert times[-1] == until
    assert len(times) == 1440


def test_a_fault_goes_on_and_the_noise_is_new(tmp_path: Path) -> None:
    """The pump with worn bearings still runs hot when rows are fed; two feeds of different starts share no noise."""
    fault = PLAN.scenario().faults[0]
    fleet = PLAN.fleet()
    pump = fleet.pump(fault.pump_id)

    def mean_temperature(plan: SimulationPlan, name: str) -> list[float]:
        boxes = {pump.device: tmp_path / name}
        boxes[pump.device].mkdir()
        LiveFeed(plan, boxes, END_MS, RealFileSystem()).feed(END_MS + 2 * HOUR_MS)
        found = []
        for path in sorted(boxes[pump.device].iterdir()):
            with path.open(encoding="utf-8", newline="") as stream:
                found += [line for line in csv.DictReader(stream) if line["pump"] == pump.tag]
        return [float(line["vibration_mm_s"]) for line in found]

    ill = mean_temperature(PLAN, "ill")
    later_fault = dataclasses.replace(PLAN, end_ms=END_MS + 30 * DAY_MS)
    well = mean_temperature(later_fault, "well")
    assert sum(ill) / len(ill) > 1.3 * sum(well) / len(well)
    assert len(set(ill)) > 10


def test_only_the_devices_asked_for_get_rows(tmp_path: Path) -> None:
    boxes = {"gannet-d1": inboxes(tmp_path)["gannet-d1"]}
    LiveFeed(PLAN, boxes, END_MS, RealFileSystem()).feed(END_MS + MINUTE_MS)
    assert len(rows_in(tmp_path / "gannet-d1")) == 4
    assert rows_in(tmp_path / "wadi-rahl-d1") == []


def test_pace_follows_real_time_or_runs_ahead() -> None:
    assert Pace(END_MS).simulated_ms(60.0) == END_MS + MINUTE_MS
    assert Pace(END_MS, speed=60.0).simulated_ms(1.5) == END_MS + 90_000


def test_a_plan_is_read_back_as_it_was_written_and_damage_is_named(tmp_path: Path) -> None:
    fs = RealFileSystem()
    with pytest.raises(NotFoundError, match=r"simulation\.json"):
        read_plan(fs, tmp_path)
    write_plan(fs, tmp_path, PLAN)
    assert read_plan(fs, tmp_path) == PLAN
    (tmp_path / "simulation.json").write_text('{"format":1}', encoding="utf-8")
    with pytest.raises(FormatError):
        read_plan(fs, tmp_path)
