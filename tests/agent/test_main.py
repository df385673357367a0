"""`pumpdeck-agent` as a process: stable JSON on standard output, exit codes, a conversation over pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.numeric.detectors import score_rows
from pumpdeck_fleet.numeric.features import FeatureSpec, WindowMean
from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from support.devices import NAMES, NOW_MS, WINDOW_S, Bench, block, package, quiet_rows
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
    assert sorted(said) == ["age_key", "device", "key_id", "public_key", "site"]
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


@contextlib.contextmanager
def serving(bench: Bench) -> Iterator[tuple[subprocess.Popen[bytes], HTTPConnection]]:
    """A `serve` process with an endpoint on a free port, and a client of it."""
    (bench.root / "serve.json").write_text('{"endpoint": {"port": 0}, "save_every_s": 0.2}', encoding="utf-8")
    process = subprocess.Popen([*COMMAND, "serve", "--root", str(bench.root), "--every-s", "0.05"], stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = process.stderr.readline().decode()
        assert "listening on http://127.0.0.1:" in said
        yield process, HTTPConnection("127.0.0.1", int(said.rpartition(":")[2]), timeout=20)
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()


def post_row(client: HTTPConnection, minute: int, values: np.ndarray) -> dict[str, Any]:
    row = {"time": NOW_MS + 60_000 * minute, "pump": "P-101A", **dict(zip(NAMES, map(float, values), strict=True))}
    client.request("POST", "/score", json.dumps(row), {"Content-Type": "application/json"})
    return dict(json.loads(client.getresponse().read())["rows"][0])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is a kill there")
def test_serve_scores_rows_over_http_and_keeps_them_over_an_end_and_a_kill(bench: Bench) -> None:
    bench.install(package())
    rows = quiet_rows(60, 1)
    with serving(bench) as (process, client):
        for minute in range(20):
            assert post_row(client, minute, rows[minute])["score"] > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert _scored(bench) == 20
    with serving(bench) as (process, client):
        for minute in range(20, 40):
            post_row(client, minute, rows[minute])
        assert wait_for(lambda: _scored(bench) == 40, 20)
        process.kill()
    with serving(bench) as (_, client):
        again = post_row(client, 40, rows[40])
        client.request("GET", "/health", headers={"Host": "localhost"})
        assert json.loads(client.getresponse().read())["state"] == "ACTIVE"
    features = WindowMean(FeatureSpec(NAMES, WINDOW_S)).extend(NOW_MS + 60_000 * np.arange(41), rows[:41])
    assert again["score"] == pytest.approx(float(score_rows(block(), features)[-1]), rel=1e-2)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the kernel which libraries a process has loaded")
def test_serve_does_without_openssl(bench: Bench) -> None:
    """The 3.4 MB of its libcrypto are what `serve` cannot spare."""
    bench.install(package())
    with serving(bench) as (process, client):
        post_row(client, 0, quiet_rows(1, 1)[0])
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in maps
    assert "libcrypto" not in maps
    assert "_ssl" not in maps


def test_an_alarm_reaches_the_site_by_itself_and_can_be_acknowledged(bench: Bench) -> None:
    """File and heartbeat of a real `serve`, from rows in the spool, with no console anywhere."""
    bench.install(package())
    site = bench.root / "site-alarms.json"
    rows = quiet_rows(30, 1)
    rows[20:, 2] += np.float32(30)
    at = NOW_MS + 60_000 * np.arange(30)
    with serving(bench):
        assert wait_for(lambda: site.exists() and json.loads(site.read_bytes())["heartbeat_ms"] > NOW_MS, 20)
        for part in (slice(0, 20), slice(20, 30)):
            bench.spool("rows.csv.part", {"P-101A": rows[part]}, at[part])
            (bench.root / "spool/in/rows.csv.part").rename(bench.root / f"spool/in/{part.start:02d}.csv")
        assert wait_for(lambda: [one["state"] for one in json.loads(site.read_bytes())["alarms"]] == ["raised"], 20)
        assert wait_for(lambda: len(json.loads(run("alarms", "--root", bench.root).stdout)["alarms"]) == 1, 20)
        assert run("acknowledge", "--root", bench.root, "p-101a", "--by", "Ada").returncode == 0
        assert wait_for(lambda: json.loads(site.read_bytes())["alarms"][0]["state"] == "acknowledged", 20)
        assert wait_for(lambda: list((bench.root / "acknowledged").iterdir()) == [], 20)
    assert json.loads(run("alarms", "--root", bench.root).stdout)["alarms"][0]["by"] == "Ada"
    assert run("acknowledge", "--root", bench.root, "P-101B", "--by", "Ada").returncode == 6


def test_the_client_script_sends_a_file(bench: Bench, tmp_path: Path) -> None:
    bench.install(package())
    bench.spool("rows.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    file = tmp_path / "rows.csv"
    (bench.root / "spool/in/rows.csv").rename(file)
    script = Path(__file__).parents[2] / "docs" / "examples" / "score_client.py"
    with serving(bench) as (_, client):
        command = [sys.executable, "-I", str(script), str(file), "--url", f"http://127.0.0.1:{client.port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [json.loads(line)["time"] for line in done.stdout.splitlines()] == [NOW_MS + 60_000 * n for n in range(20)]
        again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "409" in again.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


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
