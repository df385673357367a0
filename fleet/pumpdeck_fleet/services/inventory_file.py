"""The inventory of a workspace: `fleet.toml` and `makers/*.toml` become one `Fleet`, with every reference checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pumpdeck_fleet.core.canonical import MAX_SAFE_INTEGER
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import EventKind, Fleet, InventoryEvent, MakerProfile, PumpType
from pumpdeck_fleet.services.inventory_entries import (
    Known,
    read_device_class,
    read_maker,
    read_pump_type,
    read_sites,
)
from pumpdeck_fleet.services.inventory_types import EventEntry, FleetEntry
from pumpdeck_fleet.services.toml_file import TomlText, convert, parse_toml, read_toml

FLEET_FILE = "fleet.toml"
MAKERS_FOLDER = "makers"


def load_fleet(folder: Path) -> Fleet:
    """The inventory in that workspace folder.

    Raises:
        NotFoundError: there is no `fleet.toml`.
        TomlError: something in it cannot be used; names file, line, key, expected and found.
    """
    source = read_toml(folder / FLEET_FILE)
    makers = [read_toml(path) for path in sorted((folder / MAKERS_FOLDER).glob("*.toml"))]
    return parse_fleet(source, makers)


def parse_fleet(source: TomlText, makers: Sequence[TomlText]) -> Fleet:
    """The inventory from texts already read.

    Raises:
        TomlError: as `load_fleet`.
    """
    entry = convert(source, parse_toml(source), FleetEntry)
    types = {name: read_pump_type(source, name, table) for name, table in entry.pump_types.items()}
    known = Known(
        device_classes={name: read_device_class(source, name, table) for name, table in entry.device_classes.items()},
        pump_types=types,
        makers=_makers(makers, types),
    )
    sites, devices, pumps = read_sites(source, entry.sites, known)
    fleet = Fleet(
        name=entry.name,
        sites=tuple(sites),
        devices=tuple(devices),
        pumps=tuple(pumps),
        pump_types=known.pump_types,
        device_classes=known.device_classes,
        makers=known.makers,
        digest=_digest([source, *makers]),
    )
    events = tuple(_event(source, fleet, event, index) for index, event in enumerate(entry.events))
    return replace(fleet, events=events) if events else fleet


def _makers(texts: Sequence[TomlText], types: Mapping[str, PumpType]) -> dict[str, MakerProfile]:
    found: dict[str, MakerProfile] = {}
    for text in texts:
        maker = read_maker(text, types)
        if maker.id != text.path.stem:
            raise text.wrong(("id",), "a maker's file is named as its id", expected=f"{maker.id}.toml", found=text.path.name)
        found[maker.id] = maker
    return found


def _event(source: TomlText, fleet: Fleet, entry: EventEntry, index: int) -> InventoryEvent:
    at = ("events", index, "subject")
    pump = fleet.pump_by_id.get(entry.subject)
    is_site = entry.kind is EventKind.MAINTENANCE and entry.subject in fleet.site_by_id
    if pump is None and entry.subject not in fleet.device_by_id and not is_site:
        expected = "a pump identity such as gannet/P-101A, a device id, or for maintenance a site id"
        raise source.wrong(at, "is neither a pump nor a device of this fleet", expected=expected, found=repr(entry.subject))
    if entry.channel:
        _check_channel(source, fleet, entry, index)
    at_ms, until_ms = (round(one.timestamp() * 1000) if one else 0 for one in (entry.at, entry.until))
    if entry.until is not None and entry.kind is not EventKind.MAINTENANCE:
        raise source.wrong(("events", index, "until"), "only maintenance has an end", expected="no until", found=entry.kind.value)
    if entry.until is not None and until_ms <= at_ms:
        raise source.wrong(("events", index, "until"), "ends before it begins", expected=f"after {format_ms(at_ms)}")
    return InventoryEvent(at_ms, entry.subject, entry.kind, entry.note, entry.channel, until_ms)


def _check_channel(source: TomlText, fleet: Fleet, entry: EventEntry, index: int) -> None:
    at = ("events", index, "channel")
    pump = fleet.pump_by_id.get(entry.subject)
    if pump is None:
        raise source.wrong(at, "a device has no channels", expected="no channel, or a pump as subject", found=entry.channel)
    try:
        fleet.pump_types[pump.type].channel(entry.channel)
    except PumpdeckError as error:
        raise source.wrong(at, error.what, expected=error.expected, found=repr(entry.channel)) from error


def _digest(texts: Sequence[TomlText]) -> str:
    whole = hashlib.sha256()
    for text in texts:
        whole.update(f"{text.path.name}\0{len(text.data)}\0".encode())
        whole.update(text.data)
    return whole.hexdigest()


def reference_start_ms(fleet: Fleet, pump: str, now_ms: int) -> int:
    """When the pump's reference window may begin: at its latest event, or its device's, up to now; 0 without any.

    An overhaul, a swapped or re-ranged sensor, a replaced device or a move makes older rows speak of another machine;
    maintenance does not.

    Raises:
        NotFoundError: no such pump.
    """
    found = fleet.pump(pump)
    events = [event for subject in (found.id, found.device) for event in fleet.events_of(subject)]
    times = [event.at_ms for event in events if event.kind is not EventKind.MAINTENANCE]
    return max((at_ms for at_ms in times if at_ms <= now_ms), default=0)


def maintenance_of(fleet: Fleet, pump: str) -> tuple[tuple[int, int], ...]:
    """Intervals `start_ms <= t < end_ms` in which the pump, its device or its site was in maintenance, in time order.

    One without an end goes on for ever.

    Raises:
        NotFoundError: no such pump.
    """
    found = fleet.pump(pump)
    events = [event for subject in (found.id, found.device, found.site) for event in fleet.events_of(subject)]
    spans = {(one.at_ms, one.until_ms or MAX_SAFE_INTEGER) for one in events if one.kind is EventKind.MAINTENANCE}
    return tuple(sorted(spans))
