"""What may stand in `fleet.toml` and `makers/*.toml`, as strict structs (docs/fleet.example.toml is normative)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pumpdeck_fleet.core.inventory import EventKind, Link

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Moment = Annotated[datetime, Meta(tz=True)]


class ChannelEntry(Struct, forbid_unknown_fields=True):
    """One item of a pump type's `channels`."""

    name: str
    unit: str
    low: float
    high: float
    resolution: NotNegative = 0.0
    votes: bool = True
    title: str = ""


class PumpTypeEntry(Struct, forbid_unknown_fields=True):
    """`[pump_types.<id>]`"""

    channels: list[ChannelEntry]
    title: str = ""
    cadence_s: Annotated[float, Meta(gt=0)] = 60.0


class DeviceClassEntry(Struct, forbid_unknown_fields=True):
    """`[device_classes.<id>]`"""

    architecture: Literal["x86_64", "aarch64", "armv7l"]
    os: str
    onnxruntime: str
    highest_opset: Positive
    memory_mb: Positive
    cpu_quota_pct: Positive
    threads: Positive = 1
    container: Literal["none", "docker", "podman", "bubblewrap"] = "none"
    confidential: bool = False
    needs_permit: bool | None = None
    undo_needs_token: bool | None = None


class PumpEntry(Struct, forbid_unknown_fields=True):
    """One item of a device's `pumps`."""

    tag: str
    type: str
    maker: str
    model: str = ""
    criticality: Annotated[int, Meta(ge=1, le=5)] = 3
    redundancy_group: str = ""
    labels: list[str] = []


class DeviceEntry(Struct, forbid_unknown_fields=True):
    """`[[sites.devices]]`"""

    id: str
    device_class: str
    address: str = ""
    port: Annotated[int, Meta(ge=1, le=65535)] = 22
    user: str = "pumpdeck"
    host_key: str = ""
    device_key: str = ""
    age_key: str = ""
    security_profile: str = "standard"
    pumps: list[PumpEntry] = []


class SiteEntry(Struct, forbid_unknown_fields=True):
    """`[[sites]]`"""

    id: str
    name: str
    kind: str
    link: Link
    time_zone: str = "UTC"
    position: tuple[Annotated[float, Meta(ge=-90, le=90)], Annotated[float, Meta(ge=-180, le=180)]] | None = None
    bandwidth_kbit_s: NotNegative = 0.0
    daily_cap_mb: NotNegative = 0.0
    window: str | None = None
    needs_permit: bool | None = None
    undo_needs_token: bool | None = None
    devices: list[DeviceEntry] = []


class EventEntry(Struct, forbid_unknown_fields=True):
    """`[[events]]`"""

    at: Moment
    subject: str
    kind: EventKind
    until: Moment | None = None
    channel: str = ""
    note: str = ""


class FleetEntry(Struct, forbid_unknown_fields=True):
    """The whole of `fleet.toml`; tables whose keys people choose are read entry by entry."""

    format: Literal[1]
    name: str
    device_classes: dict[str, Any] = {}
    pump_types: dict[str, Any] = {}
    sites: list[SiteEntry] = []
    events: list[EventEntry] = []


class MakerEntry(Struct, forbid_unknown_fields=True):
    """The whole of a `makers/<id>.toml`."""

    format: Literal[1]
    id: str
    title: str
    aliases: dict[str, Any] = {}
    scales: dict[str, Any] = {}
