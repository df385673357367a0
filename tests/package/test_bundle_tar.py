"""A bundle in one file: reproducible, readable by any tar, replaced only where it is ours, proven before it has its name."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.errors import ConflictError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.bundle_index import metadata_file, package_file
from pumpdeck_packaging.bundle_part import BundlePart, bytes_part
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import StickFailedError
from pumpdeck_packaging.bundle_tar import open_tar
from pumpdeck_packaging.bundle_tar_writer import TarPlace, real_place, write_answer_tar, write_bundle_tar
from support.sticks import WORKSPACE, FullDisk, LyingDisk

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "bundle.tar"


def parts(site: str = "gannet") -> list[BundlePart]:
    package = bytes(range(256)) * 40
    return [
        bytes_part(package_file(site, digest(package)), package),
        bytes_part(metadata_file(site, "timestamp.json"), b"{}"),
    ]


def write(path: Path, wanted: list[BundlePart] | None = None, workspace: str = WORKSPACE, place: TarPlace | None = None):
    return write_bundle_tar(
        place or real_place(path), workspace, wanted or parts(), before_index=lambda: None, on_progress=lambda *_: None
    )


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    write(one)
    write(two, list(reversed(parts())))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() == GOLDEN.read_bytes()


def test_any_tar_reads_it_and_the_list_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    site = "a" * 64
    write(path, parts(site))
    with tarfile.open(path) as found:
        names = found.getnames()
        assert (names[0], names[-1]) == ("bundle.id", "bundle.json")
        assert max(map(len, names)) > 100
        assert {member.type for member in found.getmembers()} == {tarfile.REGTYPE}
        assert {member.mtime for member in found.getmembers()} == {0}


def test_a_reader_of_sticks_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    write(path)
    letter = open_tar(path, RealFileSystem())
    reader = BundleReader(letter, path)
    for part in parts():
        assert reader.read(part.path, part.size) == part.load()
    assert letter.listdir(path) == ["bundle.id", "bundle.json", "sites"]
    assert letter.listdir(path / "sites") == ["gannet"]
    assert letter.exists(path / "sites" / "gannet") and not letter.exists(path / "returns")
    letter.close()


def test_another_file_of_that_name_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "holiday.tar"
    path.write_bytes(b"beach" * 400)
    with pytest.raises(RefusedError, match="another file"):
        write(path)
    assert path.read_bytes() == b"beach" * 400
    beside = tmp_path / "one.tar.part"
    beside.write_bytes(b"mine")
    with pytest.raises(RefusedError):
        write(tmp_path / "one.tar")
    assert beside.read_bytes() == b"mine"
    write(tmp_path / "two.tar", workspace="ws-other")
    with pytest.raises(ConflictError, match="another workspace"):
        write(tmp_path / "two.tar")
    write(tmp_path / "three.tar")
    write(tmp_path / "three.tar", parts("brent"))
    assert open_tar(tmp_path / "three.tar", RealFileSystem()).exists(tmp_path / "three.tar" / "sites" / "brent")


def test_an_answer_never_takes_the_place_of_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    write(path)
    before = path.read_bytes()
    letter = open_tar(path, RealFileSystem())
    mark = letter.read_bytes(path / "bundle.id", 1000)
    letter.close()
    with pytest.raises(RefusedError, match="not an answer"):
        write_answer_tar(real_place(path), mark, {"returns/d1/return.json": b"x"})
    assert path.read_bytes() == before


def test_a_cut_export_is_taken_up_again(tmp_path: Path) -> None:
    path, whole = tmp_path / "one.tar", tmp_path / "whole.tar"
    write(whole)
    data = whole.read_bytes()
    for length in (0, 1, 511, 512, 530, 700, 1024, 5000, len(data) - 1):
        (tmp_path / "one.tar.part").write_bytes(data[:length])
        write(path)
        assert path.read_bytes() == data
        path.unlink()


def test_a_lying_or_full_disk_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    size = sum(part.size for part in parts())
    for room in range(0, size, 997):
        for disk in (LyingDisk(RealFileSystem(), room), FullDisk(RealFileSystem(), room, said=1 << 40)):
            place = real_place(path)
            with pytest.raises(StickFailedError):
                write(path, place=TarPlace(disk, path, place.open))  # type: ignore[arg-type]
            assert not path.exists()
            (tmp_path / "one.tar.part").unlink(missing_ok=True)
    with pytest.raises(RefusedError, match="no room"):
        place = real_place(path)
        write(path, place=TarPlace(FullDisk(RealFileSystem(), 100), path, place.open))  # type: ignore[arg-type]


def test_a_part_that_changed_meanwhile_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    broken = [BundlePart(part.path, part.size, "0" * 64, part.load) for part in parts()]
    with pytest.raises(PumpdeckError, match="changed while"):
        write(path, broken)
    assert not path.exists()
