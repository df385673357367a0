"""Sites, devices, pumps, channels, device classes, maker profiles and dated events: what `fleet.toml` says.

docs/fleet.example.toml is normative for the file; this module holds the types and the lookups. All frozen.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.ids import pump_id


class Link(enum.StrEnum):
    """How a site is reached."""

    SSH = "ssh"
    COURIER = "courier"
    MQTT = "mqtt"


class EventKind(enum.StrEnum):
    """A dated change that ends a reference window and relearns baselines, but keeps history.

    Maintenance ends nothing: it is an interval whose rows are no ground to learn from.
    """

    OVERHAUL = "overhaul"
    SENSOR_SWAPPED = "sensor_swapped"
    SENSOR_RERANGED = "sensor_reranged"
    DEVICE_REPLACED = "device_replaced"
    MOVED = "moved"
    RETIRED = "retired"
    COMMISSIONED = "commissioned"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Channel:
    """One measured quantity. `low`..`high` is the sensor's range, `resolution` its smallest step, both in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    resolution: float = 0.0
    votes: bool = True
    title: str = ""


@dataclass(frozen=True, slots=True)
class PumpType:
    """Pumps that share channels and a model line."""

    id: str
    title: str
    channels: tuple[Channel, ...]
    cadence_s: float = 60.0

    def channel(self, name: str) -> Channel:
        """The channel of that name.

        Raises:
            NotFoundError: this pump type has none.
        """
        for channel in self.channels:
            if channel.name == name:
                return channel
        raise NotFoundError("no such channel", f"{self.id}.{name}", expected=", ".join(c.name for c in self.channels))


@dataclass(frozen=True, slots=True)
class MakerProfile:
    """How one maker's loggers name and scale channels: alias -> channel name, and unit conversions.

    `scales` maps an alias to (factor, offset): value in our unit = raw * factor + offset.
    """

    id: str
    title: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """What a kind of device can run; the package builder and the gates read it.

    `needs_permit`, `undo_needs_token`: what its devices demand of an assignment; None says nothing. They bind once signed.
    """

    id: str
    architecture: str
    os: str
    onnxruntime: str
    highest_opset: int
    memory_mb: int
    cpu_quota_pct: int
    threads: int = 1
    container: str = "none"
    confidential: bool = False
    needs_permit: bool | None = None
    undo_needs_token: bool | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A daily maintenance window in the site's time zone; minutes after midnight, may wrap around it."""

    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class Pump:
    """One machine."""

    site: str
    device: str
    tag: str
    type: str
    maker: str
    model: str = ""
    criticality: int = 3
    redundancy_group: str = ""
    labels: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`<site>/<tag>`."""
        return pump_id(self.site, self.tag)


@dataclass(frozen=True, slots=True)
class Device:
    """The computer beside one or more pumps. `host_key` is an OpenSSH public key line (`ssh-ed25519 AAAA..`).

    `age_key` is what confidential packages are encrypted to (`age1..`).
    """

    site: str
    id: str
    device_class: str
    address: str = ""
    port: int = 22
    user: str = "pumpdeck"
    host_key: str = ""
    device_key: str = ""
    age_key: str = ""
    security_profile: str = "standard"


@dataclass(frozen=True, slots=True)
class Site:
    """A place with pumps. `bandwidth_kbit_s` and `daily_cap_mb` are 0 when not limited.

    `needs_permit`, `undo_needs_token`: as those of a device class, for every device of the site.
    """

    id: str
    name: str
    kind: str
    link: Link
    time_zone: str = "UTC"
    position: tuple[float, float] | None = None
    bandwidth_kbit_s: float = 0.0
    daily_cap_mb: float = 0.0
    window: Window | None = None
    needs_permit: bool | None = None
    undo_needs_token: bool | None = None


@dataclass(frozen=True, slots=True)
class InventoryEvent:
    """A dated change to a pump or device; `subject` is a pump identity or a device id, of maintenance also a site's.

    until_ms: end of maintenance; 0 while it goes on, and for every other kind.
    """

    at_ms: int
    subject: str
    kind: EventKind
    note: str = ""
    channel: str = ""
    until_ms: int = 0


@dataclass(frozen=True)
class Fleet:
    """The whole inventory, with lookups by identity. `digest` is that of the files it was read from."""

    name: str
    sites: tuple[Site, ...]
    devices: tuple[Device, ...]
    pumps: tuple[Pump, ...]
    pump_types: Mapping[str, PumpType]
    device_classes: Mapping[str, DeviceClass]
    makers: Mapping[str, MakerProfile]
    events: tuple[InventoryEvent, ...] = ()
    digest: str = ""

    @cached_property
    def site_by_id(self) -> dict[str, Site]:
        return {site.id: site for site in self.sites}

    @cached_property
    def device_by_id(self) -> dict[str, Device]:
        return {device.id: device for device in self.devices}

    @cached_property
    def pump_by_id(self) -> dict[str, Pump]:
        return {pump.id: pump for pump in self.pumps}

    @cached_property
    def pumps_by_device(self) -> dict[str, tuple[Pump, ...]]:
        found: dict[str, list[Pump]] = {}
        for pump in self.pumps:
            found.setdefault(pump.device, []).append(pump)
        return {device: tuple(pumps) for device, pumps in found.items()}

    def site(self, identity: str) -> Site:
        """Raises: NotFoundError."""
        if identity not in self.site_by_id:
            raise NotFoundError("no such site", identity, hint="list them with: pumpdeck sites")
        return self.site_by_id[identity]

    def device(self, identity: str) -> Device:
        """Raises: NotFoundError."""
        if identity not in self.device_by_id:
            raise NotFoundError("no such device", identity, hint="list them with: pumpdeck devices")
        return self.device_by_id[identity]

    def pump(self, identity: str) -> Pump:
        """The pump with that identity (`<site>/<tag>`), or with that tag when only one site has it.

        Raises:
            NotFoundError: none, or the tag stands at several sites.
        """
        if identity in self.pump_by_id:
            return self.pump_by_id[identity]
        matches = [pump for pump in self.pumps if pump.tag.lower() == identity.lower()]
        if len(matches) == 1:
            return matches[0]
        if matches:
            sites = ", ".join(pump.id for pump in matches[:5])
            raise NotFoundError("several sites have this tag", identity, expected=f"one of {sites}")
        raise NotFoundError("no such pump", identity, hint="list them with: pumpdeck pumps")

    def events_of(self, subject: str) -> tuple[InventoryEvent, ...]:
        """Events of a pump or device in time order."""
        return self._events_by_subject.get(subject, ())

    @cached_property
    def _events_by_subject(self) -> dict[str, tuple[InventoryEvent, ...]]:
        found: dict[str, list[InventoryEvent]] = {}
        for event in sorted(self.events, key=lambda one: one.at_ms):
            found.setdefault(event.subject, []).append(event)
        return {subject: tuple(events) for subject, events in found.items()}
