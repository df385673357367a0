"""Scoring from the spool: each row once, the same whatever the files, across restarts and packages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.return_items import close_open_segments
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import UNSAVED_MAX_ROWS, LiveRow, ScoreCounts, Scorer
from pumpdeck_agent.spool_binary import encode_segment
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, NotFoundError
from pumpdeck_fleet.core.receipts import AlarmNotice, ReturnKind
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.numeric.alarm import AlarmSettings, AlarmTrace, AlarmTracker
from pumpdeck_fleet.numeric.columns import MAX_ROWS, decode_chunk
from pumpdeck_fleet.numeric.detectors import score_rows
from pumpdeck_fleet.numeric.edges import decode_edges
from pumpdeck_fleet.numeric.features import FeatureSpec, WindowMean
from pumpdeck_fleet.numeric.frame import TelemetryFrame, concatenate
from pumpdeck_fleet.numeric.sketch import decode_sketch, make_sketch
from pumpdeck_packaging.package_reader import read_package
from support.devices import NAMES, NOW_MS, WINDOW_S, Bench, block, package, quiet_rows

BUILT = package()
DAY = 86_400_000
START = NOW_MS // DAY * DAY + 3_600_000


def scorer(bench: Bench) -> Scorer:
    agent = bench.agent()
    return Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())


def times(count: int, start: int = START) -> np.ndarray:
    return start + 60_000 * np.arange(count, dtype=np.int64)


def faulty_rows(count: int, seed: int) -> np.ndarray:
    rows = quiet_rows(count, seed)
    rows[count // 2 : count // 2 + 60, 2] += np.float32(6)
    rows[count // 3, :] = np.nan
    return rows


def collected(bench: Bench) -> list[tuple[Any, bytes]]:
    """Everything in the outbox, with open segments closed first."""
    agent = bench.agent()
    close_open_segments(bench.platform, agent.layout, agent.config, bench.limits, agent.outbox)
    return agent.outbox.take(1 << 30)[0]


def frame_of(items: list[tuple[Any, bytes]], kind: ReturnKind, tag: str) -> TelemetryFrame:
    frames = [decode_chunk(data.partition(b"\n")[2]) for item, data in items if (item.kind, item.pump) == (kind, tag)]
    return concatenate(sorted(frames, key=lambda frame: int(frame.at_ms[0])))


def replay(at: np.ndarray, rows: np.ndarray) -> AlarmTrace:
    """What the trainer's replay says of these rows."""
    one = block()
    features = WindowMean(FeatureSpec(NAMES, WINDOW_S)).extend(at, rows)
    return AlarmTracker(one, AlarmSettings(0.7, 120.0, 86_400.0)).extend(at, features, lambda x: score_rows(one, x))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A device that runs a package; tests copy it."""
    bench = Bench(tmp_path_factory.mktemp("ready"))
    bench.install(BUILT)
    bench.agent().outbox.remove([item.digest for item, _ in bench.agent().outbox.take(1 << 20)[0]])
    return bench


@pytest.fixture
def bench(ready: Bench, tmp_path: Path) -> Bench:
    root = tmp_path / "device"
    shutil.copytree(ready.root, root)
    copy = object.__new__(Bench)
    copy.__dict__.update(ready.__dict__)
    copy.root = root
    return copy


def test_scores_are_those_of_the_trainers_replay(bench: Bench) -> None:
    """The device's answers are the numpy reference's, row for row, alarm for alarm."""
    rows, at = faulty_rows(600, 1), times(600)
    bench.spool("a.csv", {"P-101A": rows, "P-101B": quiet_rows(600, 2)}, at)
    counts = scorer(bench).score_spool()
    assert (counts.files, counts.rows, counts.alarms) == (1, 1200, 1)
    trace = replay(at, rows)
    found = frame_of(collected(bench), ReturnKind.SCORES, "P-101A")
    assert found.channels == ("score", "limit", "alarmed", "drift_index")
    np.testing.assert_array_equal(found.at_ms, at)
    np.testing.assert_allclose(found.values[:, 0], trace.score, rtol=1e-6)
    np.testing.assert_array_equal(found.values[:, 2] == 1, trace.alarmed)
    np.testing.assert_allclose(found.values[:, 3], trace.drift_index, rtol=1e-6)
    assert trace.alarmed.sum() > 30


@pytest.mark.parametrize("sizes", [[1] * 200, [200], [7] * 28 + [4], [64, 1, 135]])
def test_rows_one_by_one_give_what_one_file_gives(bench: Bench, sizes: list[int]) -> None:
    """Also across restarts: every file is scored by a new scorer."""
    rows = {tag: faulty_rows(200, seed) for seed, tag in enumerate(bench.tags)}
    at = times(200, START + 20 * 3_600_000)
    start = 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        bench.spool(f"{number:04d}.csv", {tag: values[part] for tag, values in rows.items()}, at[part])
        start += size
        if number % 5 == 4 or size > 50:
            scorer(bench).score_spool()
    scorer(bench).score_spool()
    items = collected(bench)
    for tag, values in rows.items():
        trace = replay(at, values)
        scores = frame_of(items, ReturnKind.SCORES, tag)
        np.testing.assert_allclose(scores.values[:, 0], trace.score, rtol=1e-6)
        np.testing.assert_array_equal(scores.values[:, 2] == 1, trace.alarmed)
        segment = frame_of(items, ReturnKind.SEGMENT, tag)
        np.testing.assert_array_equal(segment.values, values)
    assert {tag: pump["scored_rows"] for tag, pump in bench.status()["pumps"].items()} == dict.fromkeys(bench.tags, 200)


def test_sketches_of_each_day_hold_each_row_once(bench: Bench) -> None:
    rows, at = quiet_rows(400, 3), times(400, START + 20 * 3_600_000)
    for number in range(4):
        part = slice(number * 100, number * 100 + 100)
        bench.spool(f"{number}.csv", {"P-101A": rows[part]}, at[part])
        scorer(bench).score_spool()
        collected(bench)
    content = read_package(BUILT.data, expected_sha256=BUILT.sha256, max_unpacked_bytes=BUILT.unpacked_bytes)
    edges = decode_edges(content.files["pumps/p-101a.edges"], NAMES)
    found = {
        item.start_ms: decode_sketch(data, edges) for item, data in collected(bench) if item.kind is ReturnKind.SKETCH
    }
    assert sorted(found) == sorted({int(day) * DAY for day in at // DAY})
    for day_ms, sketch in found.items():
        here = at // DAY * DAY == day_ms
        expected = make_sketch(edges, at[here], rows[here])
        assert sketch.rows == int(here.sum())
        np.testing.assert_array_equal(sketch.counts, expected.counts)
        np.testing.assert_array_equal(sketch.moments, expected.moments)


def test_an_alarm_is_raised_and_cleared_once_and_names_the_channel(bench: Bench) -> None:
    bench.spool("a.csv", {"P-101A": faulty_rows(400, 1)}, times(400))
    scorer(bench).score_spool()
    notices = [
        canonical.decode(AlarmNotice, data, "notice", max_bytes=4096)
        for item, data in collected(bench)
        if item.kind is ReturnKind.ALARM
    ]
    assert [notice.raised for notice in notices] == [True, False]
    assert notices[0].channel == "vibration_mm_s"
    assert notices[0].score > notices[0].limit
    assert (notices[0].device, notices[0].pump, notices[0].package_sha256) == (bench.device, "P-101A", BUILT.sha256)


def test_a_file_that_comes_back_after_a_cut_changes_nothing(bench: Bench) -> None:
    rows, at = {"P-101A": faulty_rows(300, 1), "P-101B": quiet_rows(300, 2)}, times(300)
    bench.spool("a.csv", rows, at)
    scorer(bench).score_spool()
    before = [(item.digest) for item, _ in collected(bench)]
    bench.spool("a.csv", rows, at)
    counts = scorer(bench).score_spool()
    assert (counts.files, counts.rows, counts.late_rows) == (1, 0, 0)
    assert [item.digest for item, _ in collected(bench)] == before


def test_late_rows_are_returned_but_never_scored(bench: Bench) -> None:
    at, rows = times(100), quiet_rows(100, 1)
    bench.spool("b.csv", {"P-101A": rows[50:]}, at[50:])
    scorer(bench).score_spool()
    bench.spool("a.csv", {"P-101A": rows[:60]}, at[:60])
    counts = scorer(bench).score_spool()
    assert (counts.rows, counts.late_rows) == (0, 60)
    items = collected(bench)
    assert len(frame_of(items, ReturnKind.SCORES, "P-101A")) == 50
    late = [decode_chunk(data.partition(b"\n")[2]) for item, data in items if item.kind is ReturnKind.SEGMENT]
    assert sorted(len(frame) for frame in late) == [50, 60]
    assert bench.status()["pumps"]["P-101A"]["late_rows"] == 60


def test_without_a_model_rows_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.spool("a.csv", {"P-101A": quiet_rows(10, 1)}, times(10))
    assert scorer(bench).score_spool() == ScoreCounts()
    assert [path.name for path in (bench.root / "spool/in").iterdir()] == ["a.csv"]
    bench.install(BUILT)
    assert scorer(bench).score_spool().rows == 10
    assert list((bench.root / "spool/in").iterdir()) == []


def test_without_a_model_the_spool_stays_within_its_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=AgentLimits(spool_max_bytes=3000, keep_free_bytes=0))
    for number in range(6):
        bench.spool(f"{number}.csv", {"P-101A": quiet_rows(20, 1)}, times(20))
    assert scorer(bench).score_spool().dropped_files > 0
    assert "5.csv" in [path.name for path in (bench.root / "spool/in").iterdir()]


def test_json_lines_are_rows_too(bench: Bench) -> None:
    rows, at = quiet_rows(20, 4), times(20)
    lines = [
        canonical.encode({"time": int(t), "pump": "P-101A", **dict(zip(NAMES, map(float, row), strict=True))}).decode()
        for t, row in zip(at, rows, strict=True)
    ]
    lines[3] = '{"time": "2026-01-01T00:00:00Z"}'
    lines.append("not json")
    (bench.root / "spool/in/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    counts = scorer(bench).score_spool()
    assert (counts.rows, counts.refused_rows) == (19, 2)


@pytest.mark.parametrize("data", [b"", b"time,pump\n", b"a,b,c\n1,2,3\n", b"\xff\xfe\x00", b"time,pump,x,x\n"])
def test_a_file_that_is_none_is_put_aside_and_the_next_is_scored(bench: Bench, data: bytes) -> None:
    (bench.root / "spool/in/a.csv").write_bytes(data)
    bench.spool("b.csv", {"P-101A": quiet_rows(5, 1)}, times(5))
    counts = scorer(bench).score_spool()
    assert (counts.refused_files, counts.rows) == (1, 5)
    assert [path.name for path in (bench.root / "spool/refused").iterdir()] == ["a.csv"]


def test_rows_that_cannot_be_read_are_counted_and_the_others_scored(bench: Bench) -> None:
    text = "time,pump," + ",".join(NAMES) + "\n"
    text += "1770000000000,P-101A,40,90,3,3000\n" + "soon,P-101A,40,90,3,3000\n" + "1770000060000,P-101A,40,90,3\n"
    text += "1770000120000,P-101A,40,x,3,3000\n" + "1770000180000,P-999,40,90,3,3000\n"
    text += "2026-02-02T02:50:00Z,p-101a,40,,3,3000\n"
    (bench.root / "spool/in/a.csv").write_text(text, encoding="utf-8")
    counts = scorer(bench).score_spool()
    assert (counts.refused_rows, counts.foreign_rows) == (3, 1)
    assert counts.rows + counts.late_rows == 2


def test_rows_carry_range_and_missing_flags(bench: Bench) -> None:
    rows = quiet_rows(3, 1)
    rows[1, 0] = 900.0
    rows[2, 1] = np.nan
    bench.spool("a.csv", {"P-101A": rows}, times(3))
    scorer(bench).score_spool()
    flags = frame_of(collected(bench), ReturnKind.SEGMENT, "P-101A").flags.tolist()
    assert flags == [0, int(QualityFlag.RANGE), int(QualityFlag.MISSING)]


def test_a_new_package_scores_only_new_rows_and_clears_the_old_alarm(bench: Bench) -> None:
    rows = faulty_rows(400, 1)[:240]
    bench.spool("a.csv", {"P-101A": rows}, times(240))
    scorer(bench).score_spool()
    assert bench.status()["pumps"]["P-101A"]["alarmed"]
    second = package(shift=0.1)
    bench.install(second, "task-2")
    bench.spool("b.csv", {"P-101A": quiet_rows(30, 9)}, times(30, START + 250 * 60_000))
    scorer(bench).score_spool()
    pump = bench.status()["pumps"]["P-101A"]
    assert (pump["scored_rows"], pump["alarmed"], pump["package"]) == (270, False, second.sha256)
    items = collected(bench)
    notices = [canonical.parse_json(data, "n", max_bytes=4096) for item, data in items if item.kind is ReturnKind.ALARM]
    assert [(n["raised"], n["package_sha256"]) for n in notices] == [(True, BUILT.sha256), (False, BUILT.sha256)]
    heads = [
        canonical.parse_json(d.partition(b"\n")[0], "h", max_bytes=999) for i, d in items if i.kind is ReturnKind.SCORES
    ]
    assert {head["package_sha256"] for head in heads} == {BUILT.sha256, second.sha256}


def test_a_damaged_pump_record_starts_that_pump_anew_and_no_other(bench: Bench) -> None:
    bench.spool("a.csv", {tag: quiet_rows(50, 1) for tag in bench.tags}, times(50))
    scorer(bench).score_spool()
    (bench.root / "spool/state/p-101a.bin").write_bytes(b"PDP1 spoilt")
    bench.spool("b.csv", {tag: quiet_rows(10, 2) for tag in bench.tags}, times(10, START + 50 * 60_000))
    scorer(bench).score_spool()
    assert {tag: pump["scored_rows"] for tag, pump in bench.status()["pumps"].items()} == {"P-101A": 10, "P-101B": 60}


def test_a_pump_that_changes_speed_keeps_a_package_waiting(bench: Bench) -> None:
    rows = quiet_rows(20, 1)
    rows[-5:, 3] = 0.0
    bench.spool("a.csv", {"P-101A": rows}, times(20, NOW_MS - 20 * 60_000))
    scorer(bench).score_spool()
    answer = bench.install(package(shift=0.2), "task-2")
    assert answer["state"] == "STAGED"
    assert "P-101A is changing speed" in answer["reason"]
    stopped = quiet_rows(10, 2)
    stopped[:, 3] = 0.0
    bench.spool("b.csv", {"P-101A": stopped}, times(10, NOW_MS))
    scorer(bench).score_spool()
    assert bench.agent().resume().fields["outcome"] == "committed"


def test_one_scorer_follows_what_another_process_did(bench: Bench) -> None:
    """Collecting closes segments behind a living scorer's back; it must go on from there."""
    living = scorer(bench)
    at, rows = times(60), quiet_rows(60, 1)
    for number in range(6):
        part = slice(number * 10, number * 10 + 10)
        bench.spool(f"{number}.csv", {"P-101A": rows[part]}, at[part])
        (living if number % 2 else scorer(bench)).score_spool()
        collected(bench)
    found = frame_of(collected(bench), ReturnKind.SEGMENT, "P-101A")
    np.testing.assert_array_equal(found.at_ms, at)
    assert bench.status()["pumps"]["P-101A"]["scored_rows"] == 60


def live(tag: str, at_ms: np.ndarray, rows: np.ndarray) -> list[LiveRow]:
    return [LiveRow(tag, int(at), row) for at, row in zip(at_ms, rows, strict=True)]


def ready_scorer(bench: Bench) -> Scorer:
    one = scorer(bench)
    assert one.package() is not None
    return one


@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_rows_one_by_one_give_what_a_file_gives(bench: Bench, flush_every: int) -> None:
    """The same scores, alarms, rows and sketch, however often they are saved, with collects and restarts in between."""
    at, rows = times(400, START + 20 * 3_600_000), faulty_rows(400, 1)
    one, changes = ready_scorer(bench), []
    for number, row in enumerate(live("p-101a", at, rows)):
        result = one.push([row])[0]
        changes += [notice.raised for notice in one.take_changes()]
        assert result.pump == "P-101A"
        if number % flush_every == flush_every - 1:
            one.flush()
        if number % 90 == 89:
            collected(bench)
        if number == 150:
            one.flush()
            one = ready_scorer(bench)
    one.flush()
    assert not one.has_unsaved()
    trace, items = replay(at, rows), collected(bench)
    scores = frame_of(items, ReturnKind.SCORES, "P-101A")
    np.testing.assert_allclose(scores.values[:, 0], trace.score, rtol=1e-6)
    np.testing.assert_array_equal(scores.values[:, 2] == 1, trace.alarmed)
    np.testing.assert_array_equal(frame_of(items, ReturnKind.SEGMENT, "P-101A").values, rows)
    assert changes == [True, False]
    assert [item.kind for item, _ in items].count(ReturnKind.ALARM) == 2
    assert bench.status()["pumps"]["P-101A"]["scored_rows"] == 400


def test_a_disk_that_takes_nothing_loses_no_pushed_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    at, rows = times(60), quiet_rows(60, 1)
    one = ready_scorer(bench)
    one.push(live("p-101a", at[:20], rows[:20]))
    with monkeypatch.context() as broken:
        broken.setattr(
            bench.fs, "open_write", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space left on device"))
        )
        with pytest.raises(OSError, match="no space"):
            one.flush()
        one.push(live("p-101a", at[20:40], rows[20:40]))
    one.push(live("p-101a", at[40:], rows[40:]))
    one.flush()
    items = collected(bench)
    np.testing.assert_array_equal(frame_of(items, ReturnKind.SEGMENT, "P-101A").values, rows)
    trace = replay(at, rows)
    np.testing.assert_allclose(frame_of(items, ReturnKind.SCORES, "P-101A").values[:, 0], trace.score, rtol=1e-6)


def test_what_waits_for_a_broken_disk_is_bounded_and_counted(bench: Bench) -> None:
    one = ready_scorer(bench)
    one.push(live("p-101a", times(UNSAVED_MAX_ROWS + 30), quiet_rows(UNSAVED_MAX_ROWS + 30, 1)))
    assert one.dropped_rows == 30


def test_pushed_rows_are_taken_all_or_none(bench: Bench) -> None:
    one = ready_scorer(bench)
    rows = live("p-101a", times(3), quiet_rows(3, 1))
    with pytest.raises(ConflictError):
        one.push([rows[0], rows[2], rows[1]])
    with pytest.raises(NotFoundError, match="p-101a, p-101b"):
        one.push([rows[0], LiveRow("p-9", 1, rows[1].values)])
    assert not one.has_unsaved()
    assert len(one.push(rows)) == 3


def test_a_pushed_row_says_what_the_graph_says(bench: Bench) -> None:
    rows = quiet_rows(2, 1)
    rows[1, 2] += np.float32(20)
    first, second = ready_scorer(bench).push(live("p-101a", times(2), rows), is_explained=True)
    assert first.answers is not None
    assert second.answers is not None
    assert second.score == pytest.approx(float(second.answers["contributions"].max()))
    assert float(second.answers["probability"][0]) > float(first.answers["probability"][0])
    assert NAMES[int(second.answers["contributions"][0].argmax())] == "vibration_mm_s"


def test_values_beyond_a_channels_range_are_missing_for_the_model(bench: Bench) -> None:
    """As in training; the row itself goes home as it came."""
    at, rows = times(120), quiet_rows(120, 1)
    broken = rows.copy()
    broken[60:, 1] = 9999.0
    missing = np.where(broken > 9000, np.nan, broken).astype(np.float32)
    bench.spool("a.csv", {"P-101A": broken}, at)
    scorer(bench).score_spool()
    one = ready_scorer(bench)
    pushed = one.push(live("p-101b", at, broken))
    items = collected(bench)
    expected = replay(at, missing).score
    np.testing.assert_allclose(frame_of(items, ReturnKind.SCORES, "P-101A").values[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose([result.score for result in pushed], expected, rtol=1e-6)
    np.testing.assert_array_equal(frame_of(items, ReturnKind.SEGMENT, "P-101A").values, broken)


def test_a_binary_segment_is_scored_like_a_file_of_text(bench: Bench) -> None:
    count = MAX_ROWS + 200
    at, rows = START + 1000 * np.arange(count, dtype=np.int64), quiet_rows(count, 5)
    frame = TelemetryFrame(NAMES, at, rows, np.zeros(count, np.uint16))
    (bench.root / "spool/in/a.pdc").write_bytes(encode_segment("P-101A", frame))
    counts = scorer(bench).score_spool()
    assert (counts.rows, counts.refused_files) == (count, 0)
    items = collected(bench)
    np.testing.assert_array_equal(frame_of(items, ReturnKind.SEGMENT, "P-101A").values, rows)
    np.testing.assert_allclose(
        frame_of(items, ReturnKind.SCORES, "P-101A").values[:, 0], replay(at, rows).score, rtol=1e-6
    )


def test_a_binary_segment_that_is_none_is_put_aside(bench: Bench) -> None:
    frame = TelemetryFrame(NAMES, times(20), quiet_rows(20, 1), np.zeros(20, np.uint16))
    good = encode_segment("P-101A", frame)
    twice = good + good[good.index(b"\n") + 1 :]
    bad = [good[:-1], good + b"x", good[:40], b"", b"{}\n", good.replace(b"P-101A", b"P 101A"), twice]
    large = bytearray(good)
    large[good.index(b"PDC1") + 4 : good.index(b"PDC1") + 8] = (60_000).to_bytes(4, "little")
    for number, data in enumerate([*bad, bytes(large)]):
        (bench.root / f"spool/in/{number}.pdc").write_bytes(data)
    (bench.root / "spool/in/z.pdc").write_bytes(good)
    counts = scorer(bench).score_spool()
    assert (counts.refused_files, counts.rows) == (8, 20)


def test_a_spool_that_cannot_be_scored_stays_within_its_limit(tmp_path: Path) -> None:
    """A damaged package, a full disk: the logger writes on, and the oldest files go first."""
    bench = Bench(tmp_path, limits=AgentLimits(spool_max_bytes=3000, keep_free_bytes=0))
    bench.install(BUILT)
    (bench.root / "store" / BUILT.sha256 / "model-esp.onnx").write_bytes(b"x")
    for number in range(9):
        bench.spool(f"{number}.csv", {"P-101A": quiet_rows(20, 1)}, times(20))
    one = scorer(bench)
    with pytest.raises(DamagedError):
        one.score_spool()
    left = list((bench.root / "spool/in").iterdir())
    gone = one.shrink_spool()
    kept = sorted(path.name for path in (bench.root / "spool/in").iterdir())
    assert gone == len(left) - len(kept) > 0
    assert kept == [f"{number}.csv" for number in range(gone, 9)]
    assert sum((bench.root / "spool/in" / name).stat().st_size for name in kept) <= 3000


def test_a_full_outbox_goes_on_scoring_and_keeps_every_alarm(bench: Bench) -> None:
    """At the bound to the byte: raw rows go, alarms and receipts stay, scoring notices nothing."""
    limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5, outbox_max_bytes=20_000, open_rows=32)
    agent, expected = bench.agent(), 0
    one = Scorer(bench.platform, agent.layout, agent.config, limits, ModelCache())
    for number in range(12):
        bench.spool(f"{number:02d}.csv", {"P-101A": faulty_rows(400, number)}, times(400, START + number * 400 * 60_000))
        counts = one.score_spool()
        expected += counts.alarms
        assert counts.rows == 400
        assert agent.outbox.counts().bytes <= 20_000
    kinds = [item.kind for item, _ in agent.outbox.take(1 << 30)[0]]
    assert expected >= 10
    assert kinds.count(ReturnKind.ALARM) >= 2 * expected - 1
    assert agent.outbox.counts().dropped > 0
    assert bench.status()["pumps"]["P-101A"]["scored_rows"] == 4800
