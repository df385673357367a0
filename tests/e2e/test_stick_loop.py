"""A stick goes round in real processes: console, agent with its real trial child, console again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.courier_fleet import courier_fleet

pytestmark = pytest.mark.e2e


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=120)


def pumpdeck(folder: Path, *words: str) -> dict[str, object]:
    done = run("pumpdeck_console.main", "-w", str(folder / "workspace"), *words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_export_install_from_and_intake_as_processes(tmp_path: Path) -> None:
    yard = courier_fleet(tmp_path, now_ms=time.time_ns() // 1_000_000)
    yard.start()
    devices = [device.id for device in yard.devices]
    packages = {device: yard.packages[device].sha256 for device in devices}
    pump = yard.workspace.fleet.pumps_by_device[devices[0]][0].id
    yard.workspace.close()
    stick = tmp_path / "stick" / "pumpdeck"

    exported = pumpdeck(tmp_path, "bundle", "export", "--to", str(stick))
    assert exported["packages"] == len(devices)
    for device in devices:
        done = run("pumpdeck_agent.main", "install-from", "--root", str(tmp_path / "devices" / device), str(stick))
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads(done.stdout)
        assert (said["outcome"], said["active"]) == ("committed", packages[device]), said
        page = (stick / "returns" / device / "report.txt").read_text(encoding="utf-8")
        assert page.count("\n") == 3 and "You may pull the stick" in page
    back = pumpdeck(tmp_path, "bundle", "intake", str(stick))
    assert back["awaited"] == []
    assert [row["receipt"] for row in back["devices"]] == [1, 1]  # type: ignore[union-attr,attr-defined]
    told = pumpdeck(tmp_path, "explain", pump)
    assert told["package"] == packages[str(told["device"])]
    assert told["receipt_signed"] is True

