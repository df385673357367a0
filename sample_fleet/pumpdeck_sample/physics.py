"""The seeded physics of pumps: from demand and weather to the rows a device would read.

All pumps of one type are stepped together, vectorised over time and pumps. A pump's rows depend on the seed, the pump, its
faults and the times asked for, not on which other pumps are simulated or on how the times are cut into calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import hydraulics
from .channels import CHANNELS, PumpType, channel_names
from .climate import Climate, SiteConditions, SiteProcesses
from .faults import FAULT_CODES, Fault, FaultKind, Scenario
from .machines import Machines, draw_machines
from .processes import F32, F64, I64, disturb, lag, steps_s
from .seeds import Chance
from .sensors import SensorFault, bind_sensor_fault, read_sensor, spoil

U8 = npt.NDArray[np.uint8]

# Disturbances of each pump: correlation time in seconds and standard deviation, relative to rated.
_SPEED, _RESISTANCE, _SUCTION, _DENSITY = range(4)
_TAU_S = np.array([1200.0, 900.0, 1500.0, 3600.0])
_SD = (0.002, 0.008, 0.008, 0.002)
_BEARING, _MOTOR = range(2)
_HEAT_TAU_S = np.array([1500.0, 2700.0])
_NONE = np.zeros((1, 1), dtype=np.float32)


@dataclass(frozen=True)
class PumpToSimulate:
    """One pump: its id, site and type; coarseness divides its sensors' resolution (a power of ten keeps decimals short)."""

    pump_id: str
    site_id: str
    pump_type: PumpType
    coarseness: int = 1


@dataclass(frozen=True)
class SimulatedRows:
    """Rows of n pumps of one type over T times, with the truth beside them.

    `values` is float32[channels, n, T] (NaN = the reading never came), `truth` is uint8[n, T]: 0 or the code of the fault in
    FAULT_CODES, the latest fault winning.
    """

    pump_type: PumpType
    pump_ids: tuple[str, ...]
    channels: tuple[str, ...]
    at_ms: I64
    values: F32
    truth: U8


class FleetSimulator:
    """Pumps of all types at several sites, advanced together in time."""

    def __init__(
        self, pumps: Sequence[PumpToSimulate], climates: Mapping[str, Climate], scenario: Scenario, chance: Chance
    ) -> None:
        site_ids = sorted({pump.site_id for pump in pumps})
        self._sites = SiteProcesses([(site_id, climates[site_id]) for site_id in site_ids], chance)
        self._groups = [
            _TypeSimulator(
                pump_type, chosen, np.array([site_ids.index(pump.site_id) for pump in chosen]), scenario, chance
            )
            for pump_type in PumpType
            if (chosen := [pump for pump in pumps if pump.pump_type is pump_type])
        ]
        self._last_ms: int | None = None

    def advance(self, at_ms: I64) -> list[SimulatedRows]:
        """Rows at the strictly growing times `at_ms`, one entry per pump type.

        Raises:
            ValueError: the times do not grow, or do not come after the last ones.
        """
        if at_ms.size == 0:
            return []
        step_s = steps_s(at_ms, self._last_ms)
        if (step_s <= 0).any():
            raise ValueError("simulated times must grow")
        conditions = self._sites.advance(at_ms, step_s)
        self._last_ms = int(at_ms[-1])
        return [group.advance(at_ms, step_s, conditions) for group in self._groups]


@dataclass(frozen=True)
class _Drive:
    """What drives the pumps at each time, float32[T, n]: demand x disturbance, relative; air in degC."""

    speed: F32
    resistance: F32
    suction: F32
    density: F32
    air_c: F32


@dataclass(frozen=True)
class _Work:
    """What the pumps do at each time, float32[T, n], relative to rated; suction in bar."""

    flow: F32
    lift: F32
    load: F32
    torque: F32
    cavitation: F32
    suction_bar: F32


class _TypeSimulator:
    def __init__(
        self, pump_type: PumpType, pumps: Sequence[PumpToSimulate], sites: I64, scenario: Scenario, chance: Chance
    ) -> None:
        self._type = pump_type
        self._ids = tuple(pump.pump_id for pump in pumps)
        self._site_columns = sites
        self._machines = draw_machines(pump_type, [(pump.pump_id, pump.coarseness) for pump in pumps], chance)
        self._scenario = scenario.of_pumps(set(self._ids))
        self._sensor_faults = [
            self._bind(fault, chance) for fault in self._scenario.faults if fault.kind.is_sensor_fault
        ]
        self._streams = [chance.of_episode("pump", pump_id) for pump_id in self._ids]
        self._disturbance: F32 = np.zeros((_TAU_S.size, len(self._ids)), dtype=np.float32)
        self._heat: F32 | None = None

    def advance(self, at_ms: I64, step_s: F64, conditions: SiteConditions) -> SimulatedRows:
        specs = CHANNELS[self._type]
        process_count = _TAU_S.size
        draws = np.empty((len(self._ids), at_ms.size, process_count + len(specs)), dtype=np.float32)
        for stream, into in zip(self._streams, draws, strict=True):
            stream.standard_normal(dtype=np.float32, out=into)
        drive = self._drive(
            np.ascontiguousarray(draws[:, :, :process_count].transpose(1, 2, 0)), at_ms, step_s, conditions
        )
        severity = self._severity(at_ms)
        work = _work(self._type, self._machines, drive, severity)
        heat = _heat_targets(self._type, self._machines, drive, work, severity)
        self._heat = lag(heat, self._heat, step_s, _HEAT_TAU_S)
        true = _true_values(self._type, self._machines, drive, work, severity)
        true["bearing_temperature_c"], true["motor_temperature_c"] = heat[:, _BEARING], heat[:, _MOTOR]
        values = np.empty((len(specs), len(self._ids), at_ms.size), dtype=np.float32)
        for column, spec in enumerate(specs):
            noise = draws[:, :, process_count + column].T
            values[column] = read_sensor(true[spec.name], noise, spec, self._machines.steps_per_unit[column]).T
        for fault in self._sensor_faults:
            spoil(values[fault.channel, fault.pump], fault, at_ms)
        return SimulatedRows(self._type, self._ids, channel_names(self._type), at_ms, values, self._truth(at_ms))

    def _drive(self, processes: F32, at_ms: I64, step_s: F64, conditions: SiteConditions) -> _Drive:
        self._disturbance = disturb(processes, self._disturbance, step_s, _TAU_S)
        for column, sd in enumerate(_SD):
            processes[:, column] *= np.float32(sd)
            processes[:, column] += np.float32(1.0)
        for drift in self._scenario.drifts:
            processes[:, _SUCTION, self._ids.index(drift.pump_id)] *= drift.factor_at(at_ms)
        return _Drive(
            speed=processes[:, _SPEED] * conditions.demand[:, self._site_columns],
            resistance=processes[:, _RESISTANCE],
            suction=processes[:, _SUCTION],
            density=processes[:, _DENSITY],
            air_c=conditions.air_c[:, self._site_columns],
        )

    def _severity(self, at_ms: I64) -> dict[FaultKind, F32]:
        found: dict[FaultKind, F32] = {}
        for fault in self._scenario.faults:
            if fault.kind.is_sensor_fault or not (grown := fault.severity_at(at_ms)).any():
                continue
            of_kind = found.setdefault(fault.kind, np.zeros((at_ms.size, len(self._ids)), dtype=np.float32))
            column = of_kind[:, self._ids.index(fault.pump_id)]
            np.maximum(column, grown, out=column)
        return found

    def _bind(self, fault: Fault, chance: Chance) -> SensorFault:
        names = channel_names(self._type)
        channel, pump = names.index(fault.channel or ""), self._ids.index(fault.pump_id)
        rated = float(_rated_values(self._type, self._machines)[names[channel]][0, pump])
        return bind_sensor_fault(
            fault, channel, pump, (rated, 1.0 / float(self._machines.steps_per_unit[channel, pump])), chance
        )

    def _truth(self, at_ms: I64) -> U8:
        truth = np.zeros((len(self._ids), at_ms.size), dtype=np.uint8)
        for fault in sorted(self._scenario.faults, key=lambda fault: fault.onset_ms):
            truth[self._ids.index(fault.pump_id), fault.is_active(at_ms)] = FAULT_CODES[fault.kind]
        return truth


def _suction_bar(machines: Machines, drive: _Drive, severity: dict[FaultKind, F32]) -> F32:
    blocked = severity.get(FaultKind.CAVITATION, _NONE)
    return machines.suction_bar * drive.suction - 0.75 * blocked * (machines.suction_bar - machines.vapour_bar)


def _work(pump_type: PumpType, machines: Machines, drive: _Drive, severity: dict[FaultKind, F32]) -> _Work:
    if pump_type is PumpType.PCP:
        return _pcp_work(machines, drive, severity)
    return _centrifugal_work(machines, drive, severity)


def _centrifugal_work(machines: Machines, drive: _Drive, severity: dict[FaultKind, F32]) -> _Work:
    suction_bar = _suction_bar(machines, drive, severity)
    required_bar = 0.45 * (machines.suction_bar - machines.vapour_bar)
    cavitation = hydraulics.cavitation_of(suction_bar, machines.vapour_bar, required_bar, drive.speed, drive.speed)
    wear = severity.get(FaultKind.IMPELLER_WEAR, _NONE)
    leak = severity.get(FaultKind.SEAL_LEAK, _NONE)
    head_factor = (1.0 - 0.14 * wear) * (1.0 - 0.22 * cavitation)
    through = hydraulics.operating_flow(drive.speed, drive.resistance, machines.static_share, head_factor)
    head = hydraulics.head_of(through, drive.speed, head_factor)
    efficiency = hydraulics.efficiency_of(through, drive.speed) * (1.0 - 0.12 * wear) * (1.0 - 0.25 * cavitation)
    load = hydraulics.shaft_power(through, head, drive.density, efficiency)
    flow = through * (1.0 - 0.02 * leak)
    return _Work(flow, head * drive.density, load, load / drive.speed, cavitation, suction_bar)


def _pcp_work(machines: Machines, drive: _Drive, severity: dict[FaultKind, F32]) -> _Work:
    wear = severity.get(FaultKind.STATOR_WEAR, _NONE)
    static = machines.static_share
    flow = drive.speed
    for _ in range(2):
        lift = (static + (1.0 - static) * drive.resistance * flow * flow) * drive.density
        flow = hydraulics.pcp_flow(drive.speed, lift, wear)
    torque = hydraulics.pcp_torque(lift, wear)
    quiet = np.zeros_like(flow)
    return _Work(flow, lift, torque * drive.speed, torque, quiet, _suction_bar(machines, drive, severity))


def _heat_targets(
    pump_type: PumpType, machines: Machines, drive: _Drive, work: _Work, severity: dict[FaultKind, F32]
) -> F32:
    """The temperatures [T, 2, n] at which losses and cooling balance: bearing, motor."""
    wear = severity.get(FaultKind.BEARING_WEAR, _NONE)
    fouling = severity.get(FaultKind.MOTOR_OVERHEATING, _NONE)
    loss = work.load * work.load * (1.0 + 0.9 * fouling)
    if pump_type is PumpType.ESP:
        # A motor in a well is cooled by what it lifts; one at the surface by cooling water that follows the air a little.
        around = machines.fluid_c + np.zeros_like(drive.air_c)
        loss = loss / np.sqrt(np.maximum(work.flow, np.float32(0.1)))
    else:
        around = 0.3 * drive.air_c + 0.7 * machines.fluid_c
    target = np.empty((drive.speed.shape[0], 2, drive.speed.shape[1]), dtype=np.float32)
    target[:, _BEARING] = around + machines.bearing_rise_c * hydraulics.bearing_loss(drive.speed, wear)
    target[:, _MOTOR] = around + machines.motor_rise_c * loss
    return target


def _rated_values(pump_type: PumpType, machines: Machines) -> dict[str, F32]:
    """What each channel reads at the rated point without noise or fault, float32[1, n]; air at 15 degC."""
    ones = np.ones((1, machines.speed_rpm.size), dtype=np.float32)
    drive = _Drive(ones, ones, ones, ones, 15.0 * ones)
    work = _work(pump_type, machines, drive, {})
    true = _true_values(pump_type, machines, drive, work, {})
    heat = _heat_targets(pump_type, machines, drive, work, {})
    true["bearing_temperature_c"], true["motor_temperature_c"] = heat[:, _BEARING], heat[:, _MOTOR]
    return true


def _true_values(
    pump_type: PumpType, machines: Machines, drive: _Drive, work: _Work, severity: dict[FaultKind, F32]
) -> dict[str, F32]:
    leak = severity.get(FaultKind.SEAL_LEAK, _NONE)
    # A motor draws its magnetising current even unloaded: 0.3 of rated, in quadrature with the load's.
    current = np.sqrt(0.09 + 0.91 * work.load * work.load)
    true = {
        "discharge_pressure_bar": work.suction_bar + machines.lift_bar * work.lift,
        "flow_m3_h": machines.flow_m3_h * work.flow,
        "speed_rpm": machines.speed_rpm * drive.speed,
        "motor_current_a": machines.current_a * current,
        "vibration_mm_s": machines.vibration_mm_s * _vibration(pump_type, drive, work, severity),
    }
    if pump_type in (PumpType.ESP, PumpType.PCP):
        true["intake_pressure_bar"] = work.suction_bar
    else:
        true["suction_pressure_bar"] = work.suction_bar
    if pump_type is PumpType.ESP:
        true["leakage_current_ma"] = machines.seal * (1.0 + 7.0 * leak) + 0.0 * work.flow
    if pump_type is PumpType.EXPORT:
        true["seal_leak_l_h"] = machines.seal * (1.0 + 7.0 * leak) * np.maximum(work.lift, 0.0)
    if pump_type is PumpType.PCP:
        omega = machines.speed_rpm * np.float32(2.0 * np.pi / 60.0)
        hydraulic_w = machines.flow_m3_h / np.float32(3600.0) * machines.lift_bar * np.float32(1e5)
        true["torque_n_m"] = hydraulic_w / omega / np.float32(1.0 - hydraulics.PCP_FRICTION_SHARE) * work.torque
    return true


def _vibration(pump_type: PumpType, drive: _Drive, work: _Work, severity: dict[FaultKind, F32]) -> F32:
    """Broadband velocity relative to normal: independent sources add as squares."""
    wear = severity.get(FaultKind.BEARING_WEAR, _NONE)
    imbalance = severity.get(FaultKind.IMBALANCE, _NONE)
    speed = drive.speed
    rotating = 0.8 * speed * speed * (1.0 + 2.2 * imbalance)
    bearing = 0.5 * speed * (1.0 + 4.0 * wear)
    hydraulic = 0.33 + 3.0 * np.abs(work.flow / speed - 1.0) + 5.0 * work.cavitation
    if pump_type is PumpType.PCP:
        hydraulic = 0.33 + 0.6 * severity.get(FaultKind.STATOR_WEAR, _NONE) + 0.0 * speed
    velocity: F32 = np.sqrt(rotating * rotating + bearing * bearing + hydraulic * hydraulic)
    return velocity
