"""Add sites, devices, pumps and events to `fleet.toml`, keeping every comment and the order people gave it.

The new text is read back by the ordinary reader before it replaces the old: an edit that the reader would refuse changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, Array, Table

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Device, Fleet, InventoryEvent, Pump, Site
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.services.inventory_file import FLEET_FILE, MAKERS_FOLDER, parse_fleet
from pumpdeck_fleet.services.toml_file import TomlText, read_toml


def add_site(folder: Path, fs: FileSystem, site: Site) -> Fleet:
    """The inventory with the new site.

    Raises:
        ConflictError: there is a site of that id.
        TomlError: the site cannot be used; the file is as it was.
    """
    edit = _Edit(folder)
    if edit.find_site(site.id) is not None:
        raise ConflictError("there is such a site already", site.id)
    edit.list_of(edit.document, "sites").append(_table(_site_keys(site)))
    return edit.save(fs)


def add_device(folder: Path, fs: FileSystem, device: Device) -> Fleet:
    """The inventory with the new device at its site.

    Raises:
        NotFoundError: no such site.
        ConflictError: there is a device of that id.
        TomlError: the device cannot be used; the file is as it was.
    """
    edit = _Edit(folder)
    if edit.find_device(device.id) is not None:
        raise ConflictError("there is such a device already", device.id)
    site = edit.find_site(device.site)
    if site is None:
        raise NotFoundError("no such site", device.site, hint="add it first: pumpdeck sites add")
    edit.list_of(site, "devices").append(_table(_device_keys(device)))
    return edit.save(fs)


def add_pump(folder: Path, fs: FileSystem, pump: Pump) -> Fleet:
    """The inventory with the new pump on its device.

    Raises:
        NotFoundError: no such device at that site.
        ConflictError: the site has a pump of that tag.
        TomlError: the pump cannot be used; the file is as it was.
    """
    edit = _Edit(folder)
    if any(known.site == pump.site and known.tag.lower() == pump.tag.lower() for known in edit.fleet.pumps):
        raise ConflictError("there is such a pump already", pump.id)
    device = edit.find_device(pump.device)
    if device is None or edit.fleet.device(pump.device).site != pump.site:
        hint = "add it first: pumpdeck devices add"
        raise NotFoundError("no such device at this site", f"{pump.site}, {pump.device}", hint=hint)
    pumps = device.setdefault("pumps", tomlkit.array())
    if not isinstance(pumps, Array):
        raise ConflictError("the pumps of this device are not written as a list", pump.device, hint="add it by hand")
    entry = tomlkit.inline_table()
    entry.update(_pump_keys(pump))
    pumps.add_line(entry, indent="  ")
    # A list of one line would close behind its last item; one pump a line wants the bracket on its own.
    if not pumps.as_string().rstrip().endswith("\n]"):
        pumps.add_line(indent="")
    return edit.save(fs)


def add_event(folder: Path, fs: FileSystem, event: InventoryEvent) -> Fleet:
    """The inventory with the dated change.

    Raises:
        TomlError: its subject or channel is not there; the file is as it was.
    """
    edit = _Edit(folder)
    keys = {"at": tomlkit.datetime(format_ms(event.at_ms)), "subject": event.subject, "kind": event.kind.value}
    if event.until_ms:
        keys["until"] = tomlkit.datetime(format_ms(event.until_ms))
    keys |= _without_defaults({"channel": (event.channel, ""), "note": (event.note, "")})
    edit.list_of(edit.document, "events").append(_table(keys))
    return edit.save(fs)


def set_device_keys(folder: Path, fs: FileSystem, device: str, *, host_key: str, device_key: str) -> Fleet:
    """The inventory with the keys that enrolment found.

    Raises:
        NotFoundError: no such device.
    """
    edit = _Edit(folder)
    found = edit.find_device(device)
    if found is None:
        raise NotFoundError("no such device", device, hint="list them with: pumpdeck devices")
    found["host_key"] = host_key
    found["device_key"] = device_key
    return edit.save(fs)


class _Edit:
    """The file as a document that keeps its looks, and as the fleet it says."""

    def __init__(self, folder: Path) -> None:
        self._source = read_toml(folder / FLEET_FILE)
        self._makers = [read_toml(path) for path in sorted((folder / MAKERS_FOLDER).glob("*.toml"))]
        self.fleet = parse_fleet(self._source, self._makers)
        self.document = tomlkit.parse(self._source.text)

    def list_of(self, table: Any, name: str) -> AoT:
        """The list of tables of that name, made when it is new."""
        if name not in table:
            table[name] = tomlkit.aot()
        found = table[name]
        if not isinstance(found, AoT):
            raise ConflictError(f"{name} are not written as [[..]] tables", str(self._source.path), hint="add it by hand")
        return found

    def find_site(self, site: str) -> Any:
        """The table of that site."""
        return next((table for table in self.document.get("sites", ()) if table["id"] == site), None)

    def find_device(self, device: str) -> Any:
        """The table of that device."""
        tables = (table for site in self.document.get("sites", ()) for table in site.get("devices", ()))
        return next((table for table in tables if table["id"] == device), None)

    def save(self, fs: FileSystem) -> Fleet:
        """Write the document when the reader takes it; the fleet it says."""
        text = tomlkit.dumps(self.document)
        data = text.encode("utf-8")
        fleet = parse_fleet(TomlText(self._source.path, data, text), self._makers)
        replace_file(fs, self._source.path, data)
        return fleet


def _table(keys: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    table.trivia.indent = "\n"  # an empty line above its header
    for name, value in keys.items():
        table[name] = value
    return table


def _without_defaults(keys: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {name: value for name, (value, default) in keys.items() if value != default}


def _site_keys(site: Site) -> dict[str, Any]:
    keys: dict[str, Any] = {"id": site.id, "name": site.name, "kind": site.kind, "link": site.link.value}
    keys |= _without_defaults(
        {
            "time_zone": (site.time_zone, "UTC"),
            "bandwidth_kbit_s": (site.bandwidth_kbit_s, 0.0),
            "daily_cap_mb": (site.daily_cap_mb, 0.0),
        }
    )
    if site.position is not None:
        keys["position"] = list(site.position)
    if site.window is not None:
        clock = (divmod(minute, 60) for minute in (site.window.start_minute, site.window.end_minute))
        keys["window"] = "-".join(f"{hour:02}:{minute:02}" for hour, minute in clock)
    return keys


def _device_keys(device: Device) -> dict[str, Any]:
    keys: dict[str, Any] = {"id": device.id, "device_class": device.device_class}
    return keys | _without_defaults(
        {
            "address": (device.address, ""),
            "port": (device.port, 22),
            "user": (device.user, "pumpdeck"),
            "host_key": (device.host_key, ""),
            "device_key": (device.device_key, ""),
            "age_key": (device.age_key, ""),
            "security_profile": (device.security_profile, "standard"),
        }
    )


def _pump_keys(pump: Pump) -> dict[str, Any]:
    keys: dict[str, Any] = {"tag": pump.tag, "type": pump.type, "maker": pump.maker}
    return keys | _without_defaults(
        {
            "model": (pump.model, ""),
            "criticality": (pump.criticality, 3),
            "redundancy_group": (pump.redundancy_group, ""),
            "labels": (list(pump.labels), []),
        }
    )
