"""Power cuts at every step of an agent upgrade, on a disk that forgets unsynced bytes: the launcher always finds an agent."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.probation import AgentReceipts, confirm
from pumpdeck_agent.self_check import CheckReport, CheckRequest
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, fresh_record
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.agent_desk import AgentContent, AgentDesk
from support.devices import NOW_MS, Bench, LoopChannel
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the launcher runs on devices, and needs POSIX")

ROOT = Path("/device")
OLD, NEW = b"the old agent " * 40, b"the new agent " * 50


class PassingCheck:
    """The new agent works; whether it does is asked elsewhere, with real ones."""

    def run(self, wanted: CheckRequest) -> CheckReport:
        return CheckReport("2", "gannet-d1", "key", "ACTIVE")


class Drill:
    """A device whose old agent stands in slot a; each try starts from there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = ForgetfulDisk()
        self.bench = Bench(folder, fs=self.disk, root=ROOT)
        desk = AgentDesk(folder / "gannet", self.bench.site.trust, RealFileSystem(), FixedClock(NOW_MS))
        desk.release(AgentContent("2", canonical.digest(NEW), len(NEW)), self.bench.site.keys.release)
        self.files = dict(desk.files())
        slots = self.slots()
        self.disk.mkdir(slots.folder)
        slots.put("a", OLD)
        slots.save(fresh_record(AgentBuild("a", canonical.digest(OLD), "1", 0)))
        self.disk.sync_all()
        self.start = self.disk.after_cut(Loss.NOTHING)

    def slots(self) -> SlotFiles:
        return SlotFiles(self.bench.platform, ROOT)

    def use(self, disk: ForgetfulDisk) -> None:
        self.disk = disk
        self.bench.fs = disk
        self.bench.platform = dataclasses.replace(self.bench.platform, fs=disk)

    def fresh(self, cut_at: int | None) -> None:
        self.use(self.start.after_cut(Loss.NOTHING))
        self.disk.cut_at = cut_at

    def upgrade(self) -> None:
        """What console, old agent, launcher and new agent do, one after the other."""
        agent = Agent(
            ROOT, platform=self.bench.platform, runner=self.bench.runner, limits=self.bench.limits, checks=PassingCheck()
        )
        record = self.slots().load()
        if record is None or record.phase is not SlotPhase.PROBATION:
            try:
                stand = agent.upgrader.upgrade(self.files)
            except NotFoundError:
                push_blob(LoopChannel(agent), canonical.digest(NEW), NEW)
                stand = agent.upgrader.upgrade(self.files)
            record = stand.record
        confirm(self.slots(), AgentReceipts("gannet-d1", self.bench.platform))

    def starts(self, where: Path) -> bytes:
        """The bytes that the launcher would start from this disk: asked of the launcher itself."""
        from pumpdeck_agent import launcher

        home = where / "agent"
        for name in ("slot.0", "slot.1", "a/agent.pyz", "b/agent.pyz"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).unlink(missing_ok=True)
            if self.disk.exists(ROOT / "agent" / name):
                (home / name).write_bytes(self.disk.read_bytes(ROOT / "agent" / name, 1 << 20))
        record = launcher.choose(home, supervised=True)
        assert record is not None
        build = launcher.first_sound(home, record)
        assert build is not None
        return (home / build["slot"] / "agent.pyz").read_bytes()


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("loss", list(Loss))
def test_a_cut_at_any_step_of_an_upgrade_leaves_an_agent_to_start_and_can_be_finished(
    drill: Drill, loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No archive runs here: the process plays the new agent when it confirms.
    monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == canonical.digest(NEW))
    step = 0
    while True:
        drill.fresh(step)
        try:
            drill.upgrade()
        except PowerCut:
            drill.use(drill.disk.after_cut(loss, seed=step))
        else:
            break
        assert drill.starts(tmp_path) in (OLD, NEW), f"step {step}"
        drill.upgrade()
        record = drill.slots().load()
        assert record is not None
        assert (record.phase, record.active.sha256) == (SlotPhase.ACTIVE, canonical.digest(NEW)), f"step {step}"
        assert record.receipt is not None
        assert (record.receipt.outcome, record.receipt.counter) == (Outcome.COMMITTED, 1)
        assert drill.starts(tmp_path) == NEW
        step += 1
    assert step >= 30
    print(f"{loss.name}: {step} cuts")


@pytest.mark.parametrize("copy", [0, 1])
def test_one_lost_copy_of_the_record_never_leaves_the_device_without_an_agent(
    drill: Drill, copy: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == canonical.digest(NEW))
    drill.fresh(None)
    drill.upgrade()
    drill.disk.unlink(ROOT / "agent" / f"slot.{copy}")
    assert drill.starts(tmp_path) in (OLD, NEW)


@pytest.mark.parametrize("loss", list(Loss))
def test_what_was_answered_outlives_a_cut(
    drill: Drill, loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == canonical.digest(NEW))
    drill.fresh(None)
    drill.upgrade()
    said = drill.slots().load()
    drill.use(drill.disk.after_cut(loss))
    assert drill.slots().load() == said
    assert drill.starts(tmp_path) == NEW


@pytest.mark.parametrize("part", ["record", "archive", "folder"])
def test_the_drill_notices_each_sync_that_is_left_out(
    drill: Drill, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlotFiles, "runs", lambda _self, build: build.sha256 == canonical.digest(NEW))
    real = ForgetfulDisk.open_write

    def lying(self: ForgetfulDisk, path: Path, *, truncate: bool = True) -> object:
        handle = real(self, path, truncate=truncate)
        if path.name.startswith("slot.") if part == "record" else path.name.startswith("agent.pyz"):
            monkeypatch.setattr(handle, "fsync", lambda: None)
        return handle

    drill.fresh(None)
    if part == "folder":
        monkeypatch.setattr(ForgetfulDisk, "fsync_dir", lambda _self, _path: None)
    else:
        monkeypatch.setattr(ForgetfulDisk, "open_write", lying)
    drill.upgrade()
    said, lost = drill.slots().load(), []
    for loss in Loss:
        after = drill.disk.after_cut(loss)
        kept, disk = drill.disk, after
        drill.use(disk)
        try:
            if drill.slots().load() != said or drill.starts(tmp_path) != NEW:
                lost.append(loss)
        except AssertionError:
            lost.append(loss)
        drill.use(kept)
    assert lost
