"""The outbox: kept until acknowledged, bounded, receipts and alarms never dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.outbox import COLLECT_MAX_ITEMS, Outbox, Outgoing
from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import ReturnKind


def outbox(tmp_path: Path, **limits: int) -> Outbox:
    layout = Layout(tmp_path)
    layout.outbox.mkdir(exist_ok=True)
    return Outbox(RealFileSystem(), layout, AgentLimits(**limits))


def test_items_come_in_the_order_of_their_worth_and_stay_until_removed(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.SEGMENT, b"s", "P-1"), Outgoing(ReturnKind.SCORES, b"c", "P-1", 5)])
    box.add([Outgoing(ReturnKind.ALARM, b"a", "P-1"), Outgoing(ReturnKind.RECEIPT, b"r")])
    for _ in range(2):
        items, more = outbox(tmp_path).take(1000)
        assert [data for _, data in items] == [b"r", b"a", b"c", b"s"]
        assert not more
    assert (items[2][0].pump, items[2][0].start_ms) == ("P-1", 5)
    assert box.remove([digest(b"r"), digest(b"c"), "0" * 64]) == 2
    assert [data for _, data in box.take(1000)[0]] == [b"a", b"s"]


def test_the_same_bytes_are_kept_once(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.ALARM, b"a")])
    box.add([Outgoing(ReturnKind.ALARM, b"a"), Outgoing(ReturnKind.ALARM, b"a")])
    assert box.counts().items == 1


def test_a_batch_is_bounded_by_bytes_and_by_number(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.ALARM, bytes([n]) * 100) for n in range(10)])
    items, more = box.take(250)
    assert (len(items), more) == (2, True)
    items, more = box.take(1)
    assert (len(items), more) == (1, True)
    box.add([Outgoing(ReturnKind.ALARM, str(n).encode()) for n in range(COLLECT_MAX_ITEMS)])
    items, more = box.take(1 << 20)
    assert (len(items), more) == (COLLECT_MAX_ITEMS, True)


def test_a_full_outbox_gives_up_the_oldest_raw_rows_first_and_says_so(tmp_path: Path) -> None:
    box = outbox(tmp_path, outbox_max_bytes=2400)
    for n in range(5):
        box.add([Outgoing(ReturnKind.SEGMENT, bytes([n]) * 700), Outgoing(ReturnKind.SCORES, bytes([100 + n]) * 100)])
    kinds = [(item.kind, data[0]) for item, data in box.take(1 << 20)[0]]
    assert [first for kind, first in kinds if kind is ReturnKind.SCORES] == [100, 101, 102, 103, 104]
    assert [first for kind, first in kinds if kind is ReturnKind.SEGMENT] == [4]
    assert box.counts().dropped == 4


def test_receipts_and_alarms_are_never_dropped(tmp_path: Path) -> None:
    box = outbox(tmp_path, outbox_max_bytes=10, outbox_max_items=1)
    box.add([Outgoing(ReturnKind.RECEIPT, b"r" * 50), Outgoing(ReturnKind.ALARM, b"a" * 50)])
    box.add([Outgoing(ReturnKind.SKETCH, b"s" * 50)])
    assert [item.kind for item, _ in box.take(1 << 20)[0]] == [ReturnKind.RECEIPT, ReturnKind.ALARM]


def test_a_newer_sketch_of_a_day_replaces_the_older_on_the_same_edges(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.SKETCH, b"PDS1edges-01" + b"old", "P-1", 0), Outgoing(ReturnKind.SKETCH, b"x", "P-2", 0)])
    box.add([Outgoing(ReturnKind.SKETCH, b"PDS1edges-01" + b"new", "P-1", 0)])
    box.add([Outgoing(ReturnKind.SKETCH, b"PDS1edges-02" + b"new", "P-1", 0)])
    found = [data for _, data in box.take(1 << 20)[0]]
    assert found == [b"x", b"PDS1edges-01new", b"PDS1edges-02new"]


def test_a_damaged_item_is_not_handed_over(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.ALARM, b"good"), Outgoing(ReturnKind.ALARM, b"spoilt")])
    path = next(path for path in Layout(tmp_path).outbox.iterdir() if digest(b"spoilt") in path.name)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [data for _, data in box.take(1 << 20)[0]] == [b"good"]
    assert box.counts().dropped == 1


def test_what_is_no_digest_removes_nothing(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.add([Outgoing(ReturnKind.ALARM, b"a")])
    with pytest.raises(FormatError):
        box.remove(["../../agent.json"])
    assert box.counts().items == 1
