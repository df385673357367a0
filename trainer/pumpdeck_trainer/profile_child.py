"""One setting of a profile in a process of its own: request line and graph on standard input, figures on standard output."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import below: the runtime's Linux wheels phone home by default

import sys
import time

import numpy as np
import onnxruntime
import psutil

from pumpdeck_fleet.core import canonical
from pumpdeck_trainer.profile import REQUEST_MAX_BYTES, ProfileFigures, ProfileRequest

_MODEL_MAX_BYTES = 256 * 1024 * 1024
_WARM_UP = 20
_FEWEST = 20
_MOST = 5000
_PAUSED_CALLS = 20
_PAUSE_S = 0.005


def measure(request: ProfileRequest, onnx: bytes) -> ProfileFigures:
    """Load the graph as a device does and time it: calls one after the other, then calls with pauses between them."""
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(onnx, _options(request), providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - began) * 1000
    feeds = _feeds(request)

    def call() -> None:
        session.run(["score"], feeds)

    for _ in range(_WARM_UP):
        call()
    times: list[int] = []
    began = time.perf_counter()
    while len(times) < _FEWEST or (time.perf_counter() - began < request.seconds and len(times) < _MOST):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    before = time.process_time_ns()
    for _ in range(_PAUSED_CALLS):
        call()
        time.sleep(_PAUSE_S)
    cpu_us = (time.process_time_ns() - before) / 1000 / _PAUSED_CALLS
    p50, p99 = (float(np.percentile(times, share)) / 1000 for share in (50, 99))
    return ProfileFigures(
        threads=request.threads,
        spinning=request.spinning,
        batch=request.batch,
        load_ms=round(load_ms, 2),
        p50_us=round(p50, 1),
        p99_us=round(p99, 1),
        rows_per_s=round(request.batch / (p50 / 1e6), 1),
        cpu_us=round(cpu_us, 1),
        cpu_pct=0.0,
        rss_mb=round(psutil.Process().memory_info().rss / 1024 / 1024, 1),
    )


def _feeds(request: ProfileRequest) -> dict[str, np.ndarray]:
    centre, scale, votes = (np.array(column, np.float32) for column in (request.centre, request.scale, request.votes))
    noise = np.random.default_rng(1).standard_normal((request.batch, len(centre)))
    rows = (centre + noise * scale).astype(np.float32)
    return {"x": rows, "centre": centre, "scale": scale, "votes": votes, "limit": np.array([request.limit], np.float32)}


def _options(request: ProfileRequest) -> onnxruntime.SessionOptions:
    # As the agent opens its sessions (pumpdeck_agent/runtime.py), but for what is swept.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if request.spinning else "0")
    return options


def main() -> int:
    """One request."""
    line = sys.stdin.buffer.readline(REQUEST_MAX_BYTES)
    request = canonical.decode(ProfileRequest, line.strip(), "profile request", max_bytes=REQUEST_MAX_BYTES)
    onnx = sys.stdin.buffer.read(_MODEL_MAX_BYTES)
    sys.stdout.buffer.write(canonical.encode(measure(request, onnx)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
