"""What a baseline that follows further would buy and what it would hide: `AlarmSettings.follow` of 1, 2 and 3 limits.

    python tests/bench/creeping.py [--json] [--quick]

The simulator of `budget.py`. Bought: alarms of healthy pumps whose process falls by 0.2 % of rated a day, against the
budget, and the drift index at the end of the month, which is measured from the fixed reference. Hidden: faults that take
thirty days to grow to full strength, begun on the day after training; told are the share found in the month and the day
from which the alarm stands (half of the following day at least), by kind of fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_fleet.numeric.alarm import AlarmTrace, AlarmTracker, alarm_spans
from pumpdeck_fleet.numeric.detectors import PumpBlock, score_rows
from pumpdeck_fleet.numeric.features import window_means
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_sample.faults import PUMP_FAULTS, Fault, FaultKind, ProcessDrift, PumpType, Scenario
from pumpdeck_sample.fleet import FleetSize, build_fleet, climates_of, pumps_to_simulate
from pumpdeck_sample.physics import FleetSimulator
from pumpdeck_sample.seeds import Chance
from pumpdeck_trainer.learning import PumpRows, inputs_of, learn, own_limit
from pumpdeck_trainer.limits import pool_limit
from pumpdeck_trainer.source import clean
from pumpdeck_trainer.spec import PipelineSpec, default_pipeline

START_MS = 1_760_054_400_000  # 2025-10-10T00:00:00Z
DAYS = 30
STEP_MS = 600_000
ROWS_A_DAY = DAY_MS // STEP_MS
SEED = 5
FOLLOWS = (1.0, 2.0, 3.0)
CREEPING = (FaultKind.BEARING_WEAR, FaultKind.IMPELLER_WEAR, FaultKind.SEAL_LEAK, FaultKind.STATOR_WEAR)
FALL_PER_DAY = 0.002
Traces = dict[str, dict[float, tuple[AlarmTrace, float]]]
"""By pump and `follow`: the month after training, and the pump's limit."""


def simulate(fleet: Fleet, scenario: Scenario) -> dict[str, dict[str, TelemetryFrame]]:
    """Sixty days of rows by pump type and pump."""
    climates = climates_of([site.id for site in fleet.sites])
    simulator = FleetSimulator(pumps_to_simulate(fleet.pumps), climates, scenario, Chance(SEED))
    at_ms = START_MS + np.arange(1, 2 * DAYS * ROWS_A_DAY + 1, dtype=np.int64) * STEP_MS
    flags = np.zeros(len(at_ms), np.uint16)
    return {
        rows.pump_type.value: {
            pump: TelemetryFrame(rows.channels, at_ms, np.ascontiguousarray(rows.values[:, place].T), flags)
            for place, pump in enumerate(rows.pump_ids)
        }
        for rows in simulator.advance(at_ms)
    }


def judged(fleet: Fleet, scenario: Scenario) -> Traces:
    """Train on the first thirty days and judge the next under each `follow`."""
    found: Traces = {}
    for pump_type, frames in simulate(fleet, scenario).items():
        spec = replace(default_pipeline(fleet.pump_types[pump_type]), holdout=0.0)
        chosen = {pump: frame.select(spec.features.channels) for pump, frame in frames.items()}
        first = slice(0, DAYS * ROWS_A_DAY)
        fits = {pump: learn(PumpRows(clean(frame.take(first), []), spec), spec).fit for pump, frame in chosen.items()}
        pooled = pool_limit([one.maxima for one in fits.values()], spec.blocks, spec.budget)
        for pump, fit in fits.items():
            block = fit.block(inputs_of(spec), own_limit(fit.maxima, pooled, spec), shipped=True)
            found[pump] = {follow: (_month(chosen[pump], block, spec, follow), block.limit) for follow in FOLLOWS}
    return found


def _month(frame: TelemetryFrame, block: PumpBlock, spec: PipelineSpec, follow: float) -> AlarmTrace:
    features, _ = window_means(frame.at_ms, frame.values, spec.features.window_ms)
    later = slice(DAYS * ROWS_A_DAY, None)
    tracker = AlarmTracker(block, replace(spec.alarm, follow=follow))
    return tracker.extend(frame.at_ms[later], features[later], lambda rows: score_rows(block, rows))


def standing_day(trace: AlarmTrace) -> float:
    """The day from which the pump is in alarm for half of the following day; NaN: never."""
    starts = range(0, len(trace.alarmed) - ROWS_A_DAY, ROWS_A_DAY // 4)
    return next((at / ROWS_A_DAY for at in starts if trace.alarmed[at : at + ROWS_A_DAY].mean() > 0.5), float("nan"))


def bought(fleet: Fleet) -> dict[str, float]:
    """Healthy pumps on a process that falls fast."""
    drifts = tuple(ProcessDrift(pump.id, START_MS, FALL_PER_DAY) for pump in fleet.pumps)
    found, figures = judged(fleet, Scenario(drifts=drifts)), {}
    for follow in FOLLOWS:
        months = [by[follow] for by in found.values()]
        alarms = [len(alarm_spans(trace.at_ms, trace.alarmed)) for trace, _ in months]
        ends = [float(trace.drift_index[-1]) / limit for trace, limit in months]
        figures[f"realised_vs_asked_beyond_follow_{follow:g}"] = round(float(np.mean(alarms)), 3)
        figures[f"drift_index_in_limits_follow_{follow:g}"] = round(float(np.median(ends)), 2)
    return figures


def hidden(fleet: Fleet) -> dict[str, float]:
    """Pumps with faults that creep."""
    onset_ms, kinds = START_MS + DAYS * DAY_MS, {}
    for place, pump in enumerate(fleet.pumps):
        shown = [kind for kind in CREEPING if kind in PUMP_FAULTS[PumpType(pump.type)]]
        kinds[pump.id] = shown[place % len(shown)]
    faults = tuple(Fault(pump, kind, onset_ms, DAYS * DAY_MS / 1000, 1.0) for pump, kind in kinds.items())
    found, figures = judged(fleet, Scenario(faults=faults)), {}
    for kind in CREEPING:
        for follow in FOLLOWS:
            days = np.array([standing_day(by[follow][0]) for pump, by in found.items() if kinds[pump] is kind])
            if np.isfinite(days).any():
                figures[f"{kind.value}_found_follow_{follow:g}"] = round(float(np.isfinite(days).mean()), 3)
                figures[f"{kind.value}_day_follow_{follow:g}"] = round(float(np.nanmedian(days)), 1)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what a baseline that follows further buys and hides")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="24 pumps instead of 120")
    arguments = parser.parse_args(argv)
    size = FleetSize(6, 1, 4) if arguments.quick else FleetSize(12, 2, 5)
    fleet = build_fleet(size, SEED, architecture="x86_64", os_name="linux")
    figures = {**bought(fleet), **hidden(fleet)}
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:40} {one:>8}" for name, one in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
