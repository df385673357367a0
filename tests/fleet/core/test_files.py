"""Files are replaced whole, and nothing from outside is read beyond its limit."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem, read_at_most, replace_file
from pumpdeck_fleet.core.ports import OpenFile

FS = RealFileSystem()


class Recorder(RealFileSystem):
    """The real file system, telling what was asked of it, and failing at one step."""

    def __init__(self, fail_at: str = "") -> None:
        self.steps: list[str] = []
        self.fail_at = fail_at

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fail_at:
            raise OSError(name)

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        self._step(f"open {path.name}")
        recorder, handle = self, super().open_write(path, truncate=truncate)

        class Told:
            def write(self, data: bytes) -> int:
                recorder._step("write")
                return handle.write(data)

            def seek(self, offset: int) -> int:
                return handle.seek(offset)

            def fsync(self) -> None:
                recorder._step("sync")
                handle.fsync()

            def close(self) -> None:
                recorder._step("close")
                handle.close()

        return Told()

    def rename(self, source: Path, target: Path) -> None:
        self._step(f"rename {source.name} {target.name}")
        super().rename(source, target)

    def fsync_dir(self, path: Path) -> None:
        self._step("sync folder")
        super().fsync_dir(path)


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path) -> None:
    fs = Recorder()
    replace_file(fs, tmp_path / "a.json", b"new")
    assert fs.steps == ["open a.json.part", "write", "sync", "close", "rename a.json.part a.json", "sync folder"]
    assert (tmp_path / "a.json").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["open a.json.part", "write", "sync", "rename a.json.part a.json"])
def test_a_failure_before_the_rename_leaves_the_old_bytes(tmp_path: Path, step: str) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(OSError, match=step):
        replace_file(Recorder(step), tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"
    replace_file(FS, tmp_path / "a.json", b"newer")
    assert (tmp_path / "a.json").read_bytes() == b"newer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    stream = io.BytesIO(b"x" * 1000)
    with pytest.raises(TooLargeError, match="thing"):
        read_at_most(stream, 10, "thing")
    assert stream.tell() == 11
    assert read_at_most(io.BytesIO(b"x" * 10), 10, "thing") == b"x" * 10
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(TooLargeError):
        FS.read_bytes(path, 999)
    assert len(FS.read_bytes(path, 1000)) == 1000


def test_the_real_file_system_does_what_its_port_says(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    FS.mkdir(folder)
    FS.mkdir(folder)
    path = folder / "x"
    handle = FS.open_write(path)
    handle.write(b"0123456789")
    handle.seek(2)
    handle.write(b"ab")
    handle.fsync()
    handle.close()
    handle.close()
    assert (FS.read_bytes(path, 100), FS.size(path), FS.exists(path)) == (b"01ab456789", 10, True)
    again = FS.open_write(path, truncate=False)
    again.write(b"Z")
    again.close()
    assert FS.read_bytes(path, 100) == b"Z1ab456789"
    FS.rename(path, folder / "y")
    FS.fsync_dir(folder)
    assert FS.listdir(folder) == ["y"]
    FS.unlink(folder / "y")
    FS.unlink(folder / "y")
    assert not FS.exists(folder / "y")
    FS.remove_tree(tmp_path / "a")
    FS.remove_tree(tmp_path / "a")
    assert FS.listdir(tmp_path) == []
    assert FS.free_bytes(tmp_path) > 0
    with pytest.raises(FileNotFoundError):
        FS.read_bytes(path, 10)
