"""Power cuts at every step of an install, on a disk that forgets unsynced bytes: never without a working model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.package_reader import load_folder
from support.devices import Bench, package
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut

ROOT = Path("/device")
FIRST = package(shift=0.0)
SECOND = package(shift=0.5)


class Drill:
    """A device that runs the first package and has the second pushed; each try starts from there."""

    def __init__(self, tmp_path: Path) -> None:
        self.bench = Bench(tmp_path, fs=ForgetfulDisk(), root=ROOT)
        self.bench.install(FIRST, "task-1")
        self.files = self.bench.assign(SECOND, "task-2")
        push_blob(self.bench.channel(), SECOND.sha256, SECOND.data)
        self._disk().sync_all()
        self.start = self._disk().after_cut(Loss.NOTHING)

    def _disk(self) -> ForgetfulDisk:
        assert isinstance(self.bench.fs, ForgetfulDisk)
        return self.bench.fs

    def use(self, disk: ForgetfulDisk) -> None:
        self.bench.fs = disk
        self.bench.platform = self.bench.platform.__class__(
            disk, self.bench.clock, self.bench.platform.locks, self.bench.platform.is_clock_synced
        )

    def fresh(self, cut_at: int | None) -> ForgetfulDisk:
        disk = self.start.after_cut(Loss.NOTHING)
        disk.cut_at = cut_at
        self.use(disk)
        return disk

    def assign_second(self) -> dict[str, object]:
        channel = self.bench.channel()
        try:
            return self.bench.send_assignment(channel, self.files)
        except NotFoundError:
            push_blob(channel, SECOND.sha256, SECOND.data)
            return self.bench.send_assignment(channel, self.files)

    def check_alive(self) -> str:
        """What runs now; every byte of it is sound."""
        agent = self.bench.agent()
        state = agent.installer.ready()
        assert state.active is not None
        load_folder(self.bench.fs, agent.layout.package(state.active.sha256), manifest_digest=state.active.manifest)
        assert state.active.sha256 in (FIRST.sha256, SECOND.sha256)
        return state.active.sha256

    def check_finished(self) -> None:
        """The second package runs, the first is its way back, and one receipt says so."""
        agent = self.bench.agent()
        state = agent.installer.ready()
        assert (state.active_sha256, state.previous_sha256) == (SECOND.sha256, FIRST.sha256)
        assert state.previous is not None
        load_folder(self.bench.fs, agent.layout.package(FIRST.sha256), manifest_digest=state.previous.manifest)
        items, _ = agent.outbox.take(1 << 20)
        receipts = [self.bench.receipt(data) for item, data in items if item.kind is ReturnKind.RECEIPT]
        committed = [r for r in receipts if r["outcome"] == "committed" and r["task"] == "task-2"]
        assert len(committed) == 1
        counters = [r["counter"] for r in receipts]
        assert counters == sorted(set(counters))


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("loss", list(Loss))
def test_a_cut_at_any_step_of_an_install_leaves_a_working_model_and_can_be_finished(drill: Drill, loss: Loss) -> None:
    step = 0
    while True:
        disk = drill.fresh(step)
        try:
            drill.assign_second()
        except PowerCut:
            drill.use(disk.after_cut(loss, seed=step))
            drill.check_alive()
            drill.assign_second()
            drill.check_finished()
            step += 1
            continue
        drill.check_finished()
        break
    print(f"install, {loss.name}: {step} cuts, 0 without a working model, 0 that could not be finished")
    assert step > 40


@pytest.mark.parametrize("loss", list(Loss))
def test_what_was_answered_outlives_a_cut(drill: Drill, loss: Loss) -> None:
    disk = drill.fresh(None)
    assert drill.assign_second()["outcome"] == "committed"
    drill.use(disk.after_cut(loss))
    drill.check_finished()


def test_a_second_cut_while_the_device_recovers_changes_nothing(drill: Drill) -> None:
    for step in range(0, 1000, 7):
        disk = drill.fresh(step)
        try:
            drill.assign_second()
        except PowerCut:
            pass
        else:
            break
        for inner in range(0, 40, 9):
            again = disk.after_cut(Loss.SOME, seed=step * 100 + inner)
            again.cut_at = inner
            drill.use(again)
            try:
                drill.check_alive()
                drill.assign_second()
            except PowerCut:
                drill.use(again.after_cut(Loss.ALL))
            drill.check_alive()
            drill.assign_second()
            drill.check_finished()


def test_the_newest_state_record_is_never_written_over(drill: Drill) -> None:
    """Both copies are there after an install and their records follow each other."""
    drill.fresh(None)
    drill.assign_second()
    layout = drill.bench.agent().layout
    files = StateFiles(drill.bench.fs, layout)
    copies = [files._read(which) for which in (0, 1)]
    records = sorted(copy.record for copy in copies if copy is not None)
    assert len(records) == 2
    assert records[1] - records[0] == 1
