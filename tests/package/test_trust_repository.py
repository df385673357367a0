"""Founding a site, releasing and assigning: what is signed, what is not signed twice, what a cut leaves behind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    NotFoundError,
    ReplayError,
    TrustError,
    UsageError,
)
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.bundle_layout import DEPLOY_SLOTS
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.package import build_package
from pumpdeck_packaging.provenance import verify_provenance
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease, SiteTrust
from support.packages import built_package, package_content
from support.trust import NOW_MS, SampleKeys, SampleSite, assign_many, verify


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_assigned_is_what_the_device_believes(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    found = verify(site.state(), site.files())
    assert found.package.sha256 == built.sha256 == found.assignment.package_sha256
    assert found.package.words.unpacked_bytes == built.unpacked_bytes
    assert (found.package.bytes, found.package.words.versions) == (len(built.data), {"esp-health": 1})
    assert found.warnings == () and not found.repeated
    assert found.assignment == site.trust.assignment("gannet-d1")


def test_two_workspaces_with_other_keys_release_the_same_package(tmp_path: Path) -> None:
    one, two = SampleSite(tmp_path / "a"), SampleSite(tmp_path / "b")
    assert one.deliver().data == two.deliver().data
    assert one.root != two.root


def test_a_site_is_founded_once(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    before = snapshot_of(tmp_path)
    with pytest.raises(ConflictError):
        site.trust.create(site.keys.public(), site.keys.signers())
    assert snapshot_of(tmp_path) == before


def test_founding_with_keys_that_do_not_fit_writes_nothing(tmp_path: Path) -> None:
    keys = SampleKeys()
    trust = SiteTrust(tmp_path / "gannet", RealFileSystem(), FixedClock(NOW_MS))
    public, signers = keys.public(), keys.signers()
    bad_keys = [
        replace(public, root=public.root[:1], root_threshold=1),
        replace(public, root=(public.root[0], public.root[0]), root_threshold=2),
        replace(public, release=(), release_threshold=0),
        replace(public, deploy=()),
        replace(public, deploy=(replace(public.deploy[0], slot=DEPLOY_SLOTS),)),
        replace(public, deploy=tuple(replace(one, slot=3) for one in public.deploy)),
        replace(public, release=(public.deploy[0].key,)),
    ]
    for bad in bad_keys:
        with pytest.raises(UsageError):
            trust.create(bad, signers)
    bad_signers = [
        replace(signers, root=signers.root[:1]),
        replace(signers, targets=generate_key()),
        replace(signers, release=(generate_key(),)),
        replace(signers, deploy=generate_key()),
    ]
    for wrong in bad_signers:
        with pytest.raises(TrustError):
            trust.create(public, wrong)
    assert not trust.exists and not (tmp_path / "gannet" / "metadata").exists()
    with pytest.raises(NotFoundError, match="trust init"):
        trust.status()


def test_asking_again_signs_nothing(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    site.deliver()
    before = snapshot_of(tmp_path)
    site.clock.advance(1000)
    site.deliver()
    assert snapshot_of(tmp_path) == before


def test_a_batch_is_one_step_of_the_version(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = [built_package(f"gannet-d{number}") for number in range(1, 6)]
    assert site.trust.release([PackageRelease(one, {"esp-health": 3}) for one in built], site.keys.release) == 2
    requests = [AssignmentRequest(one.manifest.device, one.sha256, f"t{n}") for n, one in enumerate(built)]
    assignments = site.trust.assign(requests, site.keys.laptops[1])
    assert {one.seq for one in assignments} == {2 * DEPLOY_SLOTS + 1}
    status = site.trust.status()
    assert status.released == dict.fromkeys(status.assigned, 1) and len(status.assigned) == 5
    assert status.metadata_bytes < 12_000


def test_seq_grows_with_every_assignment_whoever_signs(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    seen, state = [], site.state()
    for number in range(6):
        assert (least := site.trust.next_seq()) > max(seen, default=0)
        site.deliver(onnx=bytes([number]), laptop=number % 2)
        found = verify(state, site.files())
        state = replace(state, kept=found.keep, floor=found.floor)
        assert found.assignment.seq >= least
        seen.append(found.assignment.seq)
    assert seen == sorted(set(seen))


def test_a_number_given_by_the_caller_must_be_above_the_last_one(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    laptop = site.keys.laptops[0]
    wanted = AssignmentRequest("gannet-d1", built.sha256, "t2", seq=site.trust.next_seq(), issued_at_ms=5)
    (given,) = site.trust.assign([wanted], laptop)
    assert (given.seq, given.issued_at_ms) == (wanted.seq, 5)
    before = snapshot_of(tmp_path)
    assert site.trust.assign([wanted], laptop) == (given,)
    for seq in (given.seq, given.seq - 1):
        with pytest.raises(ReplayError):
            site.trust.assign([replace(wanted, task="t3", seq=seq)], laptop)
    assert snapshot_of(tmp_path) == before
    assert site.trust.assign([replace(wanted, seq=given.seq + 1)], laptop)[0].seq == given.seq + 1
    high = replace(wanted, task="t4", seq=10**9)
    assert site.trust.assign([high], laptop)[0].seq + 1 == site.trust.next_seq() == 10**9 + 1
    assert site.trust.assign([replace(high, task="t5", seq=0)], laptop)[0].seq == 10**9 + 1
    assert verify(site.state(), site.files()).assignment.task == "t5"


def test_old_packages_leave_the_release_list_but_never_the_assigned_one(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    first = site.deliver(onnx=b"first")
    for number in range(5):
        later = built_package(onnx=bytes([number]))
        site.trust.release([PackageRelease(later, {})], site.keys.release)
    assert site.trust.status().released == {"gannet-d1": 3}
    requests = [AssignmentRequest("gannet-d1", first.sha256, "again")]
    assert site.trust.assign(requests, site.keys.laptops[0])[0].package_sha256 == first.sha256
    assert verify(site.state(), site.files()).package.sha256 == first.sha256


def test_files_of_the_past_are_removed_but_one_step(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    for number in range(6):
        site.deliver(onnx=bytes([number]))
    names = [path.name for path in (tmp_path / "gannet" / "metadata").iterdir()]
    assert sum(name.endswith("deploy.json") for name in names) == 2
    assert len(list((tmp_path / "gannet" / "targets" / "assign").iterdir())) == 2


def test_only_the_roots_a_device_lacks_are_sent(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    site.deliver()
    for _ in range(2):
        site.trust.rotate(site.keys.public(), site.keys.signers())
    names = [name for name, _ in site.trust.files_for("gannet-d1", since_root=1)]
    assert [name for name in names if "root" in name] == ["2.root.json", "3.root.json"]
    assert verify(site.state(), dict(site.trust.files_for("gannet-d1", since_root=1))).floor.roles["root"].number == 3
    with pytest.raises(NotFoundError):
        site.trust.files_for("gannet-d2")


def test_provenance_lies_beside_every_release(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = [site.deliver(onnx=graph) for graph in (b"one", b"two")]
    envelopes = site.trust.provenance()
    for package, envelope in zip(built, envelopes, strict=True):
        assert verify_provenance(envelope, package.sha256, site.trust.release_keys())


def test_a_key_of_another_role_signs_nothing(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    before = snapshot_of(tmp_path)
    with pytest.raises(TrustError, match="not a release key"):
        site.trust.release([PackageRelease(built_package(onnx=b"x"), {})], [site.keys.laptops[0]])
    with pytest.raises(TrustError, match="not a deploy key"):
        site.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "x")], site.keys.release[0])
    with pytest.raises(TrustError, match="not released"):
        site.trust.assign([AssignmentRequest("gannet-d1", "0" * 64, "x")], site.keys.laptops[0])
    assert snapshot_of(tmp_path) == before


def test_nothing_is_signed_under_a_root_that_ran_out_or_by_a_clock_that_is_behind(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    before = snapshot_of(tmp_path)
    for jump_ms, match in ((1100 * 86_400_000, "ran out"), (-10 * 86_400_000, "clock")):
        site.clock.at_ms = NOW_MS + jump_ms
        with pytest.raises(TrustError, match=match):
            site.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "x")], site.keys.laptops[0])
    assert snapshot_of(tmp_path) == before


def test_an_altered_repository_is_not_built_upon(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    path = max((tmp_path / "gannet" / "metadata").glob("*.deploy.json"), key=lambda one: int(one.name.split(".")[0]))
    path.write_bytes(path.read_bytes().replace(b'"seq":128', b'"seq":129'))
    with pytest.raises((TrustError, DamagedError)):
        site.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "x")], site.keys.laptops[0])
    with pytest.raises((TrustError, DamagedError)):
        site.trust.status()


class BadSector(RealFileSystem):
    """A stick that fails in the middle of a file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        if path.name.endswith(self.name):
            raise OSError(5, "Input/output error")
        return super().read_bytes(path, max_bytes)


@pytest.mark.parametrize("name", ["timestamp.json", "1.root.json", ".deploy.json", ".gannet-d1"])
def test_a_medium_that_fails_while_reading_is_said_and_nothing_is_signed(tmp_path: Path, name: str) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    before = snapshot_of(tmp_path)
    bad = SiteTrust(tmp_path / "gannet", BadSector(name), site.clock)
    with pytest.raises(DamagedError, match="Input/output error"):
        bad.files_for("gannet-d1")
    with pytest.raises(DamagedError, match="Input/output error"):
        bad.assign([AssignmentRequest("gannet-d1", built.sha256, "again")], site.keys.laptops[0])
    assert snapshot_of(tmp_path) == before


class CutAfter(RealFileSystem):
    """A disk that is cut off after so many durable steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def _step(self) -> None:
        if self.left == 0:
            raise OSError("power cut")
        self.left -= 1

    def open_write(self, path: Path, *, truncate: bool = True) -> Any:
        self._step()
        return super().open_write(path, truncate=truncate)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)


@pytest.mark.parametrize("what", ["release", "assign", "rotate"])
def test_a_cut_at_any_step_leaves_the_old_state_or_the_new_one(tmp_path: Path, what: str) -> None:
    """Power goes while signing, at step 0, 1, 2 .. until it passes; each time the repository holds and the work can be done."""
    done, steps = False, 0
    while not done:
        site = SampleSite(tmp_path / f"cut-{steps}")
        site.deliver(onnx=b"old")
        new = built_package(onnx=b"new")
        cut = SiteTrust(tmp_path / f"cut-{steps}" / "gannet", CutAfter(steps), site.clock)
        try:
            work(cut, site, what)
            done = True
        except OSError:
            pass
        assert verify(site.state(), site.files()).package.sha256 in (new.sha256, built_package(onnx=b"old").sha256)
        work(site.trust, site, what)
        if what == "assign":
            assert verify(site.state(), site.files()).package.sha256 == new.sha256
        assert site.trust.status().warnings == ()
        steps += 1
    assert steps > {"release": 3, "assign": 8, "rotate": 8}[what]


def work(trust: SiteTrust, site: SampleSite, what: str) -> None:
    new = built_package(onnx=b"new")
    if what == "rotate":
        trust.rotate(site.keys.public(), site.keys.signers())
        return
    trust.release([PackageRelease(new, {})], site.keys.release)
    if what == "assign":
        trust.assign([AssignmentRequest("gannet-d1", new.sha256, "new")], site.keys.laptops[0])


def test_two_processes_sign_one_after_the_other(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = [site.deliver(f"gannet-d{number}") for number in (1, 2)]
    context = multiprocessing.get_context("spawn")
    folder = str(tmp_path / "gannet")
    workers = [
        context.Process(
            target=assign_many, args=(folder, site.keys.laptops[0].private_pem(), one.manifest.device, one.sha256, 10)
        )
        for one in built
    ]
    before = site.trust.next_seq()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert site.trust.next_seq() == before + 20 * DEPLOY_SLOTS
    for number in (1, 2):
        assert verify(site.state(f"gannet-d{number}"), site.files(f"gannet-d{number}")).assignment.task.endswith("-9")


def test_a_folder_that_is_held_is_busy(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(BusyError), hold_folder(tmp_path, wait_s=0.05):
        pass
    with hold_folder(tmp_path):
        pass


def test_a_disk_of_its_own_needs_no_lock_file(tmp_path: Path) -> None:
    @contextmanager
    def no_lock(_folder: Path) -> Iterator[None]:
        yield

    keys = SampleKeys()
    trust = SiteTrust(tmp_path / "gannet", RealFileSystem(), FixedClock(NOW_MS), lock=no_lock)
    trust.create(keys.public(), keys.signers())
    assert not (tmp_path / "gannet" / ".lock").exists()


def test_a_package_of_another_pump_count_still_builds_reproducibly() -> None:
    content = package_content(pumps=3)
    assert build_package(content).sha256 == build_package(content).sha256
