"""Compiled code beside the agent's archive: it is used when it is whole and meant for this archive, and is never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_agent.code_cache import CACHE_FILE, encode_cache, write_cache
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.agent_release import build_agent
from support.agent_archive import ArchiveAgent, link_libraries
from support.devices import Bench

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices run Linux")

# Where a module's code came from, asked inside the archive's own process.
ASK = (
    "import sys, json; sys.argv = ['x', '--version']; sys.path.insert(0, sys.orig_argv[-1]);"
    "from pumpdeck_agent.code_cache import use_cache; from pathlib import Path; used = use_cache(Path(sys.path[0]));"
    "import pumpdeck_agent.main as main, pumpdeck_agent.own_command as own;"
    "print(json.dumps([used, type(main.__loader__).__name__, main.__file__, str(own.own_archive())]))"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("slot")).path


@pytest.fixture
def slot(archive: Path, tmp_path: Path) -> Path:
    """The archive in a folder of this test's own."""
    copy = tmp_path / archive.name
    copy.write_bytes(archive.read_bytes())
    return copy


def ask(archive: Path) -> list[object]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", ASK, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return list(json.loads(done.stdout))


def test_code_comes_from_the_cache_and_says_so(slot: Path) -> None:
    plain = ask(slot)
    assert plain == [False, "zipimporter", f"{slot}/pumpdeck_agent/main.py", str(slot)]
    assert write_cache(RealFileSystem(), slot)
    assert ask(slot) == [True, "CachedCode", f"{slot}/pumpdeck_agent/main.py", str(slot)]
    assert not write_cache(RealFileSystem(), slot), "it is there"


@pytest.mark.parametrize("place", [0, 70, 300, -1])
def test_a_damaged_cache_is_not_used_and_is_made_anew(slot: Path, place: int) -> None:
    write_cache(RealFileSystem(), slot)
    data = bytearray((slot.parent / CACHE_FILE).read_bytes())
    data[place] ^= 1
    (slot.parent / CACHE_FILE).write_bytes(data)
    assert ask(slot)[:2] == [False, "zipimporter"]
    assert write_cache(RealFileSystem(), slot)
    assert ask(slot)[0] is True


def test_a_cut_cache_or_one_of_another_archive_is_not_used(slot: Path, tmp_path: Path) -> None:
    cache = slot.parent / CACHE_FILE
    whole = encode_cache(slot)
    for data in (b"", whole[:10], whole[:-1]):
        cache.write_bytes(data)
        assert ask(slot)[0] is False
    cache.write_bytes(whole)
    slot.write_bytes(slot.read_bytes() + b"\0" * 4)
    assert ask(slot)[:2] == [False, "zipimporter"]


def test_the_same_archive_gives_a_cache_that_its_own_processes_work_from(slot: Path, tmp_path: Path) -> None:
    """`resume`, which runs at every start of the service, leaves it behind; what follows starts from it."""
    bench = Bench(tmp_path / "device")
    agent = ArchiveAgent(slot, link_libraries(tmp_path / "libraries"), bench.root)
    assert not (slot.parent / CACHE_FILE).exists()
    assert agent.run("resume")["state"] == "NO_MODEL"
    assert (slot.parent / CACHE_FILE).exists()
    assert agent.run("status")["state"] == "NO_MODEL"
    assert ask(slot)[0] is True
