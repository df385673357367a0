from __future__ import annotations

import math

from pumpdeck_console.tui.live_pane import live_lines, span_text
from pumpdeck_console.tui.outcomes import outcome_words
from pumpdeck_console.tui.task_log import MOST_STEPS, TaskLog


def text_lines(log: TaskLog, now_ms: int, width: int = 80, height: int = 7) -> list[str]:
    return ["".join(text for text, _ in line) for line in live_lines(log, now_ms, (width, height), "ascii")]


def test_pace_and_time_left_come_from_the_newest_step() -> None:
    log = TaskLog("train", "Train esp", 1_000)
    log.told("esp: snapshot", 1, 1, 2_000)
    log.told("esp: limits", 0, 60, 3_000)
    assert log.newest is not None
    assert log.newest.left_s(3_000) is None
    log.told("esp: limits", 20, 60, 5_000)
    assert log.newest.rate_per_s == 10.0
    assert log.newest.left_s(5_000) == 4.0
    assert log.newest.left_s(6_000) == 3.0
    assert log.part == 20 / 60
    lines = text_lines(log, 5_000)
    assert lines[0].startswith(" UNDER WAY Train esp") and lines[0].rstrip().endswith("4.0 s")
    assert "20 of 60" in lines[1] and "10.0 a second, 4.0 s left" in lines[1]
    assert lines[2].startswith(" + esp: snapshot") and lines[3].startswith(" > esp: limits")
    assert "ctrl+x" in lines[-1]


def test_a_step_without_a_total_has_no_time_left() -> None:
    log = TaskLog("backup", "Back up", 0)
    log.told("backup MB", 120, 0, 0)
    log.told("backup MB", 240, 0, 2_000)
    assert log.newest is not None and log.newest.left_s(2_000) is None
    assert math.isnan(log.part)
    assert "240" in text_lines(log, 2_000)[1]


def test_the_end_stands_until_it_is_put_away() -> None:
    log = TaskLog("train", "Train esp", 0)
    log.end("Done: Train esp", "info", 65_000)
    assert not log.is_running and log.took_s(999_000) == 65.0
    lines = text_lines(log, 999_000)
    assert "ENDED" in lines[0] and "1:05" in lines[0] and "Done: Train esp" in lines[1] and "Esc" in lines[-1]


def test_the_story_is_bounded_and_fits_any_height() -> None:
    log = TaskLog("train", "Train", 0)
    for number in range(MOST_STEPS + 50):
        log.told(f"step {number}", 1, 1, number)
    assert len(log.steps) == MOST_STEPS and f"step {MOST_STEPS + 49}" in log.steps
    for height in range(1, 9):
        for width in (1, 20, 200):
            assert len(live_lines(log, 10, (width, height), "braille")) == height


def test_spans_for_people() -> None:
    assert [span_text(s) for s in (0.04, 9.94, 41.2, 200, 7_400)] == ["0.0 s", "9.9 s", "41 s", "3:20", "2:03:20"]


def test_what_an_action_came_to_is_said_in_its_own_words() -> None:
    trained = {"models": [{"model": "esp-health", "version": 14, "verdict": "warn", "reason": "slices"}]}
    assert outcome_words("train", "Train esp", trained) == ("Trained: esp-health v14, a gate warns (slices)", "warn")
    promoted = {"model": "esp-health", "champion": 14, "missing_people": 0}
    assert "Champion of esp-health is v14" in outcome_words("models.promote", "", promoted)[0]
    assert outcome_words("models.promote", "", {**promoted, "missing_people": 1})[1] == "warn"
    found = {"files": 9, "bytes": 2_000_000, "workspace": "ws-2", "signature": "signed by Ada.", "key_id": "k"}
    words, level = outcome_words("backup.verify", "", {"found": found, "is_own": False})
    assert words == "The backup holds: 9 files, 2.0 MB. signed by Ada. It is of another workspace, ws-2" and level == "warn"
    assert outcome_words("backup.verify", "", {"found": found, "is_own": True})[1] == "info"
    assert "1.0 MB of it new" in outcome_words("backup", "", {"to": "/d", "bytes": 2_000_000, "new_bytes": 1_000_000})[0]
    report = {"workspace": "ws-2", "taken": {"telemetry": 7}, "conflicts": [], "refused": []}
    assert outcome_words("sync", "", {"report": report}) == ("Taken in from ws-2: 7 rows, 0 conflicts, 0 not believed", "info")
    assert outcome_words("trip.return", "", {"sync": {"report": {**report, "refused": [1]}}})[1] == "warn"
    assert outcome_words("trip.prepare_to", "", {"to": "/t", "findings": [{"what": "SSH key", "verdict": "bad"}]})[1] == "warn"
    assert outcome_words("rollout.approve", "Approve", {"not_signed": "no key here"})[1] == "warn"
    assert outcome_words("rollout.halt", "Halt", {}) == ("Done: Halt", "info")
