"""A bundle in one file whose disk fails or loses power at any step, at the office and at the device: whole or not there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pumpdeck_agent.install_from_tar import install_from_tar
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import StickFailedError
from pumpdeck_packaging.bundle_tar import TarBundle
from pumpdeck_packaging.bundle_tar_writer import TarPlace, real_place, write_bundle_tar
from support.devices import Bench, package
from support.forgetful_disk import ForgetfulDisk, Loss
from support.sticks import WORKSPACE, PulledDisk, parts_for

FOLDER = Path("/mail")
PATH = FOLDER / "letter.tar"
FIRST = package(shift=0.0)
SECOND = package(shift=0.5)


class DiskSource:
    """A tar on a disk in memory."""

    def __init__(self, disk: ForgetfulDisk, path: Path) -> None:
        self._data = disk.read_bytes(path, 1 << 30)
        self.size = len(self._data)

    def read_at(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        pass


def place_on(disk: object, path: Path = PATH) -> TarPlace:
    return TarPlace(disk, path, partial(DiskSource, disk))  # type: ignore[arg-type]


def empty_disk() -> ForgetfulDisk:
    disk = ForgetfulDisk()
    disk.mkdir(FOLDER)
    disk.sync_all()
    return disk


def whole(disk: ForgetfulDisk, parts: list) -> bool:  # type: ignore[type-arg]
    if not disk.exists(PATH):
        return False
    letter = TarBundle(DiskSource(disk, PATH), PATH)
    reader = BundleReader(letter, PATH)
    for part in parts:
        assert reader.read(part.path, part.size) == part.load()
    return True


@pytest.mark.parametrize("loss", list(Loss))
def test_a_cut_at_any_step_of_an_export_leaves_no_half_letter(tmp_path: Path, loss: Loss) -> None:
    bench = Bench(tmp_path)
    parts = parts_for(bench.assign(FIRST), FIRST)
    write = partial(write_bundle_tar, workspace=WORKSPACE, parts=parts, on_progress=lambda *_: None)
    step = 0
    while True:
        disk = empty_disk()
        given: list[int] = []
        try:
            write(place_on(PulledDisk(disk, step)), before_index=partial(given.append, 1))
        except StickFailedError:
            found = disk.after_cut(loss, seed=step)
            # A letter that is there was counted as given away before.
            assert not whole(found, parts) or given
            write(place_on(found), before_index=lambda: None)
            assert whole(found.after_cut(Loss.ALL), parts)
            step += 1
            continue
        assert whole(disk.after_cut(loss), parts)
        break
    print(f"letter, {loss.name}: {step} cuts, 0 half letters")
    assert step > 20


def test_the_answer_cut_at_any_step_costs_another_answer_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "task-1")
    letter = tmp_path / "letter.tar"
    parts = parts_for(bench.assign(SECOND, "task-2"), SECOND)
    write_bundle_tar(real_place(letter), WORKSPACE, parts, before_index=lambda: None, on_progress=lambda *_: None)
    step = 0
    while True:
        disk = empty_disk()
        pulled = PulledDisk(disk, step)
        visit = install_from_tar(bench.agent(), letter, PATH, lambda path: place_on(pulled, path))  # noqa: B023
        assert bench.status()["active"] == SECOND.sha256
        if visit.exit_code == 0:
            break
        assert visit.returned == -1 and "failed" in visit.problem
        left = disk.after_cut(Loss.NOTHING)
        # Cut while its folder was synced: then it is whole. Else it is not there.
        if left.exists(PATH):
            assert TarBundle(DiskSource(left, PATH), PATH).exists(PATH / "returns" / bench.device / "return.json")
        step += 1
    print(f"answer: {step} cuts, 0 half answers, nothing lost on the device")
    assert step > 8
    answer = TarBundle(DiskSource(disk, PATH), PATH)
    assert answer.exists(PATH / "returns" / bench.device / "return.json")
    assert visit.returned == 2


def test_a_letter_that_is_gone_or_unreadable_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "task-1")
    with pytest.raises(PumpdeckError):
        install_from_tar(bench.agent(), tmp_path / "gone.tar")
    assert bench.status()["active"] == FIRST.sha256
