"""Verdicts of the gates on pumps whose figures are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.registry import GateVerdict
from pumpdeck_fleet.numeric.detectors import LimitBranch
from pumpdeck_trainer.coverage import Regime
from pumpdeck_trainer.fleet_gates import (
    PumpPlace,
    champion_gate,
    coverage_gate,
    coverage_of,
    seasons_of,
    slice_gate,
    slice_rates,
)
from pumpdeck_trainer.gates import backtest_gate
from pumpdeck_trainer.judging import Contest, Judged
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.spec import GateThresholds, default_pipeline
from pumpdeck_trainer.trained import TrainedPump
from support.pump_rows import PUMP_TYPE, START_MS

THRESHOLDS = GateThresholds()
LIMIT = FittedLimit(4.0, LimitBranch.DAILY, False, 30, 86400.0, 3.0, 0.3, 1.0, 1.0)
END_MS = START_MS + 30 * DAY_MS
SPEC = default_pipeline(PUMP_TYPE)


def pump(name: str, alarms: int = 0, contest: Contest | None = None, hits: tuple[bool, ...] = ()) -> TrainedPump:
    spans = tuple((END_MS - (place + 1) * DAY_MS // 2, END_MS - place * DAY_MS // 2) for place in range(alarms))
    judged = Judged(spans, 30.0, alarms, 7.5, len(hits), sum(hits), ("bearing",) * len(hits), hits, contest)
    return TrainedPump(name, b"", b"", LIMIT, 4320, 4320, {}, alarms, judged, END_MS, {})


def against(mine: int, theirs: int, **more: object) -> Contest:
    return replace(Contest(mine, theirs, 7.5, 0.0, ()), **more)  # type: ignore[arg-type]


def place(site: str = "gannet", **more: object) -> PumpPlace:
    return replace(PumpPlace(site, "acme", "X1", 3, 57.0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mine", "theirs", "verdict"),
    [
        (0, 0, GateVerdict.PASS),
        (2, 0, GateVerdict.PASS),
        (20, 20, GateVerdict.PASS),
        (16, 10, GateVerdict.WARN),
        (30, 10, GateVerdict.REFUSE),
        (0, 30, GateVerdict.PASS),
    ],
)
def test_the_champion_is_beaten_by_margin_and_not_by_chance(mine: int, theirs: int, verdict: GateVerdict) -> None:
    found = champion_gate([pump("a", contest=against(mine, theirs)), pump("b", contest=against(0, 0))], 3, THRESHOLDS)
    assert found.verdict is verdict, found.reason
    assert ("too few alarms to tell" in found.reason) == (mine + theirs < 6)


@pytest.mark.parametrize(("lost", "verdict"), [(0, GateVerdict.PASS), (1, GateVerdict.WARN), (5, GateVerdict.REFUSE)])
def test_faults_that_only_the_champion_met_speak_against_the_candidate(lost: int, verdict: GateVerdict) -> None:
    pumps = [pump(str(n), contest=against(0, 0, hits=(True,)), hits=(n >= lost,)) for n in range(6)]
    assert champion_gate(pumps, 3, THRESHOLDS).verdict is verdict


def test_what_the_champion_has_learned_from_is_said() -> None:
    found = champion_gate([pump("a", contest=against(1, 1, seen_days=3.75))], 3, THRESHOLDS)
    assert "the champion has learned from 50 % of these days" in found.reason


def test_a_site_that_fares_worse_than_under_the_champion_is_refused_though_the_whole_is_better() -> None:
    good = [pump(f"n{n}", contest=against(0, 3)) for n in range(20)]
    bad = [pump(f"s{n}", contest=against(5, 1)) for n in range(4)]
    places = {one.pump: place("north" if one.pump[0] == "n" else "south") for one in (*good, *bad)}
    assert champion_gate([*good, *bad], 3, THRESHOLDS).verdict is GateVerdict.PASS
    rates = slice_rates([*good, *bad], places)
    found = slice_gate(rates, has_champion=True, thresholds=THRESHOLDS)
    assert found.verdict is GateVerdict.REFUSE
    assert "site south: 20 against 4 a pump and month" in found.reason
    assert "north" not in found.reason


def test_a_slice_too_small_to_tell_is_counted_and_not_judged() -> None:
    pumps = [pump(f"n{n}", contest=against(1, 1)) for n in range(20)] + [
        pump(f"s{n}", contest=against(1, 0)) for n in range(2)
    ]
    places = {one.pump: place("north" if one.pump[0] == "n" else "south") for one in pumps}
    found = slice_gate(slice_rates(pumps, places), has_champion=True, thresholds=THRESHOLDS)
    assert (found.verdict, found.reason.rsplit("; ", 1)[1]) == (GateVerdict.PASS, "1 too small to tell")


def test_without_a_champion_a_slice_is_held_against_the_other_pumps_and_only_warned_of() -> None:
    pumps = [pump(f"n{n}", 0) for n in range(20)] + [pump(f"s{n}", 4) for n in range(3)]
    places = {one.pump: place("north" if one.pump[0] == "n" else "south") for one in pumps}
    rates = slice_rates(pumps, places)
    found = slice_gate(rates, has_champion=False, thresholds=THRESHOLDS)
    assert found.verdict is GateVerdict.WARN and "site south: 4 against 0" in found.reason
    # All pumps are of one maker, model and criticality: there is no rest to hold these slices against.
    assert "1 of 2 slices" in found.reason


def test_chance_alone_rarely_condemns_a_slice() -> None:
    """Twenty equal sites, drawn 200 times: as often as the gate's one in twenty, and no more."""
    import numpy as np

    rng = np.random.default_rng(4)
    names = [f"{site}-{n}" for site in range(20) for n in range(10)]
    places = {name: place(f"s{name.split('-')[0]}") for name in names}
    condemned = 0
    for _ in range(200):
        drawn = rng.poisson(0.5, (len(names), 2)).tolist()
        pumps = [pump(name, contest=against(*pair)) for name, pair in zip(names, drawn, strict=True)]
        gate = slice_gate(slice_rates(pumps, places), has_champion=True, thresholds=THRESHOLDS)
        condemned += gate.verdict is GateVerdict.REFUSE
    assert condemned <= 10


def test_pumps_beyond_their_budget_are_named_and_a_few_are_not_refused() -> None:
    healthy = [pump(f"h{n}", 1) for n in range(8)]
    found = backtest_gate([*healthy, pump("site/P-9", 6)], SPEC)
    assert (found.verdict, found.figure) == (GateVerdict.WARN, round(1 / 9, 6))
    assert "1 of 9 pumps beyond their budget in the last 30 days: site/P-9 (6)" in found.reason
    assert backtest_gate(healthy, SPEC).verdict is GateVerdict.PASS
    assert backtest_gate([pump("a", 6), pump("b", 6)], SPEC).verdict is GateVerdict.WARN
    assert backtest_gate([pump(name, 6) for name in "abc"], SPEC).verdict is GateVerdict.REFUSE


def test_alarms_before_the_last_30_days_do_not_count() -> None:
    old = pump("old", 6)
    judged = replace(old.judged, alarms=tuple((one - 40 * DAY_MS, None) for one, _ in old.judged.alarms), days=90.0)
    assert backtest_gate([replace(old, judged=judged)], SPEC).verdict is GateVerdict.PASS


def test_coverage_says_what_the_data_holds_and_lacks() -> None:
    fleet = {f"p{n}": place("gannet" if n < 9 else "heron", maker="acme" if n < 9 else "bolt") for n in range(10)}
    thin = Regime("speed_rpm", "rpm", "low", 1000.0, 2000.0, 0.001, 1)
    found = coverage_of([pump(f"p{n}") for n in range(9)], fleet, (START_MS, END_MS), ((thin,), 0.01))
    gate = coverage_gate(found, THRESHOLDS)
    assert (gate.verdict, gate.figure) == (GateVerdict.WARN, 0.9)
    assert "9 of 10 pumps" in gate.reason and "sites without any data: heron" in gate.reason
    assert "makers without any data: bolt" in gate.reason and "speed_rpm 1000-2000 rpm (0.1%)" in gate.reason
    assert "seasons held: autumn, lacking: winter, spring, summer" in gate.reason
    whole = coverage_of([pump(f"p{n}") for n in range(10)], fleet, (START_MS, END_MS), ((), 0.01))
    assert coverage_gate(whole, THRESHOLDS).verdict is GateVerdict.PASS
    assert coverage_gate(whole, replace(THRESHOLDS, coverage_seasons_warn=2)).verdict is GateVerdict.WARN
    assert coverage_gate(found, replace(THRESHOLDS, coverage_pumps_refuse=0.95)).verdict is GateVerdict.REFUSE


def test_seasons_follow_the_hemisphere() -> None:
    january = (1_767_225_600_000, 1_767_225_600_000 + 30 * DAY_MS)
    assert seasons_of(january, 57.0) == {"winter"} == seasons_of(january, None)
    assert seasons_of(january, -20.0) == {"summer"}
    assert seasons_of((january[0], january[0] + 364 * DAY_MS), 57.0) == {"winter", "spring", "summer", "autumn"}
