"""The simulated pumps obey the laws they claim to, show their faults, and depend on nothing but their seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_sample import hydraulics
from pumpdeck_sample.channels import CHANNELS, PumpType, channel_names
from pumpdeck_sample.climate import Climate
from pumpdeck_sample.faults import FAULT_CODES, PUMP_FAULTS, Fault, FaultKind, ProcessDrift, Scenario
from pumpdeck_sample.machines import draw_machines
from pumpdeck_sample.physics import FleetSimulator, PumpToSimulate, SimulatedRows
from pumpdeck_sample.seeds import Chance

START_MS = 1_760_000_040_000
CLIMATE = Climate(mean_c=10.0, seasonal_c=3.0, daily_c=3.0, weather_sd_c=0.5, utc_offset_h=0.0)
PUMPS = [
    PumpToSimulate(f"s{number % 2}/P-{number}", f"s{number % 2}", pump_type)
    for number, pump_type in enumerate(list(PumpType) * 2)
]


def minutes(count: int, start_ms: int = START_MS) -> np.ndarray:
    return start_ms + np.arange(1, count + 1, dtype=np.int64) * MINUTE_MS


def simulate(pumps=PUMPS, scenario=Scenario(), seed=5, at_ms=None) -> dict[PumpType, SimulatedRows]:  # noqa: B008
    simulator = FleetSimulator(pumps, {"s0": CLIMATE, "s1": CLIMATE}, scenario, Chance(seed))
    return {rows.pump_type: rows for rows in simulator.advance(minutes(1440) if at_ms is None else at_ms)}


def channel(rows: SimulatedRows, name: str) -> np.ndarray:
    return rows.values[rows.channels.index(name)].astype(np.float64)


def digest(rows: dict[PumpType, SimulatedRows]) -> str:
    found = hashlib.sha256()
    for of_type in rows.values():
        found.update(of_type.values.tobytes())
        found.update(of_type.truth.tobytes())
    return found.hexdigest()


def test_flow_head_and_power_follow_the_affinity_laws_on_a_line_without_static_head() -> None:
    speed = np.linspace(0.6, 1.2, 40, dtype=np.float32)[:, None]
    one, none = np.ones_like(speed), np.zeros_like(speed)
    flow = hydraulics.operating_flow(speed, one, none, one)
    head = hydraulics.head_of(flow, speed, one)
    power = hydraulics.shaft_power(flow, head, one, hydraulics.efficiency_of(flow, speed))
    for quantity, exponent in ((flow, 1.0), (head, 2.0), (power, 3.0)):
        slope = np.polyfit(np.log(speed[:, 0]), np.log(quantity[:, 0]), 1)[0]
        assert slope == pytest.approx(exponent, abs=1e-3)


def test_the_affinity_exponents_are_recovered_from_simulated_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression on rows of pumps whose speed is swept and whose lines have no static head; sensors are as noisy as ever."""
    from pumpdeck_sample import physics

    monkeypatch.setattr(physics, "_SD", (0.12, 0.0, 0.0, 0.0))
    pumps = [PumpToSimulate(f"s0/P-{number}", "s0", PumpType.EXPORT) for number in range(4)]
    simulator = FleetSimulator(pumps, {"s0": CLIMATE}, Scenario(), Chance(5))
    machines = simulator._groups[0]._machines
    machines.static_share[:] = 0.0
    (rows,) = simulator.advance(minutes(4000))
    speed = np.log(channel(rows, "speed_rpm"))
    lift = channel(rows, "discharge_pressure_bar") - channel(rows, "suction_pressure_bar")
    for values, exponent in ((channel(rows, "flow_m3_h"), 1.0), (lift, 2.0)):
        slopes = [np.polyfit(s, np.log(v), 1)[0] for s, v in zip(speed, values, strict=True)]
        assert slopes == pytest.approx([exponent] * 4, abs=0.02)


def test_a_pump_that_cannot_lift_the_static_head_moves_nothing() -> None:
    slow, one = np.full((1, 1), 0.3, np.float32), np.ones((1, 1), np.float32)
    assert hydraulics.operating_flow(slow, one, 0.6 * one, one)[0, 0] == 0.0


def test_more_is_put_in_than_comes_out_and_heat_flows_outwards() -> None:
    pumps = [PumpToSimulate(f"s0/P-{number}", "s0", PumpType.INJECTION) for number in range(20)]
    rows = simulate(pumps)[PumpType.INJECTION]
    machines = draw_machines(PumpType.INJECTION, [(pump.pump_id, 1) for pump in pumps], Chance(5))
    warmest_around = 0.3 * 20.0 + 0.7 * machines.fluid_c
    assert (channel(rows, "bearing_temperature_c").mean(axis=1) > warmest_around).all()
    assert (channel(rows, "motor_temperature_c").mean(axis=1) > warmest_around).all()
    speed = np.ones((1, 1), np.float32)
    efficiency = hydraulics.efficiency_of(0.7 * speed, speed)
    assert hydraulics.shaft_power(speed, speed, speed, efficiency)[0, 0] > 1.0
    # A current grows with the load, and with it the motor's temperature, an hour behind.
    assert np.corrcoef(channel(rows, "flow_m3_h")[0], channel(rows, "motor_current_a")[0])[0, 1] > 0.2


def test_a_progressive_cavity_pump_turns_hydraulic_power_into_torque() -> None:
    pumps = [PumpToSimulate(f"s0/C-{number}", "s0", PumpType.PCP) for number in range(20)]
    rows = simulate(pumps)[PumpType.PCP]
    lift_pa = (channel(rows, "discharge_pressure_bar") - channel(rows, "intake_pressure_bar")) * 1e5
    hydraulic_w = channel(rows, "flow_m3_h") / 3600.0 * lift_pa
    shaft_w = channel(rows, "torque_n_m") * channel(rows, "speed_rpm") * 2.0 * np.pi / 60.0
    share = (hydraulic_w / shaft_w).mean(axis=1)
    assert (share > 0.5).all()
    assert (share < 1.0).all()


SIGNATURES = [
    (PumpType.EXPORT, FaultKind.BEARING_WEAR, "bearing_temperature_c", +1),
    (PumpType.EXPORT, FaultKind.BEARING_WEAR, "vibration_mm_s", +1),
    (PumpType.ESP, FaultKind.BEARING_WEAR, "vibration_mm_s", +1),
    (PumpType.INJECTION, FaultKind.IMBALANCE, "vibration_mm_s", +1),
    (PumpType.EXPORT, FaultKind.CAVITATION, "suction_pressure_bar", -1),
    (PumpType.EXPORT, FaultKind.CAVITATION, "vibration_mm_s", +1),
    (PumpType.INJECTION, FaultKind.IMPELLER_WEAR, "discharge_pressure_bar", -1),
    (PumpType.ESP, FaultKind.IMPELLER_WEAR, "flow_m3_h", -1),
    (PumpType.EXPORT, FaultKind.SEAL_LEAK, "seal_leak_l_h", +1),
    (PumpType.ESP, FaultKind.SEAL_LEAK, "leakage_current_ma", +1),
    (PumpType.PCP, FaultKind.STATOR_WEAR, "flow_m3_h", -1),
    (PumpType.PCP, FaultKind.BEARING_WEAR, "bearing_temperature_c", +1),
    (PumpType.ESP, FaultKind.MOTOR_OVERHEATING, "motor_temperature_c", +1),
    (PumpType.INJECTION, FaultKind.MOTOR_OVERHEATING, "motor_temperature_c", +1),
]


@pytest.mark.parametrize(("pump_type", "kind", "name", "sign"), SIGNATURES)
def test_a_fault_moves_its_channels_the_right_way_and_only_after_its_onset(pump_type, kind, name, sign) -> None:
    pump = next(pump for pump in PUMPS if pump.pump_type is pump_type)
    onset = START_MS + 12 * HOUR_MS
    fault = Fault(pump.pump_id, kind, onset, ramp_s=3600.0, severity=0.8)
    well, ill = simulate()[pump_type], simulate(scenario=Scenario((fault,)))[pump_type]
    row = well.pump_ids.index(pump.pump_id)
    difference = channel(ill, name)[row] - channel(well, name)[row]
    spread = channel(well, name)[row].std()
    after = well.at_ms >= onset + 3 * HOUR_MS
    assert (difference[well.at_ms < onset] == 0.0).all()
    assert sign * difference[after].mean() > 1.5 * spread
    assert (ill.truth[row] == np.where(well.at_ms >= onset, FAULT_CODES[kind], 0)).all()
    others = [index for index in range(len(well.pump_ids)) if index != row]
    assert (ill.values[:, others] == well.values[:, others]).all()


def test_every_fault_kind_of_every_type_shows() -> None:
    for pump_type, kinds in PUMP_FAULTS.items():
        pump = next(pump for pump in PUMPS if pump.pump_type is pump_type)
        well = simulate()[pump_type]
        for kind in kinds:
            fault = Fault(pump.pump_id, kind, START_MS + 6 * HOUR_MS, 3600.0, 0.8)
            ill = simulate(scenario=Scenario((fault,)))[pump_type]
            row = well.pump_ids.index(pump.pump_id)
            late = well.at_ms > START_MS + 12 * HOUR_MS
            shift = ill.values[:, row, late].mean(axis=1) - well.values[:, row, late].mean(axis=1)
            assert (np.abs(shift) / well.values[:, row].std(axis=1)).max() > 2.0, (pump_type, kind)


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind.is_sensor_fault])
def test_a_sensor_fault_spoils_its_channel_and_no_other(kind: FaultKind) -> None:
    pump = PUMPS[1]
    onset = START_MS + 12 * HOUR_MS
    fault = Fault(pump.pump_id, kind, onset, 3600.0, 0.8, channel="flow_m3_h")
    well, ill = simulate()[pump.pump_type], simulate(scenario=Scenario((fault,)))[pump.pump_type]
    row, column = well.pump_ids.index(pump.pump_id), well.channels.index("flow_m3_h")
    before, late = well.at_ms < onset, well.at_ms > onset + 2 * HOUR_MS
    readings, true = ill.values[column, row], well.values[column, row]
    assert (readings[before] == true[before]).all()
    match kind:
        case FaultKind.SENSOR_STUCK:
            assert np.unique(readings[~before]).size == 1
        case FaultKind.SENSOR_DRIFT:
            assert (readings[late] - true[late]).min() > 5 * true.std()
        case FaultKind.SENSOR_SPIKES:
            assert 0.01 < (readings[late] > true.max() * 1.1).mean() < 0.1
        case FaultKind.SENSOR_DROPOUT:
            assert 0.2 < np.isnan(readings[late]).mean() < 0.6
    other_columns = [index for index in range(len(well.channels)) if index != column]
    assert (ill.values[other_columns] == well.values[other_columns]).all()


def test_a_declining_process_moves_the_inlet_pressure_and_is_no_fault() -> None:
    pump = PUMPS[0]
    scenario = Scenario(drifts=(ProcessDrift(pump.pump_id, START_MS, 0.1),))
    well, drifted = simulate()[PumpType.ESP], simulate(scenario=scenario)[PumpType.ESP]
    row = well.pump_ids.index(pump.pump_id)
    shift = channel(drifted, "intake_pressure_bar")[row] / channel(well, "intake_pressure_bar")[row]
    assert shift[-60:].mean() == pytest.approx(0.9, abs=0.01)
    assert (drifted.truth == 0).all()


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_another_seed_does_not() -> None:
    here = digest(simulate())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib.util as u\n"
        "spec = u.spec_from_file_location('t', sys.argv[2]); m = u.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "print(m.digest(m.simulate()))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, "tests", __file__], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert there == here
    assert digest(simulate(seed=6)) != here


def test_rows_do_not_depend_on_how_the_times_are_cut() -> None:
    faults = tuple(
        Fault(PUMPS[number].pump_id, kind, START_MS + 3 * HOUR_MS, 3600.0, 0.7, channel="flow_m3_h")
        for number, kind in enumerate(kind for kind in FaultKind if kind.is_sensor_fault)
    )
    at_ms = minutes(400)
    whole = simulate(scenario=Scenario(faults), at_ms=at_ms)
    simulator = FleetSimulator(PUMPS, {"s0": CLIMATE, "s1": CLIMATE}, Scenario(faults), Chance(5))
    pieces = [simulator.advance(piece) for piece in np.split(at_ms, [1, 2, 50, 199, 399])]
    for index, pump_type in enumerate(whole):
        joined = np.concatenate([piece[index].values for piece in pieces], axis=2)
        np.testing.assert_array_equal(joined, whole[pump_type].values)


def test_a_pump_reads_the_same_alone_as_in_its_fleet() -> None:
    fleet = simulate()
    for pump in PUMPS:
        alone = simulate([pump])[pump.pump_type]
        together = fleet[pump.pump_type]
        row = together.pump_ids.index(pump.pump_id)
        np.testing.assert_array_equal(alone.values[:, 0], together.values[:, row])


def test_readings_stand_on_the_sensors_steps_and_in_its_range() -> None:
    coarse = [PumpToSimulate(f"s0/P-{pump_type}", "s0", pump_type, coarseness=5) for pump_type in PumpType]
    for pump_type, rows in simulate(coarse).items():
        machines = draw_machines(pump_type, [(f"s0/P-{pump_type}", 5)], Chance(5))
        for column, spec in enumerate(CHANNELS[pump_type]):
            steps = rows.values[column, 0].astype(np.float64) * float(machines.steps_per_unit[column, 0])
            assert np.abs(steps - np.rint(steps)).max() < 0.02, spec.name
            assert rows.values[column].min() >= spec.low
            assert rows.values[column].max() <= spec.high


def test_every_type_has_eight_channels_with_their_units_in_the_name() -> None:
    for pump_type in PumpType:
        names = channel_names(pump_type)
        assert len(names) == len(set(names)) == 8
    assert simulate()[PumpType.PCP].channels == channel_names(PumpType.PCP)


def test_air_temperature_follows_the_day_and_the_season() -> None:
    pumps = [PumpToSimulate("s0/P-1", "s0", PumpType.EXPORT)]
    calm = Climate(mean_c=10.0, seasonal_c=10.0, daily_c=8.0, weather_sd_c=0.0, utc_offset_h=0.0)
    at_ms = 1_735_689_600_000 + np.arange(365 * 24, dtype=np.int64) * HOUR_MS
    (rows,) = FleetSimulator(pumps, {"s0": calm}, Scenario(), Chance(5)).advance(at_ms)
    bearing = channel(rows, "bearing_temperature_c")[0]
    by_hour = bearing.reshape(-1, 24).mean(axis=0)
    assert int(by_hour.argmax()) in (14, 15, 16, 17)
    assert bearing[180 * 24 : 200 * 24].mean() - bearing[: 20 * 24].mean() == pytest.approx(6.0, abs=1.0)


def test_time_must_grow() -> None:
    simulator = FleetSimulator(PUMPS, {"s0": CLIMATE, "s1": CLIMATE}, Scenario(), Chance(5))
    simulator.advance(minutes(3))
    with pytest.raises(ValueError, match="grow"):
        simulator.advance(minutes(1))
    assert simulator.advance(minutes(1, START_MS + DAY_MS))[0].at_ms.size == 1
