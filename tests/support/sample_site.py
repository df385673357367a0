"""One site of the sample fleet, enrolled and trained, ready to be delivered to: real rows, models, packages and trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_packaging.package import BuiltPackage, ModelContent, PackageContent, PumpContent, build_package
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from pumpdeck_sample.enrolment import EnrolledDevice, enrol_devices
from pumpdeck_sample.history import simulate_history
from pumpdeck_sample.physics import SimulatedRows
from pumpdeck_sample.plan import SimulationPlan, write_plan
from pumpdeck_sample.ssh_keys import public_line
from pumpdeck_trainer.export import OPSET
from pumpdeck_trainer.pipeline import RunContext, train
from pumpdeck_trainer.source import Exclusion, TrainingRequest
from pumpdeck_trainer.spec import default_pipeline
from pumpdeck_trainer.trained import TrainedModel
from support.trust import SampleSite

SEED = 7


class RowsSource:
    """Simulated rows of one pump type as a training source."""

    def __init__(self, rows: SimulatedRows) -> None:
        self._rows = rows

    def frame(self, pump: str, start_ms: int, end_ms: int) -> TelemetryFrame:
        rows = self._rows
        inside = (rows.at_ms >= start_ms) & (rows.at_ms < end_ms)
        values = rows.values[:, rows.pump_ids.index(pump)][:, inside]
        return TelemetryFrame(
            rows.channels, rows.at_ms[inside], np.ascontiguousarray(values.T), np.zeros(int(inside.sum()), np.uint16)
        )

    def chunk_digests(self, pump: str, start_ms: int, end_ms: int) -> Sequence[tuple[int, str]]:
        return [(start_ms, digest(self.frame(pump, start_ms, end_ms).values.tobytes()))]

    def exclusions(self, pump: str) -> Sequence[Exclusion]:
        return []


@dataclass
class EnrolledSite:
    """Everything a console would hold of one simulated site."""

    root: Path
    plan: SimulationPlan
    fleet: Fleet
    rows: list[SimulatedRows]
    trust: SampleSite
    enrolled: dict[str, EnrolledDevice]
    client_key: Ed25519PrivateKey

    @property
    def client_key_text(self) -> str:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        return self.client_key.private_bytes(*form).decode("ascii")

    def trained(self) -> dict[str, TrainedModel]:
        """A model of each pump type, learned from all but the last day."""
        end_ms = self.plan.end_ms - DAY_MS + 1
        context = RunContext(digest(b"code"), digest(b"lock"))
        return {
            of_type.pump_type.value: train(
                default_pipeline(self.fleet.pump_types[of_type.pump_type.value]),
                TrainingRequest(of_type.pump_ids, end_ms - 30 * DAY_MS, end_ms),
                RowsSource(of_type),
                context,
            )
            for of_type in self.rows
        }

    def package(self, device: str, trained: dict[str, TrainedModel]) -> BuiltPackage:
        """The package of one device."""
        pumps = self.fleet.pumps_by_device[device]
        models = {pump.type: trained[pump.type] for pump in pumps}
        contents = []
        for pump in pumps:
            model = models[pump.type]
            found = next(one for one in model.pumps if one.pump == pump.id)
            alarm, channels = model.spec.alarm, self.fleet.pump_types[pump.type].channels
            contents.append(
                PumpContent(
                    pump.tag,
                    pump.type,
                    found.block,
                    found.edges,
                    channels,
                    model.spec.window_s,
                    found.limit.limit,
                    alarm.deadband,
                    alarm.persistence_s,
                    alarm.tau_s,
                )
            )
        device_class = self.fleet.device_classes[self.fleet.device(device).device_class]
        shared = tuple(
            ModelContent(
                pump_type,
                model.model,
                model.spec.model_type,
                model.content_digest,
                model.onnx,
                model.golden,
                model.card,
                OPSET,
                model.lineage,
            )
            for pump_type, model in models.items()
        )
        return build_package(PackageContent(device, device_class, shared, tuple(contents), self.plan.end_ms - DAY_MS))

    def assign(self, device: str, built: BuiltPackage, task: str) -> dict[str, bytes]:
        """Release and assign; the files that go to the device."""
        self.trust.trust.release([PackageRelease(built, {})], self.trust.keys.release)
        self.trust.trust.assign([AssignmentRequest(device, built.sha256, task)], self.trust.keys.laptops[0])
        return dict(self.trust.trust.files_for(device))


def enrolled_site(folder: Path, end_ms: int, devices: int = 2) -> EnrolledSite:
    """A new site with that many devices of four pumps, its history simulated up to `end_ms`."""
    fs = RealFileSystem()
    key = Ed25519PrivateKey.generate()
    plan = SimulationPlan(1, SEED, 1, devices, 4, "x86_64", "linux", end_ms, public_line(key), {})
    fleet = plan.fleet()
    root = folder / "simulation"
    trust = SampleSite(folder / "trust", fleet.sites[0].id)
    enrolled = enrol_devices(fleet, root, {fleet.sites[0].id: trust.root}, fs)
    write_plan(fs, root, plan)
    rows = simulate_history(fleet, plan.scenario(), end_ms, SEED)
    return EnrolledSite(root, plan, fleet, rows, trust, enrolled, key)
