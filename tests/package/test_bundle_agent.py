"""The agent on a stick: proven from one digest down, started by a plain Python, old agents take the bundle as before."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging import stick_start
from pumpdeck_packaging.agent_release import AgentRelease, build_agent
from pumpdeck_packaging.agent_wheels import WheelTarget
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_agent import AgentLoad, AgentOnStick, write_agent
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import real_stick
from support.devices import Bench, package
from support.sticks import WORKSPACE, export_to, parts_for, wheel_folder, wheel_of

HERE = stick_start.this_target()
OTHER = "aarch64-cp312" if HERE != "aarch64-cp312" else "x86_64-cp312"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> AgentRelease:
    return build_agent(tmp_path_factory.mktemp("agent"))


HONEST = wheel_of({"heron/__init__.py": "VALUE = 7", "heron-1.0.dist-info/METADATA": "Name: heron"})


def put(tmp_path: Path, agent: AgentRelease, data: bytes = HONEST, targets: tuple[str, ...] = (HERE,)) -> AgentOnStick:
    stick = real_stick(tmp_path / "stick")
    claim(stick, WORKSPACE, "b-0123456789ab")
    sets = [wheel_folder(tmp_path / "wheels", one, data) for one in targets]
    return write_agent(stick, AgentLoad(agent, sets), lambda *_: None)


def start(tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """As a technician on a bare device: no environment, no site packages, nothing but this Python."""
    script = tmp_path / "stick" / "agent" / "start.py"
    command = [sys.executable, "-I", "-S", str(script), "--to", str(tmp_path / "opt"), *more]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_a_bare_device_starts_from_the_stick(tmp_path: Path, agent: AgentRelease) -> None:
    told = put(tmp_path, agent)
    script = (tmp_path / "stick" / "agent" / "start.py").read_bytes()
    assert hashlib.sha256(script).hexdigest() == told.start_digest
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["says"] == f"pumpdeck-agent {agent.version}"
    assert said["target"] == HERE
    launcher = Path(said["agent"])
    help_text = subprocess.run([launcher, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "install-from" in help_text
    libraries = Path(said["folder"]) / "libraries"
    assert (libraries / "heron" / "__init__.py").read_text() == "VALUE = 7"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "opt").rglob("*") if path.name == "agent.pyz"}
    assert start(tmp_path).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "opt").rglob("*") if path.name == "agent.pyz"}


def test_a_device_without_the_right_wheels_is_told_which_there_are(tmp_path: Path, agent: AgentRelease) -> None:
    put(tmp_path, agent, targets=(OTHER,))
    done = start(tmp_path)
    assert done.returncode == 6
    assert OTHER in done.stderr and f"--wheels {HERE}" in done.stderr
    assert not list((tmp_path / "opt").glob("*")) if (tmp_path / "opt").exists() else True


@pytest.mark.parametrize("victim", ["agent.pyz", "agent.json", "heron-1.0.whl"])
def test_every_file_is_proven_before_it_is_written(tmp_path: Path, agent: AgentRelease, victim: str) -> None:
    put(tmp_path, agent)
    (path,) = (tmp_path / "stick" / "agent").rglob(victim)
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    done = start(tmp_path)
    assert done.returncode == 5, done.stdout
    assert not (tmp_path / "opt" / "pumpdeck-agent").exists()
    path.write_bytes(data)
    assert start(tmp_path).returncode == 0


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, agent: AgentRelease) -> None:
    put(tmp_path, agent)
    path = tmp_path / "stick" / "agent" / "agent.pyz"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert start(tmp_path).returncode in (4, 5)
    assert not (tmp_path / "opt" / "pumpdeck-agent").exists()


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "c:evil.py"])
def test_a_wheel_cannot_write_outside(tmp_path: Path, agent: AgentRelease, name: str) -> None:
    put(tmp_path, agent, wheel_of({name: "evil"}))
    done = start(tmp_path)
    assert done.returncode == 5
    assert not list(tmp_path.rglob("evil.py")) and not (tmp_path / "opt" / "pumpdeck-agent").exists()


def test_what_an_earlier_cut_left_is_put_right(tmp_path: Path, agent: AgentRelease) -> None:
    told = put(tmp_path, agent)
    script = (tmp_path / "stick" / "agent" / "start.py").read_text()
    expected = script.split('EXPECTED = "')[1][:12]
    left = tmp_path / "opt" / f".{told.version}-{expected}-{HERE}.part" / "libraries"
    left.mkdir(parents=True)
    (left / "half.py").write_text("half")
    assert start(tmp_path).returncode == 0
    assert not list((tmp_path / "opt").rglob("half.py"))


def test_writing_again_writes_nothing_and_another_target_takes_the_place(tmp_path: Path, agent: AgentRelease) -> None:
    put(tmp_path, agent)
    again = put(tmp_path, agent)
    assert (again.written, again.already) == (0, 3)
    put(tmp_path, agent, targets=(OTHER,))
    assert [path.name for path in (tmp_path / "stick" / "agent" / "wheels").rglob("*.whl")] == ["heron-1.0.whl"]
    assert OTHER in str(next((tmp_path / "stick" / "agent" / "wheels").rglob("*.whl")))


def test_a_bundle_beside_an_agent_is_a_bundle_as_ever(tmp_path: Path, agent: AgentRelease) -> None:
    bench = Bench(tmp_path)
    built = package()
    stick = real_stick(tmp_path / "stick")
    parts = parts_for(bench.assign(built), built)
    export_to(stick, parts)
    put(tmp_path, agent)
    export_to(stick, parts)
    assert set(BundleReader(RealFileSystem(), tmp_path / "stick").index.files) == {part.path for part in parts}
    assert start(tmp_path).returncode == 0


def test_targets_are_named_as_the_wheels_are() -> None:
    assert WheelTarget.parse("x86_64-cp311").name == "x86_64-cp311"
    assert WheelTarget.parse("aarch64-cp312").name == "aarch64-cp312"
