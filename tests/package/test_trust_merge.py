"""Two laptops signed for one site: the newer word counts, nothing is lost, nothing false comes in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import DamagedError, TrustError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.trust_merge import SiteMerge, merge_site
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease, SiteTrust
from support.packages import built_package
from support.trust import NOW_MS, SampleSite, verify

DEVICES = ("gannet-d1", "gannet-d2")


@pytest.fixture
def site(tmp_path: Path) -> SampleSite:
    """Two packages are released for each of two devices, nothing is assigned."""
    site = SampleSite(tmp_path / "one")
    for device in DEVICES:
        for onnx in (b"graph", b"other graph"):
            site.trust.release([PackageRelease(built_package(device, onnx=onnx), {"esp-health": 1})], site.keys.release)
    return site


def copy(site: SampleSite, tmp_path: Path, name: str = "two") -> SiteTrust:
    shutil.copytree(tmp_path / "one" / "gannet", tmp_path / name / "gannet")
    return SiteTrust(tmp_path / name / "gannet", RealFileSystem(), site.clock)


def assign(trust: SiteTrust, site: SampleSite, device: str, laptop: int, onnx: bytes = b"graph", seq: int = 0) -> None:
    package = built_package(device, onnx=onnx)
    request = AssignmentRequest(device, package.sha256, f"t-{device}-{laptop}", seq=seq)
    trust.assign([request], site.keys.laptops[laptop])


def merge(tmp_path: Path, mine: str = "one", theirs: str = "two") -> SiteMerge:
    return merge_site(tmp_path / mine / "gannet", tmp_path / theirs / "gannet", RealFileSystem(), NOW_MS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_assignments_of_both_stand_in_the_end(site: SampleSite, tmp_path: Path) -> None:
    other = copy(site, tmp_path)
    assign(site.trust, site, DEVICES[0], 0)
    assign(other, site, DEVICES[1], 1)
    before = site.trust.assignment(DEVICES[0])
    done = merge(tmp_path)
    assert done.is_newer and not done.conflicts
    assert list(done.to_sign) == [before]
    for one in done.to_sign:
        request = AssignmentRequest(one.device, one.package_sha256, one.task, one.soft_until_ms, one.seq, one.issued_at_ms)
        site.trust.assign([request], site.keys.laptops[0])
    assert site.trust.assignment(DEVICES[0]) == before
    assert site.trust.assignment(DEVICES[1]) == other.assignment(DEVICES[1])
    for device in DEVICES:
        verify(site.state(device), site.files(device))
    again = merge(tmp_path)
    assert again == SiteMerge("gannet")


def test_a_site_that_is_not_here_is_taken_whole(site: SampleSite, tmp_path: Path) -> None:
    assign(site.trust, site, DEVICES[0], 0)
    done = merge(tmp_path, "three", "one")
    assert done.is_new
    taken = SiteTrust(tmp_path / "three" / "gannet", RealFileSystem(), site.clock)
    assert taken.assignment(DEVICES[0]) == site.trust.assignment(DEVICES[0])
    assert taken.provenance() == site.trust.provenance()


def test_two_assignments_of_one_number_are_listed(site: SampleSite, tmp_path: Path) -> None:
    other = copy(site, tmp_path)
    assign(site.trust, site, DEVICES[0], 0, seq=900)
    assign(other, site, DEVICES[0], 1, b"other graph", seq=900)
    done = merge(tmp_path)
    assert [conflict.which for conflict in done.conflicts] == ["gannet gannet-d1"]


def test_the_higher_number_stands_whoever_merges(site: SampleSite, tmp_path: Path) -> None:
    other = copy(site, tmp_path)
    assign(site.trust, site, DEVICES[0], 0, seq=901)
    assign(other, site, DEVICES[0], 1, b"other graph", seq=900)
    higher = site.trust.assignment(DEVICES[0])
    done = merge(tmp_path)
    assert list(done.to_sign) == [higher]
    back = merge(tmp_path, "two", "one")
    assert all(one == higher for one in back.to_sign)


def test_a_foreign_root_is_refused(site: SampleSite, tmp_path: Path) -> None:
    """Attack: the exchange holds the site's name under keys of the attacker's own."""
    SampleSite(tmp_path / "two")
    before = contents(tmp_path / "one")
    with pytest.raises(TrustError, match="founded twice"):
        merge(tmp_path)
    assert contents(tmp_path / "one") == before


@pytest.mark.parametrize("part", ["timestamp.json", ".snapshot.json", ".deploy.json", ".release.json", "assign"])
def test_altered_metadata_is_refused(site: SampleSite, tmp_path: Path, part: str) -> None:
    """Attack: one byte of the exchange's metadata is another; nothing of it is taken."""
    assign(site.trust, site, DEVICES[1], 0)
    other = copy(site, tmp_path)
    assign(other, site, DEVICES[0], 1)
    folder = tmp_path / "two" / "gannet"
    paths = [path for path in folder.rglob("*") if path.is_file() and part in (path.parent.name, path.name[-len(part):])]
    for path in [max(paths, key=lambda path: path.stat().st_mtime_ns)]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    before = contents(tmp_path / "one")
    with pytest.raises((TrustError, DamagedError)):
        merge(tmp_path)
    after = {name: data for name, data in contents(tmp_path / "one").items() if not name.endswith(".lock")}
    assert after == {name: data for name, data in before.items() if not name.endswith(".lock")}


def test_what_nobody_signed_is_not_copied(site: SampleSite, tmp_path: Path) -> None:
    """Attack: a file that no metadata names lies in the exchange, under a name that would count later."""
    other = copy(site, tmp_path)
    assign(other, site, DEVICES[0], 1)
    (tmp_path / "two" / "gannet" / "metadata" / "999.deploy.json").write_bytes(b"{}")
    merge(tmp_path)
    assert not (tmp_path / "one" / "gannet" / "metadata" / "999.deploy.json").exists()
