"""In whatever order a console and the site act: no trial begins while a veto is in force or a pump trips or changes speed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.status import why_wait
from pumpdeck_agent.trial import TrialReport, TrialRequest
from pumpdeck_agent.trips import clear_trip, set_trip
from pumpdeck_agent.veto import lift_veto, read_veto, set_veto
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.transports.rpc_client import push_blob
from support.devices import NOW_MS, Bench, ScriptedRunner, package, quiet_rows

PACKAGES = [package(shift=shift) for shift in (0.0, 0.5, 0.9)]
STEPS = 40
PROCESS = ("swinging", "steady", "stopping")
TRIPS = ("trip", "clear")


class Watching(ScriptedRunner):
    """Notes why each trial should not have begun."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.wrong: list[str] = []

    def run(self, request: TrialRequest) -> TrialReport:
        bench = self.bench
        layout, now_ms = bench.agent().layout, bench.clock.now_ms()
        reason = why_wait(bench.fs, layout, bench.config, now_ms)
        if reason:
            self.wrong.append(reason)
        # Asked of the facts as well, past the function that the installer asks.
        if read_veto(bench.fs, layout, now_ms) is not None:
            self.wrong.append("vetoed")
        for pump in bench.status()["pumps"].values():
            if pump.get("process") in ("tripped", "changing") and now_ms - pump.get("last_row_ms", now_ms) < 1_800_000:
                self.wrong.append("tripped or changing")
        return super().run(request)


@pytest.mark.parametrize("seed", range(6))
def test_no_trial_begins_at_an_unsafe_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(tmp_path)
    bench.install(PACKAGES[0], "task-0")
    bench.runner = watching = Watching(bench)
    layout = bench.agent().layout
    scorer = Scorer(bench.platform, layout, bench.config, bench.limits, ModelCache())
    waits = 0
    for step in range(STEPS):
        act = chance.choice(("veto", "lift", "later", "assign", "assign", "resume", *PROCESS, *TRIPS))
        if act == "veto":
            set_veto(bench.fs, layout, Veto("welding", chance.choice((0, bench.clock.now_ms() + 60_000))))
        elif act == "lift":
            lift_veto(bench.fs, layout)
        elif act == "trip":
            set_trip(bench.fs, layout, "P-101B", Veto("motor protection", bench.clock.now_ms() + 600_000))
        elif act == "clear":
            clear_trip(bench.fs, layout, chance.choice(("P-101A", "P-101B")), bench.clock.now_ms())
        elif act == "later":
            bench.clock.advance(chance.choice((1_000, 120_000)))
        elif act == "assign":
            built = chance.choice(PACKAGES)
            files = bench.assign(built, f"task-{step}")
            channel = bench.channel()
            push_blob(channel, built.sha256, built.data)
            waits += bench.send_assignment(channel, files)["state"] == "STAGED"
        elif act == "resume":
            bench.agent().resume()
        else:
            bench.clock.advance(60_000 * 20)
            rows = quiet_rows(16, step)
            if act == "swinging":
                rows[8:, 3] -= np.float32(2000)
            elif act == "stopping":
                rows[2:, 3] = np.float32(0)
            bench.spool(f"{step:04d}.csv", {"P-101A": rows}, bench.clock.now_ms() - 20_000 * np.arange(16)[::-1])
            scorer.score_spool()
        staged = bench.status().get("staged")
        assert staged is None or staged["waits_for"], "a package that waits says why"
    assert watching.wrong == []
    assert watching.requests or waits


def test_the_watcher_itself_notices(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.runner = watching = Watching(bench)
    set_veto(bench.fs, bench.agent().layout, Veto("welding", NOW_MS + 1))
    agent = bench.agent()
    parts = agent.installer._parts
    agent.installer._parts = replace(parts, why_wait=lambda: "")
    files = bench.assign(PACKAGES[0])
    push_blob(bench.channel(), PACKAGES[0].sha256, PACKAGES[0].data)
    agent.assign(files)
    assert watching.wrong == ["local veto: welding", "vetoed"]
