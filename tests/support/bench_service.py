"""The agent's processes and their memory, as the kernel counts it: a real `serve`, and a real delivery to a device."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from support.devices import NAMES, NOW_MS, Bench, package, quiet_rows

COMMAND = [sys.executable, "-m", "pumpdeck_agent.main"]


def service(bench: Bench, rows: int, suffix: str) -> dict[str, float]:
    """A real `serve`: rows by HTTP for each pump, one after the other as fast as they are answered, then its memory."""
    (bench.root / "serve.json").write_text('{"endpoint": {"port": 0}}', encoding="utf-8")
    process = subprocess.Popen([*COMMAND, "serve", "--root", str(bench.root)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    client = HTTPConnection("127.0.0.1", int(process.stderr.readline().decode().rpartition(":")[2]))
    values, seconds = quiet_rows(rows, 1).tolist(), []
    for place in range(rows):
        for tag in bench.tags:
            row = {"pump": tag, "time": NOW_MS + 60_000 * place, **dict(zip(NAMES, values[place], strict=True))}
            body = json.dumps(row)
            began = time.perf_counter()
            client.request("POST", "/score", body, {"Content-Type": "application/json"})
            response = client.getresponse()
            response.read()
            seconds.append(time.perf_counter() - began)
            assert response.status == 200
    resident, peak = (_kernel_mb(process.pid, "status", field) for field in ("VmRSS", "VmHWM"))
    shared = _kernel_mb(process.pid, "smaps_rollup", "Pss")
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()
    p50, p99 = (float(np.percentile(seconds, share)) * 1e6 for share in (50, 99))
    figures = {"agent_rss_mb": resident, "agent_pss_mb": shared, "agent_peak_mb": peak}
    figures |= {"agent_scores": float(rows * len(bench.tags)), "post_score_p50_us": p50, "post_score_p99_us": p99}
    return {name + suffix: value for name, value in figures.items()}


def delivery(bench: Bench) -> dict[str, float]:
    """Push, verify, install, trial and receipt in the processes that a console's SSH login starts; the peak of each."""
    built = package(bench.device, bench.tags)
    files = bench.assign(built)
    process = subprocess.Popen(
        [*COMMAND, "rpc", "--root", str(bench.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watch = _PeakWatch(process.pid)
    channel = RpcClient(process.stdin.write, process.stdout.read, close=process.stdin.close)
    began = time.perf_counter()
    push_blob(channel, built.sha256, built.data)
    assert bench.send_assignment(channel, files)["outcome"] == "committed"
    seconds = time.perf_counter() - began
    verifying, trial = watch.end()
    channel.close()
    assert process.wait(30) == 0
    process.stdout.close()
    return {"verifying_child_peak_mb": verifying, "trial_child_peak_mb": trial, "deliver_and_install_s": seconds}


class _PeakWatch:
    """The peak of a process, and that of the largest of its children, asked for every few milliseconds while they live."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._child_mb = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> tuple[float, float]:
        self._ending.set()
        self._thread.join()
        return _kernel_mb(self._pid, "status", "VmHWM"), self._child_mb

    def _watch(self) -> None:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children")
        while not self._ending.wait(0.002):
            for pid in children.read_text(encoding="ascii").split():
                try:
                    # Before it runs its own program, a child is its parent's copy.
                    if Path(f"/proc/{pid}/cmdline").read_bytes() != Path(f"/proc/{self._pid}/cmdline").read_bytes():
                        self._child_mb = max(self._child_mb, _kernel_mb(int(pid), "status", "VmHWM"))
                except (OSError, StopIteration):
                    continue


def _kernel_mb(pid: int, file: str, field: str) -> float:
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))
