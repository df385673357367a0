"""From true values to readings: noise, sensor faults, range and resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .channels import ChannelSpec
from .faults import Fault, FaultKind
from .processes import F32, I64
from .seeds import Chance

DRIFT_SHARE = 0.30
SPIKE_SHARE = 0.6
SPIKE_CHANCE = 0.04
DROPOUT_CHANCE = 0.5


@dataclass
class SensorFault:
    """A sensor fault with what it must remember: its random stream and, when stuck, the reading it holds."""

    fault: Fault
    channel: int
    pump: int
    rated: float
    step: float
    stream: np.random.Generator
    held: float | None = None


def bind_sensor_fault(fault: Fault, channel: int, pump: int, scale: tuple[float, float], chance: Chance) -> SensorFault:
    """A sensor fault bound to its channel and pump columns; `scale` is that reading's rated value and its step."""
    stream = chance.of_episode("sensor fault", fault.pump_id, fault.kind, str(fault.onset_ms))
    return SensorFault(fault, channel, pump, scale[0], scale[1], stream)


def read_sensor(true: F32, noise: F32, spec: ChannelSpec, steps_per_unit: F32) -> F32:
    """Readings [T, n] of true values: noise, clipped to the sensor's range, in steps of its resolution [n]."""
    reading = true + noise * (np.float32(spec.noise) + np.float32(spec.noise_share) * true)
    return quantise(np.clip(reading, spec.low, spec.high, out=reading), steps_per_unit)


def quantise(values: F32, steps_per_unit: F32) -> F32:
    """Values rounded to the nearest step; a decimal step keeps its short decimal text."""
    values = values * steps_per_unit
    np.rint(values, out=values)
    values /= steps_per_unit
    return values


def spoil(readings: F32, sensor_fault: SensorFault, at_ms: I64) -> None:
    """Apply one sensor fault to its pump's readings [T], in place. NaN is a reading that never came.

    A stuck sensor holds the reading it had at onset; when the onset lies before the first row ever, the rated one.
    """
    fault, stream = sensor_fault.fault, sensor_fault.stream
    rated, step = sensor_fault.rated, sensor_fault.step
    draws = stream.random((at_ms.size, 2), dtype=np.float32)
    active = fault.is_active(at_ms)
    if not active.any():
        return
    severity = fault.severity_at(at_ms)
    match fault.kind:
        case FaultKind.SENSOR_STUCK:
            if sensor_fault.held is None:
                first = int(np.argmax(active))
                sensor_fault.held = float(readings[first]) if first else float(np.rint(rated / step) * step)
            readings[active] = sensor_fault.held
        case FaultKind.SENSOR_DRIFT:
            readings += np.rint(severity * np.float32(DRIFT_SHARE * rated / step)) * np.float32(step)
        case FaultKind.SENSOR_SPIKES:
            hit = active & (draws[:, 0] < SPIKE_CHANCE)
            height = severity[hit] * np.float32(SPIKE_SHARE * rated) * (0.5 + draws[hit, 1])
            readings[hit] += np.rint(height / np.float32(step)) * np.float32(step)
        case FaultKind.SENSOR_DROPOUT:
            readings[active & (draws[:, 0] < DROPOUT_CHANCE * severity)] = np.nan
        case _:
            raise ValueError(f"{fault.kind} is not a sensor fault")
