"""Make the simulated devices: their root folders and device keys by the agent's own enrolment, and SSH host keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.config import CONFIG_FORMAT, AgentConfig, PumpConfig
from pumpdeck_agent.enrol import create_device
from pumpdeck_fleet.core.inventory import Device, Fleet
from pumpdeck_fleet.core.ports import FileSystem

from .plan import device_root, host_key_path
from .ssh_keys import make_host_key


@dataclass(frozen=True)
class EnrolledDevice:
    """What the console must know of a new device: its public key (PEM), the key's id, its SSH host key line."""

    public_pem: str
    key_id: str
    host_key: str


def enrol_devices(
    fleet: Fleet, root: Path, trusted_roots: Mapping[str, bytes], fs: FileSystem, min_seq: int = 0
) -> dict[str, EnrolledDevice]:
    """Enrol all devices of the fleet under `root`; `trusted_roots` is each site's TUF root metadata.

    Raises:
        ConflictError: one of them is enrolled already.
    """
    found = {}
    for device in fleet.devices:
        config = agent_config(fleet, device, min_seq)
        identity = create_device(fs, device_root(root, device.id), config, trusted_roots[device.site])
        host_key = make_host_key(fs, host_key_path(root, device.id))
        found[device.id] = EnrolledDevice(identity.public_pem, identity.key_id, host_key)
    return found


def agent_config(fleet: Fleet, device: Device, min_seq: int) -> AgentConfig:
    """What a device's own `agent.json` says of it."""
    pumps = tuple(
        PumpConfig(pump.tag, pump.type, pump.criticality, pump.redundancy_group)
        for pump in fleet.pumps_by_device[device.id]
    )
    return AgentConfig(CONFIG_FORMAT, device.id, device.site, device.device_class, pumps, min_seq)
