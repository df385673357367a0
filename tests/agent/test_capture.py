"""Rows around an alarm are kept longer and come back sooner than others, within a quota."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import LiveRow, Scorer
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_fleet.numeric.columns import decode_chunk
from support.devices import NOW_MS, Bench, package, quiet_rows

START = NOW_MS // 86_400_000 * 86_400_000
FAULT = 300
AROUND_MS = 900_000


def outbox(tmp_path: Path, **limits: int) -> Outbox:
    layout = Layout(tmp_path)
    layout.outbox.mkdir(exist_ok=True)
    return Outbox(RealFileSystem(), layout, AgentLimits(**limits))


def segment(number: int, pump: str = "P-1", *, is_pinned: bool = False) -> Outgoing:
    return Outgoing(ReturnKind.SEGMENT, bytes([number]) * 500 + pump.encode(), pump, number * 1000, is_pinned)


def order(box: Outbox) -> list[int]:
    return [data[0] for _, data in box.take(1 << 20)[0]]


def test_pinned_segments_come_first_and_go_last(tmp_path: Path) -> None:
    box = outbox(tmp_path, outbox_max_bytes=2000)
    box.add([segment(1), segment(2, is_pinned=True), Outgoing(ReturnKind.SKETCH, b"x" * 20, "P-1")])
    assert order(box) == [2, ord("x"), 1]
    box.add([segment(3), segment(4), segment(5)])
    assert order(box) == [2, ord("x"), 5]
    assert order(outbox(tmp_path, outbox_max_bytes=2000)) == [2, ord("x"), 5]


def test_segments_that_are_there_already_are_pinned_back_to_the_time(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    for number in range(6):
        box.add([segment(number), segment(number, "P-2")])
    assert box.pin("P-1", 3500) == 3
    items = box.take(1 << 20)[0]
    assert [(item.pump, data[0]) for item, data in items][:3] == [("P-1", 3), ("P-1", 4), ("P-1", 5)]
    assert box.pin("P-1", 3500) == 0
    assert box.remove([item.digest for item, _ in items]) == 12


def test_the_quota_frees_the_oldest(tmp_path: Path) -> None:
    box = outbox(tmp_path, capture_max_bytes=1500)
    for number in range(1, 5):
        box.add([segment(number, is_pinned=True)])
    names = sorted(path.name for path in (tmp_path / "outbox").iterdir())
    assert [name.endswith("-pinned") for name in names] == [False, False, True, True]
    assert order(box) == [3, 4, 1, 2]


@pytest.mark.parametrize("is_pushed", [False, True])
def test_rows_before_and_after_an_alarm_outlive_a_full_outbox(tmp_path: Path, is_pushed: bool) -> None:
    limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5, open_rows=10, outbox_max_bytes=24_000)
    bench = Bench(tmp_path, limits=limits)
    bench.install(package())
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, limits, ModelCache())
    scorer.package()
    rows = quiet_rows(1500, 1)
    rows[FAULT : FAULT + 6, 2] += np.float32(30)
    at = START + 60_000 * np.arange(1500, dtype=np.int64)
    for start in range(0, 1500, 10):
        part = slice(start, start + 10)
        if is_pushed:
            scorer.push([LiveRow("p-101a", int(one), row) for one, row in zip(at[part], rows[part], strict=True)])
            scorer.flush()
        else:
            bench.spool("rows.csv", {"P-101A": rows[part]}, at[part])
            scorer.score_spool()
    items = agent.outbox.take(1 << 30)[0]
    raised = [item.start_ms for item, _ in items if item.kind is ReturnKind.ALARM]
    assert len(raised) == 2
    frames = [decode_chunk(data.partition(b"\n")[2]) for item, data in items if item.kind is ReturnKind.SEGMENT]
    kept = {int(one) for frame in frames for one in frame.at_ms}
    wanted = {int(one) for one in at if raised[0] - AROUND_MS <= one <= raised[-1] + AROUND_MS}
    assert wanted <= kept
    assert agent.outbox.counts().dropped > 50
    first = min(int(frame.at_ms[0]) for frame in frames)
    assert first > START
    assert int(frames[0].at_ms[0]) <= raised[0] - AROUND_MS < int(frames[1].at_ms[0])
