"""The inventory: the example files are normative, and every mistake is told with file, line, key, expected and found."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from pumpdeck_fleet.core.canonical import MAX_SAFE_INTEGER
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import EXIT_USAGE, NotFoundError
from pumpdeck_fleet.core.inventory import EventKind, Link, Window
from pumpdeck_fleet.services import inventory_types
from pumpdeck_fleet.services.inventory_file import load_fleet, maintenance_of, reference_start_ms
from pumpdeck_fleet.services.toml_file import TomlError

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = (DOCS / "fleet.example.toml").read_text(encoding="utf-8")
MAKER = (DOCS / "maker.example.toml").read_text(encoding="utf-8")


def make(folder: Path, text: str = EXAMPLE, maker: str = MAKER) -> Path:
    (folder / "makers").mkdir(exist_ok=True)
    (folder / "fleet.toml").write_text(text, encoding="utf-8", newline="\n")
    (folder / "makers" / "northfield.toml").write_text(maker, encoding="utf-8", newline="\n")
    return folder


def test_the_example_is_read_as_it_says(tmp_path: Path) -> None:
    fleet = load_fleet(make(tmp_path))
    assert fleet.name == "Example fleet"
    site = fleet.site("gannet")
    assert (site.link, site.time_zone, site.position, site.window) == (Link.SSH, "Europe/London", (57.18, 1.0), Window(120, 300))
    device = fleet.device("gannet-d1")
    assert (device.site, device.device_class, device.port, device.user) == ("gannet", "edge-x86", 22, "pumpdeck")
    pump = fleet.pump("P-101A")
    assert (pump.id, pump.maker, pump.criticality, pump.labels) == ("gannet/P-101A", "northfield", 2, ("wet-gas",))
    assert fleet.pump_types["esp"].channels[0].name == "suction_pressure_bar"
    assert not fleet.pump_types["esp"].channel("speed_rpm").votes
    assert fleet.makers["northfield"].scales == {"Suct.Press": (0.0689476, 0.0)}
    event, work = fleet.events
    assert (event.subject, event.kind, event.at_ms) == ("gannet/P-101A", EventKind.OVERHAUL, parse_ms("2026-03-01T06:00:00Z"))
    span = (parse_ms("2026-04-12T06:00:00Z"), parse_ms("2026-04-12T18:00:00Z"))
    assert (work.subject, work.kind, work.at_ms, work.until_ms) == ("gannet-d1", EventKind.MAINTENANCE, *span)


def test_the_examples_show_every_key_that_is_understood() -> None:
    shown = set(re.findall(r"(\w+) = ", EXAMPLE))
    structs = (
        inventory_types.FleetEntry,
        inventory_types.SiteEntry,
        inventory_types.DeviceEntry,
        inventory_types.PumpEntry,
        inventory_types.EventEntry,
        inventory_types.ChannelEntry,
        inventory_types.PumpTypeEntry,
        inventory_types.DeviceClassEntry,
    )
    tables = {"device_classes", "pump_types", "sites", "devices", "events"}
    for struct in structs:
        assert set(struct.__struct_fields__) - shown - tables == set(), struct
    assert all(f"{name}" in MAKER for name in inventory_types.MakerEntry.__struct_fields__)


def test_the_digest_follows_any_byte_of_any_file(tmp_path: Path) -> None:
    digests = {
        load_fleet(make(tmp_path)).digest,
        load_fleet(make(tmp_path, EXAMPLE + "\n")).digest,
        load_fleet(make(tmp_path, EXAMPLE, MAKER + "# x\n")).digest,
    }
    assert len(digests) == 3


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "fleet.toml").write_bytes(b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode())
    assert len(load_fleet(tmp_path).pumps) == 2


MISTAKES = [
    ("port = 22", 'port = "22"', "port", "a whole number", "'22'"),
    ("port = 22", "prot = 22", "prot", "unknown key", ""),
    ("port = 22", "port = 70000", "port", "65535", "70000"),
    ('tag = "P-101B"', 'tag = "p-101a"', "tag", "stands twice at this site", "'p-101a'"),
    ('tag = "P-101B"', 'tag = "P 101B"', "tag", "is not a pump tag", "'P 101B'"),
    ('type = "esp", maker = "northfield", model = "NF-400", criticality = 2, redundancy_group = "P-101" }',
     'type = "exp", maker = "northfield" }', "type", "esp", "'exp'"),
    ('maker = "northfield", model = "NF-400", criticality = 2, redundancy_group = "P-101" }',
     'maker = "southfield" }', "maker", "northfield", "'southfield'"),
    ('device_class = "edge-x86"', 'device_class = "edge"', "device_class", "edge-x86", "'edge'"),
    ('subject = "gannet/P-101A"', 'subject = "gannet/P-9"', "subject", "neither a pump nor a device", "'gannet/P-9'"),
    ('channel = ""', 'channel = "flow"', "channel", "suction_pressure_bar", "flow"),
    ('id = "gannet"\n', "", "sites[1]", "lacks a key; expected id", ""),
    ("low = -20", 'low = "cold"', "pump_types.esp.channels[2].low", "a number", "'cold'"),
    ("low = -20", "low = 400", "channels[2].high", "more than 400", "250"),
    ("low = -20", "low = nan", "channels[2]", "range is empty", ""),
    ('"Europe/London"', '"Europe/Atlantis"', "time_zone", "Europe/London", "'Europe/Atlantis'"),
    ('"02:00-05:00"', '"2-5"', "window", "HH:MM-HH:MM", "'2-5'"),
    ('link = "ssh"', 'link = "usb"', "link", "ssh, courier, mqtt", "'usb'"),
    ("criticality = 2", "criticality = 9", "pumps[1].criticality", "<= 5", "9"),
    ("position = [57.18, 1.00]", "position = [157.18, 1.00]", "position[1]", "<= 90", "157.18"),
    ("at = 2026-03-01T06:00:00Z", "at = 2026-03-01T06:00:00", "events[1].at", "a time with zone", ""),
    ("until = 2026-04-12T18:00:00Z", "until = 2026-04-12T06:00:00Z", "events[2].until", "ends before it begins", "after 2026-04"),
    ('channel = ""', "until = 2026-04-12T18:00:00Z", "events[1].until", "only maintenance has an end", "overhaul"),
    ('kind = "overhaul"', 'kind = "party"', "events[1].kind", "overhaul, sensor_swapped", "'party'"),
    ("format = 1", "format = 2", "format", "expected 1", "2"),
    ("memory_mb = 512", "memory_mb = 0", "device_classes.edge-x86.memory_mb", ">= 1", "0"),
    ('architecture = "x86_64"', 'architecture = "vax"', "edge-x86.architecture", "aarch64, armv7l, x86_64", "'vax'"),
    ('id = "gannet-d1"', 'id = "Gannet D1"', "devices[1].id", "is not a safe name", "'Gannet D1'"),
    ('name = "speed_rpm"', 'name = "suction_pressure_bar"', "channels[3].name", "stands twice", "'suction_pressure_bar'"),
    ('name = "Example fleet"', 'name = "Example fleet', "line 3", "is not TOML", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "expected", "found"), MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, key: str, expected: str, found: str) -> None:
    assert EXAMPLE.count(old) >= 1
    text = EXAMPLE.replace(old, new, 1)
    with pytest.raises(TomlError) as caught:
        load_fleet(make(tmp_path, text))
    message = caught.value.sentence()
    line = int(re.search(r"fleet\.toml, line (\d+)", message)[1])  # type: ignore[index]
    changed = 1 + EXAMPLE[: EXAMPLE.index(old)].count("\n")
    # A key that is missing is told where its table begins, an empty range at its other end.
    assert abs(line - changed) <= (1 if "lacks" in message else 0)
    for words in (key, expected, found):
        assert words in message
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"MotTemp" = "motor_temperature_c"', '"MotTemp" = "motor_temp"', "line 8, aliases.MotTemp: names a channel"),
        ('"MotTemp" = "motor_temperature_c"', '"MotTemp" = 3', "line 8, aliases.MotTemp: has the wrong type"),
        ("[0.0689476, 0.0]", "[0.0, 0.0]", "line 11, scales.Suct.Press: is no scale"),
        ("[0.0689476, 0.0]", "[0.0689476]", "line 11, scales.Suct.Press"),
        ('"Suct.Press" = [', '"Suction" = [', "line 11, scales.Suction: is neither an alias nor a channel"),
        ('id = "northfield"', 'id = "other"', "line 3, id: a maker's file is named as its id"),
    ],
)
def test_a_mistake_in_a_makers_file_is_told_there(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(TomlError) as caught:
        load_fleet(make(tmp_path, EXAMPLE, MAKER.replace(old, new, 1)))
    assert words in caught.value.sentence()
    assert "northfield.toml" in caught.value.sentence()


def test_bytes_that_are_not_utf_8_are_told_with_their_line(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "fleet.toml").write_bytes(EXAMPLE.replace("Gannet Alpha", "Gannet Ålpha").encode("cp1252"))
    with pytest.raises(TomlError, match="line 29: is not UTF-8"):
        load_fleet(tmp_path)


def test_no_inventory_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="pumpdeck init"):
        load_fleet(tmp_path)


def test_two_devices_or_sites_of_one_id_are_refused(tmp_path: Path) -> None:
    site = EXAMPLE[EXAMPLE.index("[[sites]]") : EXAMPLE.index("# What changes")]
    with pytest.raises(TomlError, match=r"sites\[2\]\.id: stands twice"):
        load_fleet(make(tmp_path, EXAMPLE + site))
    with pytest.raises(TomlError, match=r"sites\[2\]\.devices\[1\]\.id: stands twice"):
        load_fleet(make(tmp_path, EXAMPLE + site.replace('id = "gannet"', 'id = "brent"')))


def test_one_tag_at_two_sites_is_fine_and_needs_its_site(tmp_path: Path) -> None:
    site = EXAMPLE[EXAMPLE.index("[[sites]]") : EXAMPLE.index("# What changes")]
    fleet = load_fleet(make(tmp_path, EXAMPLE + site.replace('"gannet', '"brent')))
    assert fleet.pump("brent/P-101A").site == "brent"
    with pytest.raises(NotFoundError, match="several sites"):
        fleet.pump("P-101A")


def test_an_event_ends_the_reference_window_when_its_time_has_come(tmp_path: Path) -> None:
    later = '\n[[events]]\nat = 2026-05-01T00:00:00+02:00\nsubject = "gannet-d1"\nkind = "device_replaced"\n'
    fleet = load_fleet(make(tmp_path, EXAMPLE + later))
    overhaul, replaced = parse_ms("2026-03-01T06:00:00Z"), parse_ms("2026-04-30T22:00:00Z")
    assert reference_start_ms(fleet, "P-101A", overhaul - 1) == 0
    assert reference_start_ms(fleet, "P-101A", overhaul) == overhaul
    assert reference_start_ms(fleet, "P-101A", replaced + 1) == replaced
    assert reference_start_ms(fleet, "P-101B", replaced - 1) == 0
    assert reference_start_ms(fleet, "P-101B", replaced) == replaced


def test_maintenance_is_an_interval_of_a_pump_a_device_or_a_site_and_ends_no_reference_window(tmp_path: Path) -> None:
    later = (
        '\n[[events]]\nat = 2026-05-01T00:00:00Z\nsubject = "gannet/P-101A"\nkind = "maintenance"\n'
        '\n[[events]]\nat = 2026-04-20T00:00:00Z\nuntil = 2026-04-21T00:00:00Z\nsubject = "gannet"\nkind = "maintenance"\n'
    )
    fleet = load_fleet(make(tmp_path, EXAMPLE + later))
    work = (parse_ms("2026-04-12T06:00:00Z"), parse_ms("2026-04-12T18:00:00Z"))
    site = (parse_ms("2026-04-20T00:00:00Z"), parse_ms("2026-04-21T00:00:00Z"))
    open_end = (parse_ms("2026-05-01T00:00:00Z"), MAX_SAFE_INTEGER)
    assert maintenance_of(fleet, "P-101A") == (work, site, open_end)
    assert maintenance_of(fleet, "P-101B") == (work, site)
    assert reference_start_ms(fleet, "P-101A", open_end[0] + 1) == parse_ms("2026-03-01T06:00:00Z")
    with pytest.raises(TomlError, match="a site id"):
        load_fleet(make(tmp_path, EXAMPLE.replace('subject = "gannet/P-101A"', 'subject = "gannet"')))


def test_ten_thousand_pumps_are_read_without_the_line_locator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pumpdeck_fleet.services.toml_file.line_of", lambda *_: pytest.fail("looked for a line"))
    head = EXAMPLE[: EXAMPLE.index("[[sites]]")]
    pumps = ", ".join(f'{{ tag = "P-{number}", type = "esp", maker = "northfield" }}' for number in range(100))
    sites = [
        f'[[sites]]\nid = "s{n}"\nname = "S"\nkind = "pad"\nlink = "ssh"\n'
        f'[[sites.devices]]\nid = "d{n}"\ndevice_class = "edge-x86"\npumps = [{pumps}]\n'
        for n in range(100)
    ]
    started = time.perf_counter()
    assert len(load_fleet(make(tmp_path, head + "".join(sites))).pumps) == 10_000
    print(f"{time.perf_counter() - started:.2f} s")
    shutil.rmtree(tmp_path / "makers")
