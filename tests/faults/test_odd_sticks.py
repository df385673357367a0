"""Sticks that are not what they seem: a FAT one, one that reads in crumbs, one that keeps nothing, one that changes all the time.

The FAT stick is a real FAT32 image behind FUSE (`fusefat`, `mkfs.vfat`); where these are missing its tests are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pumpdeck_agent.install_from import install_from
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, TooLargeError
from pumpdeck_packaging import bundle_stick
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_returns import read_envelope, return_folder
from pumpdeck_packaging.bundle_stick import Stick, StickFailedError, StickFileSystem, real_stick
from pumpdeck_packaging.bundle_tar import FileSource
from support.devices import Bench, package
from support.sticks import ForwardingFileSystem, export_to, parts_for, stick_on

RUNS = package(shift=0.0)
NEXT = package(shift=0.5)
EVIL = package(shift=9.0)
_MOUNTED_S = 30.0


@dataclass
class Journey:
    """A device that runs one package, and the files of a bundle that brings the next."""

    bench: Bench
    files: dict[str, bytes]

    @property
    def runs(self) -> str:
        return str(self.bench.agent().status().fields["state"]["active"])

    def there_and_back(self, stick: Stick) -> None:
        """Export, install and return."""
        export_to(stick, parts_for(self.files, NEXT))
        found = install_from(self.bench.agent(), stick)
        assert (found.outcome, self.runs) == ("committed", NEXT.sha256), found
        assert read_envelope(stick.fs, stick.folder, self.bench.device)


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    bench = Bench(tmp_path / "site")
    bench.install(RUNS, "task-1")
    return Journey(bench, bench.assign(NEXT, "task-2"))


# FAT


@contextmanager
def mounted(image: Path, place: Path, *options: str) -> Iterator[None]:
    """A FAT image behind FUSE, from its mount to its end."""
    subprocess.run(["fusefat", str(image), str(place), "-o", "rw+", *options], check=True, capture_output=True, timeout=60)
    try:
        until = time.monotonic() + _MOUNTED_S
        while not place.is_mount() and time.monotonic() < until:
            time.sleep(0.02)
        yield
    finally:
        fusermount = shutil.which("fusermount")
        subprocess.run([fusermount, "-u", str(place)] if fusermount else ["umount", str(place)], check=False)


@pytest.fixture
def fat(tmp_path: Path) -> Iterator[Path]:
    make = shutil.which("mkfs.vfat", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not (shutil.which("fusefat") and make and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("fusefat, mkfs.vfat or /dev/fuse is missing: no FAT stick can be mounted")
    image, place = tmp_path / "stick.img", tmp_path / "mount"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    subprocess.run([make, "-F", "32", str(image)], check=True, capture_output=True)
    try:
        with mounted(image, place):
            if not place.is_mount():
                pytest.skip("FUSE does not mount here")
            yield place
    except subprocess.CalledProcessError as error:
        pytest.skip(f"FUSE does not mount here: {error.stderr[-100:]!r}")


def test_a_journey_on_a_real_fat_stick(journey: Journey, fat: Path) -> None:
    """No links, no permissions, names without case, times of two seconds: export, install, return, and export again."""
    stick = real_stick(fat / "pumpdeck")
    journey.there_and_back(stick)
    again = export_to(stick, parts_for(journey.files, NEXT))
    assert (again.written, again.already) == (0, len(parts_for(journey.files, NEXT)))
    with pytest.raises(OSError):
        (fat / "link").symlink_to("pumpdeck")


def test_a_fat_stick_that_is_altered_is_refused(journey: Journey, fat: Path) -> None:
    """A flipped byte in the package, on the medium itself."""
    stick = real_stick(fat / "pumpdeck")
    export_to(stick, parts_for(journey.files, NEXT))
    place = next((fat / "pumpdeck").rglob(NEXT.sha256))
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    # This driver does not empty a file that is there.
    place.unlink()
    place.write_bytes(data)
    found = install_from(journey.bench.agent(), stick)
    assert (found.outcome, journey.runs) == ("refused", RUNS.sha256)


# Crumbs


@pytest.mark.parametrize("crumb", [1, 4096, 5000])
def test_a_stick_that_reads_in_crumbs_is_read_to_the_end(
    crumb: int, journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short reads are no end of file: nothing is taken for cut, and nothing that is cut for whole."""
    read = os.read
    monkeypatch.setattr(bundle_stick.os, "read", lambda fd, count: read(fd, min(count, max(crumb, count // 50))))
    monkeypatch.setattr(bundle_stick, "_DIRECT", 0)
    journey.there_and_back(real_stick(tmp_path / "stick" / "pumpdeck"))


@pytest.mark.parametrize("crumb", [4096, 65_536])
def test_blocks_that_come_in_crumbs_are_put_together(crumb: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same past the cache, where only whole blocks can be asked for."""
    data = os.urandom(200_000)
    (tmp_path / "file").write_bytes(data)
    fs = StickFileSystem(tmp_path)
    assert fs.reread_bytes(tmp_path / "file", len(data)) == data
    if not hasattr(os, "preadv"):
        return
    whole = os.preadv

    def crumbs(fd: int, buffers: list[object], offset: int) -> int:
        with memoryview(buffers[0])[:crumb] as small:  # type: ignore[arg-type]
            return whole(fd, [small], offset)

    monkeypatch.setattr(bundle_stick.os, "preadv", crumbs)
    assert fs.reread_bytes(tmp_path / "file", len(data)) == data


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1])
def test_what_is_read_past_the_cache_is_the_file(size: int, tmp_path: Path) -> None:
    """Every end of file: on a block, beside it, on a buffer."""
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    fs = StickFileSystem(tmp_path)
    assert fs.reread_bytes(tmp_path / "file", size) == data
    if size:
        with pytest.raises(TooLargeError, match="too large"):
            fs.reread_bytes(tmp_path / "file", size - 1)


def test_a_file_system_that_knows_no_way_past_the_cache_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some refuse the flag when the file is opened, some when it is read."""

    def refuse(*_arguments: object) -> int:
        raise OSError(22, "Invalid argument")

    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(bundle_stick.os, "preadv", refuse, raising=False)
    assert StickFileSystem(tmp_path).reread_bytes(tmp_path / "file", 100) == b"content"


# Yes, and nothing


class ForgettingDisk(ForwardingFileSystem):
    """Says yes to every write and sync, and has an empty file afterwards."""

    def open_write(self, path: Path, *, truncate: bool = True) -> object:
        self.inner.open_write(path, truncate=truncate).close()
        return self

    def write(self, data: bytes) -> int:
        return len(data)

    def fsync(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_stick_that_keeps_nothing_is_found_out_at_the_first_file(journey: Journey, tmp_path: Path) -> None:
    """Nothing counts as given away, and no list says that the bundle is whole."""
    folder, counted = tmp_path / "stick" / "pumpdeck", []
    disk = ForgettingDisk(StickFileSystem(folder))
    with pytest.raises(StickFailedError, match="other bytes"):
        export_to(stick_on(disk, folder), parts_for(journey.files, NEXT), lambda: counted.append(1))  # type: ignore[arg-type]
    assert not counted
    with pytest.raises(NotFoundError):
        BundleReader(StickFileSystem(folder), folder)


def test_a_pipe_in_the_place_of_a_letter_is_not_waited_for(tmp_path: Path) -> None:
    """FIFO under the name of a bundle in one file: opening it waited for ever."""
    os.mkfifo(tmp_path / "bundle.tar")
    with pytest.raises(FormatError, match="plain file"):
        FileSource(tmp_path / "bundle.tar")


# Never the same


@contextmanager
def swapping(places: list[Path], contents: list[bytes]) -> Iterator[None]:
    """A thread that puts each of the contents in each of the places, again and again, by rename, by writing over, as a link."""
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            for place in places:
                turn += 1
                beside = place.with_name(f"{place.name}.swap")
                with suppress(OSError):
                    if turn % 7 == 0:
                        place.write_bytes(contents[turn % len(contents)])
                        continue
                    if turn % 11 == 0:
                        beside.symlink_to(places[0].parent / "elsewhere")
                    else:
                        beside.write_bytes(contents[turn % len(contents)])
                    beside.replace(place)

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _until(tries: int, visit: Callable[[], None]) -> None:
    for _ in range(tries):
        visit()


def test_a_package_that_changes_all_the_time_is_the_honest_one_or_none(journey: Journey, tmp_path: Path) -> None:
    """Verification-to-use race on the stick: a thread swaps good and evil bytes, links and halves under the package's name."""
    folder = tmp_path / "stick" / "pumpdeck"
    stick = real_stick(folder)
    export_to(stick, parts_for(journey.files, NEXT))
    place = next(folder.rglob(NEXT.sha256))
    (place.parent / "elsewhere").write_bytes(EVIL.data)

    def visit() -> None:
        install_from(journey.bench.agent(), stick)
        assert journey.runs in (RUNS.sha256, NEXT.sha256)

    with swapping([place], [NEXT.data, EVIL.data, NEXT.data[:-1], RUNS.data]):
        _until(12, visit)
    place.unlink(missing_ok=True)
    place.write_bytes(NEXT.data)
    visit()
    assert journey.runs == NEXT.sha256
    names = {path.name for path in journey.bench.agent().layout.store.iterdir()}
    assert EVIL.sha256 not in names


def test_metadata_and_lists_that_change_all_the_time_do_no_harm(journey: Journey, tmp_path: Path) -> None:
    """The same with the list, the timestamp and the assignment: old ones, strangers' ones, halves."""
    folder = tmp_path / "stick" / "pumpdeck"
    stick = real_stick(folder)
    export_to(stick, parts_for(journey.files, NEXT))
    places = [folder / "bundle.json", next(folder.rglob("timestamp.json")), next(folder.rglob("assign/*"))]
    honest = [place.read_bytes() for place in places]
    with swapping(places, [*honest, honest[1][:-9], b"{}", b""]):
        for _ in range(12):
            install_from(journey.bench.agent(), stick)
            assert journey.runs in (RUNS.sha256, NEXT.sha256)
    for place, data in zip(places, honest, strict=True):
        place.unlink(missing_ok=True)
        place.write_bytes(data)
    install_from(journey.bench.agent(), stick)
    assert journey.runs == NEXT.sha256


def test_a_return_is_never_written_where_a_swapped_folder_leads(journey: Journey, tmp_path: Path) -> None:
    """A thread makes the folder for returns a link to the device's own disk and a folder again, while the agent writes."""
    folder, outside = tmp_path / "stick" / "pumpdeck", tmp_path / "outside"
    stick = real_stick(folder)
    export_to(stick, parts_for(journey.files, NEXT))
    outside.mkdir()
    place = return_folder(folder, journey.bench.device)
    place.parent.mkdir(exist_ok=True)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                if place.is_symlink():
                    place.unlink()
                    place.mkdir()
                else:
                    shutil.rmtree(place, ignore_errors=True)
                    place.symlink_to(outside)

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        for _ in range(12):
            install_from(journey.bench.agent(), stick)
            assert list(outside.iterdir()) == []
    finally:
        stop.set()
        thread.join()
    assert journey.runs in (RUNS.sha256, NEXT.sha256)
