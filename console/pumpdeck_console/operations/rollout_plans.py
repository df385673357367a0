"""What a rollout would do: which devices, which packages, in which waves. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.selection import WantedDevice, wanted_devices
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPlan, VersionRef, plan_rollout
from pumpdeck_fleet.store.models import PackageRow


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan and what it would cost: bytes over the links, and the slowest site's minutes at its bandwidth (None: no limit set)."""

    plan: RolloutPlan
    bytes_total: int
    slowest_site: str
    slowest_minutes: float | None


@operation("rollout.plan", runs_in="reader")
def plan_new(
    workspace: Workspace, *, rollout_id: str = "", query: str = "", models: Mapping[str, str] | None = None
) -> PlanReport:
    """The plan for all devices that `query` and `models` (model -> number or alias) select; nothing is stored.

    Raises:
        RefusedError: no device can take part; says why. NotFoundError, QueryError: as the selection.
    """
    wanted = wanted_devices(workspace, query=query, models=models or {})
    if not wanted:
        raise RefusedError("selects no device", "rollout", found=query or "no device in the inventory")
    active = workspace.store.devices.active()
    devices = [_plan_device(workspace, one, active.get(one.device.id, "")) for one in wanted]
    now_ms = workspace.clock.now_ms()
    plan = plan_rollout(
        rollout_id or "draft", _versions(wanted), devices, workspace.policies.rollout, created_ms=now_ms
    )
    site, minutes = _slowest(workspace, plan)
    return PlanReport(plan, plan.bytes_total, site, minutes)


def package_for(workspace: Workspace, wanted: WantedDevice) -> PackageRow | None:
    """The newest package of the device that holds exactly the wanted versions for exactly its pumps."""
    tags = {pump.id for pump in wanted.pumps}
    numbers = {version.model: version.number for version in wanted.versions.values()}
    for package in workspace.store.packages.for_device(wanted.device.id):
        if package.versions == numbers and {pump.pump for pump in package.pumps} == tags:
            return package
    return None


def _plan_device(workspace: Workspace, wanted: WantedDevice, active: str) -> PlanDevice:
    site = workspace.fleet.site(wanted.device.site)
    package = None if wanted.lacking else package_for(workspace, wanted)
    exclusion = wanted.lacking
    if not exclusion and package is None:
        exclusion = "there is no package with these versions; make it with: pumpdeck package build"
    if not exclusion and workspace.store.devices.identity(wanted.device.id) is None:
        exclusion = f"it is not enrolled; enrol it with: pumpdeck devices enrol {wanted.device.id}"
    groups = {f"{pump.site}/{pump.redundancy_group}" for pump in wanted.pumps if pump.redundancy_group}
    return PlanDevice(
        device=wanted.device.id,
        site=wanted.device.site,
        link=site.link,
        package_sha256=package.sha256 if package else "",
        package_bytes=package.bytes if package else 0,
        pumps=len(wanted.pumps),
        criticality=min((pump.criticality for pump in wanted.pumps), default=3),
        groups=tuple(sorted(groups)),
        active_sha256=active,
        exclusion=exclusion,
    )


def _versions(wanted: tuple[WantedDevice, ...]) -> list[VersionRef]:
    versions = {version.model: version for one in wanted if not one.lacking for version in one.versions.values()}
    return [VersionRef(name, version.number, version.content_digest) for name, version in sorted(versions.items())]


def _slowest(workspace: Workspace, plan: RolloutPlan) -> tuple[str, float | None]:
    by_site: dict[str, int] = {}
    for task in plan.tasks:
        by_site[task.site] = by_site.get(task.site, 0) + task.package_bytes
    slowest: tuple[float, str] | None = None
    for identity, size in by_site.items():
        bandwidth = workspace.fleet.site(identity).bandwidth_kbit_s
        if bandwidth > 0:
            slowest = max(slowest or (0.0, identity), (size * 8 / 1000 / bandwidth / 60, identity))
    return (slowest[1], slowest[0]) if slowest is not None else ("", None)
