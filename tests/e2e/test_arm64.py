"""The agent on an arm64 processor, in software: verify, install, try and score there, with the answers of this computer.

`.ci/arm64-root DIR` prepares the folder that PUMPDECK_ARM64_ROOT names; nothing of this machine's own Python is used inside.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.numeric.columns import decode_chunk
from pumpdeck_fleet.transports.rpc_client import RpcClient, collect_all, push_blob
from pumpdeck_packaging.agent_release import build_agent
from pumpdeck_packaging.agent_wheels import read_wheels
from support.agent_archive import ArchiveAgent, link_libraries
from support.devices import NOW_MS, Bench, package, quiet_rows

ROOT = Path(os.environ.get("PUMPDECK_ARM64_ROOT", "") or "/nowhere")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
ROWS = 240


def why_not() -> str:
    """Why no arm64 processor can be had here; empty when one can."""
    if QEMU is None:
        return "no qemu-aarch64 on this machine (install qemu-user-static)"
    if not (ROOT / "complete").is_file():
        return "PUMPDECK_ARM64_ROOT names no folder made by .ci/arm64-root"
    return ""


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm64 Python as one program, so that the agent can start itself anew."""
    path = tmp_path_factory.mktemp("arm64") / "python3"
    system = ROOT / "system"
    path.write_text(
        f"#!/bin/sh\nexport QEMU_CPU=cortex-a72 PYTHONHOME={system}/usr\n"
        f'exec {QEMU} -L {system} -0 "$0" {system}/usr/bin/python3.11 "$@"\n'
    )
    path.chmod(0o755)
    return path


def scores_of(channel: RpcClient) -> dict[str, np.ndarray]:
    """Every score the device has to give, by pump, in order of time."""
    found: dict[str, list[np.ndarray]] = {}

    def keep(batch) -> None:
        for item, data in batch.items:
            if item.kind is ReturnKind.SCORES:
                found.setdefault(item.pump, []).append(decode_chunk(data.partition(b"\n")[2]).values[:, 0])

    collect_all(channel, keep)
    return {pump: np.concatenate(parts) for pump, parts in found.items()}


def live(bench: Bench, agent: ArchiveAgent) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """One device's life: a package comes, is verified, installed, tried; rows are scored; scores go home."""
    model = package()
    files = bench.assign(model)
    channel = agent.channel()
    push_blob(channel, model.sha256, model.data)
    answer = bench.send_assignment(channel, files)
    channel.close()
    assert answer["outcome"] == "committed", answer["reason"]
    at_ms = NOW_MS + 60_000 * np.arange(ROWS)
    bench.spool("a.csv", {"P-101A": quiet_rows(ROWS, 1), "P-101B": quiet_rows(ROWS, 2) * 1.3}, at_ms)
    agent.run("serve", "--once", timeout_s=600)
    channel = agent.channel()
    scores = scores_of(channel)
    state = channel.call(Op.STATUS, {})[0]["state"]
    channel.close()
    assert state["active"] == model.sha256
    return {"self_test": answer["receipt"]["self_test"], "state": state}, scores


def test_an_arm64_device_verifies_installs_and_scores_as_this_computer_does(tmp_path: Path, python: Path) -> None:
    release = build_agent(tmp_path / "release")
    wheels = read_wheels(ROOT / "wheels" / "aarch64-cp311")
    there, here = Bench(tmp_path / "arm64"), Bench(tmp_path / "here")
    began = time.monotonic()
    words = ["settle", "--root", str(there.root), "--sha256", release.sha256]
    words += ["--wheels", str(wheels.folder), "--wheels-sha256", wheels.sha256]
    command = [str(python), "-s", str(release.path), *words]
    settled = subprocess.run(command, capture_output=True, check=False, env={"PATH": os.environ["PATH"]})
    assert settled.returncode == 0, settled.stderr
    assert canonical.parse_json(settled.stdout, "settle", max_bytes=4096)["libraries"] == wheels.sha256
    launcher = there.root / "agent" / "launch.py"
    far, far_scores = live(there, ArchiveAgent(launcher, Path("/nowhere"), there.root, (str(python), "-s")))
    facts = ArchiveAgent(launcher, Path("/nowhere"), there.root, (str(python), "-s")).run("facts")
    assert (facts["architecture"], facts["python"][:4]) == ("aarch64", "3.11")
    emulated_s = time.monotonic() - began
    near, near_scores = live(here, ArchiveAgent(release.path, link_libraries(tmp_path / "libraries"), here.root))
    assert set(far_scores) == set(near_scores) == {"P-101A", "P-101B"}
    largest = 0.0
    for pump, scores in near_scores.items():
        assert far_scores[pump].shape == scores.shape == (ROWS,)
        assert np.isfinite(scores).sum() > ROWS // 2
        np.testing.assert_allclose(far_scores[pump], scores, rtol=1e-3, atol=1e-6)
        largest = max(largest, float(np.nanmax(np.abs(far_scores[pump] - scores) / np.maximum(np.abs(scores), 1e-6))))
    for pump in near["state"]["pumps"]:  # type: ignore[index]
        assert far["state"]["pumps"][pump]["alarmed"] == near["state"]["pumps"][pump]["alarmed"]  # type: ignore[index]
    where = f"arm64 under {QEMU} on {platform.machine()}"
    print(f"{where}: {2 * ROWS} scores, largest relative difference {largest:.2e}, {emulated_s:.0f} s")
