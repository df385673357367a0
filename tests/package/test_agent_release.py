"""The agent's own delivery: the zipapp is the same bytes anywhere, and it works with nothing but the wheels beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pumpdeck_agent
from pumpdeck_agent import AGENT_VERSION
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.agent_release import AgentRelease, agent_bytes, agent_version, build_agent
from support.agent_archive import ArchiveAgent, link_libraries
from support.devices import NOW_MS, Bench, package, quiet_rows


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> AgentRelease:
    return build_agent(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_libraries(tmp_path_factory.mktemp("libraries"))


def test_the_same_sources_give_the_same_bytes_twice_and_from_another_folder(built: AgentRelease, tmp_path: Path) -> None:
    assert agent_bytes() == built.path.read_bytes()
    assert (built.sha256, built.bytes) == (canonical.digest(agent_bytes()), len(agent_bytes()))
    roots = Path(pumpdeck_agent.__file__).parents[2]
    for path in (one.parent for one in roots.glob("*/pumpdeck_*/__init__.py")):
        shutil.copytree(path, tmp_path / "moved" / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    statement = "import sys; from pathlib import Path; from pumpdeck_packaging.agent_release import build_agent; "
    statement += "print(build_agent(Path(sys.argv[1])).sha256)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "moved"), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", statement, str(tmp_path / "out")], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == built.sha256
    assert str(tmp_path / "moved") not in str(pumpdeck_agent.__file__)


def test_it_holds_pure_python_in_order_of_name_at_one_time(built: AgentRelease) -> None:
    with zipfile.ZipFile(built.path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert all(name.endswith((".py", "/")) or name.startswith("licences/") for name in names)
    tops = {name.split("/")[0] for name in names}
    ours = {"__main__.py", "licences", "pumpdeck_agent", "pumpdeck_fleet", "pumpdeck_packaging"}
    assert tops == ours | {"securesystemslib", "tuf", "urllib3"}


def test_it_carries_nothing_that_only_a_console_needs(built: AgentRelease) -> None:
    with zipfile.ZipFile(built.path) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("pumpdeck_fleet/store", "pumpdeck_fleet/transports"))]
    assert "pumpdeck_packaging/trust_repository.py" not in names
    assert "pumpdeck_packaging/agent_release.py" not in names
    assert [name for name in names if name.startswith("licences/tuf")]


def test_it_says_its_version(built: AgentRelease) -> None:
    assert built.version == agent_version(built.path.read_bytes()) == AGENT_VERSION
    with pytest.raises(FormatError):
        agent_version(b"no zip")


@pytest.mark.skipif(sys.platform == "win32", reason="devices run Linux")
def test_the_archive_alone_verifies_installs_tries_and_scores(built: AgentRelease, libraries: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    model = package()
    files = bench.assign(model)
    agent = ArchiveAgent(built.path, libraries, bench.root)
    channel = agent.channel()
    assert channel.call(Op.HELLO, {"console": "test", "workspace": "test"})[0]["agent"] == AGENT_VERSION
    push_blob(channel, model.sha256, model.data)
    answer = bench.send_assignment(channel, files)
    channel.close()
    assert (answer["outcome"], answer["receipt"]["self_test"]["flags_equal"]) == ("committed", True)
    bench.spool("a.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    agent.run("serve", "--once")
    state = agent.run("status")
    assert (state["state"], state["active"]) == ("ACTIVE", model.sha256)
    assert state["pumps"]["P-101A"]["scored_rows"] == 20


@pytest.mark.skipif(sys.platform == "win32", reason="devices run Linux")
def test_the_archive_starts_none_but_its_own_child_processes(built: AgentRelease, libraries: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PUMPDECK_AGENT_LIBRARIES": str(libraries)}
    command = [sys.executable, "-S", str(built.path), "--part", "this"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert b"Zen" not in done.stdout
