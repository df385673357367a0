"""Snapshots that are held: what they pin, what is laid aside, and what goes when they are let go."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS, FixedClock
from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError
from pumpdeck_fleet.core.snapshots import PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.store import Store

START = 20_000 * DAY_MS
PUMP = "s/a"
GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "snapshot.json"


def frame(first: int, rows: int, step_ms: int = 10 * MINUTE_MS, scale: float = 1.0) -> TelemetryFrame:
    at_ms = START + first * step_ms + np.arange(rows, dtype=np.int64) * step_ms
    values = (np.stack([at_ms % 97, at_ms % 89], axis=1) * scale).astype(np.float32)
    return TelemetryFrame(("a", "b"), at_ms, values, np.zeros(rows, np.uint16))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.db", FixedClock(START), create=True) as found:
        with found.atomic():
            found.telemetry.append(PUMP, frame(0, 432))
        yield found


def part_of(store: Store, days: int = 3) -> PumpSnapshot:
    end = START + days * DAY_MS
    return PumpSnapshot(START, end, tuple(store.telemetry.chunk_digests(PUMP, START, end)))


def hold(store: Store, part: PumpSnapshot) -> str:
    with store.atomic():
        return store.snapshots.hold({PUMP: part}).digest


def test_the_form_is_the_golden_one():
    part = PumpSnapshot(0, DAY_MS, ((0, "ab" * 32),), ((1, 2, "fault:seal"),))
    manifest = SnapshotManifest({PUMP: digest(part.encode())})
    wanted = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert wanted == {"part": part.encode().decode(), "manifest": manifest.encode().decode(), "digest": manifest.digest}
    assert PumpSnapshot.parse(part.encode(), "part") == part
    for bad in (b"[]", b"{}", b'[0,1,[[0,"x"]],[]]', b'[0,1,[["0","' + b"ab" * 32 + b'"]],[]]'):
        with pytest.raises(FormatError):
            PumpSnapshot.parse(bad, "part")


def test_late_rows_change_the_chunk_and_the_snapshot_still_gives_the_old_ones(store):
    part = part_of(store)
    hold(store, part)
    old = store.telemetry.frame(PUMP, START, part.end_ms)
    with store.atomic():
        store.telemetry.append(PUMP, frame(10, 3, scale=2.0))
        store.telemetry.append(PUMP, frame(20, 3, scale=3.0))
    assert part_of(store) != part
    found = store.telemetry.held_frame(PUMP, part, (START, part.end_ms))
    assert (found.at_ms == old.at_ms).all() and found.values.tobytes() == old.values.tobytes()
    # The version between the two appends belongs to no snapshot and is not kept.
    assert store.snapshots.aside()[0] == 1


def test_a_day_that_becomes_hours_is_laid_aside_whole(store):
    part = part_of(store)
    hold(store, part)
    old = store.telemetry.frame(PUMP, START, part.end_ms)
    with store.atomic():
        store.telemetry.append(PUMP, frame(0, 2_800, 30_000))
    assert len(part_of(store).chunks) > 3
    assert store.telemetry.held_frame(PUMP, part, (START, part.end_ms)).values.tobytes() == old.values.tobytes()


def test_chunks_that_no_snapshot_holds_are_not_kept(store):
    with store.atomic():
        store.telemetry.append(PUMP, frame(10, 3, scale=2.0))
    assert store.snapshots.aside() == (0, 0)


def test_letting_one_go_keeps_what_another_needs(store):
    first = hold(store, part_of(store))
    second = hold(store, part_of(store, 2))
    kept = part_of(store, 2)
    with store.atomic():
        store.telemetry.append(PUMP, frame(10, 3, scale=2.0))
        store.telemetry.append(PUMP, frame(400, 3, scale=2.0))
    assert store.snapshots.aside()[0] == 2
    with store.atomic():
        assert store.snapshots.release([first]) == 1
    assert store.snapshots.digests() == [second] and store.snapshots.aside()[0] == 1
    assert len(store.telemetry.held_frame(PUMP, kept, (START, kept.end_ms))) == 288
    with pytest.raises(NotFoundError):
        store.snapshots.manifest(first)


def test_a_chunk_that_was_altered_on_the_disk_is_refused(store, tmp_path):
    part = part_of(store)
    hold(store, part)
    other = sqlite3.connect(tmp_path / "s.db")
    (data,) = other.execute("SELECT data FROM chunk ORDER BY place DESC LIMIT 1").fetchone()
    other.execute("UPDATE chunk SET data = ? WHERE place = (SELECT min(place) FROM chunk)", (data,))
    other.commit()
    other.close()
    with pytest.raises(DamagedError):
        store.telemetry.held_frame(PUMP, part, (START, part.end_ms))


def test_old_rows_go_but_not_those_that_are_needed(store):
    part = part_of(store)
    first_day = part.chunks[0][0]
    with store.atomic():
        gone = store.telemetry.remove_before(START + 2 * DAY_MS, {(PUMP, first_day)})
    assert (gone.chunks, gone.rows) == (1, 144)
    assert len(store.telemetry.frame(PUMP, START, part.end_ms)) == 288
    assert store.telemetry.span(PUMP) == (START, START + 3 * DAY_MS - 10 * MINUTE_MS, 288)
    with store.atomic():
        store.telemetry.remove_before(START + 9 * DAY_MS, set())
    assert store.telemetry.span(PUMP) is None and not len(store.telemetry.frame(PUMP, 0, part.end_ms))
    with store.atomic():
        store.telemetry.append(PUMP, frame(0, 432))
    assert store.telemetry.span(PUMP) == (START, START + 3 * DAY_MS - 10 * MINUTE_MS, 432)
