"""Shadow scoring: a candidate beside the active package on live rows, its sketch in the receipt, and nothing else changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent import shadow as shadowing
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import LiveRow, Scorer
from pumpdeck_agent.shadow_file import decode_shadow, encode_shadow, read_shadow, read_start, wants_a_word
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trips import set_trip
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.receipts import SHADOW_EDGES, Terms
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.devices import NAMES, Bench, package, quiet_rows

FIRST, SECOND, THIRD = package(shift=0.0), package(shift=0.5), package(shift=0.9)
MINUTE_MS = 60_000
BOTH = ("P-101A", "P-101B")


class Scene:
    """A device that runs FIRST and has SECOND in shadow scoring for an hour."""

    def __init__(self, folder: Path, hours: float = 1.0) -> None:
        self.bench = Bench(folder)
        self.bench.install(FIRST, "t-1")
        self.layout = self.bench.agent().layout
        self.restart()
        self.files = 0
        self.hours = hours
        self.rows(20)
        self.answer = self.assign(SECOND, "t-2")

    def restart(self) -> None:
        """A new scoring process."""
        bench = self.bench
        self.scorer = Scorer(bench.platform, bench.agent().layout, bench.config, bench.limits, ModelCache())

    def assign(self, built: BuiltPackage, task: str) -> dict[str, Any]:
        bench = self.bench
        bench.site.trust.release([PackageRelease(built, {"esp-health": 1})], bench.site.keys.release)
        terms = Terms(shadow_s=round(self.hours * 3600))
        request = AssignmentRequest(bench.device, built.sha256, task, terms=terms)
        bench.site.trust.assign([request], bench.site.keys.laptops[0])
        channel = bench.channel()
        push_blob(channel, built.sha256, built.data)
        return self.again(channel)

    def again(self, channel: Any = None) -> dict[str, Any]:
        """The console asks again."""
        bench = self.bench
        files = dict(bench.site.trust.files_for(bench.device))
        return bench.send_assignment(channel or bench.channel(), files)

    def write(self, count: int, tags: tuple[str, ...] = BOTH, away: float = 0.0) -> None:
        """So many rows, a minute apart, the last one now."""
        self.files += 1
        self.bench.clock.advance(count * MINUTE_MS)
        at_ms = self.bench.clock.now_ms() - MINUTE_MS * np.arange(count)[::-1]
        rows = {tag: quiet_rows(count, self.files) for tag in tags}
        for values in rows.values():
            values[:, NAMES.index("vibration_mm_s")] += np.float32(away)
        self.bench.spool(f"{self.files:04d}.csv", rows, at_ms)

    def rows(self, count: int, tags: tuple[str, ...] = BOTH, away: float = 0.0) -> None:
        self.write(count, tags, away)
        self.scorer.score_spool()

    @property
    def state(self) -> DeviceState:
        found = StateFiles(self.bench.fs, self.layout).load()
        assert found is not None
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_after_its_trial_a_candidate_is_scored_beside_the_active_package(scene: Scene) -> None:
    assert (scene.answer["outcome"], scene.answer["state"], scene.answer["active"]) == ("", "STAGED", FIRST.sha256)
    assert scene.answer["reason"] == "shadow scoring: 0.0 of 1.0 hours"
    assert (scene.state.phase, len(scene.bench.runner.requests)) == (Phase.SHADOW, 2)
    scene.rows(31)
    status = scene.bench.status()
    assert (status["state"], status["active"]) == ("SHADOW", FIRST.sha256)
    assert status["staged"]["waits_for"] == "shadow scoring: 0.5 of 1.0 hours"
    assert scene.bench.agent().resume().fields["outcome"] == ""
    assert not wants_a_word(scene.bench.fs, scene.layout, scene.state)


def test_it_is_committed_when_the_hours_are_over_and_the_receipt_holds_the_sketch(scene: Scene) -> None:
    for _ in range(4):
        scene.rows(16)
    assert wants_a_word(scene.bench.fs, scene.layout, scene.state)
    answer = scene.again()
    assert (answer["outcome"], answer["active"]) == ("committed", SECOND.sha256)
    receipt = answer["receipt"]
    assert receipt["self_test"]["golden_rows"] == 24, "the trial's figures are not forgotten"
    for tag in BOTH:
        sketch = receipt["shadow"][tag]
        assert (sketch["rows"], sum(sketch["differences"]), len(sketch["differences"])) == (64, 64, len(SHADOW_EDGES) + 1)
        assert (sketch["both"], sketch["only_active"], sketch["only_new"]) == (0, 0, 0)
        assert sketch["watched_ms"] == 63 * MINUTE_MS
        assert sketch["largest"] > 0
    assert not scene.layout.shadow.exists()
    assert len(scene.bench.runner.requests) == 2


def test_alarms_of_both_models_are_told_apart(tmp_path: Path) -> None:
    """The new baseline stands further up: what alarms the active model alarms the new one less, and the sketch says so."""
    scene = Scene(tmp_path)
    scene.rows(30)
    scene.rows(40, away=1.9)
    answer = scene.again()
    sketch = answer["receipt"]["shadow"]["P-101A"]
    assert sketch["rows"] == 70
    assert sketch["only_active"] > 0
    assert sketch["only_new"] == 0
    assert sum(sketch["differences"][: SHADOW_EDGES.index(0.0) + 1]) > 30, "the new scores are lower"


def test_shadow_scoring_changes_nothing_of_what_the_device_says(tmp_path: Path) -> None:
    shadowed = Scene(tmp_path / "b")
    other = Bench(tmp_path / "c")
    other.install(FIRST, "t-1")
    scorer = Scorer(other.platform, other.agent().layout, other.config, other.limits, ModelCache())
    clock = other.clock
    for number, (count, away) in enumerate(((20, 0.0), (31, 0.0), (20, 3.0)), 1):
        clock.advance(count * MINUTE_MS)
        rows = {tag: quiet_rows(count, number) for tag in BOTH}
        for values in rows.values():
            values[:, NAMES.index("vibration_mm_s")] += np.float32(away)
        other.spool(f"{number:04d}.csv", rows, clock.now_ms() - MINUTE_MS * np.arange(count)[::-1])
        scorer.score_spool()
    shadowed.rows(31)
    shadowed.rows(20, away=3.0)
    for tag in BOTH:
        mine = shadowed.layout.pump_state(tag).read_bytes()
        assert mine == other.agent().layout.pump_state(tag).read_bytes()


def test_rows_that_come_one_by_one_are_seen_too(scene: Scene) -> None:
    scene.scorer.package()
    start_ms = scene.bench.clock.now_ms()
    for number, values in enumerate(quiet_rows(30, 3), 1):
        scene.scorer.push([LiveRow("p-101a", start_ms + number * MINUTE_MS, values)])
    scene.scorer.flush()
    record = read_shadow(scene.bench.fs, scene.layout, "P-101A", SECOND.sha256)
    assert record is not None
    assert record.figures.sketch.rows == 30


def test_a_restart_goes_on_where_it_was_and_counts_no_row_twice(scene: Scene) -> None:
    for _ in range(4):
        scene.rows(16)
        scene.restart()
    start = read_start(scene.bench.fs, scene.layout, SECOND.sha256)
    assert start is not None
    assert start.starts == 4
    assert scene.again()["receipt"]["shadow"]["P-101A"]["rows"] == 64


def test_a_cut_between_the_shadow_and_the_records_counts_no_row_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.rows(16)

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> str:
        raise PowerCut

    scene.write(16)
    with monkeypatch.context() as patch:
        patch.setattr("pumpdeck_agent.scorer.write_record", cut)
        with pytest.raises(PowerCut):
            scene.scorer.score_spool()
    scene.restart()
    scene.scorer.score_spool()
    record = read_shadow(scene.bench.fs, scene.layout, "P-101A", SECOND.sha256)
    assert record is not None
    assert record.figures.sketch.rows == 32


@pytest.mark.parametrize("how", ["veto", "trip"])
def test_a_veto_or_a_trip_ends_it_and_it_begins_anew_afterwards(scene: Scene, how: str) -> None:
    scene.rows(40)
    now_ms = scene.bench.clock.now_ms()
    word = Veto("crane at P-101A", now_ms + 600_000)
    if how == "veto":
        set_veto(scene.bench.fs, scene.layout, word)
    else:
        set_trip(scene.bench.fs, scene.layout, "P-101A", word)
    answer = scene.again()
    assert (scene.state.phase, answer["active"]) == (Phase.STAGED, FIRST.sha256)
    assert "crane at P-101A" in answer["reason"]
    assert not scene.layout.shadow.exists()
    scene.rows(16)
    assert not scene.layout.shadow.exists(), "nothing is scored beside while it stands"
    scene.bench.clock.advance(600_000)
    lift_veto(scene.bench.fs, scene.layout)
    assert scene.bench.agent().resume().fields["reason"] == "shadow scoring: 0.0 of 1.0 hours"
    assert len(scene.bench.runner.requests) == 3, "a trial stands before each shadow scoring"
    for _ in range(4):
        scene.rows(16)
    assert scene.again()["receipt"]["shadow"]["P-101A"]["rows"] == 64


def test_a_candidate_that_fails_beside_is_rolled_back_and_scoring_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in the graph")

    monkeypatch.setattr(shadowing.ShadowPump, "_take", fail)
    scene.rows(16)
    assert scene.bench.status()["pumps"]["P-101A"]["scored_rows"] == 36
    answer = scene.again()
    assert (answer["outcome"], answer["active"]) == ("rolled_back", FIRST.sha256)
    assert "ZeroDivisionError: in the graph" in answer["reason"]
    assert scene.state.failed == (SECOND.sha256,)


def test_a_candidate_that_takes_the_process_down_is_rolled_back_in_the_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph kills whoever loads it: each start is counted before, and the active model scores again at last."""

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    killed = 0
    monkeypatch.setattr(shadowing, "load_package", kill)
    for _ in range(20):
        scene.restart()
        scene.write(2)
        try:
            scene.scorer.score_spool()
        except Killed:
            killed += 1
    assert killed == scene.bench.limits.shadow_starts
    assert scene.bench.status()["pumps"]["P-101A"]["scored_rows"] == 20 + 40
    assert wants_a_word(scene.bench.fs, scene.layout, scene.state)
    answer = scene.again()
    assert (answer["outcome"], answer["active"]) == ("rolled_back", FIRST.sha256)


def test_a_new_assignment_takes_its_place(scene: Scene) -> None:
    scene.rows(40)
    scene.hours = 0.5
    answer = scene.assign(THIRD, "t-3")
    assert answer["reason"] == "shadow scoring: 0.0 of 0.5 hours"
    for _ in range(2):
        scene.rows(16)
    assert scene.again()["active"] == THIRD.sha256


def test_nothing_to_be_compared_with_means_no_shadow(tmp_path: Path) -> None:
    scene = Scene.__new__(Scene)
    scene.bench, scene.hours = Bench(tmp_path), 1.0
    answer = scene.assign(FIRST, "t-1")
    assert (answer["outcome"], answer["active"]) == ("committed", FIRST.sha256)
    assert "shadow" not in answer["receipt"]


def test_a_pump_that_sends_no_rows_does_not_hold_up_the_other(scene: Scene) -> None:
    for _ in range(4):
        scene.rows(16, ("P-101B",))
    assert scene.bench.status()["staged"]["waits_for"].endswith("1 pumps without rows")
    assert list(scene.again()["receipt"]["shadow"]) == ["P-101B"]


def test_what_is_kept_does_not_grow_with_the_rows(scene: Scene) -> None:
    scene.rows(16)
    size = scene.layout.shadow.joinpath("p-101a.bin").stat().st_size
    for _ in range(6):
        scene.rows(64)
    assert scene.layout.shadow.joinpath("p-101a.bin").stat().st_size < size + 200


def test_any_altered_byte_of_a_shadow_record_is_found(scene: Scene) -> None:
    scene.rows(16)
    data = scene.layout.shadow.joinpath("p-101a.bin").read_bytes()
    assert encode_shadow(decode_shadow(data, "x")) == data
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        with pytest.raises(DamagedError):
            decode_shadow(bytes(spoilt), "x")


def test_a_damaged_record_begins_anew(scene: Scene) -> None:
    scene.rows(40)
    scene.layout.shadow.joinpath("p-101a.bin").write_bytes(b"")
    scene.restart()
    scene.rows(16)
    assert scene.bench.status()["staged"]["waits_for"] == "shadow scoring: 0.2 of 1.0 hours"
