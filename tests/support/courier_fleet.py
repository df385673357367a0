"""A real workspace whose sites are reached by couriers only, with real trust, and devices that run the real agent here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.config import AgentConfig, AgentLimits, PumpConfig
from pumpdeck_agent.enrol import create_device
from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_agent.platform_port import Platform
from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.confidential_packages import note_age_key, seal_for
from pumpdeck_console.operations.devices import keep_identity
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.inventory import Device, Fleet, Link
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_packaging.bundle_stick import Stick, real_stick
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.trust_repository import PackageRelease
from support.devices import MemoryLocks, ScriptedRunner, UnsyncedFileSystem, package
from support.small_fleet import NOW_MS, small_fleet, small_workspace
from support.workspaces import make_version

MODEL = "esp-health"
POLICY = RolloutPolicy(waves=("rest",), soak_s=10.0)


def courier_sites(fleet: Fleet, *links: Link) -> Fleet:
    """The fleet with its sites reached so, in order; by couriers where nothing is said."""
    ways = dict(zip((site.id for site in fleet.sites), links, strict=False))
    sites = (dataclasses.replace(one, link=ways.get(one.id, Link.COURIER)) for one in fleet.sites)
    devices = (dataclasses.replace(one, address="127.0.0.1") for one in fleet.devices)
    return dataclasses.replace(fleet, sites=tuple(sites), devices=tuple(devices))


@dataclass
class CourierFleet:
    """Workspace, devices and the packages that were released for them."""

    folder: Path
    workspace: Workspace
    clock: FixedClock
    packages: dict[str, BuiltPackage]
    runner: ScriptedRunner

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.workspace.fleet.devices

    def agent(self, device: str) -> Agent:
        """The agent of a device, as after a restart."""
        platform = Platform(UnsyncedFileSystem(), self.clock, MemoryLocks(), lambda: False)
        limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5)
        return Agent(self.folder / "devices" / device, platform=platform, runner=self.runner, limits=limits)

    def stick(self, name: str = "stick") -> Stick:
        return real_stick(self.folder / name)

    def visit(self, device: str, stick: Stick | None = None) -> StickVisit:
        """The courier is at the device."""
        return install_from(self.agent(device), stick or self.stick())

    def active(self, device: str) -> str:
        return str(self.agent(device).status().fields["state"]["active"])

    def release(self, number: int, shift: float = 0.0) -> None:
        """A model version and its package for every device."""
        store = self.workspace.store
        with store.atomic():
            store.registry.add(make_version(number, self.workspace.fleet))
            for device in self.devices:
                pumps = self.workspace.fleet.pumps_by_device[device.id]
                built = package(device.id, tuple(pump.tag for pump in pumps), shift=shift)
                self.packages[device.id] = built
                self.workspace.artifacts.put(built.data)
                rows = tuple(PackagePump(pump.id, MODEL, number, 4.0) for pump in pumps)
                sizes = (len(built.data), built.unpacked_bytes)
                store.packages.put(PackageRow(built.sha256, device.id, device.site, *sizes, NOW_MS + number, rows))
        for device in self.devices:
            built, signer = self.packages[device.id], self.workspace.signing_key("release", device.site).signer
            self.workspace.trust(device.site).release(
                [PackageRelease(built, {MODEL: number}, seal_for(self.workspace, device, built))], [signer]
            )

    def start(self, number: int = 1, policy: RolloutPolicy = POLICY) -> Rollout:
        """A running rollout of that version on all devices, advanced once."""
        store, now_ms = self.workspace.store, self.clock.now_ms()
        request = deploy.PlanRequest({MODEL: number}, tuple(device.id for device in self.devices), policy)
        rollout = deploy.plan(store, self.workspace.fleet, request, actor="actor-author", now_ms=now_ms)
        deploy.approve(store, rollout.id, rollout.plan_digest, actor="actor-approver", now_ms=now_ms)
        seqs = {device.id: self.workspace.trust(device.site).next_seq() for device in self.devices}
        deploy.start(store, rollout.id, actor="actor-operator", now_ms=now_ms, trust_seqs=seqs)
        deploy.advance(store, self.workspace.fleet, now_ms)
        return self.rollout(rollout.id)

    def rollout(self, name: str = "") -> Rollout:
        """The rollout of that name, else the newest."""
        return self.workspace.store.rollouts.load(name or sorted(self.workspace.store.rollouts.states())[-1])


def courier_fleet(
    folder: Path,
    devices_per_site: int = 1,
    now_ms: int = NOW_MS,
    links: tuple[Link, ...] = (),
    *,
    is_plain: bool = True,
    is_confidential: bool = False,
) -> CourierFleet:
    """Two sites with a released package for each device; nothing is assigned yet. Couriers reach them unless `links` says so.

    `is_plain`: what devices return on sticks is not encrypted. `is_confidential`: packages are.
    """
    fleet = courier_sites(small_fleet(2, devices_per_site), *links)
    classes = {name: dataclasses.replace(one, confidential=is_confidential) for name, one in fleet.device_classes.items()}
    fleet = dataclasses.replace(fleet, device_classes=classes)
    clock = FixedClock(now_ms)
    small_workspace(folder / "workspace", clock, fleet).close()
    workspace = open_workspace(folder / "workspace", clock=clock)
    keys = folder / "keys"
    request = TrustRequest(
        keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True, plain_returns=is_plain
    )
    init_trust(workspace, request)
    found = CourierFleet(folder, workspace, clock, {}, ScriptedRunner())
    for device in fleet.devices:
        pumps = tuple(PumpConfig(pump.tag, "esp") for pump in fleet.pumps_by_device[device.id])
        config = AgentConfig(1, device.id, device.site, "edge-x86", pumps)
        root = workspace.trust(device.site).root_bytes()
        identity = create_device(UnsyncedFileSystem(), folder / "devices" / device.id, config, root)
        keep_identity(workspace, device.id, identity.public_pem, "")
        note_age_key(workspace, device.id, identity.age_key, "told at enrolment")
    found.release(1)
    return found
