"""One row at a time, and a day's sketch, on ten channels of simulated pumps: what `score.py` prints of them."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.loaded import LoadedPump
from pumpdeck_agent.pump_scoring import PumpScoring
from pumpdeck_agent.runtime import Model
from pumpdeck_fleet.core.inventory import Channel
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.detectors import PumpBlock, to_float32
from pumpdeck_fleet.numeric.edges import ReferenceEdges, fit_edges
from pumpdeck_fleet.numeric.features import FeatureSpec
from pumpdeck_fleet.numeric.frame import Float32, Int64
from pumpdeck_fleet.numeric.sketch import encode_sketch, make_sketch
from pumpdeck_packaging.manifest import PumpEntry
from pumpdeck_sample.channels import CHANNELS, PumpType
from pumpdeck_sample.faults import Scenario
from pumpdeck_sample.fleet import climates_of
from pumpdeck_sample.physics import FleetSimulator, PumpToSimulate
from pumpdeck_sample.seeds import Chance
from pumpdeck_sample.sites import SITES
from pumpdeck_trainer.export import maxz_onnx
from support.devices import NOW_MS
from support.sketch_rows import awkward_edges, awkward_rows

DAY_MS = 86_400_000
# An ESP and, beside it, what an export pump has that an ESP has not.
_BESIDE = ("bearing_temperature_c", "seal_leak_l_h")


def simulated_rows(at_ms: Int64, seed: int = 3) -> tuple[tuple[str, ...], Float32]:
    """Ten channels of one machine at these times: names and float32 [n, 10]."""
    site = SITES[0].id
    pumps = [PumpToSimulate(f"{site}/P-1", site, PumpType.ESP), PumpToSimulate(f"{site}/P-2", site, PumpType.EXPORT)]
    esp, beside = FleetSimulator(pumps, climates_of([site]), Scenario(), Chance(seed)).advance(at_ms)
    chosen = [beside.channels.index(name) for name in _BESIDE]
    values = np.concatenate([esp.values[:, 0], beside.values[chosen, 0]]).T
    return (*esp.channels, *_BESIDE), np.ascontiguousarray(values, np.float32)


@dataclass(frozen=True, eq=False)
class History:
    """29 days of a row in ten minutes, then one day at another cadence: names, the reference rows and the day's."""

    names: tuple[str, ...]
    reference: Float32
    at_ms: Int64
    day: Float32


def history(day_rows: int) -> History:
    """So many rows on the last day."""
    before = NOW_MS + 600_000 * np.arange(29 * 144, dtype=np.int64)
    last = before[-1] + DAY_MS // day_rows * np.arange(1, day_rows + 1, dtype=np.int64)
    names, values = simulated_rows(np.concatenate([before, last]))
    return History(names, values[: len(before)], last, values[len(before) :])


def edges_of(one: History) -> ReferenceEdges:
    """Edges of the reference rows, as training makes them."""
    return fit_edges(one.names, one.reference, np.maximum(np.nanstd(one.reference, axis=0), 1e-3).astype(np.float64))


def ten_channel_pump(one: History) -> LoadedPump:
    """What a device would load for this pump: a block fitted to its reference rows, in the shipped graph."""
    specs = {spec.name: spec for kind in (PumpType.ESP, PumpType.EXPORT) for spec in CHANNELS[kind]}
    channels = tuple(
        Channel(name, specs[name].unit, specs[name].low, specs[name].high, 1 / specs[name].steps_per_unit) for name in one.names
    )
    block = PumpBlock(
        channels=one.names,
        centre=np.nanmedian(one.reference, axis=0).astype(np.float32),
        scale=np.nanstd(one.reference, axis=0).astype(np.float32),
        floor=np.array([channel.resolution for channel in channels], np.float32),
        votes=np.array([name != "speed_rpm" for name in one.names]),
        limit=to_float32(6.0),
    )
    model = Model(maxz_onnx(len(one.names)), "the bench's model")
    entry = PumpEntry("P-1", "esp", "", "", channels, 300.0, block.limit, 0.7, 120.0, 86_400.0)
    return LoadedPump(
        entry=entry,
        spec=FeatureSpec(one.names, 300.0),
        block=block,
        edges=edges_of(one),
        settings=AlarmSettings(0.7, 120.0, 86_400.0),
        model=model,
        parameters=model.parameters(block),
        places={name: place for place, name in enumerate(one.names)},
    )


def one_row(count: int, rounds: int) -> dict[str, float]:
    """From a decoded row to the alarm state and the record in the spool buffer, against the bare runtime in the same loop.

    Ten channels, rows a minute, window 5 min: every hour and every window turns in here. `bare`: `InferenceSession.run` with
    inputs that are ready, the call that anybody makes; `bare_bound`: the fastest there is, with inputs and score bound to
    buffers. Which of the three comes first changes from row to row. Saving, every few seconds, is apart.
    """
    one = history(1440)
    pump = ten_channel_pump(one)
    rows = np.tile(one.day, (count // 1440 + 1, 1))[:count].copy()
    found = [_round(pump, rows, time.perf_counter_ns) for _ in range(rounds)]
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    cpu = [_round(pump, rows, time.thread_time_ns) for _ in range(rounds)]
    for share in ("p50", "p99"):
        middle[f"added_cpu_{share}_us"] = statistics.median(one[f"added_{share}_us"] for one in cpu)
    return {**middle, "added_p99_us_best": min(one["added_p99_us"] for one in found)}


def _round(pump: LoadedPump, rows: Float32, clock: Callable[[], int]) -> dict[str, float]:
    count = len(rows)
    scoring = PumpScoring("gannet-d1", "0" * 64, pump, AgentLimits())
    session, parameters, bound = pump.model._session, dict(pump.parameters), _Bound(pump)
    bare, tied, whole = np.empty(count), np.empty(count), np.empty(count)
    # As `serve` does once it has loaded its package.
    gc.collect()
    gc.freeze()
    for place in range(count):
        row, at_ms = rows[place], NOW_MS + 60_000 * place
        feeds = {"x": row.reshape(1, -1), **parameters}
        for turn in range(place, place + 3):
            if turn % 3 == 0:
                start = clock()
                scoring.push(at_ms, row)
                whole[place] = clock() - start
            elif turn % 3 == 1:
                start = clock()
                session.run(["score"], feeds)
                bare[place] = clock() - start
            else:
                start = clock()
                bound(row)
                tied[place] = clock() - start
        if place % 250 == 249:
            scoring.settled_figures()
    gc.unfreeze()
    middle = {name: np.percentile(times[100:] / 1000, 50) for name, times in (("bare", bare), ("tied", tied), ("row", whole))}
    late = {name: np.percentile(times[100:] / 1000, 99) for name, times in (("bare", bare), ("tied", tied), ("row", whole))}
    return {
        "bare_p50_us": float(middle["bare"]),
        "bare_p99_us": float(late["bare"]),
        "bare_bound_p50_us": float(middle["tied"]),
        "bare_bound_p99_us": float(late["tied"]),
        "row_p50_us": float(middle["row"]),
        "row_p99_us": float(late["row"]),
        "added_p50_us": float(middle["row"] - middle["bare"]),
        "added_p99_us": float(late["row"] - late["bare"]),
        "added_over_bound_p50_us": float(middle["row"] - middle["tied"]),
        "added_over_bound_p99_us": float(late["row"] - late["tied"]),
    }


class _Bound:
    """The barest call: nothing of ours in it."""

    def __init__(self, pump: LoadedPump) -> None:
        session = pump.model._session
        self._row = np.zeros((1, len(pump.spec.channels)), np.float32)
        self._out = ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32))
        self._binding = session.io_binding()
        self._parameters = dict(pump.parameters)
        for name, value in {"x": self._row, **self._parameters}.items():
            self._binding.bind_cpu_input(name, value)
        self._binding.bind_ortvalue_output("score", self._out)
        self._run = session.run_with_iobinding

    def __call__(self, row: Float32) -> None:
        self._row[0] = row
        self._run(self._binding)


def sketches(quick: bool) -> dict[str, float]:
    """Bytes of a day's sketch of ten channels: of a simulated machine, and of rows made to be hard (`awkward`)."""
    sizes = {}
    for name, rows in (("sketch_minute", 1_440), ("sketch_hz", 8_640 if quick else 86_400)):
        one = history(rows)
        sizes[f"{name}_bytes"] = float(len(encode_sketch(make_sketch(edges_of(one), one.at_ms, one.day))))
        hard = make_sketch(awkward_edges(), one.at_ms, awkward_rows(5, rows))
        sizes[f"{name}_awkward_bytes"] = float(len(encode_sketch(hard)))
    return sizes
