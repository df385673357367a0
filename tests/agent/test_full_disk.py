"""A disk that is full long before the outbox's own limit: raw rows give way, oldest first; receipts and alarms stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import AlarmNotice, ReturnKind
from support.devices import NOW_MS, Bench, package, quiet_rows
from support.quota_disk import QuotaFileSystem

TAG = "P-101A"
FILES = 60
ROWS = 200


def bench_with(tmp_path: Path) -> tuple[Bench, QuotaFileSystem]:
    disk = QuotaFileSystem(tmp_path / "devices")
    bench = Bench(tmp_path, fs=disk, tags=(TAG,))
    bench.install(package(tags=(TAG,)))
    return bench, disk


def write_file(bench: Bench, disk: QuotaFileSystem, number: int) -> None:
    """Rows a logger brings; it has the room it needs, and every third file holds a fault that raises and clears an alarm."""
    rows = quiet_rows(ROWS, number)
    if number % 3 == 0:
        rows[50:80, 2] += np.float32(30)
    quota, disk.quota_bytes = disk.quota_bytes, None
    bench.spool(f"{number:04d}.csv", {TAG: rows}, NOW_MS + 60_000 * np.arange(number * ROWS, (number + 1) * ROWS))
    disk.quota_bytes = quota


def test_scoring_goes_on_and_no_alarm_or_receipt_is_lost(tmp_path: Path) -> None:
    bench, disk = bench_with(tmp_path)
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    outbox = Outbox(disk, agent.layout, bench.limits)
    raised = scored = 0
    for number in range(FILES):
        write_file(bench, disk, number)
        if number == 10:
            disk.quota_bytes = disk.used_bytes() + 40_000
        counts = scorer.score_spool()
        raised, scored = raised + counts.alarms, scored + counts.rows
    assert disk.refused > 0
    assert scored == FILES * ROWS
    assert raised == FILES // 3
    assert list((bench.root / "spool" / "in").iterdir()) == []
    items, more = outbox.take(1 << 30, 100_000)
    assert not more
    alarms = [data for item, data in items if item.kind is ReturnKind.ALARM]
    notices = [canonical.decode(AlarmNotice, data, "alarm", max_bytes=4096) for data in alarms]
    assert sum(one.raised for one in notices) == raised
    assert sum(not one.raised for one in notices) == raised
    assert [item.kind for item, _ in items].count(ReturnKind.RECEIPT) == 1
    assert outbox.counts().dropped > 0
    # What is left of raw rows is the newest.
    starts = [item.start_ms for item, _ in items if item.kind is ReturnKind.SEGMENT]
    assert starts
    assert max(starts) >= NOW_MS + 60_000 * (FILES - 5) * ROWS
    assert min(starts) > NOW_MS + 60_000 * 5 * ROWS
    leftovers = [path.name for path in (bench.root / "outbox").iterdir() if path.name.endswith(".part")]
    assert leftovers == []


def test_a_disk_on_which_nothing_may_go_says_so_and_loses_no_row(tmp_path: Path) -> None:
    bench, disk = bench_with(tmp_path)
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    write_file(bench, disk, 0)
    disk.quota_bytes = disk.used_bytes()
    with pytest.raises(OSError, match="No space"):
        scorer.score_spool()
    assert [path.name for path in (bench.root / "spool" / "in").iterdir()] == ["0000.csv"]
    disk.quota_bytes = None
    counts = scorer.score_spool()
    assert (counts.rows, counts.alarms) == (ROWS, 1)


def test_a_raw_segment_never_pushes_out_what_is_worth_more(tmp_path: Path) -> None:
    bench, disk = bench_with(tmp_path)
    outbox = Outbox(disk, bench.agent().layout, bench.limits)
    outbox.add([Outgoing(ReturnKind.SKETCH, b"PDS1" + bytes(4000), TAG, 1)])
    outbox.add([Outgoing(ReturnKind.RETRAIN_REQUEST, b"r" * 500, TAG)])
    disk.quota_bytes = disk.used_bytes() + 1000
    outbox.add([Outgoing(ReturnKind.SEGMENT, b"s" * 3000, TAG, 2)])
    assert outbox.counts().dropped == 1
    kinds = [item.kind for item, _ in outbox.take(1 << 20)[0]]
    assert kinds == [ReturnKind.RECEIPT, ReturnKind.RETRAIN_REQUEST, ReturnKind.SKETCH]
    outbox.add([Outgoing(ReturnKind.ALARM, b"a" * 3000, TAG, 3)])
    kinds = [item.kind for item, _ in outbox.take(1 << 20)[0]]
    assert kinds == [ReturnKind.RECEIPT, ReturnKind.ALARM, ReturnKind.RETRAIN_REQUEST]
