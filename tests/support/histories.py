"""Five workspaces that worked apart: each with its own rows of everything, and some that meet those of the others."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.audit import CHECKPOINT_FORMAT, CHECKPOINT_PAYLOAD_TYPE, AuditCheckpoint
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, FixedClock
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import AlarmNotice, Outcome, Receipt
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPolicy, VersionRef, plan_rollout
from pumpdeck_fleet.core.statements import STATEMENT_PAYLOAD_TYPE, Believed, Kind, Statement, parse_statement
from pumpdeck_fleet.core.telemetry import IngestReport, Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.numeric.varint import write_unsigned
from pumpdeck_fleet.services.deploy_feed import keep
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.merge_signed import Beliefs
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_fleet.store.statements import SealRow
from pumpdeck_packaging.signing import sign_dsse, verify_dsse
from support.golden_trust import seeded_key
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
        _sign(store, number)
    return store


PEOPLE = {number: seeded_key(40 + number) for number in range(1, 6)}
"""Who signed in each history."""


def _sign(store: Store, number: int) -> None:
    """What a person signed as they did it: who the devices are, the approval, the aliases, where the audit chain ends."""
    for row in store.devices.all_keys():
        about = {"key_id": row.key_id, "public_pem": row.public_pem, "host_key": row.host_key}
        _state(store, number, Kind.ENROLMENT, row.device, {**about, "enrolled_ms": str(row.enrolled_ms)})
    if number == 5:
        last = store.devices.all_keys()[0]
        store.devices.retire(last.device, T0 + DAY_MS, "lost")
        about = {"key_id": last.key_id, "ended_ms": str(T0 + DAY_MS), "ended": "retired: lost"}
        _state(store, number, Kind.END, last.device, about)
    for rollout in store.rollouts.all():
        for one in rollout.approvals:
            about = {"plan": one.plan_digest, "actor": one.actor, "at_ms": str(one.at_ms)}
            _state(store, number, Kind.APPROVAL, rollout.id, about, tuple(sorted(rollout.plan.sites)))
    for model, alias, at_ms, name, content in store.registry.own_moves():
        about = {"alias": alias, "at_ms": str(at_ms), "workspace": name, "content_digest": content}
        _state(store, number, Kind.ALIAS, model, about)
    seal(store, number)


def seal(store: Store, number: int) -> None:
    """That person signs where the store's chain ends."""
    head = store.audit.head()
    checkpoint = AuditCheckpoint(CHECKPOINT_FORMAT, head.chain, head.position, head.digest, T0)
    envelope = sign_dsse(canonical.encode(checkpoint), CHECKPOINT_PAYLOAD_TYPE, PEOPLE[number])
    store.statements.put_seal(SealRow(head.chain, head.position, envelope))


def _state(
    store: Store, number: int, kind: Kind, subject: str, about: dict[str, str], sites: tuple[str, ...] = ("gannet",)
) -> None:
    seq = store.statements.next_seq()
    statement = Statement(1, kind, subject, sites, about, store.workspace, "actor-b", seq, T0 + number)
    store.statements.add(statement, sign_dsse(canonical.encode(statement), STATEMENT_PAYLOAD_TYPE, PEOPLE[number]))


@functools.cache
def _believed(envelope: bytes) -> Believed:
    payload = verify_dsse(envelope, STATEMENT_PAYLOAD_TYPE, _KEYS, 65_536)
    (signed,) = canonical.parse_json(envelope, "statement", max_bytes=65_536)["signatures"]
    return Believed(parse_statement(payload), f"p-{signed['keyid'][:12]}")


@functools.cache
def _sealed(envelope: bytes) -> AuditCheckpoint:
    payload = verify_dsse(envelope, CHECKPOINT_PAYLOAD_TYPE, _KEYS, 65_536)
    return canonical.decode(AuditCheckpoint, payload, "head", max_bytes=65_536)


_KEYS = {key.key_id: key.public_pem for key in PEOPLE.values()}
BELIEFS = Beliefs(_believed, _sealed, lambda _key, _row: "")
"""Belief in the five people. Receipts here carry no true envelope; what proves them is tested with real devices."""


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
        store.devices.put_identity(device, f"pem {number // 3}", sha(f"key {number // 3} of {device}"), "host", T0 + number // 3)
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
        ev.Approve(now_ms, "actor-b", plan.digest, f"p-{PEOPLE[number].key_id[:12]}"),
        ev.Start(now_ms, "actor-a", seqs),
        ev.Tick(now_ms),
    ]
    if number in (2, 4):
        words.append(ev.Staged(now_ms, DEVICES[0]))
    rollout, commands = draft.receive_all(words)
    keep(store, draft, rollout, commands)
