"""The sample fleet as an inventory: sites, devices, pumps, makers, pump types and device classes, built from a seed."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pumpdeck_fleet.core import inventory
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.inventory import Channel, Device, DeviceClass, Fleet, Link, Pump, Site

from .channels import CHANNELS, ChannelSpec, PumpType
from .climate import Climate
from .makers import MAKER_BY_ID, MAKERS
from .physics import PumpToSimulate
from .seeds import rng_for
from .sites import SITE_BY_ID, SITES, SiteSketch

SIMULATED_CLASS = "simulated"
DEVICE_USER = "pumpdeck"
_TITLES = {
    PumpType.ESP: "Electric submersible pump",
    PumpType.EXPORT: "Centrifugal export pump",
    PumpType.INJECTION: "Water injection pump",
    PumpType.PCP: "Progressive cavity pump",
}
_TAG_STEMS = {PumpType.ESP: "E", PumpType.EXPORT: "P", PumpType.INJECTION: "W", PumpType.PCP: "C"}
_CRITICALITY = {PumpType.ESP: 2, PumpType.EXPORT: 1, PumpType.INJECTION: 2, PumpType.PCP: 3}
_STANDBY_TYPES = (PumpType.EXPORT, PumpType.INJECTION)
_LABELS = ("sour", "waxy", "sand", "wet-gas", "high-cut")


@dataclass(frozen=True)
class FleetSize:
    """How large the sample fleet is. The full one has 12 sites of 5 devices with 4 pumps each."""

    sites: int = 12
    devices_per_site: int = 5
    pumps_per_device: int = 4


@dataclass(frozen=True)
class Endpoint:
    """Where a simulated device listens, and its keys: an OpenSSH public key line and a PEM public key."""

    port: int
    host_key: str
    device_key: str = ""
    address: str = "127.0.0.1"


def build_fleet(size: FleetSize, seed: int, *, architecture: str, os_name: str) -> Fleet:
    """The sample fleet of that size; equal arguments give an equal fleet.

    `architecture` and `os_name` are this computer's: the simulated devices' class.

    Raises:
        UsageError: a size is under 1 or there are not that many sites.
    """
    if not 1 <= size.sites <= len(SITES) or size.devices_per_site < 1 or not 1 <= size.pumps_per_device <= 16:
        raise UsageError(
            "no such size", "sample fleet", expected=f"1-{len(SITES)} sites, 1-16 pumps a device", found=size
        )
    sketches = SITES[: size.sites]
    return Fleet(
        name="Sample fleet",
        sites=tuple(_site(sketch) for sketch in sketches),
        devices=tuple(
            Device(sketch.id, _device_id(sketch, number), SIMULATED_CLASS, user=DEVICE_USER)
            for sketch in sketches
            for number in range(size.devices_per_site)
        ),
        pumps=tuple(pump for sketch in sketches for pump in _pumps(sketch, size, seed)),
        pump_types={pump_type.value: _pump_type(pump_type) for pump_type in PumpType},
        device_classes={one.id: one for one in _device_classes(architecture, os_name)},
        makers={maker.id: maker.profile for maker in MAKERS},
    )


def with_endpoints(fleet: Fleet, endpoints: Mapping[str, Endpoint]) -> Fleet:
    """The fleet with the addresses and keys of the devices that have an endpoint."""

    def reached(device: Device) -> Device:
        endpoint = endpoints.get(device.id)
        if endpoint is None:
            return device
        return dataclasses.replace(
            device,
            address=endpoint.address,
            port=endpoint.port,
            host_key=endpoint.host_key,
            device_key=endpoint.device_key,
        )

    return dataclasses.replace(fleet, devices=tuple(reached(device) for device in fleet.devices))


def pumps_to_simulate(pumps: Sequence[Pump]) -> list[PumpToSimulate]:
    """The pumps as the physics needs them."""
    return [
        PumpToSimulate(pump.id, pump.site, PumpType(pump.type), MAKER_BY_ID[pump.maker].coarseness) for pump in pumps
    ]


def climates_of(sites: Sequence[str]) -> dict[str, Climate]:
    """The climates of these sites of the catalogue."""
    return {site: SITE_BY_ID[site].climate for site in sites}


def _device_id(sketch: SiteSketch, number: int) -> str:
    return f"{sketch.id}-d{number + 1}"


def _site(sketch: SiteSketch) -> Site:
    return Site(
        sketch.id,
        sketch.name,
        sketch.kind,
        Link.SSH,
        time_zone=sketch.time_zone,
        position=sketch.position,
        bandwidth_kbit_s=sketch.bandwidth_kbit_s,
    )


def _pump_type(pump_type: PumpType) -> inventory.PumpType:
    channels = tuple(_channel(spec) for spec in CHANNELS[pump_type])
    return inventory.PumpType(pump_type.value, _TITLES[pump_type], channels, cadence_s=60.0)


def _channel(spec: ChannelSpec) -> Channel:
    words = spec.name.removesuffix("_" + spec.unit.lower().replace("/", "_").replace(".", "_"))
    title = words.removesuffix("_c").replace("_", " ").capitalize()
    # Speed follows demand: what the operator asks for is not a sign of health.
    votes = spec.name != "speed_rpm"
    return Channel(spec.name, spec.unit, spec.low, spec.high, 1.0 / spec.steps_per_unit, votes=votes, title=title)


def _device_classes(architecture: str, os_name: str) -> tuple[DeviceClass, ...]:
    return (
        DeviceClass("edge-x86", "x86_64", "linux", "1.18", 13, 512, 50),
        DeviceClass("edge-arm64", "aarch64", "linux", "1.18", 13, 512, 50),
        DeviceClass(SIMULATED_CLASS, architecture, os_name, "1.18", 13, 512, 100),
    )


def _pumps(sketch: SiteSketch, size: FleetSize, seed: int) -> list[Pump]:
    by_type: dict[PumpType, list[list[str]]] = defaultdict(list)
    for number in range(size.devices_per_site):
        types = sketch.device_types[number % len(sketch.device_types)]
        share = -(-size.pumps_per_device // len(types))
        for position, pump_type in enumerate(types):
            count = min(share, size.pumps_per_device - position * share)
            if count > 0:
                by_type[pump_type].append([_device_id(sketch, number)] * count)
    stream = rng_for(seed, "inventory", sketch.id)
    pumps = []
    for pump_type, devices in by_type.items():
        for device, tag, group in _tagged(pump_type, devices):
            pumps.append(_pump(sketch, (device, tag, group), pump_type, stream))
    order = {_device_id(sketch, number): number for number in range(size.devices_per_site)}
    return sorted(pumps, key=lambda pump: (order[pump.device], pump.tag))


def _tagged(pump_type: PumpType, devices: list[list[str]]) -> list[tuple[str, str, str]]:
    """Device, tag and redundancy group of each pump; the two of a duty/standby pair stand at different devices."""
    stem = _TAG_STEMS[pump_type]
    slots = [slot for device in devices for slot in device]
    found = []
    number = 101
    while slots:
        duty = slots.pop(0)
        standby = next((slot for slot in reversed(slots) if slot != duty), None)
        if pump_type in _STANDBY_TYPES and standby is not None:
            slots.reverse()
            slots.remove(standby)
            slots.reverse()
            group = f"{stem}-{number}"
            found += [(duty, f"{group}A", group), (standby, f"{group}B", group)]
        else:
            found.append((duty, f"{stem}-{number}", ""))
        number += 1
    return found


def _pump(sketch: SiteSketch, slot: tuple[str, str, str], pump_type: PumpType, stream: np.random.Generator) -> Pump:
    device, tag, group = slot
    drawn = MAKERS[int(stream.integers(len(MAKERS)))]
    maker = MAKER_BY_ID[sketch.csv_maker] if sketch.csv_maker else drawn
    label = _LABELS[int(stream.integers(len(_LABELS)))] if stream.random() < 0.4 else ""
    return Pump(
        site=sketch.id,
        device=device,
        tag=tag,
        type=pump_type.value,
        maker=maker.id,
        model=maker.models[pump_type],
        criticality=_CRITICALITY[pump_type],
        redundancy_group=group,
        labels=(label,) if label else (),
    )
