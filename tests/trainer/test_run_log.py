"""The log of a run: durations, rates, troubles named up to a bound, and what is kept of it."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from pumpdeck_fleet.core.registry import GateVerdict, QualityGate
from pumpdeck_trainer.cache import NoCache
from pumpdeck_trainer.run_log import NAMED_PUMPS, LogLine, RunLog, WatchedCache, hearing_warnings

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "run_log.json"


class Hand:
    """A log whose clock is moved by hand, and every line that it said."""

    def __init__(self) -> None:
        self.s = 0.0
        self.lines: list[LogLine] = []
        self.log = RunLog(lambda: 1_000 + round(self.s * 1000), lambda: self.s, [self.lines.append])

    def after(self, seconds: float) -> RunLog:
        self.s += seconds
        return self.log


def test_a_step_tells_rate_and_seconds_left_and_in_the_end_how_long_it_took() -> None:
    hand = Hand()
    hand.after(0).progress("fit", 0, 100)
    hand.after(2).progress("fit", 40, 100)
    hand.after(1).progress("fit", 60, 100)
    hand.after(2).progress("evaluate", 0, 100)
    progress = [line for line in hand.lines if line.event == "progress" and line.step == "fit"]
    assert [(line.done, line.rate_per_s, line.left_s) for line in progress] == [(0, None, None), (40, 20.0, 3.0), (60, 20.0, 2.0)]
    (done,) = [line for line in hand.lines if line.event == "done"]
    assert (done.step, done.done, done.total, done.seconds) == ("fit", 60, 100, 5.0)


def test_counts_that_begin_anew_are_a_rate_of_their_own() -> None:
    hand = Hand()
    hand.after(0).progress("fit", 0, 50)
    hand.after(1).progress("fit", 50, 50)
    hand.after(0).progress("fit", 0, 200)
    hand.after(10).progress("fit", 100, 200)
    assert (hand.lines[-1].rate_per_s, hand.lines[-1].left_s) == (10.0, 10.0)


def test_progress_is_said_once_a_second_at_most_and_never_kept() -> None:
    hand = Hand()
    for place in range(5_000):
        hand.after(0.01).progress("fit", place, 5_000)
    hand.log.end("registered", "esp-health v3")
    said = sum(line.event == "progress" for line in hand.lines)
    assert 40 <= said <= 51
    kept = json.loads(hand.log.encode())["lines"]
    assert [line["event"] for line in kept] == ["step", "done", "end"]
    assert kept[-1]["text"] == "registered: esp-health v3"


def test_trouble_of_five_thousand_pumps_names_fifty_and_counts_the_rest() -> None:
    hand = Hand()
    hand.log.progress("fit", 0, 5_000)
    for place in range(5_000):
        hand.log.trouble("fit", f"a/P-{place}", "left out", "too few rows")
        hand.log.progress("fit", place + 1, 5_000)
    hand.log.end_step()
    told = [line for line in hand.lines if line.event == "pump"]
    assert len(told) == NAMED_PUMPS + 1 and told[0].pump == "a/P-0" and told[0].text == "left out: too few rows"
    assert told[-1].pump is None and told[-1].text == f"left out: {5_000 - NAMED_PUMPS} more pumps"
    assert len(hand.log.encode()) < 10_000


def test_a_warning_of_a_library_is_heard_once_and_the_hook_is_taken_back() -> None:
    hand, before = Hand(), warnings.showwarning
    with hearing_warnings(hand.log):
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("did not converge", RuntimeWarning, stacklevel=1)
    assert [line.text for line in hand.lines] == ["RuntimeWarning: did not converge"]
    assert warnings.showwarning is before


def test_a_verdict_is_a_line_and_long_text_is_cut() -> None:
    hand = Hand()
    hand.log.gate(QualityGate("parity", GateVerdict.PASS, "flags\nequal " + "x" * 1000))
    assert hand.lines[0].text.startswith("parity pass: flags equal x") and len(hand.lines[0].text) == 400


def test_results_of_an_earlier_run_are_counted_once_and_those_of_this_run_are_not() -> None:
    class Held(NoCache):
        def __init__(self) -> None:
            self.data = {"old": b"1"}

        def get(self, key: str) -> bytes | None:
            return self.data.get(key)

        def put(self, key: str, data: bytes) -> None:
            self.data[key] = data

    hand = Hand()
    cache = WatchedCache(Held(), hand.log.found_cached)
    hand.log.progress("fit", 0, 2)
    assert cache.get("old") == cache.get("old") == b"1" and cache.get("new") is None
    cache.put("new", b"2")
    assert cache.get("new") == b"2"
    hand.log.end_step()
    assert hand.lines[-1].cached == 1


def test_what_is_kept_is_the_golden_log() -> None:
    hand = Hand()
    hand.log.begin("train esp-health, type maxz")
    hand.log.progress("fit", 0, 2)
    hand.log.found_cached(1)
    hand.log.trouble("fit", "gannet/P-101A", "left out", "too few rows")
    hand.log.warn("RuntimeWarning: did not converge")
    hand.after(1.5).progress("fit", 2, 2)
    hand.log.end_step()
    hand.log.note("search: 4 points")
    hand.log.gate(QualityGate("parity", GateVerdict.PASS, "flags equal on all rows"))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_bytes(hand.log.encode())
    assert hand.log.encode() == GOLDEN.read_bytes()
