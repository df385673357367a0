"""The channels of the four sample pump types: units, sensor resolution, noise and plausible range."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PumpType(StrEnum):
    """The pump types of the sample fleet."""

    ESP = "esp"
    EXPORT = "export"
    INJECTION = "injection"
    PCP = "pcp"


@dataclass(frozen=True)
class ChannelSpec:
    """One measured quantity as its sensor delivers it.

    `steps_per_unit` is the sensor's resolution (10 means steps of 0.1). The noise of a reading has a standard deviation of
    `noise + noise_share * value`, in the channel's unit. `low` and `high` bound what the sensor can show.
    """

    name: str
    unit: str
    steps_per_unit: int
    noise: float
    noise_share: float
    low: float
    high: float


def _pressure(name: str, high: float) -> ChannelSpec:
    return ChannelSpec(name, "bar", 100, 0.02, 0.005, 0.0, high)


def _temperature(name: str, high: float) -> ChannelSpec:
    return ChannelSpec(name, "degC", 10, 0.4, 0.0, -40.0, high)


def _speed(high: float, steps_per_unit: int) -> ChannelSpec:
    return ChannelSpec("speed_rpm", "rpm", steps_per_unit, 0.0, 0.0015, 0.0, high)


_VIBRATION = ChannelSpec("vibration_mm_s", "mm/s", 100, 0.01, 0.05, 0.0, 50.0)
_CURRENT = ChannelSpec("motor_current_a", "A", 10, 0.05, 0.009, 0.0, 600.0)

CHANNELS: dict[PumpType, tuple[ChannelSpec, ...]] = {
    PumpType.ESP: (
        _pressure("intake_pressure_bar", 400.0),
        _pressure("discharge_pressure_bar", 600.0),
        ChannelSpec("flow_m3_h", "m3/h", 10, 0.05, 0.009, 0.0, 400.0),
        _speed(6000.0, 1),
        _CURRENT,
        _temperature("motor_temperature_c", 250.0),
        _VIBRATION,
        ChannelSpec("leakage_current_ma", "mA", 1000, 0.002, 0.02, 0.0, 20.0),
    ),
    PumpType.EXPORT: (
        _pressure("suction_pressure_bar", 60.0),
        _pressure("discharge_pressure_bar", 300.0),
        ChannelSpec("flow_m3_h", "m3/h", 10, 0.2, 0.009, 0.0, 1500.0),
        _speed(6000.0, 1),
        _CURRENT,
        _VIBRATION,
        _temperature("bearing_temperature_c", 160.0),
        ChannelSpec("seal_leak_l_h", "l/h", 100, 0.02, 0.03, 0.0, 60.0),
    ),
    PumpType.INJECTION: (
        _pressure("suction_pressure_bar", 60.0),
        _pressure("discharge_pressure_bar", 500.0),
        ChannelSpec("flow_m3_h", "m3/h", 10, 0.2, 0.009, 0.0, 1000.0),
        _speed(9000.0, 1),
        _CURRENT,
        _VIBRATION,
        _temperature("bearing_temperature_c", 160.0),
        _temperature("motor_temperature_c", 200.0),
    ),
    PumpType.PCP: (
        _pressure("intake_pressure_bar", 120.0),
        _pressure("discharge_pressure_bar", 250.0),
        ChannelSpec("flow_m3_h", "m3/h", 100, 0.01, 0.009, 0.0, 40.0),
        _speed(600.0, 10),
        ChannelSpec("torque_n_m", "N.m", 1, 1.0, 0.009, 0.0, 4000.0),
        _CURRENT,
        _temperature("bearing_temperature_c", 160.0),
        _VIBRATION,
    ),
}


def channel_names(pump_type: PumpType) -> tuple[str, ...]:
    """The channels of a pump type, in column order."""
    return tuple(spec.name for spec in CHANNELS[pump_type])
