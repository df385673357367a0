"""From the strict entries of `fleet.toml` to the core's types, checking names, ranges and references on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.ids import check_name, check_tag
from pumpdeck_fleet.core.inventory import (
    Channel,
    Device,
    DeviceClass,
    MakerProfile,
    Pump,
    PumpType,
    Site,
    Window,
)
from pumpdeck_fleet.services.inventory_types import (
    ChannelEntry,
    DeviceClassEntry,
    DeviceEntry,
    MakerEntry,
    PumpEntry,
    PumpTypeEntry,
    SiteEntry,
)
from pumpdeck_fleet.services.toml_file import TomlText, convert, parse_toml
from pumpdeck_fleet.services.toml_places import Path

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Known:
    """What sites may refer to."""

    device_classes: Mapping[str, DeviceClass]
    pump_types: Mapping[str, PumpType]
    makers: Mapping[str, MakerProfile]


def read_device_class(source: TomlText, name: str, table: object) -> DeviceClass:
    """`[device_classes.<name>]`. Raises: TomlError."""
    at: Path = ("device_classes", name)
    entry = convert(source, table, DeviceClassEntry, at)
    _named(source, at, check_name, name, "device class")
    return DeviceClass(
        id=name,
        architecture=entry.architecture,
        os=entry.os,
        onnxruntime=entry.onnxruntime,
        highest_opset=entry.highest_opset,
        memory_mb=entry.memory_mb,
        cpu_quota_pct=entry.cpu_quota_pct,
        threads=entry.threads,
        container=entry.container,
        confidential=entry.confidential,
        needs_permit=entry.needs_permit,
        undo_needs_token=entry.undo_needs_token,
    )


def read_pump_type(source: TomlText, name: str, table: object) -> PumpType:
    """`[pump_types.<name>]`. Raises: TomlError."""
    at: Path = ("pump_types", name)
    entry = convert(source, table, PumpTypeEntry, at)
    _named(source, at, check_name, name, "pump type")
    if not entry.channels:
        raise source.wrong((*at, "channels"), "a pump type needs channels", expected="one or more", found="none")
    seen: set[str] = set()
    channels = []
    for index, item in enumerate(entry.channels):
        place = (*at, "channels", index)
        if item.name in seen:
            raise source.wrong((*place, "name"), "stands twice in this pump type", found=repr(item.name))
        seen.add(item.name)
        channels.append(_channel(source, item, place))
    return PumpType(name, entry.title or name, tuple(channels), entry.cadence_s)


def _channel(source: TomlText, entry: ChannelEntry, at: Path) -> Channel:
    _named(source, (*at, "name"), check_name, entry.name, "channel")
    if not (math.isfinite(entry.low) and math.isfinite(entry.high) and entry.low < entry.high):
        raise source.wrong((*at, "high"), "the range is empty", expected=f"more than {entry.low}", found=entry.high)
    return Channel(entry.name, entry.unit, entry.low, entry.high, entry.resolution, entry.votes, entry.title)


def read_maker(source: TomlText, types: Mapping[str, PumpType]) -> MakerProfile:
    """One `makers/<id>.toml`. Raises: TomlError."""
    entry = convert(source, parse_toml(source), MakerEntry)
    _named(source, ("id",), check_name, entry.id, "maker")
    channels = {channel.name for pump_type in types.values() for channel in pump_type.channels}
    aliases = {name: convert(source, value, str, ("aliases", name)) for name, value in entry.aliases.items()}
    for name, channel in aliases.items():
        if channel not in channels:
            raise source.wrong(("aliases", name), "names a channel that no pump type has", found=repr(channel))
    scales = {name: convert(source, value, tuple[float, float], ("scales", name)) for name, value in entry.scales.items()}
    for name, (factor, offset) in scales.items():
        if name not in aliases and name not in channels:
            raise source.wrong(("scales", name), "is neither an alias nor a channel", expected="a name from [aliases]")
        if factor == 0 or not (math.isfinite(factor) and math.isfinite(offset)):
            raise source.wrong(("scales", name), "is no scale", expected="[factor, offset], factor not 0", found=[factor, offset])
    return MakerProfile(entry.id, entry.title, aliases, scales)


def read_sites(
    source: TomlText, entries: Sequence[SiteEntry], known: Known
) -> tuple[list[Site], list[Device], list[Pump]]:
    """All sites with their devices and pumps. Raises: TomlError."""
    reader = _SiteReader(source, known)
    for index, entry in enumerate(entries):
        reader.site(entry, ("sites", index))
    return reader.sites, reader.devices, reader.pumps


@dataclass(slots=True)
class _SiteReader:
    """Collects sites, devices and pumps; ids must be unique over the fleet, tags over their site whatever the case."""

    source: TomlText
    known: Known
    sites: list[Site] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    pumps: list[Pump] = field(default_factory=list)
    site_ids: set[str] = field(default_factory=set)
    device_ids: set[str] = field(default_factory=set)
    zones: set[str] = field(default_factory=set)

    def site(self, entry: SiteEntry, at: Path) -> None:
        _named(self.source, (*at, "id"), check_name, entry.id, "site")
        self._unique(self.site_ids, entry.id, (*at, "id"), "stands twice in the fleet")
        self._check_zone(entry.time_zone, (*at, "time_zone"))
        self.sites.append(
            Site(
                id=entry.id,
                name=entry.name,
                kind=entry.kind,
                link=entry.link,
                time_zone=entry.time_zone,
                position=entry.position,
                bandwidth_kbit_s=entry.bandwidth_kbit_s,
                daily_cap_mb=entry.daily_cap_mb,
                window=_window(self.source, entry.window, (*at, "window")),
                needs_permit=entry.needs_permit,
                undo_needs_token=entry.undo_needs_token,
            )
        )
        tags: set[str] = set()
        for index, device in enumerate(entry.devices):
            self._device(entry.id, device, (*at, "devices", index), tags)

    def _device(self, site: str, entry: DeviceEntry, at: Path, tags: set[str]) -> None:
        _named(self.source, (*at, "id"), check_name, entry.id, "device")
        self._unique(self.device_ids, entry.id, (*at, "id"), "stands twice in the fleet")
        self._refers(entry.device_class, self.known.device_classes, (*at, "device_class"), "device class")
        self.devices.append(
            Device(
                site=site,
                id=entry.id,
                device_class=entry.device_class,
                address=entry.address,
                port=entry.port,
                user=entry.user,
                host_key=entry.host_key,
                device_key=entry.device_key,
                age_key=entry.age_key,
                security_profile=entry.security_profile,
            )
        )
        for index, pump in enumerate(entry.pumps):
            self.pumps.append(self._pump(site, entry.id, pump, (*at, "pumps", index)))
            self._unique(tags, pump.tag.lower(), (*at, "pumps", index, "tag"), "stands twice at this site, whatever the case")

    def _pump(self, site: str, device: str, entry: PumpEntry, at: Path) -> Pump:
        _named(self.source, (*at, "tag"), check_tag, entry.tag, "tag")
        self._refers(entry.type, self.known.pump_types, (*at, "type"), "pump type")
        self._refers(entry.maker, self.known.makers, (*at, "maker"), "maker")
        if entry.redundancy_group:
            _named(self.source, (*at, "redundancy_group"), check_tag, entry.redundancy_group, "redundancy group")
        return Pump(
            site=site,
            device=device,
            tag=entry.tag,
            type=entry.type,
            maker=entry.maker,
            model=entry.model,
            criticality=entry.criticality,
            redundancy_group=entry.redundancy_group,
            labels=tuple(entry.labels),
        )

    def _unique(self, seen: set[str], name: str, at: Path, what: str) -> None:
        if name in seen:
            raise self.source.wrong(at, what, expected="a name of its own", found=repr(name))
        seen.add(name)

    def _refers(self, name: str, known: Mapping[str, object], at: Path, what: str) -> None:
        if name not in known:
            hint = "add makers/<id>.toml" if what == "maker" else ""
            names = ", ".join(known) or "none: the fleet has no such table"
            raise self.source.wrong(at, f"is no {what} of this fleet", expected=names, found=repr(name), hint=hint)

    def _check_zone(self, zone: str, at: Path) -> None:
        if zone in self.zones:
            return
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            expected = "a name such as Europe/London"
            raise self.source.wrong(at, "is not a time zone", expected=expected, found=repr(zone)) from error
        self.zones.add(zone)


def _window(source: TomlText, text: str | None, at: Path) -> Window | None:
    if not text:
        return None
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise source.wrong(at, "is not a maintenance window", expected="HH:MM-HH:MM", found=repr(text))
    start_hour, start_minute, end_hour, end_minute = (int(part) for part in found.groups())
    return Window(start_hour * 60 + start_minute, end_hour * 60 + end_minute)


def _named(source: TomlText, at: Path, check: Callable[[str, str], str], name: str, what: str) -> None:
    try:
        check(name, what)
    except FormatError as error:
        raise source.reworded(at, error) from error
