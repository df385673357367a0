"""Packages made of plain bytes: enough for everything that never looks inside a graph."""

from __future__ import annotations

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.inventory import Channel, DeviceClass
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_packaging.package import BuiltPackage, ModelContent, PackageContent, PumpContent, build_package

EDGE = DeviceClass("edge-x86", "x86_64", "linux", "1.18", 13, 512, 50)
CHANNELS = (
    Channel("suction_pressure_bar", "bar", 0.0, 250.0, 0.1, True, "Suction pressure"),
    Channel("speed_rpm", "rpm", 0.0, 4200.0, 1.0, False),
)


def lineage(seed: int = 7) -> Lineage:
    return Lineage(digest(b"snapshot"), digest(b"pipeline"), digest(b"code"), digest(b"lock"), seed, "abc", True)


def model_content(pump_type: str = "esp", onnx: bytes = b"graph") -> ModelContent:
    return ModelContent(
        pump_type, f"{pump_type}-health", "maxz", digest(onnx), onnx, b"golden", b"# Card\n", 13, lineage()
    )


def pump_content(tag: str = "P-101A", pump_type: str = "esp") -> PumpContent:
    block = tag.encode() * 20
    return PumpContent(tag, pump_type, block, b"edges of " + block, CHANNELS, 300.0, 4.5, 0.5, 600.0, 86400.0)


def package_content(device: str = "gannet-d1", *, onnx: bytes = b"graph", pumps: int = 4) -> PackageContent:
    tags = [f"P-{100 + index}A" for index in range(pumps)]
    return PackageContent(
        device, EDGE, (model_content(onnx=onnx),), tuple(pump_content(tag) for tag in tags), 1_700_000_000_000
    )


def built_package(device: str = "gannet-d1", **more: object) -> BuiltPackage:
    return build_package(package_content(device, **more))  # type: ignore[arg-type]
