"""A device changes its own agent: a good one stays, a broken one never leaves it without an agent that answers."""

from __future__ import annotations

import io
import platform
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_agent.libraries import unpack_libraries
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, ReplayError, TrustError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.agent_desk import AgentContent
from pumpdeck_packaging.agent_wheels import WheelSet, WheelTarget, collect_wheels, wheel_bytes
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.wheel_index import Wheel, WheelIndex, this_target
from support.agent_upgrades import DIES, ENDS, HANGS, RAISES, UpgradeBench, breaks_in, other_agent, process_lines
from support.devices import NOW_MS, package, quiet_rows
from support.sshd import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices run Linux; the launcher needs POSIX")

NEWER = other_agent("0.2.0")


@pytest.fixture
def bench(tmp_path: Path) -> UpgradeBench:
    return UpgradeBench(tmp_path)


def test_a_newer_agent_takes_over_and_its_receipt_says_so(bench: UpgradeBench) -> None:
    bench.install(package())
    files = bench.release(NEWER)
    bench.push(NEWER)
    asked = bench.upgrade(files)
    assert (asked["phase"], asked["outcome"]) == ("PROBATION", "")
    assert bench.hello() == "0.2.0"
    stand = bench.stand()
    assert (stand["phase"], stand["outcome"], stand["version"]) == ("ACTIVE", "committed", "0.2.0")
    receipt = stand["receipt"]
    assert (receipt["sha256"], receipt["outcome"]) == (canonical.digest(NEWER), "committed")
    assert (receipt["active_sha256"], receipt["previous_sha256"]) == (canonical.digest(NEWER), canonical.digest(bench.first))
    assert bench.upgrade(files)["receipt"] == receipt
    assert list((bench.root / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "agent", "says"),
    [
        ("raises at import", other_agent("0.2.0", {"pumpdeck_agent/main.py": RAISES}), "broken on purpose"),
        ("ends without a word", other_agent("0.2.0", {"__main__.py": ENDS}), "no report"),
        ("kills itself", other_agent("0.2.0", {"pumpdeck_agent/commands.py": DIES}), "signal 9"),
        ("cannot verify", other_agent("0.2.0", {"pumpdeck_packaging/verify.py": RAISES}), "broken on purpose"),
        ("cannot score", other_agent("0.2.0", {"pumpdeck_agent/runtime.py": RAISES}), "broken on purpose"),
        ("says another version", other_agent("0.2.0", prefix={"pumpdeck_agent/self_check.py": b""}), ""),
    ],
    ids=["raises", "silent", "dies", "cannot verify", "cannot score", "another version"],
)
def test_an_agent_that_fails_its_check_never_runs(bench: UpgradeBench, name: str, agent: bytes, says: str) -> None:
    bench.install(package())
    files = bench.release(agent)
    if name == "says another version":
        word = AgentContent("0.3.0", canonical.digest(agent), len(agent))
        bench.desk.release(word, bench.site.keys.release)
        files, says = dict(bench.desk.files()), "not 0.3.0"
    bench.push(agent)
    answer = bench.upgrade(files)
    assert (answer["outcome"], answer["active"]) == ("rolled_back", canonical.digest(bench.first))
    assert says in answer["reason"]
    assert bench.hello() == AGENT_VERSION
    # The same release is refused without another trial; released anew it gets one.
    assert bench.upgrade(files)["receipt"] == answer["receipt"]


@pytest.mark.parametrize("code", [RAISES, HANGS, ENDS, DIES], ids=["raises", "hangs", "ends", "dies"])
def test_an_agent_that_breaks_only_once_it_is_the_agent_gives_way_to_the_old_one(tmp_path: Path, code: bytes) -> None:
    bench = UpgradeBench(tmp_path, confirm_s=2.0)
    broken = breaks_in("rpc", code, "0.2.0")
    files = bench.release(broken)
    bench.push(broken)
    assert bench.upgrade(files)["phase"] == "PROBATION"
    # One question, put to the new agent: the old one answers it.
    assert bench.hello() == AGENT_VERSION
    stand = bench.stand()
    assert (stand["outcome"], stand["phase"], stand["active"]) == ("rolled_back", "ACTIVE", canonical.digest(bench.first))
    assert "did not confirm" in stand["reason"]
    assert bench.upgrade(files)["receipt"] == stand["receipt"]


def test_an_agent_that_nobody_released_is_refused_and_nothing_changes(bench: UpgradeBench) -> None:
    """A laptop with a deploy key, or anybody with the device's SSH key, cannot bring an agent of their own."""
    files = bench.release(NEWER)
    thief = other_agent("6.6.6")
    word = AgentContent("6.6.6", canonical.digest(thief), len(thief))
    with pytest.raises(TrustError):
        bench.desk.release(word, [generate_key()])
    with pytest.raises(TrustError):
        bench.desk.release(word, bench.site.keys.laptops)
    bench.push(thief)
    envelope = bytearray(files["agent.dsse.json"])
    envelope[60] ^= 1
    for changed in ({**files, "agent.dsse.json": bytes(envelope)}, {n: d for n, d in files.items() if n != "agent.dsse.json"}):
        with pytest.raises((TrustError, DamagedError)):
            bench.upgrade(changed)
    assert bench.stand()["active"] == canonical.digest(bench.first)


def test_an_agent_that_was_not_pushed_is_asked_for_by_digest(bench: UpgradeBench) -> None:
    files = bench.release(NEWER)
    with pytest.raises(NotFoundError):
        bench.upgrade(files)
    assert bench.hello() == AGENT_VERSION


def test_an_older_release_is_a_replay(bench: UpgradeBench) -> None:
    old = bench.release(NEWER)
    newest = other_agent("0.3.0")
    files = bench.release(newest)
    bench.push(newest)
    bench.upgrade(files)
    assert bench.hello() == "0.3.0"
    bench.push(NEWER)
    with pytest.raises(ReplayError):
        bench.upgrade(old)
    assert bench.hello() == "0.3.0"


def test_a_damaged_active_agent_gives_way_to_the_one_before_it(bench: UpgradeBench) -> None:
    files = bench.release(NEWER)
    bench.push(NEWER)
    bench.upgrade(files)
    assert bench.hello() == "0.2.0"
    path = bench.root / "agent" / "b" / "agent.pyz"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(bytes(data))
    assert bench.hello() == AGENT_VERSION
    bench.push(NEWER)
    assert bench.upgrade(files)["phase"] == "PROBATION"
    assert bench.hello() == "0.2.0"


def test_the_serving_process_becomes_the_new_agent_and_confirms_it(bench: UpgradeBench) -> None:
    bench.install(package())
    with bench.serving() as serve:
        files = bench.release(NEWER)
        bench.push(NEWER)
        assert bench.upgrade(files)["phase"] == "PROBATION"
        assert wait_for(lambda: bench.slot_phase() == "ACTIVE", 30)
        assert wait_for(lambda: any("/agent/b/agent.pyz" in line for line in process_lines(serve.pid)), 30)
        assert serve.poll() is None
    assert bench.stand()["outcome"] == "committed"


def test_an_agent_that_cannot_serve_gives_way_while_scoring_goes_on(tmp_path: Path) -> None:
    bench = UpgradeBench(tmp_path, confirm_s=2.0)
    bench.install(package())
    broken = other_agent("0.2.0", prefix={"pumpdeck_agent/serve.py": RAISES})
    with bench.serving() as serve:
        files = bench.release(broken)
        bench.push(broken)
        assert bench.upgrade(files)["phase"] == "PROBATION"
        assert wait_for(lambda: bench.slot_phase() == "ROLLED_BACK", 60)
        assert wait_for(lambda: any("/agent/a/agent.pyz" in line for line in process_lines(serve.pid)), 30)
        bench.spool("late.csv", {"P-101A": quiet_rows(5, 1)}, NOW_MS + 60_000 * np.arange(5))
        assert wait_for(lambda: not list((bench.root / "spool" / "in").iterdir()), 30)
    assert bench.stand()["outcome"] == "rolled_back"


def small_wheels(folder: Path, text: bytes) -> WheelSet:
    """A set with one tiny library; the big ones are found behind it."""

    def fetch(arguments: Sequence[str]) -> None:
        where = Path(arguments[list(arguments).index("--dest") + 1])
        with zipfile.ZipFile(where / "extra-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("extra/__init__.py", text)
            wheel.writestr("extra-1.0.data/scripts/tool", b"not unpacked")

    target = WheelTarget.parse(this_target(platform.machine(), sys.version_info[:2]))
    return collect_wheels(folder, target, {"extra": "1.0"}, fetch)


def test_an_agent_with_other_libraries_brings_them_and_needs_no_rights(tmp_path: Path) -> None:
    old, new = small_wheels(tmp_path / "old", b"old = 1"), small_wheels(tmp_path / "new", b"new = 1")
    bench = UpgradeBench(tmp_path, wheels=old)
    assert bench.stand()["libraries"] == old.sha256
    files = bench.release(NEWER, {old.target.name: new.sha256})
    bench.push(NEWER)
    with pytest.raises(NotFoundError):
        bench.upgrade(files)
    bench.push((new.folder / "wheels.json").read_bytes())
    with pytest.raises(NotFoundError):
        bench.upgrade(files)
    for wheel in new.wheels:
        bench.push(wheel_bytes(new.folder, wheel))
    assert bench.upgrade(files)["phase"] == "PROBATION"
    assert bench.hello() == "0.2.0"
    stand = bench.stand()
    assert (stand["outcome"], stand["libraries"]) == ("committed", new.sha256)
    folder = bench.root / "agent" / "libraries" / new.sha256
    assert [path.name for path in folder.iterdir()] == ["extra"]
    assert (folder / "extra" / "__init__.py").read_bytes() == b"new = 1"


def test_a_wheel_that_reaches_outside_its_folder_is_refused(tmp_path: Path) -> None:
    """A path with `..` in a wheel; nothing of it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("../outside.py", b"1")
    data = buffer.getvalue()
    index = WheelIndex(1, "x86_64-cp311", (Wheel("a", "1", "a-1.whl", "a.whl", len(data), canonical.digest(data)),))
    with pytest.raises(FormatError, match="outside"):
        unpack_libraries(RealFileSystem(), tmp_path / "libraries", index, lambda _wheel: data)
    assert not (tmp_path / "outside.py").exists()
    assert not (tmp_path / "libraries").exists()
