"""A workspace of 2 sites, 2 devices and 8 pumps of the sample fleet, on a fixed clock."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import FixedClock, parse_ms
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_sample.fleet import FleetSize, build_fleet
from pumpdeck_sample.fleet_files import POLICIES, fleet_toml, maker_toml

NOW_MS = parse_ms("2026-03-01T12:00:00Z")
SEED = 7


def small_fleet(sites: int = 2, devices_per_site: int = 1) -> Fleet:
    """The sample fleet in small."""
    return build_fleet(FleetSize(sites, devices_per_site, 4), SEED, architecture="x86_64", os_name="linux")


def workspace_files(fleet: Fleet) -> dict[str, str]:
    """The files of a workspace for that fleet."""
    makers = {f"makers/{maker.id}.toml": maker_toml(maker) for maker in fleet.makers.values()}
    settings = 'format = 1\nperson = "Ada Field"\n'
    return {"fleet.toml": fleet_toml(fleet), "policies.toml": POLICIES, "settings.toml": settings, **makers}


def small_workspace(root: Path, clock: FixedClock | None = None, fleet: Fleet | None = None) -> Workspace:
    """A new workspace in `root`, open."""
    clock = clock or FixedClock(NOW_MS)
    init_workspace(root, files=workspace_files(fleet or small_fleet()), clock=clock)
    return Workspace(root, clock, RealFileSystem())
