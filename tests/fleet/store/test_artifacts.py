"""Many artifacts at once: as durable as one by one, and no cut leaves a wrong one."""

from __future__ import annotations

from itertools import count
from pathlib import Path, PurePosixPath

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.store import ArtifactStore
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut

ROOT = Path("disk/artifacts")
ITEMS = [b"one", b"two", b"three", b"two"]


def disk_with(first: bytes) -> ForgetfulDisk:
    """A disk with one artifact, all of it synced."""
    disk = ForgetfulDisk()
    ArtifactStore(ROOT, disk).put(first)
    disk.sync_all()
    return disk


@pytest.mark.parametrize("loss", list(Loss))
def test_a_power_cut_at_any_step_leaves_whole_artifacts_or_none(loss: Loss) -> None:
    for step in count():
        disk = disk_with(b"one")
        disk.cut_at = step
        try:
            names = ArtifactStore(ROOT, disk).put_all(ITEMS)
            was_cut = False
        except PowerCut:
            was_cut = True
        found = ArtifactStore(ROOT, disk.after_cut(loss, seed=step))
        kept = 0
        for data in ITEMS[1:]:
            try:
                assert found.get(canonical.digest(data)) == data
                kept += 1
            except NotFoundError:
                pass
        assert found.get(canonical.digest(b"one")) == b"one"
        if not was_cut:
            assert kept == 3 and names == [canonical.digest(data) for data in ITEMS]
            break
    assert step > 6


def test_hundreds_are_put_once_each_and_an_altered_one_is_healed(tmp_path: Path) -> None:
    artifacts = ArtifactStore(tmp_path, RealFileSystem())
    items = [f"artifact {number % 150}".encode() for number in range(300)]
    names = artifacts.put_all(items)
    assert names == [canonical.digest(data) for data in items]
    assert [artifacts.get(name) for name in names] == items
    files = [PurePosixPath(path).name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(set(names))
    artifacts.path(names[7]).write_bytes(b"bitten")
    assert artifacts.put_all(items) == names and artifacts.get(names[7]) == items[7]
    assert artifacts.put_all([]) == []
