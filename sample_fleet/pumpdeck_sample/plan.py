"""What the simulator's processes must know to be the devices of one sample fleet, as a file beside their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.ports import FileSystem

from .faults import Scenario
from .fleet import FleetSize, build_fleet
from .scenario import demo_scenario

PLAN_FORMAT = 1
PLAN_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class SimulationPlan:
    """Fleet, scenario and who may come in. `ports` are those the inventory promises; `end_ms` is the history's last row."""

    format: int
    seed: int
    sites: int
    devices_per_site: int
    pumps_per_device: int
    architecture: str
    os_name: str
    end_ms: int
    authorised_key: str
    ports: Mapping[str, int]

    def fleet(self) -> Fleet:
        """The fleet, without endpoints."""
        size = FleetSize(self.sites, self.devices_per_site, self.pumps_per_device)
        return build_fleet(size, self.seed, architecture=self.architecture, os_name=self.os_name)

    def scenario(self) -> Scenario:
        """What happens to it."""
        return demo_scenario(self.fleet(), self.end_ms, self.seed)


def plan_path(root: Path) -> Path:
    """Where the plan of a simulation stands."""
    return root / "simulation.json"


def device_root(root: Path, device: str) -> Path:
    """The root folder of a simulated device's agent."""
    return root / "devices" / device


def inbox_path(root: Path, device: str) -> Path:
    """Where rows for a simulated device's agent are dropped."""
    return device_root(root, device) / "spool" / "in"


def host_key_path(root: Path, device: str) -> Path:
    """Where a simulated device's SSH host key stands: beside the agent's folder, as on a real device."""
    return root / "ssh" / device


def write_plan(fs: FileSystem, root: Path, plan: SimulationPlan) -> None:
    """Write the plan into the simulation's folder."""
    fs.mkdir(root)
    replace_file(fs, plan_path(root), canonical.encode(plan))


def read_plan(fs: FileSystem, root: Path) -> SimulationPlan:
    """The plan of the simulation in `root`.

    Raises:
        NotFoundError: there is none.
        FormatError: it is damaged.
    """
    path = plan_path(root)
    try:
        data = fs.read_bytes(path, PLAN_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("is no simulation's folder", str(root), expected=path.name) from error
    return canonical.decode(SimulationPlan, data, str(path), max_bytes=PLAN_MAX_BYTES)
