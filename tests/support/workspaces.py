"""A small real store with models, packages and enrolled devices, for service tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.core.registry import Lineage, ModelVersion, PumpParameters
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.services.collect import Collector
from pumpdeck_fleet.services.deploy_delivery import Delivery
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_packaging.signing import verify_dsse
from support.fake_devices import T0, FakeAssigner, FakeDevice, Steps, connector, make_devices, make_fleet

MODEL = "esp-health"
POLICY = RolloutPolicy(waves=("1", "rest"), soak_s=10.0, deadline_s=3600.0)
NO_DIGEST = "0" * 64


def sha(text: str) -> str:
    return canonical.digest(text.encode())


def make_version(number: int, fleet: Fleet | None = None) -> ModelVersion:
    pumps = tuple(
        PumpParameters(pump.id, NO_DIGEST, NO_DIGEST, 3.0, "gumbel", False, 1)
        for pump in (fleet.pumps if fleet else ())
    )
    return ModelVersion(
        model=MODEL,
        number=0,
        content_digest=sha(f"{MODEL} {number}"),
        pump_type="esp",
        model_type="maxz",
        onnx_digest=NO_DIGEST,
        card_digest=NO_DIGEST,
        golden_digest=NO_DIGEST,
        run_record_digest=NO_DIGEST,
        created_ms=T0,
        data_end_ms=T0,
        metrics={},
        gates=(),
        lineage=Lineage(NO_DIGEST, NO_DIGEST, NO_DIGEST, NO_DIGEST, 1),
        pumps=pumps,
    )


@dataclass
class Yard:
    """One workspace and its simulated devices."""

    path: Path
    fleet: Fleet
    devices: Mapping[str, FakeDevice]
    clock: FixedClock
    store: Store
    artifacts: ArtifactStore
    assigner: FakeAssigner

    @property
    def collector(self) -> Collector:
        return Collector(self.store, self.fleet, verify_dsse, self.clock)

    def delivery(self, steps: Steps | None = None, concurrency: int = 4) -> Delivery:
        return Delivery(
            self.collector, self.artifacts, connector(self.devices, steps), self.assigner, concurrency=concurrency
        )

    def build(self, number: int) -> None:
        """A model version and a package of it for every device."""
        with self.store.atomic():
            found = self.store.registry.add(make_version(number, self.fleet))
            assert found == number
            for device in self.fleet.devices:
                data = f"package {number} for {device.id} ".encode() * 8000
                self.artifacts.put(data)
                pumps = tuple(
                    PackagePump(pump.id, MODEL, number, 3.0) for pump in self.fleet.pumps_by_device[device.id]
                )
                digest = canonical.digest(data)
                self.store.packages.put(PackageRow(digest, device.id, device.site, len(data), 9999, T0 + number, pumps))

    def package_of(self, device: str) -> str:
        return self.store.packages.for_device(device)[0].sha256

    def running(self, number: int = 1, policy: RolloutPolicy = POLICY) -> Rollout:
        """A started rollout of that version on all devices, no tick yet."""
        request = deploy.PlanRequest({MODEL: number}, tuple(self.devices), policy)
        now_ms = self.clock.now_ms()
        rollout = deploy.plan(self.store, self.fleet, request, actor="actor-author", now_ms=now_ms)
        deploy.approve(self.store, rollout.id, rollout.plan_digest, actor="actor-approver", now_ms=now_ms)
        return deploy.start(self.store, rollout.id, actor="actor-operator", now_ms=now_ms)

    def reopen(self) -> None:
        """What a new process finds."""
        self.store.close()
        self.store = Store.open(self.path / "pumpdeck.db", self.clock)


def make_yard(path: Path, devices: int = 4, fleet: Fleet | None = None) -> Yard:
    clock = FixedClock(T0)
    fleet = fleet or make_fleet(devices)
    store = Store.open(path / "pumpdeck.db", clock, create=True)
    yard = Yard(
        path,
        fleet,
        make_devices(fleet),
        clock,
        store,
        ArtifactStore(path / "artifacts", RealFileSystem()),
        FakeAssigner(),
    )
    with store.atomic():
        for name, device in yard.devices.items():
            store.devices.put_identity(name, device.signer.public_pem, device.signer.key_id, "", T0)
    yard.build(1)
    return yard
