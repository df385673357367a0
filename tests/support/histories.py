"""Five workspaces that worked apart: each with its own rows of everything, and some that meet those of the others."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, FixedClock
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import AlarmNotice, Outcome, Receipt
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPolicy, VersionRef, plan_rollout
from pumpdeck_fleet.core.telemetry import IngestReport, Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.numeric.varint import write_unsigned
from pumpdeck_fleet.services.deploy_feed import keep
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from support.stores import T0
from support.workspaces import MODEL, make_version, sha

PUMPS = ("gannet/P-1", "gannet/P-2", "heron/P-1")
DEVICES = ("gannet-d1", "heron-d1")


def workspace_id(number: int) -> str:
    return f"ws-{number:012x}"


def empty_store(folder: Path, number: int, *, now_ms: int = T0) -> Store:
    """A store whose id is known, with other chance afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = itertools.count(number * 1000)
    first = iter([f"{number:012x}"])
    return Store.open(
        folder / "pumpdeck.db",
        FixedClock(now_ms),
        create=True,
        new_hex=lambda size: next(first, None) or f"{next(chance):0{size * 2}x}",
    )


def history(folder: Path, number: int) -> Store:
    """A workspace that has worked by itself; number 1-5 says how it differs from the others."""
    store = empty_store(folder, number, now_ms=T0 + number * HOUR_MS)
    with store.atomic():
        actor = store.persons.actor_for(f"Person {number}")
        if number == 3:
            store.persons.erase(actor)
        _models(store, number)
        _rows(store, number)
        _devices(store, number)
        _rollout(store, number)
        store.audit.append(actor, "work", f"of {number}")
        store.audit.append(actor, "work", f"more of {number}")
    return store


def _models(store: Store, number: int) -> None:
    # Two workspaces trained the same content, and all of them number from 1.
    contents = [100 + number, 200 + number // 2]
    numbers = [store.registry.add(dataclasses.replace(make_version(one), created_ms=T0 + one)) for one in contents]
    store.registry.set_alias(MODEL, Alias.CANDIDATE, numbers[0])
    store.registry.set_alias(MODEL, Alias.CHAMPION, numbers[number % 2])
    for held in numbers:
        pump = PackagePump(PUMPS[0], MODEL, held, 3.0)
        content = store.registry.version(MODEL, held).content_digest
        store.packages.put(PackageRow(sha(f"package of {content}"), DEVICES[0], "gannet", 9, 99, T0 + number, (pump,)))


def _rows(store: Store, number: int) -> None:
    for place, pump in enumerate(PUMPS):
        at_ms = np.arange(T0 + number * HOUR_MS, T0 + (number + 2) * HOUR_MS, 60_000 * (1 + place), dtype=np.int64)
        values = np.full((len(at_ms), 2), 10.0, np.float32)
        values[:, 0] += number
        values[::3, 1] = np.nan
        channels = ("flow_m3_h", f"extra_{number % 2}")
        store.telemetry.append(pump, TelemetryFrame(channels, at_ms, values, np.full(len(at_ms), number % 3, np.uint16)))
        scores = np.tile(np.array([number, 4.0, number % 2, 0.1], np.float32), (len(at_ms), 1))
        told = TelemetryFrame(("score", "limit", "alarmed", "drift_index"), at_ms, scores, np.zeros(len(at_ms), np.uint16))
        store.scores.append(pump, told)
        store.drift.put(pump, T0, {"flow_m3_h": 0.1 * number}, 0.1 * number)
        edges = canonical.digest(b"edges")[:16]
        sketch = b"PDS1" + bytes.fromhex(edges) + _packed(number)
        store.sketches.put(pump, T0 - T0 % DAY_MS, edges, sketch)
        store.alarms.add(AlarmNotice(1, DEVICES[0], pump, T0 + number // 2, number % 2 == 1, number, 3.0, "flow_m3_h", sha("p")))
        label = Label(pump, T0, T0 + HOUR_MS, Verdict.FAULT, f"kind {number // 2}", "actor-x", T0)
        store.labels.add(label)
    store.sources.add(IngestReport("a.csv", sha("a file"), number, 0, 0, 0, PUMPS, T0, T0, ()))


def _packed(rows: int) -> bytes:
    import zlib

    return zlib.compress(write_unsigned([100 * rows, 1, 2, 3]))


def _devices(store: Store, number: int) -> None:
    status = DeviceStatus("ACTIVE", sha("p"), "", 60 + number, 1, 1_000_000_000, OutboxStatus(number, 10))
    for device in DEVICES:
        store.devices.put_identity(device, f"pem {number // 3}", sha(f"key {number // 3}"), "host", T0 + number // 3)
        store.devices.put_status(device, status, T0 + number)
        receipt = Receipt(1, device, "t-old", sha("p"), 5, Outcome.COMMITTED, "", sha("p"), "", 1, T0, True, "1", "1")
        store.receipts.add(receipt, b"envelope 1", sha("key"))
        word = dataclasses.replace(receipt, counter=number + 1, active_sha256=sha(f"p {number}"))
        store.receipts.add(word, f"envelope {number}".encode(), sha("key"))
        store.receipts.put_return_counter(device, sha("key"), number)


POLICY = RolloutPolicy(waves=("rest",), soak_s=1.0)


def _rollout(store: Store, number: int) -> None:
    """Each workspace started its own rollout on both devices; the numbers of two of them are equal."""
    entries = [PlanDevice(device, device.split("-")[0], Link.SSH, sha(f"p {number}"), 100, 1) for device in DEVICES]
    now_ms = T0 + number
    plan = plan_rollout(f"r0001-{number:06x}", (VersionRef(MODEL, 1, sha("v")),), entries, POLICY, created_ms=now_ms)
    draft = Rollout.draft(plan)
    seqs = dict.fromkeys(DEVICES, 10 + number // 2)
    words: list[ev.Event] = [
        ev.Freeze(now_ms, "actor-a"),
        ev.Approve(now_ms, "actor-b", plan.digest),
        ev.Start(now_ms, "actor-a", seqs),
        ev.Tick(now_ms),
    ]
    if number in (2, 4):
        words.append(ev.Staged(now_ms, DEVICES[0]))
    rollout, commands = draft.receive_all(words)
    keep(store, draft, rollout, commands)
