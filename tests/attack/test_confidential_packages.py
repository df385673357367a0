"""Packages that only their device can read: what travels is ciphertext that TUF signed, and nothing else is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_agent.main import main
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.confidential_packages import seal_for, stored_package, without_key
from pumpdeck_console.operations.delivering import tick
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import RefusedError, TrustError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_packaging.age_box import AGE_MARK, decrypt, encrypt, generate_identity
from pumpdeck_packaging.bundle import bytes_part
from pumpdeck_packaging.bundle_index import package_file
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.release_entries import PackageRelease
from pumpdeck_packaging.sealed_package import SealedPackage, seal_package
from pumpdeck_packaging.trust_repository import AssignmentRequest
from support.courier_fleet import courier_fleet
from support.devices import Bench, LoopChannel, package
from support.plaintext_search import findings
from support.sticks import export_to, parts_for

BUILT, OTHER = package(), package(shift=0.5)


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut would take is asked in tests/faults; here syncs only cost time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


class Scene:
    """A device of a confidential class; `release` gives the stick that brings a package in a ciphertext of one's choice."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.folder = folder
        self.sealed, self.data = seal_package(BUILT.data, self.bench.device, self.bench.identity.age_key)

    def files(self, sealed: SealedPackage, built: Any = BUILT, task: str = "task-1") -> dict[str, bytes]:
        site, device = self.bench.site, self.bench.device
        site.trust.release([PackageRelease(built, {"esp-health": 1}, sealed)], site.keys.release)
        site.trust.assign([AssignmentRequest(device, built.sha256, task)], site.keys.laptops[0])
        return dict(site.trust.files_for(device))

    def visit(self, files: dict[str, bytes], data: bytes, name: str = "") -> StickVisit:
        stick = real_stick(self.folder / "stick")
        parts = [part for part in parts_for(files, BUILT) if "/packages/" not in part.path]
        part = bytes_part(package_file("gannet", name or canonical.digest(data)), data)
        export_to(stick, [*parts, part])
        return install_from(self.bench.agent(), stick)

    def refused(self, found: StickVisit, match: str) -> None:
        status = self.bench.status()
        assert found.outcome == "refused" and match in found.reason, found
        assert (status["state"], status["seq"], status["counter"]) == ("NO_MODEL", 0, 0)
        layout = self.bench.agent().layout
        assert list(layout.store.iterdir()) == []
        assert not (layout.incoming / BUILT.sha256).exists()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_honest_ciphertext_is_installed_under_the_digest_inside(scene: Scene) -> None:
    """Without an attack it runs, and its name is the package's, not the ciphertext's: receipts and rollouts see no difference."""
    found = scene.visit(scene.files(scene.sealed), scene.data)
    assert (found.outcome, found.active) == ("committed", BUILT.sha256)
    assert sorted(path.name for path in scene.bench.agent().layout.incoming.iterdir()) == []


def test_it_lies_open_in_the_store_alone_also_while_it_waits(scene: Scene) -> None:
    """A finder of the disk, or a backup of `incoming/`: the package is opened in memory, and in no folder but the store."""
    set_veto(scene.bench.fs, scene.bench.agent().layout, Veto("crane", 0))
    files = scene.files(scene.sealed)
    layout = scene.bench.agent().layout
    for _ in range(2):
        assert scene.visit(files, scene.data).outcome == "waits"
        assert [path.name for path in layout.incoming.iterdir()] == [canonical.digest(scene.data)]
        assert [path.name for path in layout.store.iterdir()] == [BUILT.sha256]
    open_bytes = {path.read_bytes() for path in layout.incoming.iterdir()}
    assert open_bytes == {scene.data}
    lift_veto(scene.bench.fs, layout)
    assert scene.bench.agent().resume().fields["outcome"] == "committed"
    assert list(layout.incoming.iterdir()) == []


def test_a_staged_copy_that_rotted_comes_back_from_the_ciphertext(scene: Scene) -> None:
    """While it waits the disk damages the open copy: the ciphertext beside it is enough, the stick need not come again."""
    layout = scene.bench.agent().layout
    set_veto(scene.bench.fs, layout, Veto("crane", 0))
    files = scene.files(scene.sealed)
    scene.visit(files, scene.data)
    victim = next(path for path in (layout.store / BUILT.sha256).rglob("*.onnx"))
    victim.write_bytes(b"rotten")
    lift_veto(scene.bench.fs, layout)
    answer = scene.bench.agent().assign(files)
    assert (answer.fields["outcome"], answer.fields["active"]) == ("committed", BUILT.sha256)


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_the_devices_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    """Another account on the device: it cannot even enter the folder that the packages stand in."""
    site = Bench(tmp_path).site
    (tmp_path / "agent.json").write_bytes(canonical.encode(Bench(tmp_path / "other").config))
    (tmp_path / "1.root.json").write_bytes(site.root)
    words = ["--root", str(tmp_path / "fresh"), "--config", str(tmp_path / "agent.json")]
    assert main(["init", *words, "--trusted-root", str(tmp_path / "1.root.json")]) == 0
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o700


def test_a_ciphertext_for_another_device_is_refused(scene: Scene) -> None:
    """Wrong key: signed by the release role for this device, encrypted to another."""
    sealed, data = seal_package(BUILT.data, "x", generate_identity().public)
    scene.refused(scene.visit(scene.files(sealed), data), "encrypted to other keys")


def test_another_package_inside_is_refused(scene: Scene) -> None:
    """The ciphertext that was signed holds another package than its path says: a release key alone cannot mix them up."""
    sealed, data = seal_package(OTHER.data, "x", scene.bench.identity.age_key)
    scene.refused(scene.visit(scene.files(sealed), data), "not the package that was signed for")


def test_a_swapped_ciphertext_is_refused_before_it_is_decrypted(scene: Scene) -> None:
    """The same package, encrypted to the device by somebody else: anybody can encrypt, only the signed bytes count."""
    other = encrypt(BUILT.data, [scene.bench.identity.age_key], "x")
    found = scene.visit(scene.files(scene.sealed), other)
    scene.refused(found, "is not in this bundle")
    found = scene.visit(dict(scene.bench.site.trust.files_for("gannet-d1")), other + b"", scene.sealed.sha256)
    scene.refused(found, "")


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flipped(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


@pytest.mark.parametrize("change", [_cut, _flipped, lambda data: data + b"\0", lambda data: data[:100]])
def test_a_bent_ciphertext_is_refused(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    """Truncated, altered, longer: on the stick it is not what was signed."""
    scene.refused(scene.visit(scene.files(scene.sealed), change(scene.data), scene.sealed.sha256), "")


@pytest.mark.parametrize("change", [_cut, _flipped, lambda _: b"plain bytes", lambda _: AGE_MARK])
def test_a_bent_ciphertext_that_was_signed_is_refused(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    """The trainer host's disk damaged it before it was signed: it does not decrypt, nothing is unpacked."""
    data = change(scene.data)
    sealed = SealedPackage(canonical.digest(data), len(data), scene.bench.identity.age_key)
    scene.refused(scene.visit(scene.files(sealed), data), "")


def test_plain_bytes_in_the_place_of_ciphertext_are_refused(scene: Scene) -> None:
    """Downgrade: the package itself lies where its ciphertext should be."""
    files = scene.files(scene.sealed)
    scene.refused(scene.visit(files, BUILT.data, scene.sealed.sha256), "")
    scene.refused(scene.visit(files, BUILT.data), "")


def test_pushed_over_ssh_it_is_installed_and_the_plain_one_is_refused(scene: Scene) -> None:
    """The same door over SSH: the digest that is pushed is the ciphertext's."""
    from pumpdeck_fleet.transports.rpc_client import push_blob

    files = scene.files(scene.sealed)
    channel = LoopChannel(scene.bench.agent())
    push_blob(channel, scene.sealed.sha256, scene.data)
    assert scene.bench.send_assignment(channel, files)["outcome"] == "committed"


def test_a_device_whose_key_was_lost_says_what_to_do(scene: Scene) -> None:
    """Its disk lost the private half: refused with the way out, and what ran runs on."""
    scene.bench.agent().layout.age_key.unlink()
    found = scene.visit(scene.files(scene.sealed), scene.data)
    scene.refused(found, "no age key")


def test_the_private_half_is_0600_and_never_leaves(scene: Scene) -> None:
    """Beside the device key, as the device key; what the device tells is the public half."""
    layout = scene.bench.agent().layout
    assert layout.age_key.stat().st_mode & 0o777 == 0o600
    secret = layout.age_key.read_text(encoding="ascii").strip()
    said = scene.bench.agent().hello("c", "w").fields
    assert said["age_key"] == scene.bench.identity.age_key and secret not in str(said)


# At the console


def test_a_package_is_encrypted_once_and_found_again(tmp_path: Path) -> None:
    """Re-export must not re-encrypt: what was signed stays, until the device has another key."""
    yard = courier_fleet(tmp_path, is_confidential=True)
    workspace, device = yard.workspace, yard.devices[0]
    built = yard.packages[device.id]
    first = seal_for(workspace, device, built)
    assert first == seal_for(workspace, device, built) == workspace.trust(device.site).sealed_package(device.id, built.sha256)
    release = workspace.trust(device.site).status().versions["release"]
    signer = workspace.signing_key("release", device.site).signer
    workspace.trust(device.site).release([PackageRelease(built, {}, first)], [signer])
    assert workspace.trust(device.site).status().versions["release"] == release
    with workspace.store.atomic() as store:
        store.age_keys.put(device.id, generate_identity().public, yard.clock.now_ms())
    second = seal_for(workspace, device, built)
    assert second is not None and first is not None and second.sha256 != first.sha256
    workspace.close()


def test_without_a_known_key_nothing_is_released(tmp_path: Path) -> None:
    """Rather no package than one that anybody could read."""
    yard = courier_fleet(tmp_path, is_confidential=True)
    workspace, device = yard.workspace, yard.devices[0]
    with workspace.store.atomic() as store:
        store._sql.write("DELETE FROM device_age_key WHERE device = ?", (device.id,))
    assert list(without_key(workspace, yard.devices)) == [device.id]
    with pytest.raises(RefusedError, match="age key"):
        seal_for(workspace, device, yard.packages[device.id])
    workspace.close()


def test_a_stick_with_confidential_packages_shows_no_tag_and_no_limit(tmp_path: Path) -> None:
    """Lost stick, export and return: neither the package nor the word that a return is safe can be read."""
    yard = courier_fleet(tmp_path, is_confidential=True, is_plain=False)
    yard.start()
    device = yard.devices[0].id
    tag = yard.workspace.fleet.pumps_by_device[device][0].tag
    stick = tmp_path / "stick"
    export_bundle(yard.workspace, to=str(stick))
    assert yard.visit(device).outcome == "committed"
    assert intake_bundle(yard.workspace, folder=str(stick)).problems == ()
    export_bundle(yard.workspace, to=str(stick))
    found = findings(stick, [], [tag, "esp-health"])
    assert {one.split(": ")[0] for one in found} <= {"report.txt"} | _release_files(found)
    assert not any("packages" in str(path) and not path.read_bytes().startswith(AGE_MARK) for path in _packages(stick))
    assert yard.visit(device).note == ""
    assert yard.agent(device).outbox.counts().items == 0
    yard.workspace.close()


def _release_files(found: set[str]) -> set[str]:
    """The release metadata names model lines and their numbers, which are no secret of a pump."""
    return {one.split(": ")[0] for one in found if one.split(": ")[0].endswith("release.json") and "esp-health" in one}


def _packages(stick: Path) -> list[Path]:
    found = [path for path in stick.glob("sites/*/packages/*") if path.is_file()]
    assert found
    return found


def test_what_travels_is_what_the_plan_signs(tmp_path: Path) -> None:
    """The rollout speaks of the package inside, the stick carries the ciphertext; both are told apart everywhere."""
    yard = courier_fleet(tmp_path, is_confidential=True, links=(Link.SSH, Link.COURIER))
    device = yard.devices[0]
    built = yard.packages[device.id]
    stored = stored_package(yard.workspace, device.site, device.id, built.sha256, len(built.data))
    data = yard.workspace.artifacts.get(stored.sha256)
    assert len(data) == stored.bytes != len(built.data)
    identity = yard.agent(device.id).layout.age_key.read_text(encoding="ascii").strip()
    from pumpdeck_packaging.age_box import parse_identities

    assert decrypt(data, parse_identities(identity, "k"), "p", 1 << 20) == built.data
    with pytest.raises(TrustError):
        decrypt(data, [generate_identity()], "p", 1 << 20)

    def open_channel(one: Any) -> LoopChannel:
        return LoopChannel(yard.agent(one.id))

    yard.workspace.__dict__["connect"] = open_channel
    yard.start()
    report = tick(yard.workspace)
    assert report.committed == (device.id,), report
    assert yard.active(device.id) == built.sha256
    yard.workspace.close()
