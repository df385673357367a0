"""Devices that were retired or replaced: what their old keys sign afterwards moves nothing, and stays as evidence."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_agent.config import AgentConfig, PumpConfig
from pumpdeck_agent.enrol import create_device
from pumpdeck_console.operations.bundles import IntakeReport, export_bundle, intake_bundle
from pumpdeck_console.operations.retiring import device_history, plan_retire, retire
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import NotFoundError, TrustError
from pumpdeck_fleet.core.receipts import Receipt
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store import Store, migrations
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.json_rows import to_text
from support.courier_fleet import MODEL, POLICY, CourierFleet, courier_fleet
from support.devices import UnsyncedFileSystem
from support.small_fleet import NOW_MS


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    """A stick was at every device; nothing was taken in yet."""
    made = courier_fleet(tmp_path)
    made.start()
    export_bundle(made.workspace, query="", to=str(tmp_path / "stick"))
    for device in made.devices:
        made.visit(device.id)
    yield made
    made.workspace.close()


def intake(yard: CourierFleet) -> IntakeReport:
    return intake_bundle(yard.workspace, folder=str(yard.folder / "stick"))


def replaced(yard: CourierFleet, device: str) -> str:
    """New hardware in the place of a device; the key id it was enrolled with."""
    root = yard.folder / "devices" / device
    shutil.move(root, yard.folder / f"old-{device}")
    found = yard.workspace.fleet.device(device)
    pumps = tuple(PumpConfig(pump.tag, "esp") for pump in yard.workspace.fleet.pumps_by_device[device])
    config = AgentConfig(1, device, found.site, "edge-x86", pumps, yard.workspace.trust(found.site).next_seq())
    made = create_device(UnsyncedFileSystem(), root, config, yard.workspace.trust(found.site).root_bytes())
    yard.clock.advance(1000)
    with yard.workspace.store.atomic() as store:
        store.devices.put_identity(device, made.public_pem, made.key_id, "", yard.clock.now_ms())
    return made.key_id


def test_a_retired_device_moves_no_rollout_and_its_late_receipts_stand_apart(yard: CourierFleet) -> None:
    """The retired computer is stolen and goes on signing: its receipts come in, are named, and count for nothing."""
    device = yard.devices[0].id
    before = yard.rollout().tasks[device].state
    retire(yard.workspace, device=device, reason="scrapped")
    report = intake(yard)
    (told,) = [one for one in report.devices if one.device == device]
    assert "retired: scrapped" in told.problems[0] and not told.stored
    task = yard.rollout().tasks[device]
    assert (before, task.state, task.note) == (TaskState.SENDING, TaskState.UNKNOWN, "its device was retired: scrapped")
    assert device not in yard.workspace.store.rollouts.live_tasks()
    assert yard.workspace.store.receipts.of(device) == [] and device not in yard.workspace.store.devices.active()
    history = device_history(yard.workspace, device=device)
    assert len(history.apart) == 1 and history.apart[0][0].key_id == history.keys[0].key_id
    again = intake(yard)
    assert len(device_history(yard.workspace, device=device).apart) == 1
    assert next(one for one in again.devices if one.device == device).is_replay


def test_a_retired_device_gets_no_new_task(yard: CourierFleet) -> None:
    """A forgotten rollout plan names it."""
    intake(yard)
    device = yard.devices[0].id
    kept = len(yard.workspace.store.receipts.of(device))
    plan = plan_retire(yard.workspace, device=device)
    retire(yard.workspace, device=device)
    retire(yard.workspace, device=device)
    actions = [entry.action for entry in yard.workspace.store.audit.entries()]
    assert actions.count("device.retire") == 1 and plan.receipts == kept == 1
    assert len(device_history(yard.workspace, device=device).receipts) == kept
    yard.release(2, shift=1.0)
    request = deploy.PlanRequest({MODEL: 2}, tuple(one.id for one in yard.devices), POLICY)
    drafted = deploy.draft_plan(yard.workspace.store, yard.workspace.fleet, request, NOW_MS)
    assert {one.device: one.reason for one in drafted.excluded} == {device: "it is retired"}


def test_an_ended_key_is_never_enrolled_again(yard: CourierFleet) -> None:
    """The old computer turns up and asks to be enrolled as if nothing had been."""
    device = yard.devices[0].id
    old = yard.workspace.store.devices.identity(device)
    assert old is not None
    retire(yard.workspace, device=device)
    with pytest.raises(TrustError, match="retired"), yard.workspace.store.atomic() as store:
        store.devices.put_identity(device, old.public_pem, old.key_id, "", NOW_MS + 5)
    assert yard.workspace.store.devices.identity(device) is None


def test_a_replaced_device_counts_from_one_and_both_keys_stay_in_its_history(yard: CourierFleet) -> None:
    """Its first receipt has a counter that the old device used up long ago: it is no replay, the old one's still is."""
    intake(yard)
    device = yard.devices[0].id
    new_key = replaced(yard, device)
    assert device not in yard.workspace.store.devices.active()
    yard.release(2, shift=1.0)
    yard.start(2)
    export_bundle(yard.workspace, query="", to=str(yard.folder / "stick"))
    assert yard.visit(device).outcome == "committed"
    report = intake(yard)
    assert [one.problems for one in report.devices if one.device == device] == [()]
    assert yard.rollout().tasks[device].state is TaskState.COMMITTED
    history = device_history(yard.workspace, device=device)
    assert [(row.key_id == new_key, row.receipt.counter) for row in history.receipts] == [(False, 1), (True, 1)]
    assert [(key.key_id == new_key, key.ended) for key in history.keys] == [(False, "replaced"), (True, "")]
    assert yard.workspace.store.devices.active()[device] == yard.packages[device].sha256


def test_the_device_that_was_replaced_cannot_speak_for_its_successor(yard: CourierFleet) -> None:
    """The old computer, in a thief's shed, returns a receipt signed with the key of before."""
    device = yard.devices[0].id
    replaced(yard, device)
    report = intake(yard)
    (told,) = [one for one in report.devices if one.device == device]
    assert "replaced" in told.problems[0] and not told.stored
    assert yard.workspace.store.receipts.of(device) == []
    assert yard.rollout().tasks[device].state is TaskState.SENDING


def test_a_forged_return_in_the_name_of_an_ended_key_is_refused(yard: CourierFleet) -> None:
    """Whoever knows the id of an ended key writes it into an envelope of his own."""
    device, other = yard.devices[0].id, yard.devices[1].id
    retire(yard.workspace, device=device)
    path = yard.folder / "stick" / "returns" / device / "return.json"
    own = yard.workspace.store.devices.keys(device)[0].key_id
    foreign = (yard.folder / "stick" / "returns" / other / "return.json").read_bytes()
    path.write_bytes(foreign.replace(yard.workspace.store.devices.keys(other)[0].key_id.encode(), own.encode()))
    report = intake(yard)
    assert device in {name for name, _ in report.problems}
    assert device_history(yard.workspace, device=device).apart == ()


def test_what_was_never_enrolled_cannot_be_retired(tmp_path: Path) -> None:
    """A typing error must not look like success."""
    yard = courier_fleet(tmp_path)
    with pytest.raises(NotFoundError):
        retire(yard.workspace, device="nothing")
    yard.workspace.close()


def test_a_store_of_before_keeps_its_receipts_and_identities(tmp_path: Path) -> None:
    """The migration: receipts by device and counter become receipts by device, key and counter."""
    path, clock = tmp_path / "pumpdeck.db", FixedClock(NOW_MS)
    old = Connection(path, create=True, read_only=False)
    migrations.migrate(old, clock, migrations.MIGRATIONS[:2])
    receipt = Receipt(1, "gannet-d1", "t", "a" * 64, 65, "committed", "", "a" * 64, "", 1, NOW_MS, False, "0", "1")  # type: ignore[arg-type]
    with old.atomic():
        old.write("INSERT INTO fact (name, value) VALUES ('workspace', 'ws-1')")
        old.write("INSERT INTO device (device, public_pem, key_id, host_key, enrolled_ms, active, counter)"
                  " VALUES ('gannet-d1', 'PEM', 'key1', 'host', 5, ?, 1)", ("a" * 64,))  # fmt: skip
        old.write("INSERT INTO receipt (device, counter, received_ms, key_id, body, envelope) VALUES (?, ?, ?, ?, ?, ?)",
                  ("gannet-d1", 1, 7, "key1", to_text(receipt), b"envelope"))  # fmt: skip
    old.close()
    with Store.open(path, clock) as store:
        (row,) = store.receipts.of("gannet-d1")
        assert (row.key_id, row.received_ms, row.envelope) == ("key1", 7, b"envelope")
        assert [(one.key_id, one.ended_ms) for one in store.devices.keys("gannet-d1")] == [("key1", None)]
        with store.atomic():
            assert not store.receipts.add(row.receipt, b"envelope", "key1")
            store.devices.put_identity("gannet-d1", "PEM2", "key2", "host", 9)
            assert store.receipts.add(replace(row.receipt, task="new"), b"envelope 2", "key2")
        assert store.receipts.last_counter("gannet-d1", "key2") == 1
    with sqlite3.connect(path) as check:
        assert check.execute("SELECT count(*) FROM sqlite_master WHERE name = 'receipt_by_counter'").fetchone() == (0,)
