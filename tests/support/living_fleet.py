"""A small living fleet for end-to-end tests: a workspace with trust, and simulated devices that speak real SSH on loopback."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.devices import enrol_known
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import MINUTE_MS
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_packaging.signing import Ed25519Signer
from pumpdeck_sample.enrolment import enrol_devices
from pumpdeck_sample.faults import Scenario
from pumpdeck_sample.fleet import FleetSize, build_fleet, with_endpoints
from pumpdeck_sample.fleet_files import fleet_toml
from pumpdeck_sample.history import History, simulate_history, write_history, write_last_day
from pumpdeck_sample.launcher import SimulatorOptions, SimulatorProcess
from pumpdeck_sample.plan import PLAN_FORMAT, SimulationPlan, device_root, write_plan
from pumpdeck_sample.scenario import demo_scenario
from support.small_fleet import SEED, workspace_files


@dataclass
class LivingFleet:
    """Everything a test may look at or break. `sim` is the simulator's folder, `root` the workspace's."""

    root: Path
    sim: Path
    fleet: Fleet
    scenario: Scenario
    history: History
    simulator: SimulatorProcess

    def open(self) -> Workspace:
        """The workspace, opened anew."""
        return open_workspace(self.root)

    def device_folder(self, device: str) -> Path:
        """The root folder of a device's agent."""
        return device_root(self.sim, device)


@contextmanager
def living_fleet(folder: Path, size: FleetSize, days: int = 30) -> Iterator[LivingFleet]:
    """Found trust, make devices, write history, start the simulator. The workspace holds no rows yet."""
    fs = RealFileSystem()
    root, sim, keys = folder / "workspace", folder / "simulation", folder / "keys"
    fleet = build_fleet(size, SEED, architecture=platform.machine(), os_name=platform.system().lower())
    end_ms = (time.time_ns() // 1_000_000) // MINUTE_MS * MINUTE_MS
    scenario = demo_scenario(fleet, end_ms, SEED)
    init_workspace(root, files=workspace_files(fleet))
    with open_workspace(root) as workspace:
        init_trust(workspace, TrustRequest(keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True))
        login = workspace.credentials.find("ssh").signer
        assert isinstance(login, Ed25519Signer)
        roots = {site.id: workspace.trust(site.id).root_bytes() for site in fleet.sites}
    enrolled = enrol_devices(fleet, sim, roots, fs)
    plan = SimulationPlan(
        format=PLAN_FORMAT,
        seed=SEED,
        sites=size.sites,
        devices_per_site=size.devices_per_site,
        pumps_per_device=size.pumps_per_device,
        architecture=platform.machine(),
        os_name=platform.system().lower(),
        end_ms=end_ms,
        authorised_key=login.openssh_public,
        ports={},
    )
    write_plan(fs, sim, plan)
    rows = simulate_history(fleet, scenario, end_ms, SEED, days)
    history = write_history(fleet, scenario, rows, folder / "history", fs)
    inboxes = {device.id: device_root(sim, device.id) / "spool" / "in" for device in fleet.devices}
    with SimulatorProcess(sim, SimulatorOptions(speed=0), os.environ) as simulator:
        endpoints = simulator.wait_ready()
        known = {
            name: dataclasses.replace(endpoint, device_key=enrolled[name].public_pem)
            for name, endpoint in endpoints.items()
        }
        fleet = with_endpoints(fleet, known)
        replace_file(fs, root / "fleet.toml", fleet_toml(fleet).encode("utf-8"))
        with open_workspace(root) as workspace:
            report = enrol_known(workspace)
            assert not report.problems, report.problems
        write_last_day(fleet, rows, inboxes, fs)
        yield LivingFleet(root, sim, fleet, scenario, history, simulator)
