"""Alarms on site: raised, repeated, acknowledged, cleared; nothing said twice, nothing forgotten over a restart."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.alarm_outputs import Announcer, FileOutput, HookOutput, Standing, SyslogOutput, sentence
from pumpdeck_agent.config import Layout
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.serve_settings import AlarmSettings
from pumpdeck_agent.site_alarms import (
    Acknowledgement,
    AlarmBoard,
    AlarmState,
    Announcement,
    SiteAlarm,
    Word,
    load_alarms,
    read_acknowledgements,
    request_acknowledge,
    save_alarms,
)
from pumpdeck_agent.watch import SiteWatch, make_outputs
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import AlarmNotice
from support.devices import NOW_MS, Bench, package, quiet_rows
from support.forgetful_disk import ForgetfulDisk
from support.sshd import wait_for

REPEAT_MS = 300_000
TAG = "P-101A"


def made_watch(bench: Bench, layout: Layout, settings: AlarmSettings) -> SiteWatch:
    announcer = Announcer(make_outputs(bench.platform, layout, settings), lambda _: None)
    return SiteWatch(bench.platform, layout, bench.config, settings, announcer)


def notice(at_ms: int, raised: bool, pump: str = TAG) -> AlarmNotice:
    return AlarmNotice(1, "gannet-d1", pump, at_ms, raised, 7.5, 4.0, "vibration_mm_s" if raised else "", "a" * 64)


def words(said: list[Announcement]) -> list[str]:
    return [one.word.value for one in said]


def test_an_alarm_is_raised_repeated_and_cleared() -> None:
    board = AlarmBoard({}, REPEAT_MS)
    assert words(board.change([notice(10, True)], NOW_MS)) == ["raised"]
    assert board.repeats(NOW_MS + REPEAT_MS - 1) == []
    assert words(board.repeats(NOW_MS + REPEAT_MS)) == ["repeated"]
    assert board.repeats(NOW_MS + REPEAT_MS + 1) == []
    assert words(board.repeats(NOW_MS + 2 * REPEAT_MS)) == ["repeated"]
    assert words(board.change([notice(20, False)], NOW_MS)) == ["cleared"]
    assert board.standing() == ()
    assert board.repeats(NOW_MS + 9 * REPEAT_MS) == []


def test_an_acknowledged_alarm_is_not_repeated_and_the_next_one_is_new() -> None:
    board = AlarmBoard({}, REPEAT_MS)
    board.change([notice(10, True)], NOW_MS)
    said = board.acknowledge(Acknowledgement(TAG, "Ada"), NOW_MS)
    assert (words(said), said[0].alarm.by) == (["acknowledged"], "Ada")
    assert board.acknowledge(Acknowledgement(TAG, "Ben"), NOW_MS) == []
    assert board.repeats(NOW_MS + REPEAT_MS) == []
    assert words(board.change([notice(20, False), notice(30, True)], NOW_MS)) == ["cleared", "raised"]
    assert words(board.repeats(NOW_MS + REPEAT_MS)) == ["repeated"]
    assert board.acknowledge(Acknowledgement("P-9", "Ada"), NOW_MS) == []


def test_what_is_scored_again_is_not_announced_again() -> None:
    board = AlarmBoard({}, REPEAT_MS)
    changes = [notice(10, True), notice(20, False), notice(30, True)]
    assert words(board.change(changes, NOW_MS)) == ["raised", "cleared", "raised"]
    assert board.change(changes, NOW_MS) == []


def test_a_clock_that_is_set_back_keeps_no_alarm_silent() -> None:
    board = AlarmBoard({}, REPEAT_MS)
    board.change([notice(10, True)], NOW_MS)
    assert words(board.repeats(NOW_MS - 10**9)) == ["repeated"]


def test_after_a_restart_the_board_goes_on_and_finds_what_it_missed(tmp_path: Path) -> None:
    fs, layout = RealFileSystem(), Layout(tmp_path)
    board = AlarmBoard({}, REPEAT_MS)
    board.change([notice(10, True), notice(10, True, "P-101B")], NOW_MS)
    board.acknowledge(Acknowledgement(TAG, "Ada"), NOW_MS)
    save_alarms(fs, layout, board)
    again = AlarmBoard(load_alarms(fs, layout), REPEAT_MS)
    assert again.alarms == board.alarms
    figures = {
        TAG: PumpFigures(1, TAG, "a" * 64, alarmed=True, last_row_ms=50),
        "P-101B": PumpFigures(1, "P-101B", "a" * 64, alarmed=False, last_row_ms=50),
        "P-101C": PumpFigures(1, "P-101C", "a" * 64, alarmed=True, last_row_ms=50, score=9.0),
    }
    assert [(one.alarm.pump, one.word.value) for one in again.reconcile(figures, NOW_MS)] == [
        ("P-101B", "cleared"),
        ("P-101C", "raised"),
    ]
    assert {one.pump: one.state for one in again.standing()} == {
        TAG: AlarmState.ACKNOWLEDGED,
        "P-101C": AlarmState.RAISED,
    }
    layout.alarms.write_bytes(b"spoilt")
    assert load_alarms(fs, layout) == {}


def test_word_of_people_reaches_the_board_once(tmp_path: Path) -> None:
    fs, layout = RealFileSystem(), Layout(tmp_path)
    with pytest.raises(NotFoundError):
        request_acknowledge(fs, layout, Acknowledgement(TAG, "Ada"))
    board = AlarmBoard({}, REPEAT_MS)
    board.change([notice(10, True)], NOW_MS)
    save_alarms(fs, layout, board)
    for nobody in ("", "  ", "x" * 65, "a\nb"):
        with pytest.raises(UsageError):
            request_acknowledge(fs, layout, Acknowledgement(TAG, nobody))
    request_acknowledge(fs, layout, Acknowledgement("p-101a", "Ada"))
    (layout.acknowledged / "spoilt.json").write_bytes(b"x")
    assert [seen for _, seen in read_acknowledgements(fs, layout)] == [Acknowledgement(TAG, "Ada"), None]


def test_a_cut_while_an_acknowledgement_is_taken_loses_it_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    layout = Layout(bench.root)
    settings = AlarmSettings(file="")
    watch = made_watch(bench, layout, settings)
    watch.tick([notice(10, True)])
    request_acknowledge(bench.fs, layout, Acknowledgement(TAG, "Ada"))
    with monkeypatch.context() as cut:
        cut.setattr(bench.fs, "open_write", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "cut")))
        with pytest.raises(OSError, match="cut"):
            watch.tick(())
    assert load_alarms(bench.fs, layout)[TAG].state is AlarmState.RAISED
    again = made_watch(bench, layout, settings)
    again.tick(())
    assert load_alarms(bench.fs, layout)[TAG].state is AlarmState.ACKNOWLEDGED
    assert read_acknowledgements(bench.fs, layout) == []
    watch.close()
    again.close()


RAISED = Announcement(Word.RAISED, SiteAlarm(TAG, AlarmState.RAISED, 10, NOW_MS, 7.5, 4.0, "vibration_mm_s"))
STANDING = Standing("gannet-d1", NOW_MS, (RAISED.alarm,), RAISED)


def test_the_file_holds_heartbeat_and_standing_alarms(tmp_path: Path) -> None:
    path = tmp_path / "alarms.json"
    output = FileOutput(RealFileSystem(), path)
    output.say(STANDING)
    found = json.loads(path.read_bytes())
    assert (found["device"], found["heartbeat_ms"], found["alarms"][0]["state"]) == ("gannet-d1", NOW_MS, "raised")
    output.say(Standing("gannet-d1", NOW_MS + 5, ()))
    assert json.loads(path.read_bytes()) == {"device": "gannet-d1", "heartbeat_ms": NOW_MS + 5, "alarms": []}


def test_the_hook_gets_word_pump_and_json(tmp_path: Path) -> None:
    script = tmp_path / "hook.py"
    script.write_text("import sys, pathlib\npathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]) + sys.stdin.read())\n")
    found = tmp_path / "found"
    output = HookOutput([sys.executable, str(script), str(found)])
    output.say(Standing("gannet-d1", NOW_MS, ()))
    assert not found.exists()
    output.say(STANDING)
    head, _, body = found.read_text().partition("{")
    assert head == f"raised {TAG}"
    assert json.loads("{" + body)["channel"] == "vibration_mm_s"
    with pytest.raises(OSError, match="hook"):
        HookOutput([sys.executable, "-c", "raise SystemExit(3)"]).say(STANDING)
    with pytest.raises(OSError):
        HookOutput([str(tmp_path / "absent")]).say(STANDING)


def test_syslog_gets_one_line_with_its_severity() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        output = SyslogOutput(f"127.0.0.1:{server.getsockname()[1]}")
        output.say(STANDING)
        line = server.recv(2048).decode()
        output.say(Standing("gannet-d1", NOW_MS, ()))
        beat = server.recv(2048).decode()
    assert line.startswith("<129>pumpdeck-agent[")
    assert line.endswith("alarm raised: pump P-101A of gannet-d1, score 7.50, limit 4.00, channel vibration_mm_s")
    assert beat.startswith("<134>")
    assert beat.endswith("0 alarms stand")


@pytest.mark.skipif(sys.platform == "win32", reason="no local syslog socket there")
def test_syslog_by_a_local_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(5)
        SyslogOutput(str(tmp_path / "log")).say(STANDING)
        assert sentence(STANDING) in server.recv(2048).decode()
    with pytest.raises(OSError):
        SyslogOutput(str(tmp_path / "absent")).say(STANDING)


class Hanging:
    name = "hanging"

    def __init__(self) -> None:
        self.go = threading.Event()

    def say(self, standing: Standing) -> None:
        self.go.wait(20)
        raise OSError("broken")


class Kept:
    name = "kept"

    def __init__(self) -> None:
        self.said: list[Standing] = []

    def say(self, standing: Standing) -> None:
        self.said.append(standing)


def test_an_output_that_hangs_or_fails_holds_up_no_other() -> None:
    hanging, kept, reported = Hanging(), Kept(), []
    announcer = Announcer([hanging, kept], reported.append)
    for _ in range(300):
        announcer.say(STANDING)
        time.sleep(0.0005)
    assert wait_for(lambda: len(kept.said) >= 256, 10)
    assert announcer.failed["full"] > 0
    hanging.go.set()
    assert wait_for(lambda: announcer.failed["hanging"] > 200, 10)
    announcer.close(10)
    assert reported == ["alarm output hanging: broken"]


def test_a_disk_that_takes_nothing_keeps_no_alarm_from_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, kept = Bench(tmp_path), Kept()
    layout = Layout(bench.root)
    watch = made_watch(bench, layout, AlarmSettings(file=""))
    watch._announcer = Announcer([kept], lambda _: None)
    with monkeypatch.context() as broken:
        broken.setattr(bench.fs, "open_write", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space")))
        with pytest.raises(OSError, match="no space"):
            watch.tick([notice(10, True)])
    assert wait_for(lambda: [one.announcement is not None for one in kept.said] == [False, True], 10)
    bench.clock.advance(10_000)
    watch.tick(())
    assert wait_for(lambda: len(kept.said) == 3, 10)
    assert kept.said[2].at_ms == NOW_MS + 10_000
    watch.close()


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"repeat_s": 0.0}, {"heartbeat_s": 0.0}, {"syslog": "nowhere"}):
        with pytest.raises(FormatError):
            AlarmSettings(**wrong)


def test_an_alarm_out_of_a_file_is_announced_before_anything_is_written(tmp_path: Path) -> None:
    """A disk whose syncs take seconds delays what is kept, never what the site must know."""
    disk = ForgetfulDisk()
    bench = Bench(tmp_path, fs=disk, root=Path("/device"))
    bench.install(package())
    rows = quiet_rows(30, 1)
    rows[20:, 2] += np.float32(30)
    bench.spool("rows.csv", {TAG: rows}, NOW_MS + 60_000 * np.arange(30))
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    told: list[tuple[int, list[bool]]] = []
    scorer.announce_by(lambda changes: told.append((disk.steps, [one.raised for one in changes])))
    before = disk.steps
    assert scorer.score_spool().alarms == 1
    assert told == [(before, [True])]
    assert disk.steps > before
    assert scorer.take_changes() == []


def test_what_was_announced_before_it_was_saved_is_saved_with_the_next_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    layout = Layout(bench.root)
    watch = made_watch(bench, layout, AlarmSettings(file=""))
    watch.announce([notice(10, True)])
    assert load_alarms(bench.fs, layout) == {}
    watch.tick(())
    assert load_alarms(bench.fs, layout)[TAG].state is AlarmState.RAISED
    watch.announce([notice(10, True)])
    watch.close()
