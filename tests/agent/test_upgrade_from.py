"""The agent is renewed from a stick: real archives, the real launcher, the two slots of SSH; a bad stick changes nothing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_agent.probation import AgentReceipts, confirm
from pumpdeck_agent.self_check import CheckReport, CheckRequest
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, fresh_record
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import AGENT_RECEIPT_PAYLOAD_TYPE
from pumpdeck_packaging.agent_desk import AgentContent, AgentDesk
from pumpdeck_packaging.agent_on_stick import released_file, word_file
from pumpdeck_packaging.agent_release import AgentRelease, agent_version
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME
from pumpdeck_packaging.bundle_agent import AgentLoad, write_agent
from pumpdeck_packaging.bundle_index import metadata_file
from pumpdeck_packaging.bundle_part import bytes_part
from pumpdeck_packaging.bundle_stick import Stick, StickFailedError, real_stick
from pumpdeck_packaging.signing import verify_dsse
from support.agent_upgrades import HANGS, UpgradeBench, breaks_in, other_agent
from support.devices import NOW_MS, Bench
from support.sticks import PulledDisk, export_to

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the launcher runs on devices, and needs POSIX")

OLD, NEW = b"the old agent " * 40, b"the new agent " * 5000


def stick_with(folder: Path, data: bytes, files: Mapping[str, bytes]) -> Stick:
    """A stick as `bundle export --agent` writes it for one site: metadata, word, released agent."""
    stick = real_stick(folder)
    metadata = [bytes_part(metadata_file("gannet", name), one) for name, one in files.items() if name != AGENT_WORD_NAME]
    export_to(stick, metadata)
    archive = folder.with_name(f"{folder.name}.pyz")
    archive.write_bytes(data)
    release = AgentRelease("2", canonical.digest(data), len(data), archive)
    words = {"gannet": files[AGENT_WORD_NAME]}
    write_agent(stick, AgentLoad(release, [], words, {release.sha256: data}), lambda *_: None)
    return stick


class PassingCheck:
    """The new agent works; whether it does is asked elsewhere, with real ones."""

    def run(self, wanted: CheckRequest) -> CheckReport:
        return CheckReport("2", "gannet-d1", "key", "ACTIVE")


class Device:
    """A device whose old agent stands in slot a; bytes stand in for archives, so that many visits take no time."""

    def __init__(self, folder: Path, like: Device | None = None) -> None:
        self.bench = Bench(folder, site=like.bench.site if like else None)
        trust = self.bench.site.trust
        self.desk = like.desk if like else AgentDesk(folder / "gannet", trust, RealFileSystem(), FixedClock(NOW_MS))
        self.slots = SlotFiles(self.bench.platform, self.bench.root)
        self.bench.fs.mkdir(self.slots.folder)
        self.slots.put("a", OLD)
        self.slots.save(fresh_record(AgentBuild("a", canonical.digest(OLD), "1", 0)))

    def release(self, data: bytes = NEW) -> dict[str, bytes]:
        self.desk.release(AgentContent("2", canonical.digest(data), len(data)), self.bench.site.keys.release)
        return dict(self.desk.files())

    def visit(self, stick: Stick) -> StickVisit:
        bench = self.bench
        agent = Agent(bench.root, platform=bench.platform, runner=bench.runner, limits=bench.limits, checks=PassingCheck())
        return install_from(agent, stick)

    def active(self) -> bytes:
        record = self.slots.load()
        assert record is not None and self.slots.is_sound(record.active)
        return self.slots.archive(record.active.slot).read_bytes()

    def returned(self, stick: Stick) -> list[str]:
        """The kinds of what lies in the return."""
        envelope = json.loads((stick.folder / "returns" / "gannet-d1" / "return.json").read_bytes())
        payload = base64.b64decode(envelope["payload"])
        return [item["kind"] for item in json.loads(payload)["items"]]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def confirm_new(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the new agent does at its first start."""
    monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == canonical.digest(NEW))
    assert confirm(device.slots, AgentReceipts("gannet-d1", device.bench.platform))


def test_a_stick_brings_another_agent_into_the_other_slot(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = stick_with(tmp_path / "stick", NEW, device.release())
    first = device.visit(stick)
    assert first.agent.outcome == "probation" and device.active() == NEW
    page = (stick.folder / "returns" / "gannet-d1" / "report.txt").read_text(encoding="utf-8")
    assert "renewed at its next start" in page and page.count("\n") == 3
    confirm_new(device, monkeypatch)
    second = device.visit(stick)
    assert (second.agent.outcome, second.exit_code) == ("committed", 0)
    assert device.returned(stick) == ["agent_receipt"]
    assert device.visit(stick).agent == second.agent
    record = device.slots.load()
    assert record is not None and record.phase is SlotPhase.ACTIVE and record.previous is not None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda at: (at / released_file(canonical.digest(NEW))).write_bytes(NEW[:-1] + b"x"), "damaged on the stick"),
        (lambda at: (at / released_file(canonical.digest(NEW))).write_bytes(NEW + b"x"), "damaged on the stick"),
        (lambda at: (at / released_file(canonical.digest(NEW))).unlink(), "not on this stick"),
        (lambda at: (at / word_file("gannet")).write_bytes(b"{}"), ""),
        (lambda at: (at / word_file("gannet")).write_bytes((at / word_file("gannet")).read_bytes()[:-40]), ""),
    ],
    ids=["tampered", "longer", "gone", "no word", "truncated"],
)
def test_a_bent_stick_leaves_the_agent_that_runs(device: Device, tmp_path: Path, spoil: Any, words: str) -> None:
    stick = stick_with(tmp_path / "stick", NEW, device.release())
    spoil(stick.folder)
    found = device.visit(stick)
    assert found.agent.outcome == "refused" and words in found.agent.reason
    assert device.active() == OLD and found.returned == 0
    assert "was not renewed" in (stick.folder / "returns" / "gannet-d1" / "report.txt").read_text(encoding="utf-8")


def test_an_older_release_on_an_old_stick_is_refused(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay: a stick from before the last release."""
    other = b"an agent between " * 50
    old = stick_with(tmp_path / "old", other, device.release(other))
    device.visit(stick_with(tmp_path / "new", NEW, device.release()))
    confirm_new(device, monkeypatch)
    found = device.visit(old)
    assert found.agent.outcome == "refused" and "older than the agent" in found.agent.reason and device.active() == NEW


def test_another_sites_word_is_refused(device: Device, tmp_path: Path) -> None:
    """Foreign site: its release keys are not ours."""
    stick = stick_with(tmp_path / "stick", NEW, device.release())
    stranger = Device(tmp_path / "stranger")
    (stick.folder / word_file("gannet")).write_bytes(stranger.release()[AGENT_WORD_NAME])
    assert device.visit(stick).agent.outcome == "refused" and device.active() == OLD


def test_a_stick_pulled_at_every_step_leaves_an_agent_and_the_next_visit_finishes(tmp_path: Path) -> None:
    device = Device(tmp_path / "site")
    stick = stick_with(tmp_path / "stick", NEW, device.release())
    step, begun = 0, 0
    while True:
        one = Device(tmp_path / str(step), device)
        pulled = PulledDisk(stick.fs, step)
        found = one.visit(Stick(pulled, stick.folder, pulled.read_bytes))  # type: ignore[arg-type]
        assert one.active() in (OLD, NEW), f"step {step}"
        begun += one.active() == NEW
        if not found.exit_code:
            break
        assert found.exit_code == StickFailedError.exit_code, f"step {step}: {found}"
        again = one.visit(stick)
        assert again.agent.outcome == "probation" and one.active() == NEW, f"step {step}: {again}"
        step += 1
    assert begun > 0
    print(f"{step} pulls")


def run_install(bench: UpgradeBench, stick: Stick) -> dict[str, Any]:
    """As the stick's unit calls it: through the launcher, to its end."""
    command = [*bench.launch, "install-from", "--root", str(bench.root), str(stick.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=bench.environment, check=False)
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.timeout(300)
def test_the_launcher_starts_the_new_agent_with_the_same_stick(tmp_path: Path) -> None:
    bench = UpgradeBench(tmp_path, confirm_s=30.0)
    newer = other_agent("0.9.0")
    stick = stick_with(tmp_path / "stick", newer, bench.release(newer))
    said = run_install(bench, stick)
    assert (said["agent"]["outcome"], said["agent"]["version"]) == ("committed", "0.9.0"), said
    assert bench.hello() == "0.9.0" and bench.slot_phase() == "ACTIVE"
    assert "was renewed" in (stick.folder / "returns" / "gannet-d1" / "report.txt").read_text(encoding="utf-8")
    (item,) = [path for path in (stick.folder / "returns" / "gannet-d1").iterdir() if len(path.name) == 64]
    keys = {bench.identity.key_id: bench.identity.public_pem}
    receipt = json.loads(verify_dsse(item.read_bytes(), AGENT_RECEIPT_PAYLOAD_TYPE, keys, 64 * 1024))
    assert (receipt["outcome"], receipt["sha256"]) == ("committed", canonical.digest(newer))


@pytest.mark.timeout(300)
def test_a_new_agent_that_hangs_with_the_stick_is_taken_back_and_the_old_one_says_so(tmp_path: Path) -> None:
    bench = UpgradeBench(tmp_path, confirm_s=1.0)
    broken = breaks_in("install-from", HANGS)
    stick = stick_with(tmp_path / "stick", broken, bench.release(broken))
    said = run_install(bench, stick)
    assert said["agent"]["outcome"] == "rolled_back", said
    assert bench.hello() == agent_version(bench.first)
    assert "one from before runs on" in (stick.folder / "returns" / "gannet-d1" / "report.txt").read_text(encoding="utf-8")
