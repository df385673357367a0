"""A small workspace with something of everything in its store, the same every time: for lists, views and golden outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus
from pumpdeck_fleet.core.receipts import AlarmNotice, Outcome, Receipt
from pumpdeck_fleet.core.registry import (
    Alias,
    GateVerdict,
    Lineage,
    ModelVersion,
    PumpParameters,
    QualityGate,
)
from pumpdeck_fleet.core.telemetry import Label, QualityFlag, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store.facts import SCORE_CHANNELS
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_sample.fleet import Endpoint, with_endpoints
from support.small_fleet import NOW_MS, small_fleet, small_workspace

LIMIT = 4.0


def digest_of(text: str) -> str:
    """64 hex characters that begin with something readable."""
    return text.encode("utf-8").hex().ljust(64, "0")[:64]


def model_version(workspace: Workspace, pump_type: str, number: int, verdict: GateVerdict) -> ModelVersion:
    """A version of `<pump type>-health` for all pumps of the type."""
    pumps = [pump.id for pump in workspace.fleet.pumps if pump.type == pump_type]
    gates = (
        QualityGate("parity", GateVerdict.PASS, "flags equal on all rows", 1.0, 0.9999),
        QualityGate("replay", verdict, "0.4 alarms per pump and month", 0.4, 2.0),
    )
    return ModelVersion(
        model=f"{pump_type}-health",
        number=number,
        content_digest=digest_of(f"{pump_type}{number}"),
        pump_type=pump_type,
        model_type="maxz",
        onnx_digest=digest_of("onnx"),
        card_digest=digest_of("card"),
        golden_digest=digest_of("golden"),
        run_record_digest=digest_of(f"run{number}"),
        created_ms=NOW_MS - (10 - number) * 24 * HOUR_MS,
        data_end_ms=NOW_MS - (11 - number) * 24 * HOUR_MS,
        metrics={"replay_alarms_pump_month": 0.4},
        gates=gates,
        lineage=Lineage(digest_of("snap"), digest_of("pipe"), digest_of("code"), digest_of("lock"), 1),
        pumps=tuple(
            PumpParameters(pump, digest_of("block"), digest_of("edges"), LIMIT, "daily", False, 0) for pump in pumps
        ),
    )


def seeded_workspace(root: Path) -> Workspace:
    """Two sites, eight pumps: an alarm, a drifting pump, a stale one, one with a sensor fault, four that are fine."""
    bare = small_fleet()
    endpoints = {device.id: Endpoint(2200 + n, "ssh-ed25519 AAAA") for n, device in enumerate(bare.devices, 1)}
    workspace = small_workspace(root, fleet=with_endpoints(bare, endpoints))
    pumps = workspace.fleet.pumps
    with workspace.store.atomic() as store:
        for pump_type in sorted({pump.type for pump in pumps}):
            for number, verdict in ((1, GateVerdict.PASS), (2, GateVerdict.WARN)):
                store.registry.add(model_version(workspace, pump_type, number, verdict))
            store.registry.set_alias(f"{pump_type}-health", Alias.CHAMPION, 1)
            store.registry.set_alias(f"{pump_type}-health", Alias.CANDIDATE, 2)
        _rows(workspace)
        _devices(workspace)
        guilty = workspace.fleet.pump_types[pumps[0].type].channels[0].name
        package = digest_of(pumps[0].device)
        raised = AlarmNotice(1, pumps[0].device, pumps[0].id, NOW_MS - HOUR_MS, True, 5.0, LIMIT, guilty, package)
        store.alarms.add(raised)
        store.drift.put(pumps[1].id, NOW_MS - HOUR_MS, {guilty: 2.41, "speed_rpm": 0.02}, 2.41)
        store.drift.put(pumps[4].id, NOW_MS - HOUR_MS, {"flow_m3_h": 0.03}, 0.03)
        label = Label(
            pumps[0].id, NOW_MS - 9 * HOUR_MS, NOW_MS - 8 * HOUR_MS, Verdict.FAULT, "bearing", workspace.actor, NOW_MS
        )
        store.labels.add(label)
    return workspace


def _rows(workspace: Workspace) -> None:
    for index, pump in enumerate(workspace.fleet.pumps):
        end_ms = NOW_MS - 12 * HOUR_MS if index == 2 else NOW_MS
        at_ms = np.arange(end_ms - 2 * HOUR_MS, end_ms, 10 * MINUTE_MS, dtype=np.int64)
        channels = tuple(channel.name for channel in workspace.fleet.pump_types[pump.type].channels)
        middle = [(channel.low + channel.high) / 2 for channel in workspace.fleet.pump_types[pump.type].channels]
        flags = np.zeros(len(at_ms), dtype=np.uint16)
        if index == 3:
            flags[-1] = int(QualityFlag.STUCK)
        values = np.tile(np.array(middle, dtype=np.float32), (len(at_ms), 1))
        workspace.store.telemetry.append(pump.id, TelemetryFrame(channels, at_ms, values, flags))
        score = np.float32(5.0 if index == 0 else 1.0 + 0.25 * index)
        told = np.tile(np.array([score, LIMIT, float(index == 0), 0.1], dtype=np.float32), (len(at_ms), 1))
        no_flags = np.zeros(len(at_ms), dtype=np.uint16)
        workspace.store.scores.append(pump.id, TelemetryFrame(SCORE_CHANNELS, at_ms, told, no_flags))


def _devices(workspace: Workspace) -> None:
    store = workspace.store
    for number, (device, pumps) in enumerate(sorted(workspace.fleet.pumps_by_device.items()), 1):
        package = digest_of(device)
        held = tuple(PackagePump(pump.id, f"{pump.type}-health", 1, LIMIT) for pump in pumps)
        site = workspace.fleet.device(device).site
        store.packages.put(PackageRow(package, device, site, 7_800, 30_720, NOW_MS - 24 * HOUR_MS, held))
        store.devices.put_identity(device, f"pem {device}", digest_of(f"key{number}"), "ssh-ed25519 AAAA", NOW_MS)
        status = DeviceStatus("ACTIVE", package, "", 65, 1, 1_000_000_000, OutboxStatus(3, 4_200))
        store.devices.put_status(device, status, NOW_MS - 5 * MINUTE_MS)
        receipt = Receipt(
            1, device, "t-1", package, 65, Outcome.COMMITTED, "", package, "", 1, NOW_MS - HOUR_MS, False, "0.1.0", "1.18"
        )  # fmt: skip
        store.receipts.add(receipt, f"envelope of {device}".encode(), digest_of(f"key{number}"))
