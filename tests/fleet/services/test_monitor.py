"""Drift of the fleet from device sketches: the published PSI, recomputed here by other code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.drift import DriftRules
from pumpdeck_fleet.services.monitor import judge_drift, store_drift
from support.drifting import CHANNELS, add_references, edges_of, put_sketch, rows_of, with_channels
from support.fake_devices import T0, make_fleet
from support.workspaces import Yard, make_yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = make_yard(tmp_path, fleet=with_channels(make_fleet(2)))
    add_references(made)
    yield made
    made.store.close()


def psi_by_hand(reference: np.ndarray, current: np.ndarray, cuts: np.ndarray) -> float:
    """The definition of Siddiqi and Yurdakul: right-closed deciles, floor 1e-4."""

    def shares(values: np.ndarray) -> np.ndarray:
        counts = [((values > low) & (values <= high)).sum() for low, high in pairwise(cuts)]
        return np.maximum(np.array(counts) / len(values), 1e-4)

    p, q = shares(current), shares(reference)
    return float(((p - q) * np.log(p / q)).sum())


def test_drift_is_psi_as_published(yard: Yard) -> None:
    pump = yard.fleet.pumps[0].id
    put_sketch(yard, pump, shift=1.0)
    (report,) = judge_drift(yard.store, yard.artifacts, yard.fleet).reports
    edges = edges_of(pump)
    for place, name in enumerate(CHANNELS):
        cuts = edges.edges[place].cuts
        lines = np.ldexp(np.array(cuts.decile_cuts, np.float64), cuts.exponent)
        by_hand = psi_by_hand(
            rows_of(pump, 3000, day=99)[:, place].astype(np.float64),
            rows_of(pump, 1440, 1.0)[:, place].astype(np.float64),
            np.array([-np.inf, *lines, np.inf]),
        )
        assert report.psi_by_channel[name] == pytest.approx(by_hand, abs=1e-9)
    assert report.worst_channel == "vibration_mm_s"
    assert report.worst > 0.5
    assert max(report.psi_by_channel[name] for name in ("flow_m3_h", "bearing_temperature_c")) < 0.1


def test_days_of_the_window_are_merged_and_older_ones_are_not(yard: Yard) -> None:
    pump = yard.fleet.pumps[0].id
    put_sketch(yard, pump, shift=3.0, day=0)
    put_sketch(yard, pump, day=8)
    put_sketch(yard, pump, day=9)
    (report,) = judge_drift(yard.store, yard.artifacts, yard.fleet).reports
    assert (report.rows, report.start_ms) == (2880, T0 + 8 * DAY_MS)
    assert report.worst < 0.1
    (report,) = judge_drift(yard.store, yard.artifacts, yard.fleet, DriftRules(window_ms=30 * DAY_MS)).reports
    assert report.rows == 4320


def test_few_rows_say_nothing_and_say_so(yard: Yard) -> None:
    pump = yard.fleet.pumps[0].id
    put_sketch(yard, pump, count=99)
    summary = judge_drift(yard.store, yard.artifacts, yard.fleet)
    assert summary.reports == ()
    assert summary.skipped == {pump: "only 99 rows in the current window, 100 needed"}


def test_a_sketch_on_unknown_edges_is_skipped_with_the_reason(yard: Yard) -> None:
    good, bad = yard.fleet.pumps[0].id, yard.fleet.pumps[1].id
    put_sketch(yard, good)
    data = put_sketch(yard, bad)
    with yard.store.atomic() as store:
        store.sketches.put(bad, T0 + DAY_MS, "f" * 16, b"PDS1" + b"\xff" * 8 + data[12:])
    summary = judge_drift(yard.store, yard.artifacts, yard.fleet)
    assert [report.pump for report in summary.reports] == [good]
    assert "reference edges" in summary.skipped[bad]


def test_a_damaged_sketch_or_artifact_spoils_its_own_pump_only(yard: Yard) -> None:
    one, two, three = (pump.id for pump in yard.fleet.pumps[:3])
    put_sketch(yard, one)
    data = put_sketch(yard, two)
    put_sketch(yard, three)
    with yard.store.atomic() as store:
        store.sketches.put(two, T0, data[4:12].hex(), data[:-9])
    digest = next(p.edges_digest for p in yard.store.registry.versions("esp-health")[-1].pumps if p.pump == three)
    path = yard.artifacts.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"nonsense")
    summary = judge_drift(yard.store, yard.artifacts, yard.fleet)
    assert [report.pump for report in summary.reports] == [one]
    assert set(summary.skipped) == {two, three}


def test_judging_the_same_sketches_again_changes_nothing(yard: Yard) -> None:
    for pump in yard.fleet.pumps:
        put_sketch(yard, pump.id)
    summary = judge_drift(yard.store, yard.artifacts, yard.fleet)
    assert store_drift(yard.store, summary) == 4
    head = yard.store.audit.head()
    assert store_drift(yard.store, judge_drift(yard.store, yard.artifacts, yard.fleet)) == 0
    assert yard.store.audit.head() == head
    latest = yard.store.drift.latest()
    assert {row.pump: row.worst for row in latest.values()} == {one.pump: one.worst for one in summary.reports}
    put_sketch(yard, yard.fleet.pumps[0].id, shift=2.0, day=1)
    assert store_drift(yard.store, judge_drift(yard.store, yard.artifacts, yard.fleet)) == 1


def test_the_channels_may_be_fewer_than_the_pump_type_has(yard: Yard) -> None:
    pump = yard.fleet.pumps[0].id
    put_sketch(yard, pump)
    summary = judge_drift(yard.store, yard.artifacts, yard.fleet, channels_of=lambda _pump: CHANNELS[:2])
    assert "for these channels" in summary.skipped[pump]
    assert judge_drift(yard.store, yard.artifacts, yard.fleet, channels_of=lambda _pump: CHANNELS).reports != ()
