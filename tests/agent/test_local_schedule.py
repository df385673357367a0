"""The device's own scheduler: sustained drift, age, volume; each asked for once, by the rows' time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.config import Layout
from pumpdeck_agent.local_schedule import PumpMemory, RetrainRules, decide, load_memories, save_memories
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_agent.retrain import RetrainDesk
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import RetrainRequest, ReturnKind
from support.devices import LIMIT, NOW_MS, Bench, package, quiet_rows

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RULES = RetrainRules()


def figures(hours: float, drift: float = 0.0, rows: int = 0, package_sha256: str = "a" * 64) -> PumpFigures:
    return PumpFigures(1, "P-1", package_sha256, scored_rows=rows, last_row_ms=NOW_MS + round(hours * HOUR_MS), drift_index=drift)


def run(steps: list[PumpFigures], rules: RetrainRules = RULES) -> list[tuple[int, str]]:
    memory: PumpMemory | None = None
    asked = []
    for number, one in enumerate(steps):
        memory, reasons = decide(one, LIMIT, memory, rules)
        asked += [(number, reason.trigger) for reason in reasons]
    return asked


def test_drift_must_last() -> None:
    assert run([figures(hour, 2.0) for hour in range(24)]) == []
    assert run([figures(hour, 2.0) for hour in range(30)]) == [(24, "drift")]
    assert run([figures(hour, 1.9) for hour in range(100)]) == []
    assert run([figures(hour, 0.0 if hour == 20 else 3.0) for hour in range(46)]) == [(45, "drift")]


def test_it_is_asked_again_after_a_week_only() -> None:
    hours = 24 * 16
    assert [number for number, _ in run([figures(hour, 3.0) for hour in range(hours)])] == [24, 24 + 168, 24 + 336]


def test_age_and_volume_count_from_the_package_on() -> None:
    rules = RetrainRules(every_days=2, every_rows=1000)
    steps = [figures(24 * day, rows=5000 + 400 * day) for day in range(4)]
    assert run(steps, rules) == [(2, "schedule"), (3, "data_volume")]
    changed = [*steps[:2], *(replace(one, package_sha256="b" * 64) for one in steps[2:])]
    assert run(changed, rules) == []


def test_what_is_remembered_outlasts_a_restart_and_damage_costs_only_time(tmp_path: Path) -> None:
    fs, layout = RealFileSystem(), Layout(tmp_path)
    memory, _ = decide(figures(30, 3.0), LIMIT, PumpMemory("a" * 64, NOW_MS, 0, NOW_MS), RULES)
    save_memories(fs, layout, {"P-1": memory})
    assert load_memories(fs, layout) == {"P-1": memory}
    assert memory.asked_ms == {"drift": NOW_MS + 30 * HOUR_MS}
    layout.schedule.write_bytes(b"{")
    assert load_memories(fs, layout) == {}


def test_rules_that_make_no_sense_are_refused() -> None:
    for wrong in ({"drift_share": -1.0}, {"again_days": 0.0}, {"every_rows": -1}):
        with pytest.raises(FormatError):
            RetrainRules(**wrong)


def test_a_pump_that_creeps_away_asks_for_a_new_model_once(tmp_path: Path) -> None:
    """Real rows, a real model: a slow change that the baseline follows ends as one request in the outbox."""
    bench = Bench(tmp_path)
    bench.install(package())
    agent = bench.agent()
    scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
    scorer.package()
    desk, asked = RetrainDesk(agent.config, scorer), []
    rows = quiet_rows(24 * 12, 1)
    for day in range(12):
        part = rows[day * 24 : day * 24 + 24].copy()
        # A tenth of the limit a day.
        part[:, 1] += np.float32(1.2 * day)
        bench.spool("rows.csv", {"P-101A": part}, NOW_MS + DAY_MS * day + HOUR_MS * np.arange(24))
        scorer.score_spool()
        asked += desk.look((bench.platform, agent.layout), RULES)
        bench.clock.advance(DAY_MS)
    assert [(reason.pump, reason.trigger) for reason in asked] == [("P-101A", "drift")]
    items = [data for item, data in agent.outbox.take(1 << 30)[0] if item.kind is ReturnKind.RETRAIN_REQUEST]
    (request,) = [canonical.decode(RetrainRequest, data, "request", max_bytes=4096) for data in items]
    assert (request.trigger, "widths from its reference" in request.reason) == ("drift", True)
