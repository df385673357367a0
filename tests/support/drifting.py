"""Pumps with reference edges in the registry and sketches in the store, made from seeded rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.inventory import Channel, Fleet, PumpType
from pumpdeck_fleet.numeric.edges import ReferenceEdges, encode_edges, fit_edges
from pumpdeck_fleet.numeric.sketch import encode_sketch, make_sketch
from support.fake_devices import T0
from support.workspaces import Yard, make_version

CHANNELS = ("flow_m3_h", "vibration_mm_s", "bearing_temperature_c")


def with_channels(fleet: Fleet) -> Fleet:
    channels = tuple(Channel(name, "x", -1e6, 1e6) for name in CHANNELS)
    return replace(fleet, pump_types={"esp": PumpType("esp", "ESP", channels)})


def rows_of(pump: str, count: int, shift: float = 0.0, day: int = 0) -> np.ndarray:
    """Seeded rows [count, 3]; `shift` moves the vibration by that many standard deviations."""
    random = np.random.default_rng([*pump.encode(), day])
    values = random.normal([50.0, 3.0, 70.0], [5.0, 0.4, 2.0], (count, 3))
    values[:, 1] += shift * 0.4
    return values.astype(np.float32)


def edges_of(pump: str) -> ReferenceEdges:
    return fit_edges(CHANNELS, rows_of(pump, 3000, day=99), np.array([5.0, 0.4, 2.0]))


def add_references(yard: Yard, number: int = 2) -> None:
    """A model version whose pumps have reference edges."""
    parameters = []
    for pump in make_version(number, yard.fleet).pumps:
        data = encode_edges(edges_of(pump.pump))
        yard.artifacts.put(data)
        parameters.append(replace(pump, edges_digest=canonical.digest(data)))
    with yard.store.atomic() as store:
        store.registry.add(replace(make_version(number), pumps=tuple(parameters)))


def sketch_bytes(pump: str, count: int = 1440, shift: float = 0.0, day: int = 0) -> bytes:
    at_ms = T0 + day * DAY_MS + np.arange(count, dtype=np.int64) * 60_000
    return encode_sketch(make_sketch(edges_of(pump), at_ms, rows_of(pump, count, shift, day)))


def put_sketch(yard: Yard, pump: str, count: int = 1440, shift: float = 0.0, day: int = 0) -> bytes:
    data = sketch_bytes(pump, count, shift, day)
    with yard.store.atomic() as store:
        store.sketches.put(pump, T0 + day * DAY_MS, data[4:12].hex(), data)
    return data
