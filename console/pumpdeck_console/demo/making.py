"""Make a demo: inventory files, throwaway keys, trust, enrolled devices, and the files that its sites hand over."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping

from cryptography.hazmat.primitives import serialization

from pumpdeck_console.credentials import Source
from pumpdeck_console.demo.home import DemoHome, DemoMark, DemoSize
from pumpdeck_console.key_making import SSH_KEY
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import FLEET_FILE, Workspace, open_workspace
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.ports import FileSystem, Progress
from pumpdeck_sample.enrolment import enrol_devices
from pumpdeck_sample.fleet import Endpoint, FleetSize, build_fleet, with_endpoints
from pumpdeck_sample.fleet_files import fleet_files, fleet_toml
from pumpdeck_sample.history import simulate_history, write_history, write_last_day
from pumpdeck_sample.launcher import SimulatorOptions, SimulatorProcess
from pumpdeck_sample.plan import SimulationPlan, device_root, read_plan, write_plan
from pumpdeck_sample.scenario import demo_scenario

PERSON = "Demo operator"
PROCESSES = 3


def make_demo(home: DemoHome, size: DemoSize, end_ms: int, fs: FileSystem, on_progress: Progress) -> DemoMark:
    """Everything up to the first ingest. A demo that was cut in the making is begun anew.

    Raises:
        ConflictError: the folder belongs to something else.
    """
    home.make_room(fs)
    mark = DemoMark(1, str(home.workspace.resolve()), size, end_ms)
    home.write_mark(fs, mark)
    fleet = _fleet(size)
    on_progress("write the inventory", 0, 0)
    init_workspace(home.workspace, files={**fleet_files(fleet), "settings.toml": _settings(home)}, fs=fs)
    with open_workspace(home.workspace, fs=fs) as workspace:
        on_progress("make throwaway keys", 0, 0)
        _found_trust(workspace, home)
        on_progress("enrol devices", 0, len(fleet.devices))
        _enrol(workspace, home, fleet)
        _plan(workspace, home, size, end_ms)
    on_progress("simulate 30 days", 0, 0)
    spooled = _write_history(home, fleet, size, end_ms, fs)
    processes = tuple(device.id for device in fleet.devices[:: max(1, len(fleet.devices) // PROCESSES)][:PROCESSES])
    made = DemoMark(1, mark.workspace, size, end_ms, processes, spooled, True)
    home.write_mark(fs, made)
    return made


def start_devices(home: DemoHome, mark: DemoMark, *, is_live: bool) -> SimulatorProcess:
    """Start the simulator; the devices answer after `wait_ready`. With `is_live` a new row a minute keeps coming."""
    options = SimulatorOptions(processes=mark.processes, speed=1.0 if is_live else 0.0)
    return SimulatorProcess(home.simulation, options, os.environ)


def write_endpoints(workspace: Workspace, endpoints: Mapping[str, Endpoint]) -> None:
    """Put the devices' addresses, ports and host keys into the inventory, where they differ from what it says."""
    fleet = workspace.fleet
    reached = with_endpoints(fleet, endpoints)
    if reached.devices == fleet.devices:
        return
    replace_file(workspace.fs, workspace.root / FLEET_FILE, fleet_toml(reached).encode("utf-8"))
    workspace.forget_fleet()


def remember_ports(home: DemoHome, endpoints: Mapping[str, Endpoint], fs: FileSystem) -> None:
    """Ask for the same ports next time."""
    plan = read_plan(fs, home.simulation)
    ports = {device: endpoint.port for device, endpoint in endpoints.items()}
    if dict(plan.ports) != ports:
        fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
        write_plan(fs, home.simulation, SimulationPlan(**{**fields, "ports": ports}))


def _settings(home: DemoHome) -> str:
    # Relative, so that a demo keeps working when its two folders are moved or copied together.
    folder = f"../{home.keys.relative_to(home.workspace.parent).as_posix()}/operator"
    return f'format = 1\nperson = "{PERSON}"\n\n[keys]\nfolder = {json.dumps(folder)}\n'


def _fleet(size: DemoSize) -> Fleet:
    sizes = FleetSize(size.sites, size.devices_per_site, size.pumps_per_device)
    return build_fleet(sizes, size.seed, architecture=_architecture(), os_name=_os_name())


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _os_name() -> str:
    return {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")


def _found_trust(workspace: Workspace, home: DemoHome) -> None:
    request = TrustRequest(
        root_folder=home.keys / "root",
        store=Source.PLAIN_FILE,
        key_folder=str(home.keys / "operator"),
        insecure_storage=True,
    )
    init_trust(workspace, request)


def _enrol(workspace: Workspace, home: DemoHome, fleet: Fleet) -> None:
    roots = {site.id: workspace.trust(site.id).root_bytes() for site in fleet.sites}
    enrolled = enrol_devices(fleet, home.simulation, roots, workspace.fs)
    now_ms, actor = workspace.clock.now_ms(), workspace.actor
    with workspace.store.atomic() as store:
        for device, one in enrolled.items():
            store.devices.put_identity(device, one.public_pem, one.key_id, one.host_key, now_ms)
            store.audit.append(actor, "device.enrol", device, reason="sample fleet", digests={"device_key": one.key_id})


def _plan(workspace: Workspace, home: DemoHome, size: DemoSize, end_ms: int) -> None:
    plan = SimulationPlan(
        format=1,
        seed=size.seed,
        sites=size.sites,
        devices_per_site=size.devices_per_site,
        pumps_per_device=size.pumps_per_device,
        architecture=_architecture(),
        os_name=_os_name(),
        end_ms=end_ms,
        authorised_key=_openssh_line(workspace.credentials.find(SSH_KEY).public_pem),
        ports={},
    )
    write_plan(workspace.fs, home.simulation, plan)


def _openssh_line(public_pem: str) -> str:
    key = serialization.load_pem_public_key(public_pem.encode("ascii"))
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return key.public_bytes(*form).decode("ascii")


def _write_history(home: DemoHome, fleet: Fleet, size: DemoSize, end_ms: int, fs: FileSystem) -> dict[str, int]:
    scenario = demo_scenario(fleet, end_ms, size.seed)
    rows = simulate_history(fleet, scenario, end_ms, size.seed)
    write_history(fleet, scenario, rows, home.history, fs)
    inboxes = {device.id: device_root(home.simulation, device.id) / "spool" / "in" for device in fleet.devices}
    return write_last_day(fleet, rows, inboxes, fs)
