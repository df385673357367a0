"""A tripped pump: seen in its rows or told, shown with reason and end, and no moment for a trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.process_state import TripWatch
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.trips import TRIP_HOLD_MS, clear_trip, set_trip
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from support.devices import CHANNELS, NAMES, NOW_MS, Bench, package, quiet_rows

FIRST, SECOND = package(shift=0.0), package(shift=0.5)


def rows_with(speeds: list[float], step_s: int = 10, start_ms: int = NOW_MS) -> TelemetryFrame:
    values = quiet_rows(len(speeds), 1)
    values[:, NAMES.index("speed_rpm")] = speeds
    at_ms = start_ms + 1000 * step_s * np.arange(len(speeds), dtype=np.int64)
    return TelemetryFrame(NAMES, at_ms, values, np.zeros(len(speeds), np.uint16))


@pytest.mark.parametrize(
    ("speeds", "step_s", "tripped_at"),
    [
        ([3000, 3000, 0, 0, 0], 10, 2),
        ([3000, 2000, 1200, 500, 100, 0, 0], 10, None),
        ([3000, 3000, 0, 0, 0], 600, None),
        ([0, 0, 0, 0], 10, None),
        ([3000, 0, 3000, 3000], 10, None),
        ([3000, 0, 3000, 0, 0], 10, 3),
        ([3000, float("nan"), 0, 0], 10, 2),
    ],
    ids=["sudden", "ramp", "rows too far apart", "always stopped", "runs again", "the newest stop", "a gap"],
)
def test_a_trip_is_told_from_a_stop(speeds: list[float], step_s: int, tripped_at: int | None) -> None:
    found = trip_after(rows_with(speeds, step_s))
    assert found == (None if tripped_at is None else NOW_MS + 1000 * step_s * tripped_at)


def trip_after(rows: TelemetryFrame, before: int | None = None) -> int | None:
    return TripWatch(CHANNELS, rows.take(slice(0, 0))).take(rows, before)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_rows_in_any_portions_give_the_same_answer(step: int) -> None:
    chance = np.random.default_rng(step)
    for _ in range(40):
        rows = rows_with(chance.choice([3000.0, 0.0, 500.0, float("nan")], 30).tolist())
        watch, found = TripWatch(CHANNELS, rows.take(slice(0, 0))), None
        for start in range(0, 30, step):
            found = watch.take(rows.take(slice(start, start + step)), found)
        assert found == trip_after(rows)


def test_a_trip_stands_over_later_rows_until_the_pump_runs() -> None:
    assert trip_after(rows_with([0, 0, 0]), 17) == 17
    assert trip_after(rows_with([0, 0, 2900]), 17) is None


class Scene:
    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.bench.install(FIRST, "t-1")
        self.layout = self.bench.agent().layout
        self.scorer = Scorer(self.bench.platform, self.layout, self.bench.config, self.bench.limits, ModelCache())
        self.files = 0

    def rows(self, *speeds: float) -> None:
        """These speeds of P-101A, ten seconds apart, the last one now."""
        self.bench.clock.advance(10_000 * len(speeds))
        frame = rows_with(list(speeds), 10, self.bench.clock.now_ms() - 10_000 * (len(speeds) - 1))
        self.files += 1
        self.bench.spool(f"{self.files:04d}.csv", {"P-101A": frame.values}, frame.at_ms)
        self.scorer.score_spool()

    def pump(self, tag: str = "P-101A") -> dict:
        return dict(self.bench.status()["pumps"][tag])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_trip_seen_in_the_rows_keeps_a_package_waiting(scene: Scene) -> None:
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    stopped_ms = scene.bench.clock.now_ms() - 19 * 10_000
    assert scene.pump()["process"] == "tripped"
    assert scene.pump()["trip"]["until_ms"] == stopped_ms + TRIP_HOLD_MS
    answer = scene.bench.install(SECOND, "t-2")
    assert (answer["state"], answer["active"]) == ("STAGED", FIRST.sha256)
    assert answer["reason"].startswith("P-101A is tripped: it came to a sudden stop at ")
    assert scene.bench.status()["staged"]["waits_for"] == answer["reason"]
    assert len(scene.bench.runner.requests) == 1


def test_a_trip_ends_when_the_pump_runs_again(scene: Scene) -> None:
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    scene.rows(*[3000] * 20)
    assert (scene.pump()["process"], scene.pump().get("trip")) == ("steady", None)
    assert scene.bench.install(SECOND, "t-2")["outcome"] == "committed"


def test_a_trip_ends_after_eight_hours_at_the_latest(scene: Scene) -> None:
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    assert scene.bench.install(SECOND, "t-2")["state"] == "STAGED"
    scene.bench.clock.advance(TRIP_HOLD_MS)
    assert scene.pump()["process"] == "stopped"
    assert scene.bench.agent().resume().fields["outcome"] == "committed"


def test_somebody_who_looked_at_it_clears_a_trip(scene: Scene) -> None:
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    clear_trip(scene.bench.fs, scene.layout, "P-101A", scene.bench.clock.now_ms())
    assert scene.pump()["process"] == "stopped"
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    assert scene.pump()["process"] == "tripped", "the next one is another one"


def test_a_trip_that_the_site_tells_counts_without_any_row(scene: Scene) -> None:
    now_ms = scene.bench.clock.now_ms()
    set_trip(scene.bench.fs, scene.layout, "P-101B", Veto("motor protection", now_ms + 3_600_000))
    assert scene.pump("P-101B")["trip"] == {"reason": "motor protection", "until_ms": now_ms + 3_600_000}
    assert scene.bench.install(SECOND, "t-2")["reason"] == "P-101B is tripped: motor protection"
    scene.bench.clock.advance(3_600_000)
    assert scene.bench.agent().resume().fields["outcome"] == "committed"


def test_a_trip_at_the_seam_of_two_segments_is_seen(scene: Scene) -> None:
    scene.rows(*[3000] * scene.bench.limits.open_rows)
    scene.rows(*[0] * 5)
    assert scene.pump()["process"] == "tripped"


def test_a_damaged_file_of_trips_leaves_what_the_rows_say(scene: Scene) -> None:
    scene.rows(*[3000] * 12)
    scene.rows(*[0] * 20)
    scene.layout.trips.write_bytes(b"{")
    assert scene.pump()["process"] == "tripped"
