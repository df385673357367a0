"""Adding to the inventory keeps every comment, and an addition that cannot be used changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Device, EventKind, InventoryEvent, Link, Pump, Site, Window
from pumpdeck_fleet.services.inventory_edit import add_device, add_event, add_pump, add_site, set_device_keys
from pumpdeck_fleet.services.inventory_file import load_fleet
from pumpdeck_fleet.services.toml_file import TomlError

DOCS = Path(__file__).parents[3] / "docs"
FS = RealFileSystem()
SITE = Site("brent", "Brent Bravo", "platform", Link.COURIER, "Europe/Oslo", (61.0, 1.7), 64.0, 5.0, Window(120, 1380))
DEVICE = Device("brent", "brent-d1", "edge-x86", "10.0.0.9", 2222, "pump", "ssh-ed25519 AAAA", "", "strict")
PUMP = Pump("brent", "brent-d1", "W-7", "esp", "northfield", "NF-1", 1, "W", ("new", "tall"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "makers").mkdir()
    (tmp_path / "fleet.toml").write_bytes((DOCS / "fleet.example.toml").read_bytes())
    (tmp_path / "makers" / "northfield.toml").write_bytes((DOCS / "maker.example.toml").read_bytes())
    return tmp_path


def refuse(folder: Path, kind: type[PumpdeckError], change: object, *arguments: object) -> PumpdeckError:
    before = (folder / "fleet.toml").read_bytes()
    with pytest.raises(kind) as caught:
        change(folder, FS, *arguments)  # type: ignore[operator]
    assert (folder / "fleet.toml").read_bytes() == before
    return caught.value


def test_site_device_and_pump_come_back_as_they_were_given(folder: Path) -> None:
    add_site(folder, FS, SITE)
    add_device(folder, FS, DEVICE)
    fleet = add_pump(folder, FS, PUMP)
    assert (fleet.site("brent"), fleet.device("brent-d1"), fleet.pump("brent/W-7")) == (SITE, DEVICE, PUMP)
    assert load_fleet(folder) == fleet


def test_every_line_that_was_there_is_there_still(folder: Path) -> None:
    before = (folder / "fleet.toml").read_text(encoding="utf-8").splitlines()
    add_site(folder, FS, SITE)
    add_device(folder, FS, DEVICE)
    add_pump(folder, FS, PUMP)
    add_pump(folder, FS, dataclasses.replace(PUMP, site="gannet", device="gannet-d1", tag="P-102"))
    add_event(folder, FS, InventoryEvent(parse_ms("2026-05-01T00:00:00Z"), "gannet/P-102", EventKind.OVERHAUL))
    after = (folder / "fleet.toml").read_text(encoding="utf-8").splitlines()
    rest = iter(after)
    assert all(line in rest for line in before)
    assert sum("#" in line for line in after) == sum("#" in line for line in before)


def test_pumps_stand_one_a_line(folder: Path) -> None:
    add_site(folder, FS, SITE)
    add_device(folder, FS, DEVICE)
    for number in range(3):
        add_pump(folder, FS, dataclasses.replace(PUMP, tag=f"W-{number}"))
    lines = (folder / "fleet.toml").read_text(encoding="utf-8").splitlines()
    tags = [line.strip() for line in lines if "W-" in line]
    assert [line[:14] for line in tags] == ['{tag = "W-0", ', '{tag = "W-1", ', '{tag = "W-2", ']


def test_events_are_kept_with_their_time(folder: Path) -> None:
    event = InventoryEvent(parse_ms("2026-05-01T06:30:00Z"), "gannet/P-101B", EventKind.SENSOR_SWAPPED, "new gauge", "speed_rpm")
    assert add_event(folder, FS, event).events[-1] == event
    at_ms = parse_ms("2026-05-02T06:30:00Z")
    work = InventoryEvent(at_ms, "gannet", EventKind.MAINTENANCE, "shutdown", until_ms=at_ms + 3_600_000)
    assert add_event(folder, FS, work).events[-1] == work


def test_keys_of_a_device_are_set(folder: Path) -> None:
    fleet = set_device_keys(folder, FS, "gannet-d1", host_key="ssh-ed25519 BBBB", device_key="-----BEGIN\nPEM\n-----END\n")
    assert fleet.device("gannet-d1").host_key == "ssh-ed25519 BBBB"
    assert load_fleet(folder).device("gannet-d1").device_key == "-----BEGIN\nPEM\n-----END\n"
    refuse(folder, NotFoundError, lambda f, fs: set_device_keys(f, fs, "none", host_key="", device_key=""))


def test_what_is_there_already_is_a_conflict(folder: Path) -> None:
    refuse(folder, ConflictError, add_site, dataclasses.replace(SITE, id="gannet"))
    refuse(folder, ConflictError, add_device, dataclasses.replace(DEVICE, site="gannet", id="gannet-d1"))
    pump = dataclasses.replace(PUMP, site="gannet", device="gannet-d1", tag="p-101a")
    refuse(folder, ConflictError, add_pump, pump)


def test_what_it_belongs_to_must_be_there(folder: Path) -> None:
    refuse(folder, NotFoundError, add_device, DEVICE)
    refuse(folder, NotFoundError, add_pump, PUMP)
    refuse(folder, NotFoundError, add_pump, dataclasses.replace(PUMP, device="gannet-d1"))


def test_what_the_reader_would_refuse_is_not_written(folder: Path) -> None:
    refuse(folder, TomlError, add_site, dataclasses.replace(SITE, time_zone="Mars/Olympus"))
    refuse(folder, TomlError, add_device, dataclasses.replace(DEVICE, site="gannet", device_class="none"))
    gannet = dataclasses.replace(PUMP, site="gannet", device="gannet-d1")
    refuse(folder, TomlError, add_pump, dataclasses.replace(gannet, type="none"))
    error = refuse(folder, TomlError, add_pump, dataclasses.replace(gannet, tag="W 7"))
    assert "is not a pump tag" in error.sentence()
    refuse(folder, TomlError, add_event, InventoryEvent(0, "gannet/none", EventKind.MOVED))
