"""What devices return: verified, judged by its counters, stored once, acknowledged last; and the ways to cheat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, DigestMismatchError, NotFoundError, PumpdeckError, TrustError
from pumpdeck_fleet.core.receipts import (
    AGENT_RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AgentReceipt,
    AlarmNotice,
    Outcome,
    Receipt,
    RetrainRequest,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
)
from pumpdeck_fleet.numeric.columns import encode_chunk
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.services.collect import CollectReport, ItemHead, collect_device
from pumpdeck_fleet.transports.rpc_client import ReturnBatch, parse_collect
from pumpdeck_packaging.signing import sign_dsse
from support.fake_devices import T0, FakeChannel, FakeDevice, Killed, Steps
from support.workspaces import Yard, make_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = make_yard(tmp_path, devices=2)
    yield made
    made.store.close()


@pytest.fixture
def device(yard: Yard) -> FakeDevice:
    return yard.devices["d000"]


def collect(yard: Yard, device: FakeDevice, steps: Steps | None = None) -> CollectReport:
    return collect_device(yard.collector, FakeChannel(device, steps or Steps()), device.device)


def head(pump: str = "P-0A") -> bytes:
    return canonical.encode(ItemHead(1, pump, "a" * 64)) + b"\n"


def chunk(count: int = 10, channels: tuple[str, ...] = ("score", "limit")) -> bytes:
    at_ms = T0 + np.arange(count, dtype=np.int64) * 60_000
    values = np.arange(count * len(channels), dtype=np.float32).reshape(count, len(channels))
    return encode_chunk(TelemetryFrame(channels, at_ms, values, np.zeros(count, np.uint16)))


def notice(raised: bool = True, device: str = "d000", pump: str = "P-0A", at_ms: int = T0) -> bytes:
    return canonical.encode(AlarmNotice(1, device, pump, at_ms, raised, 9.0, 3.0, "flow_m3_h", "a" * 64))


def request(device: str = "d000", pump: str = "P-0A", at_ms: int = T0) -> bytes:
    return canonical.encode(RetrainRequest(1, device, pump, at_ms, "drift", "the baseline was far for 24 h", "a" * 64))


def word(device: FakeDevice, counter: int, **changes: object) -> Receipt:
    base = Receipt(
        1, device.device.id, "t-1", "a" * 64, 1, Outcome.COMMITTED, "", "a" * 64, "", counter, T0, True, "0.1.0", "1.18"
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def agent_receipt(device: FakeDevice) -> bytes:
    told = AgentReceipt(1, device.device.id, "b" * 64, "0.2.0", 8, Outcome.COMMITTED, "", "b" * 64, "a" * 64, 1, T0, True)
    return sign_dsse(canonical.encode(told), AGENT_RECEIPT_PAYLOAD_TYPE, device.signer)


def fill(device: FakeDevice) -> None:
    """One thing of every kind."""
    device.put(ReturnKind.RECEIPT, device.sign_receipt(word(device, 1)))
    device.put(ReturnKind.AGENT_RECEIPT, agent_receipt(device))
    device.put(ReturnKind.ALARM, notice())
    device.put(ReturnKind.RETRAIN_REQUEST, request(), "P-0A")
    device.put(ReturnKind.SKETCH, b"PDS1" + b"12345678" + b"rest", "P-0A", T0)
    device.put(ReturnKind.SCORES, head() + chunk(), "P-0A", T0)
    device.put(ReturnKind.SEGMENT, head() + chunk(20, ("flow_m3_h",)), "P-0A", T0)


def actions(yard: Yard) -> list[str]:
    return [entry.action for entry in yard.store.audit.entries(limit=10_000)]


def test_one_of_every_kind_is_stored_and_acknowledged(yard: Yard, device: FakeDevice) -> None:
    fill(device)
    report = collect(yard, device)
    assert report.stored == {kind.value: 1 for kind in ReturnKind}
    assert report.rows == 30
    assert report.problems == ()
    assert device.outbox == {}
    assert device.calls == ["collect", "ack", "status"] or device.calls == ["collect", "ack", "collect", "status"]
    assert [row.receipt.counter for row in yard.store.receipts.of("d000")] == [1]
    assert [one.pump for one in yard.store.alarms.open()] == ["site0/P-0A"]
    assert [row.edges_digest for row in yard.store.sketches.range("site0/P-0A", 0, T0 + 1)] == [b"12345678".hex()]
    assert len(yard.store.scores.tail("site0/P-0A", 100)) == 10
    assert len(yard.store.telemetry.tail("site0/P-0A", 100)) == 20
    status = yard.store.devices.status("d000")
    assert status is not None
    assert status.status.state == "NO_MODEL"
    yard.store.audit.verify()


def test_collecting_twice_changes_nothing(yard: Yard, device: FakeDevice) -> None:
    fill(device)
    again = dict(device.outbox)
    collect(yard, device)
    before = yard.store.telemetry.chunk_digests("site0/P-0A", 0, T0 * 2)
    device.outbox = again
    report = collect(yard, device)
    assert (report.stored, report.rows) == ({}, 0)
    assert sum(report.already.values()) == len(ReturnKind)
    assert yard.store.telemetry.chunk_digests("site0/P-0A", 0, T0 * 2) == before
    assert device.outbox == {}


def test_a_device_that_was_never_enrolled_is_not_believed(yard: Yard, device: FakeDevice) -> None:
    fill(device)
    stranger = replace(device.device, id="d999")
    with pytest.raises(NotFoundError, match="not enrolled"):
        collect_device(yard.collector, FakeChannel(device, Steps()), stranger)
    assert device.calls == []


def test_an_index_signed_by_another_key_is_refused_and_nothing_stored(yard: Yard, device: FakeDevice) -> None:
    """An attacker on the line answers with a key of his own."""
    fill(device)
    waiting = dict(device.outbox)
    device.signer = yard.devices["d001"].signer
    with pytest.raises(TrustError):
        collect(yard, device)
    assert device.outbox == waiting
    assert yard.store.receipts.all() == []
    assert actions(yard) == []


def test_a_receipt_signed_by_another_key_spoils_the_whole_return(yard: Yard, device: FakeDevice) -> None:
    """A receipt of another device is slipped into an honest index."""
    device.put(ReturnKind.RECEIPT, yard.devices["d001"].sign_receipt(word(device, 1)))
    with pytest.raises(TrustError, match="unknown key"):
        collect(yard, device)
    assert yard.store.receipts.all() == []


def test_a_receipt_that_speaks_for_another_device_is_refused(yard: Yard, device: FakeDevice) -> None:
    """One enrolled device claims that another one committed."""
    device.put(ReturnKind.RECEIPT, device.sign_receipt(replace(word(device, 1), device="d001")))
    with pytest.raises(TrustError, match="another device"):
        collect(yard, device)
    assert yard.store.receipts.all() == []


def batch_of(device: FakeDevice) -> ReturnBatch:
    header, body = device.batch(list(device.outbox.values()))
    return parse_collect(header, body)


@pytest.mark.parametrize("place", range(6))
def test_an_item_that_was_altered_on_the_way_is_refused(yard: Yard, device: FakeDevice, place: int) -> None:
    """A stick or a proxy flips one byte of one item."""
    fill(device)
    batch = batch_of(device)
    item, data = batch.items[place]
    items = list(batch.items)
    items[place] = (item, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises((DigestMismatchError, DamagedError, TrustError)):
        yard.collector.verify(ReturnBatch(batch.envelope, tuple(items)), yard.collector.identity("d000"))


def test_items_that_the_index_does_not_list_are_refused(yard: Yard, device: FakeDevice) -> None:
    """Things are added, left out or exchanged under an honest index."""
    fill(device)
    batch = batch_of(device)
    identity = yard.collector.identity("d000")
    extra = (ReturnItem(ReturnKind.ALARM, canonical.digest(b"{}"), 2), b"{}")
    for items in (batch.items[1:], (*batch.items, extra), tuple(reversed(batch.items))):
        with pytest.raises(TrustError, match="lists other things"):
            yard.collector.verify(ReturnBatch(batch.envelope, items), identity)
    assert yard.collector.verify(batch, identity).items == batch.items


def test_an_index_of_another_device_is_refused(yard: Yard, device: FakeDevice) -> None:
    index = ReturnIndex(1, "d001", 1, T0, ())
    envelope = sign_dsse(canonical.encode(index), RETURN_PAYLOAD_TYPE, device.signer)
    with pytest.raises(TrustError, match="another device"):
        yard.collector.verify(ReturnBatch(envelope, ()), yard.collector.identity("d000"))


def test_an_old_return_played_again_is_ignored_with_the_reason(yard: Yard, device: FakeDevice) -> None:
    """An old sketch of the day must not replace the newer one."""
    old_sketch, new_sketch = b"PDS1" + b"12345678" + b"morning", b"PDS1" + b"12345678" + b"evening"
    device.put(ReturnKind.SKETCH, old_sketch, "P-0A", T0)
    old = batch_of(device)
    device.outbox = {}
    device.put(ReturnKind.SKETCH, new_sketch, "P-0A", T0)
    collect(yard, device)
    report = yard.collector.keep(yard.collector.verify(old, yard.collector.identity("d000")))
    assert report.is_replay
    assert "played again" in report.problems[0]
    assert [row.data for row in yard.store.sketches.range("site0/P-0A", 0, T0 + 1)] == [new_sketch]
    assert actions(yard)[-1] == "return.ignored"


def test_a_device_whose_counter_fell_keeps_its_outbox(yard: Yard, device: FakeDevice) -> None:
    """What was ignored must not be acknowledged."""
    device.put(ReturnKind.ALARM, notice())
    device.returned = 41
    collect(yard, device)
    device.put(ReturnKind.ALARM, notice(at_ms=T0 + 5))
    device.returned = 3
    with pytest.raises(TrustError, match="older than what was kept"):
        collect(yard, device)
    assert len(device.outbox) == 1


def test_a_receipt_counter_never_falls(yard: Yard, device: FakeDevice) -> None:
    device.put(ReturnKind.RECEIPT, device.sign_receipt(word(device, 5)))
    collect(yard, device)
    device.put(ReturnKind.RECEIPT, device.sign_receipt(word(device, 4, task="t-0")))
    device.put(ReturnKind.RECEIPT, device.sign_receipt(word(device, 5, task="t-0")))
    device.put(ReturnKind.RECEIPT, device.sign_receipt(word(device, 6)))
    report = collect(yard, device)
    assert len(report.problems) == 2
    assert report.stored == {"receipt": 1}
    assert [row.receipt.counter for row in yard.store.receipts.of("d000")] == [5, 6]
    assert actions(yard).count("receipt.ignored") == 2
    assert device.outbox == {}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ReturnKind.ALARM, b"not json"),
        (ReturnKind.ALARM, notice(device="d001")),
        (ReturnKind.ALARM, notice(pump="P-1A")),
        (ReturnKind.SKETCH, b"PDX1 of another kind"),
        (ReturnKind.SKETCH, b"JUNKJUNKJUNK"),
        (ReturnKind.SCORES, head("P-1A") + chunk()),
        (ReturnKind.SCORES, head() + chunk()[:-3]),
        (ReturnKind.SCORES, head() + chunk(5, ("flow_m3_h",))),
        (ReturnKind.SEGMENT, head()),
        (ReturnKind.RETRAIN_REQUEST, request(pump="P-1A")),
        (ReturnKind.RETRAIN_REQUEST, request(pump="P-0A")),
        (ReturnKind.RETRAIN_REQUEST, request("d001", "P-1A")),
        (ReturnKind.RETRAIN_REQUEST, b"{}"),
    ],
)
def test_one_bad_item_is_refused_and_the_others_are_kept(
    yard: Yard, device: FakeDevice, kind: ReturnKind, data: bytes
) -> None:
    """A device with a defect must not block its own outbox for ever."""
    device.put(kind, data, "P-1A" if kind is ReturnKind.RETRAIN_REQUEST else "P-0A")
    device.put(ReturnKind.ALARM, notice(at_ms=T0 + 7))
    report = collect(yard, device)
    assert len(report.problems) == 1
    assert report.stored == {"alarm": 1}
    assert [one.at_ms for one in yard.store.alarms.open()] == [T0 + 7]
    assert actions(yard).count("return.refused") == 1
    assert device.outbox == {}
    assert yard.store.facts().keys() <= {"site0/P-0A"}


def test_a_kill_at_any_step_of_a_collect_loses_nothing(tmp_path: Path) -> None:
    kill_at, was_killed = 0, True
    while was_killed:
        kill_at += 1
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        yard = make_yard(folder, devices=1)
        device = yard.devices["d000"]
        fill(device)
        try:
            collect(yard, device, Steps(kill_at))
            was_killed = False
        except Killed:
            pass
        yard.reopen()
        collect(yard, device)
        assert device.outbox == {}, kill_at
        assert len(yard.store.receipts.all()) == len(yard.store.alarms.all()) == 1
        assert len(yard.store.telemetry.tail("site0/P-0A", 100)) == 20
        yard.store.audit.verify()
        yard.store.close()
    assert kill_at > 4


def test_a_broken_status_is_an_error_that_names_the_field(yard: Yard, device: FakeDevice) -> None:
    device._status = lambda _header, _body: ({"state": {"state": "ACTIVE"}}, b"")  # type: ignore[method-assign]
    with pytest.raises(PumpdeckError, match="lacks a field"):
        collect(yard, device)
