"""`pumpdeck-agent` as a process: stable JSON on standard output, exit codes, a conversation over pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from support.devices import NOW_MS, Bench, package, quiet_rows
from support.sshd import wait_for

COMMAND = [sys.executable, "-m", "pumpdeck_agent.main"]


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **more)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_init_makes_a_device_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "other")
    config, root = tmp_path / "config.json", tmp_path / "1.root.json"
    config.write_bytes(canonical.encode(bench.config))
    root.write_bytes(bench.site.root)
    folder = tmp_path / "device"
    done = run("init", "--root", folder, "--config", config, "--trusted-root", root)
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert sorted(said) == ["device", "key_id", "public_key", "site"]
    assert (folder / "device.pub").read_text(encoding="ascii") == said["public_key"]
    if sys.platform != "win32":
        assert (folder / "device.key").stat().st_mode & 0o777 == 0o600
    key = (folder / "device.key").read_bytes()
    again = run("init", "--root", folder, "--config", config, "--trusted-root", root)
    assert again.returncode == 7
    assert (folder / "device.key").read_bytes() == key


def test_status_is_json_and_needs_no_console(bench: Bench) -> None:
    bench.install(package())
    done = run("status", "--root", bench.root)
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["state"], said["counter"]) == ("ACTIVE", 1)


def test_the_root_folder_may_come_from_the_environment(bench: Bench) -> None:
    done = run("status", env={**os.environ, "PUMPDECK_AGENT_ROOT": str(bench.root)})
    assert json.loads(done.stdout)["state"] == "NO_MODEL"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status", "--root", "/no/such/folder"], 6),
        (["serve", "--once", "--root", "/no/such/folder"], 6),
        (["rpc", "--root", "/no/such/folder"], 6),
        ([], 2),
        (["fly"], 2),
    ],
)
def test_exit_codes_are_those_of_the_table(arguments: list[str], code: int) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    if code == 6:
        assert json.loads(done.stderr.splitlines()[-1])["exit_code"] == 6


def test_version() -> None:
    assert run("--version").stdout.strip() == f"pumpdeck-agent {AGENT_VERSION}"


def test_the_version_is_that_of_the_distribution() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'version = "{AGENT_VERSION}"' in project.read_text(encoding="utf-8")


def test_score_takes_a_file_as_if_it_had_arrived(bench: Bench, tmp_path: Path) -> None:
    bench.install(package())
    bench.spool("rows.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    file = tmp_path / "rows.csv"
    (bench.root / "spool/in/rows.csv").rename(file)
    done = run("score", "--root", bench.root, file)
    assert json.loads(done.stdout)["rows"] == 20
    assert file.exists()
    assert bench.status()["pumps"]["P-101A"]["scored_rows"] == 20
    assert run("score", "--root", bench.root, tmp_path / "absent.csv").returncode == 6


def test_serve_once_scores_what_waits(bench: Bench) -> None:
    bench.install(package())
    bench.spool("rows.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    assert run("serve", "--once", "--root", bench.root).returncode == 0
    assert bench.status()["pumps"]["P-101A"]["scored_rows"] == 20


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is a kill there")
def test_serve_scores_what_arrives_and_tries_what_waits_until_it_is_told_to_end(bench: Bench) -> None:
    bench.install(package())
    process = subprocess.Popen([*COMMAND, "serve", "--root", str(bench.root), "--every-s", "0.05"], stderr=subprocess.PIPE)
    try:
        for number in range(3):
            at = NOW_MS + 60_000 * np.arange(number * 10, number * 10 + 10)
            bench.spool(f"{number}.csv.part", {"P-101A": quiet_rows(10, number)}, at)
            folder = bench.root / "spool" / "in"
            (folder / f"{number}.csv.part").rename(folder / f"{number}.csv")
            count = (number + 1) * 10
            assert wait_for(lambda c=count: _scored(bench) == c, 20)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _scored(bench: Bench) -> int:
    pump = bench.status()["pumps"].get("P-101A")
    return pump["scored_rows"] if pump else 0


def test_veto_and_lift(bench: Bench) -> None:
    assert run("veto", "--root", bench.root).returncode == 2
    done = run("veto", "--root", bench.root, "crane at work", "--hours", "1")
    assert json.loads(done.stdout)["veto"]["reason"] == "crane at work"
    assert json.loads(run("status", "--root", bench.root).stdout)["veto"]["reason"] == "crane at work"
    assert run("veto", "--root", bench.root, "--lift").returncode == 0
    assert "veto" not in json.loads(run("status", "--root", bench.root).stdout)


def test_resume_without_work_says_how_the_device_stands(bench: Bench) -> None:
    bench.install(package())
    said = json.loads(run("resume", "--root", bench.root).stdout)
    assert (said["state"], said["outcome"]) == ("ACTIVE", "")


def test_a_whole_delivery_over_pipes(bench: Bench) -> None:
    """What ForceCommand starts: the same conversation, with a real trial in a child of its own."""
    built = package()
    files = bench.assign(built)
    process = subprocess.Popen(
        [*COMMAND, "rpc", "--root", str(bench.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    channel = RpcClient(process.stdin.write, process.stdout.read, close=process.stdin.close)
    push_blob(channel, built.sha256, built.data)
    assert bench.send_assignment(channel, files)["outcome"] == "committed"
    assert channel.call(Op.STATUS, {})[0]["state"]["active"] == built.sha256
    channel.close()
    assert process.wait(20) == 0
    process.stdout.close()


def test_serve_once_says_what_is_wrong_with_a_damaged_package(bench: Bench) -> None:
    """Start-up recovery finds the damage first: nothing is left to run, the rows wait, and a receipt says so."""
    built = package()
    bench.install(built)
    (bench.root / "store" / built.sha256 / "model-esp.onnx").write_bytes(b"x")
    bench.spool("rows.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    assert run("serve", "--once", "--root", bench.root).returncode == 0
    status = bench.status()
    assert (status["state"], status["active"]) == ("FAILED_INCONSISTENT", "")
    assert [path.name for path in (bench.root / "spool/in").iterdir()] == ["rows.csv"]
