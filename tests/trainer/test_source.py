from __future__ import annotations

import numpy as np

from pumpdeck_trainer.source import Exclusion, TrainingRequest, clean, take_snapshot
from support.pump_rows import MemorySource, pump_frame, with_flags


def test_flagged_rows_and_excluded_intervals_are_left_out_and_each_row_counted_once() -> None:
    frame = pump_frame(1, days=1)
    flags = np.zeros(144)
    flags[10:20] = 1
    at = frame.at_ms
    found = clean(
        with_flags(frame, flags),
        [
            Exclusion(int(at[15]), int(at[30]), "fault:seal_leak"),
            Exclusion(int(at[25]), int(at[40]), "maintenance"),
        ],
    )
    assert found.excluded == {"flagged": 10, "fault": 10, "maintenance": 10}
    assert (found.total, len(found.learned), len(found.judged)) == (144, 114, 124)
    assert at[30] not in found.judged.at_ms
    assert at[22] in found.judged.at_ms and at[22] not in found.learned.at_ms


def test_without_faults_what_is_judged_is_what_was_learned() -> None:
    frame = pump_frame(1, days=1)
    found = clean(frame, [Exclusion(int(frame.at_ms[3]), int(frame.at_ms[5]), "before overhaul")])
    assert found.judged is found.learned
    assert found.excluded == {"before overhaul": 2}


def test_a_snapshot_names_rows_exclusions_and_window_and_reads_no_row() -> None:
    frames = {"s/a": pump_frame(1, days=2), "s/b": pump_frame(2, days=2)}
    start, end = int(frames["s/a"].at_ms[0]), int(frames["s/a"].at_ms[-1]) + 1
    request = TrainingRequest(("s/a", "s/b"), start, end)
    source = MemorySource(frames)
    base = take_snapshot(source, request)
    assert source.reads == 0
    assert take_snapshot(MemorySource(frames), request) == base
    others = [
        take_snapshot(MemorySource({**frames, "s/b": pump_frame(3, days=2)}), request),
        take_snapshot(MemorySource(frames, {"s/a": [Exclusion(start, end, "fault:x")]}), request),
        take_snapshot(MemorySource(frames), TrainingRequest(("s/a", "s/b"), start, end - 1)),
        take_snapshot(MemorySource(frames), TrainingRequest(("s/a",), start, end)),
    ]
    assert len({base.digest, *(one.digest for one in others)}) == 5
    assert others[0].pumps["s/a"] == base.pumps["s/a"]
