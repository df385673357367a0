"""A stick that is pulled at any step, loses what was not synced, is full, write-protected or lies: nothing is half believed.

Each drill counts its pulls: 0 devices without the model they ran, 0 bundles or returns believed that are not whole, and the same
stick is used again to finish what was begun.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, RefusedError, UnreachableError
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex
from pumpdeck_packaging.age_box import generate_identity
from pumpdeck_packaging.bundle import BundlePart
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_returns import read_envelope, read_item
from pumpdeck_packaging.bundle_stick import StickFailedError
from pumpdeck_packaging.package_reader import load_folder
from pumpdeck_packaging.returns_policy import ReturnsPolicy
from pumpdeck_packaging.sealed_return import OpenedReturn
from pumpdeck_packaging.signing import verify_dsse
from support.devices import Bench, package
from support.forgetful_disk import ForgetfulDisk, Loss
from support.sticks import FullDisk, LyingDisk, PulledDisk, export_to, parts_for, stick_on

MOUNT = Path("/media/stick")
FOLDER = MOUNT / "pumpdeck"
FIRST = package(shift=0.0)
SECOND = package(shift=0.5)


def empty_disk() -> ForgetfulDisk:
    disk = ForgetfulDisk()
    disk.mkdir(MOUNT)
    disk.sync_all()
    return disk


def is_whole(disk: ForgetfulDisk, parts: list[BundlePart]) -> bool:
    """True when a device would take this bundle; every byte of it is proven then."""
    try:
        reader = BundleReader(disk, FOLDER)
    except (NotFoundError, DamagedError):
        return False
    assert set(reader.index.files) == {part.path for part in parts}
    for part in parts:
        assert reader.read(part.path, part.size) == part.load()
    return True


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[BundlePart]:
    bench = Bench(tmp_path_factory.mktemp("site"))
    return parts_for(bench.assign(FIRST), FIRST)


@pytest.mark.parametrize("loss", list(Loss))
def test_a_stick_pulled_at_any_step_of_an_export_is_not_half_believed(parts: list[BundlePart], loss: Loss) -> None:
    step = given = 0
    while True:
        disk = empty_disk()
        before_index: list[int] = []
        give_away = partial(before_index.append, 1)
        try:
            export_to(stick_on(PulledDisk(disk, step), FOLDER), parts, give_away)  # type: ignore[arg-type]
        except UnreachableError as error:
            assert isinstance(error, StickFailedError) and error.retryable
            found = disk.after_cut(loss, seed=step)
            # Given away in the store before anything on the stick says that it is whole.
            assert not is_whole(found, parts) or before_index
            given += bool(before_index)
            assert export_to(stick_on(found, FOLDER), parts).id.startswith("b-")
            assert is_whole(found.after_cut(Loss.ALL), parts)
            step += 1
            continue
        assert is_whole(disk.after_cut(loss), parts)
        break
    print(f"export, {loss.name}: {step} pulls, 0 half-believed, {given} after it was given away, stick used again each time")
    assert step > 60


@pytest.mark.parametrize("loss", list(Loss))
def test_a_pull_while_a_newer_bundle_replaces_an_older_one(tmp_path: Path, loss: Loss) -> None:
    bench = Bench(tmp_path)
    old = parts_for(bench.assign(FIRST), FIRST)
    new = parts_for(bench.assign(SECOND, "task-2"), SECOND)
    start = empty_disk()
    export_to(stick_on(start, FOLDER), old)
    start.sync_all()
    step = 0
    while True:
        disk = start.after_cut(Loss.NOTHING)
        try:
            export_to(stick_on(PulledDisk(disk, step), FOLDER), new)  # type: ignore[arg-type]
        except StickFailedError:
            found = disk.after_cut(loss, seed=step)
            try:
                index = BundleReader(found, FOLDER).index
            except (NotFoundError, DamagedError):
                index = None
            if index is not None:
                assert set(index.files) in ({part.path for part in old}, {part.path for part in new})
            export_to(stick_on(found, FOLDER), new)
            assert is_whole(found.after_cut(Loss.ALL), new)
            step += 1
            continue
        break
    print(f"export over an older bundle, {loss.name}: {step} pulls, 0 mixed and believed")
    assert step > 60


class Visit:
    """A device that runs the first package; the stick brings the second. `is_sealed`: what goes back is encrypted."""

    def __init__(self, folder: Path, *, is_sealed: bool = False) -> None:
        self.bench = Bench(folder, fs=ForgetfulDisk(), root=Path("/device"))
        self.office = generate_identity() if is_sealed else None
        if self.office:
            keys = self.bench.site.keys
            self.bench.site.trust.set_returns(ReturnsPolicy({"office": self.office.public}), keys.targets, keys.laptops[0])
        self.bench.install(FIRST, "task-1")
        self.bundle = empty_disk()
        export_to(stick_on(self.bundle, FOLDER), parts_for(self.bench.assign(SECOND, "task-2"), SECOND))
        self.bundle.sync_all()
        disk = self.bench.fs
        assert isinstance(disk, ForgetfulDisk)
        disk.sync_all()
        self.start = disk.after_cut(Loss.NOTHING)

    def fresh(self) -> ForgetfulDisk:
        """The device as it was before, and a copy of the stick."""
        self.bench.fs = self.start.after_cut(Loss.NOTHING)
        platform = self.bench.platform
        self.bench.platform = platform.__class__(
            self.bench.fs, platform.clock, platform.locks, platform.is_clock_synced
        )
        return self.bundle.after_cut(Loss.NOTHING)

    def go(self, disk: object) -> StickVisit:
        return install_from(self.bench.agent(), stick_on(disk, FOLDER))  # type: ignore[arg-type]

    def check_alive(self) -> None:
        state = self.bench.agent().installer.ready()
        assert state.active is not None and state.active.sha256 in (FIRST.sha256, SECOND.sha256)
        layout = self.bench.agent().layout
        load_folder(self.bench.fs, layout.package(state.active.sha256), manifest_digest=state.active.manifest)

    def believed(self, disk: ForgetfulDisk) -> ReturnIndex | None:
        """The return as intake would believe it, every item proven; None when there is none."""
        try:
            envelope = read_envelope(disk, FOLDER, self.bench.device)
        except (NotFoundError, FileNotFoundError):
            return None
        keys = {self.bench.identity.key_id: self.bench.identity.public_pem}
        read = partial(read_item, disk, FOLDER, self.bench.device)
        if self.office:
            opened = OpenedReturn(stick_on(disk, FOLDER), envelope, self.bench.device, keys, [self.office])
            envelope, read = opened.envelope, opened.read_item
        payload = verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20)
        index = canonical.decode(ReturnIndex, payload, "return", max_bytes=1 << 20)
        for item in index.items:
            assert canonical.digest(read(item)) == item.digest
        return index


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    return Visit(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("loss", list(Loss))
def test_a_stick_pulled_at_any_step_of_an_encrypted_return(sealed_drill: Visit, loss: Loss) -> None:
    test_a_stick_pulled_at_any_step_at_the_device(sealed_drill, loss)


@pytest.fixture(scope="module")
def sealed_drill(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    return Visit(tmp_path_factory.mktemp("sealed"), is_sealed=True)


@pytest.mark.parametrize("loss", list(Loss))
def test_a_stick_pulled_at_any_step_at_the_device(drill: Visit, loss: Loss) -> None:
    step = 0
    while True:
        disk = drill.fresh()
        found = drill.go(PulledDisk(disk, step))
        drill.check_alive()
        if found.exit_code == 0:
            break
        assert found.exit_code == UnreachableError.exit_code
        assert "failed" in (found.problem or found.reason)
        after = disk.after_cut(loss, seed=step)
        drill.believed(after)
        again = drill.go(after)
        assert (again.outcome, again.exit_code, again.returned) == ("committed", 0, 2), again
        drill.check_alive()
        index = drill.believed(after.after_cut(Loss.ALL))
        assert index is not None and len(index.items) == 2
        step += 1
    print(f"install and return, {loss.name}: {step} pulls, 0 bricked, 0 half-believed, stick used again each time")
    assert step > 40


def test_the_power_goes_at_any_step_of_a_visit(drill: Visit) -> None:
    """Device and stick lose what was not synced at once: the same plug feeds both."""
    from support.forgetful_disk import PowerCut

    step = 0
    while True:
        disk = drill.fresh()
        device = drill.bench.fs
        assert isinstance(device, ForgetfulDisk)
        device.cut_at = step
        try:
            found = drill.go(disk)
        except PowerCut:
            loss = list(Loss)[step % len(Loss)]
            drill.bench.fs = device.after_cut(loss, seed=step)
            platform = drill.bench.platform
            drill.bench.platform = platform.__class__(
                drill.bench.fs, platform.clock, platform.locks, platform.is_clock_synced
            )
            drill.check_alive()
            after = disk.after_cut(loss, seed=step)
            drill.believed(after)
            assert drill.go(after).outcome == "committed"
            drill.check_alive()
            step += 1
            continue
        assert found.exit_code == 0
        break
    print(f"power cut during a visit: {step} cuts, 0 bricked, 0 half-believed")
    assert step > 40


def test_a_full_stick_at_every_room(parts: list[BundlePart]) -> None:
    """Whatever room there is and whatever the stick says of it, the bundle is whole or is none, and room heals it."""
    total = sum(part.size for part in parts)
    tried = 0
    for room in range(0, total + 2500, 997):
        disk = empty_disk()
        try:
            export_to(stick_on(FullDisk(disk, room, said=1 << 40), FOLDER), parts)  # type: ignore[arg-type]
        except StickFailedError as error:
            assert "No space left" in error.sentence()
            assert not is_whole(disk, parts)
            tried += 1
        export_to(stick_on(disk, FOLDER), parts)
        assert is_whole(disk, parts)
    assert tried > 5
    with pytest.raises(RefusedError, match="no room"):
        export_to(stick_on(FullDisk(empty_disk(), 4000), FOLDER), parts)  # type: ignore[arg-type]


def test_a_lying_stick_is_found_out_while_writing(parts: list[BundlePart]) -> None:
    """A stick sold as larger than it is keeps zeros; what is read back shows it before anybody carries it anywhere."""
    total = sum(part.size for part in parts)
    for room in range(0, total, 1499):
        disk = empty_disk()
        with pytest.raises(StickFailedError, match="other bytes"):
            export_to(stick_on(LyingDisk(disk, room), FOLDER), parts)  # type: ignore[arg-type]
        assert not is_whole(disk, parts)


def test_a_bit_that_rots_on_the_way_is_seen_at_the_device(drill: Visit) -> None:
    """Any file of the bundle: refused as damaged, the device runs on, and a new export heals the stick."""
    index = BundleReader(drill.bundle, FOLDER).index
    for path in index.files:
        disk = drill.fresh()
        disk.spoil(FOLDER.joinpath(*path.split("/")))
        found = drill.go(disk)
        assert (found.outcome, found.exit_code) == ("refused", DamagedError.exit_code), path
        assert drill.bench.agent().installer.ready().active_sha256 == FIRST.sha256
        assert found.returned == 1
