"""Who reads a return is said by the site's signed metadata alone, and what was encrypted is believed whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_console.operations.bundles import IntakeReport, export_bundle, intake_bundle
from pumpdeck_console.operations.recipients import change_recipients, list_recipients, plan_recipients
from pumpdeck_console.recipient_keys import RecipientKeys
from pumpdeck_console.wiring import KeyOptions, open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, FormatError, NotFoundError, RefusedError, TrustError
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE
from pumpdeck_packaging.age_box import AgeIdentity, decrypt, encrypt, generate_identity
from pumpdeck_packaging.bundle_returns import return_folder
from pumpdeck_packaging.bundle_stick import Stick, real_stick
from pumpdeck_packaging.returns_policy import ReturnsPolicy
from pumpdeck_packaging.sealed_return import SEALED_PAYLOAD_TYPE, SealedReturn
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, sign_dsse, verify_dsse
from support.courier_fleet import CourierFleet, courier_fleet
from support.devices import Bench, package
from support.forge import edited
from support.sticks import export_to, parts_for

THIEF = generate_identity()


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut would take is asked in tests/faults; here syncs only cost time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


class Scene:
    """A stick with the encrypted return of the first device; nothing was taken in yet."""

    def __init__(self, yard: CourierFleet) -> None:
        self.yard = yard
        self.device = yard.devices[0].id
        self.stick = yard.folder / "stick"

    @property
    def folder(self) -> Path:
        return return_folder(self.stick, self.device)

    @property
    def signer(self) -> Ed25519Signer:
        return self.yard.agent(self.device).pen.signer

    def outer(self) -> SealedReturn:
        keys = {self.signer.key_id: self.signer.public_pem}
        payload = verify_dsse((self.folder / "return.json").read_bytes(), SEALED_PAYLOAD_TYPE, keys, 1 << 20)
        return canonical.decode(SealedReturn, payload, "return", max_bytes=1 << 20)

    def forge(self, signer: Ed25519Signer | None = None, **changes: Any) -> None:
        """The outer word with other content, by the device's own key (a thief of the device) or another."""
        plain = {**canonical.to_plain(self.outer()), **changes}
        envelope = sign_dsse(canonical.encode(plain), SEALED_PAYLOAD_TYPE, signer or self.signer)
        (self.folder / "return.json").write_bytes(envelope)

    def standing(self) -> tuple[Any, ...]:
        store = self.yard.workspace.store
        return (
            store.receipts.all(),
            store.alarms.all(),
            store.telemetry.total_rows(),
            sorted(store.devices.active().items()),
            [row.command.id for row in store.outbox.waiting()],
            (self.yard.workspace.root / "returns").exists(),
        )

    def intake(self, **more: Any) -> IntakeReport:
        return intake_bundle(self.yard.workspace, folder=str(self.stick), **more)

    def refused(self, match: str = "") -> IntakeReport:
        before = self.standing()
        report = self.intake()
        said = [reason for _, reason in report.problems]
        assert said and any(match in text for text in said), said
        assert not report.stored
        assert self.standing() == before
        return report


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yard = courier_fleet(tmp_path, is_plain=False)
    yard.start()
    export_bundle(yard.workspace, to=str(tmp_path / "stick"))
    found = yard.visit(yard.devices[0].id)
    assert (found.outcome, len(found.readers)) == ("committed", 1), found
    yield Scene(yard)
    yard.workspace.close()


def _mine(scene: Scene) -> str:
    return next(row.name for row in list_recipients(scene.yard.workspace).rows if row.is_mine)


# At the console


def test_the_honest_return_is_taken_twice(scene: Scene) -> None:
    """Without an attack it is believed, and again changes nothing: the cases below fail for their own reason."""
    assert scene.intake().problems == ()
    before = scene.standing()
    assert not scene.intake().stored and scene.standing() == before


def test_without_a_key_the_readers_are_named_and_nothing_changes(scene: Scene) -> None:
    """Somebody who is no recipient takes the stick in."""
    (scene.yard.folder / "keys" / "mine" / "recipient.key").unlink()
    scene.yard.workspace.forget_settings()
    report = scene.refused("no key here opens it")
    assert f"expected the key of {_mine(scene)}" in report.problems[0][1]
    assert "--key-file recipient=PATH" in report.problems[0][1]


def test_the_key_of_somebody_else_opens_nothing(scene: Scene) -> None:
    """Another fleet's recipient has found the stick and has this laptop, but not the key."""
    (scene.yard.folder / "keys" / "mine" / "recipient.key").write_text(THIEF.secret, encoding="ascii")
    scene.yard.workspace.forget_settings()
    scene.refused("no key here opens it")


def test_a_key_file_given_by_name_opens_it(scene: Scene, tmp_path: Path) -> None:
    """A recipient on another laptop: the key comes from the place that the call names."""
    kept = scene.yard.folder / "keys" / "mine" / "recipient.key"
    moved = tmp_path / "usb.key"
    shutil.move(kept, moved)
    scene.yard.workspace.forget_settings()
    assert scene.intake().problems
    with open_workspace(scene.yard.workspace.root, clock=scene.yard.clock, keys=KeyOptions({"recipient": moved})) as mine:
        assert intake_bundle(mine, folder=str(scene.stick)).problems == ()


def test_a_plain_return_is_refused_where_the_site_demands_encryption(scene: Scene) -> None:
    """A thief of the device's key leaves plain text in the hope that the office takes to it; or an old agent does."""
    keys = {scene.signer.key_id: scene.signer.public_pem}
    secret = RecipientKeys.find(scene.yard.workspace.recipient_keys)
    outer = scene.outer()
    inner = decrypt((scene.folder / outer.index.digest).read_bytes(), secret, "index", 1 << 20)
    payload = canonical.parse_json(verify_dsse(inner, RETURN_PAYLOAD_TYPE, keys, 1 << 20), "index", max_bytes=1 << 20)
    for file, item in zip(outer.items, payload["items"], strict=True):
        data = decrypt((scene.folder / file.digest).read_bytes(), secret, "item", 4 << 20)
        (scene.folder / item["digest"]).write_bytes(data)
    (scene.folder / "return.json").write_bytes(inner)
    scene.refused("its site demands it")
    assert scene.intake(allow_plain=True).problems == ()


def test_a_return_sealed_by_a_stranger_is_refused(scene: Scene) -> None:
    """The recipients' public keys are public: anybody can encrypt to them. Only the device can sign."""
    scene.forge(generate_key())
    scene.refused("unknown key")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"device": "fulmar-d1"}, "another device"),
        ({"format": 2}, "unknown format"),
        ({"counter": 99}, "contradicts"),
        ({"items": []}, "contradicts"),
        ({"extra": 1}, ""),
        ({"recipients": {}, "index": {"digest": "0" * 64, "bytes": 10}}, "gone from the stick"),
        ({"index": {"digest": "../../etc/passwd", "bytes": 10}}, ""),
        ({"index": {"digest": "0" * 64, "bytes": 1 << 40}}, "too large"),
        ({"items": [{"digest": "0" * 64, "bytes": 0}]}, "too large"),
        ({"items": [{"digest": "0" * 64, "bytes": 10}] * 3001}, "too many"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bent_outer_word_is_refused(scene: Scene, changes: dict[str, Any], match: str) -> None:
    """A stolen device signs an outer list that does not fit, points elsewhere, or would fill the memory."""
    scene.forge(**changes)
    scene.refused(match)


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _longer(data: bytes) -> bytes:
    return data + b" "


def _flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize("change", [_cut, _longer, _flipped, lambda _: b""], ids=["cut", "longer", "flipped", "empty"])
@pytest.mark.parametrize("which", ["return.json", "index", "item"])
def test_ciphertext_of_other_bytes_is_refused(scene: Scene, which: str, change: Callable[[bytes], bytes]) -> None:
    """The outer word, the encrypted index or an encrypted item is cut, longer, altered or empty."""
    outer = scene.outer()
    names = {"return.json": "return.json", "index": outer.index.digest, "item": outer.items[0].digest}
    path = scene.folder / names[which]
    path.write_bytes(change(path.read_bytes()))
    scene.refused()


def test_swapped_ciphertexts_of_a_stolen_device_are_refused(scene: Scene) -> None:
    """The device's key signs a list whose first file holds something else, encrypted well: the inner index knows better."""
    public = list(scene.outer().recipients.values())
    other = encrypt(b"something else", public, "x")
    digest = canonical.digest(other)
    (scene.folder / digest).write_bytes(other)
    scene.forge(items=[{"digest": digest, "bytes": len(other)}])
    scene.refused()


def test_the_index_in_place_of_an_item_is_refused(scene: Scene) -> None:
    """Mix and match inside one return."""
    index = canonical.to_plain(scene.outer().index)
    scene.forge(items=[index])
    scene.refused()


def test_a_missing_item_refuses_the_whole_return(scene: Scene) -> None:
    """The carrier takes out what he does not like; he cannot even see what it is."""
    (scene.folder / scene.outer().items[0].digest).unlink()
    scene.refused("gone from the stick")


# Adding and removing


def test_a_removed_recipient_reads_what_was_before_and_nothing_later(scene: Scene) -> None:
    """A person leaves: the next stick tells the device, and what it writes from then on stays closed to them."""
    ada = generate_identity()
    workspace = scene.yard.workspace
    change_recipients(workspace, add={"ada": ada.public})
    export_bundle(workspace, to=str(scene.stick))
    assert "ada" in scene.yard.visit(scene.device).readers
    assert b"receipt" in _index_as(scene, ada)
    planned = plan_recipients(workspace, remove=("ada",))
    assert {one.before for one in planned} == {tuple(sorted(["ada", _mine(scene)]))}
    assert change_recipients(workspace, remove=("ada",)) == planned
    export_bundle(workspace, to=str(scene.stick))
    assert "ada" not in scene.yard.visit(scene.device).readers
    with pytest.raises(TrustError, match="other keys"):
        _index_as(scene, ada)
    assert scene.intake().problems == ()


def test_a_removed_recipient_does_not_come_back_with_an_old_stick(scene: Scene) -> None:
    """Rollback: the person who left kept a stick of their days and has it carried to the device."""
    workspace = scene.yard.workspace
    change_recipients(workspace, add={"ada": THIEF.public})
    old = scene.yard.folder / "old"
    export_bundle(workspace, to=str(old))
    change_recipients(workspace, remove=("ada",))
    new = scene.yard.folder / "new"
    export_bundle(workspace, to=str(new))
    scene.yard.visit(scene.device, real_stick(new))
    found = scene.yard.visit(scene.device, real_stick(old))
    assert found.readers == (_mine(scene),)


def _index_as(scene: Scene, who: AgeIdentity) -> bytes:
    import base64
    import json

    data = decrypt((scene.folder / scene.outer().index.digest).read_bytes(), [who], "index", 1 << 20)
    return base64.b64decode(json.loads(data)["payload"])


def test_the_last_recipient_cannot_be_removed(scene: Scene) -> None:
    """Nobody could read any more: refused, and every site says what it said before."""
    before = list_recipients(scene.yard.workspace).rows
    with pytest.raises(RefusedError, match="nobody could read"):
        change_recipients(scene.yard.workspace, remove=(_mine(scene),))
    assert list_recipients(scene.yard.workspace).rows == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"add": {"ada": "age1notakey"}}, FormatError),
        ({"add": {"Ada": THIEF.public}}, FormatError),
        ({"remove": ("nobody",)}, NotFoundError),
        ({"add": {"ada": THIEF.secret}}, FormatError),
    ],
)
def test_a_bad_change_signs_nothing(scene: Scene, arguments: dict[str, Any], error: type[Exception]) -> None:
    """Not a key, not a name, a private key in place of a public one."""
    before = list_recipients(scene.yard.workspace).rows
    with pytest.raises(error):
        change_recipients(scene.yard.workspace, **arguments)
    assert list_recipients(scene.yard.workspace).rows == before


def test_a_name_cannot_get_another_key_and_a_key_no_second_name(scene: Scene) -> None:
    """Somebody would go on reading under the other name."""
    change_recipients(scene.yard.workspace, add={"ada": THIEF.public})
    with pytest.raises(ConflictError):
        change_recipients(scene.yard.workspace, add={"ada": generate_identity().public})
    with pytest.raises(TrustError, match="twice"):
        change_recipients(scene.yard.workspace, add={"grace": THIEF.public})


def test_a_site_that_says_plain_is_written_and_read_plain(scene: Scene) -> None:
    """Unless a site says otherwise: it said so, signed."""
    workspace = scene.yard.workspace
    site = scene.yard.devices[0].site
    change_recipients(workspace, plain=True, sites=(site,))
    export_bundle(workspace, to=str(scene.stick))
    assert scene.yard.visit(scene.device).readers == ()
    assert scene.intake().problems == ()


# At the device: a stick that brings its own reader


class DeviceScene:
    """A device of a site whose returns only the office reads, and a stick for it."""

    def __init__(self, folder: Path) -> None:
        self.office = generate_identity()
        self.bench = Bench(folder)
        keys = self.bench.site.keys
        policy = ReturnsPolicy({"office": self.office.public})
        self.bench.site.trust.set_returns(policy, keys.targets, keys.laptops[0])
        self.built = package()
        self.files = self.bench.assign(self.built)
        self.stick: Stick = real_stick(folder / "stick" / "pumpdeck")

    def visit(self, files: dict[str, bytes]) -> StickVisit:
        export_to(self.stick, parts_for(files, self.built))
        return install_from(self.bench.agent(), self.stick)

    def readable_by(self, who: AgeIdentity) -> bool:
        """True when any file of the return opens with that key, or a return lies there in plain."""
        folder = return_folder(self.stick.folder, self.bench.device)
        opened = 0
        for path in folder.iterdir():
            if path.name in ("report.txt", "return.json"):
                continue
            try:
                decrypt(path.read_bytes(), [who], path.name, 4 << 20)
                opened += 1
            except TrustError:
                pass
            except FormatError:
                opened += 1
        return opened > 0

    def with_reader(self, signers: list[Ed25519Signer] | None) -> dict[str, bytes]:
        """The site's set with the thief among the readers, signed by these keys, everything above it made to fit."""

        def add(signed: dict[str, Any]) -> None:
            signed["pumpdeck_returns"]["recipients"]["thief"] = THIEF.public
            signed["version"] += 1

        return edited(self.files, self.bench.site.keys, "targets", add, signers)


@pytest.fixture
def device(tmp_path: Path) -> DeviceScene:
    return DeviceScene(tmp_path)


def test_the_office_reads_and_a_thief_does_not(device: DeviceScene) -> None:
    """The honest stick: without an attack the office can read and nobody else."""
    found = device.visit(device.files)
    assert (found.outcome, found.readers, found.returned) == ("committed", ("office",), 1)
    assert device.readable_by(device.office) and not device.readable_by(THIEF)


@pytest.mark.parametrize("who", ["deploy", "release", "stranger", "nobody"])
def test_a_reader_that_the_targets_role_did_not_sign_is_not_believed(device: DeviceScene, who: str) -> None:
    """A stolen laptop (deploy), a release key, a stranger, or the old signature under new words."""
    device.visit(device.files)
    keys = device.bench.site.keys
    signers = {"deploy": [keys.laptops[0]], "release": keys.release, "stranger": [generate_key()], "nobody": []}[who]
    found = device.visit(device.with_reader(signers))
    assert found.readers == ("office",)
    assert not device.readable_by(THIEF)


def test_a_fresh_device_does_not_take_its_readers_from_a_forged_stick(device: DeviceScene) -> None:
    """Before it has accepted anything: then it writes nothing rather than something anybody could read."""
    found = device.visit(device.with_reader([device.bench.site.keys.laptops[0]]))
    assert (found.outcome, found.returned) == ("refused", -1)
    assert "does not know who may read" in found.problem
    assert not (return_folder(device.stick.folder, device.bench.device) / "return.json").exists()


def test_readers_written_onto_the_stick_are_not_looked_at(device: DeviceScene) -> None:
    """Files that look like recipients lie beside the bundle."""
    for name in ("recipients.txt", "recipients.json", "age-recipients"):
        device.stick.folder.mkdir(parents=True, exist_ok=True)
        (device.stick.folder.parent / name).write_text(THIEF.public, encoding="ascii")
    assert device.visit(device.files).readers == ("office",)
    assert not device.readable_by(THIEF)


def test_the_policy_taken_off_the_metadata_is_refused(device: DeviceScene) -> None:
    """Downgrade to plain: the field is cut out of the signed file, or says plain."""
    device.visit(device.files)
    for change in (lambda signed: signed.pop("pumpdeck_returns"), lambda signed: signed["pumpdeck_returns"].update(plain=True)):
        found = device.visit(edited(device.files, device.bench.site.keys, "targets", change, [generate_key()]))
        assert found.readers == ("office",)


def test_the_targets_of_before_there_were_readers_are_refused(tmp_path: Path) -> None:
    """Rollback to plain: a stick of the days before the site had recipients, honest and signed."""
    bench = Bench(tmp_path)
    built = package()
    old = bench.assign(built)
    office = generate_identity()
    keys = bench.site.keys
    bench.site.trust.set_returns(ReturnsPolicy({"office": office.public}), keys.targets, keys.laptops[0])
    new = dict(bench.site.trust.files_for(bench.device))
    stick = real_stick(tmp_path / "stick" / "pumpdeck")
    export_to(stick, parts_for(new, built))
    assert install_from(bench.agent(), stick).readers == ("office",)
    export_to(stick, parts_for(old, built))
    assert install_from(bench.agent(), stick).readers == ("office",)


def test_kept_metadata_that_was_put_back_writes_no_return(device: DeviceScene) -> None:
    """Somebody with the device's disk for a minute puts yesterday's cache back; its floor is sealed and newer."""
    bench = device.bench
    device.visit(device.files)
    before = bench.agent().layout.trust_kept.read_bytes()
    keys = bench.site.keys
    bench.site.trust.set_returns(ReturnsPolicy({"grace": device.office.public}), keys.targets, keys.laptops[0])
    device.visit(dict(bench.site.trust.files_for(bench.device)))
    bench.agent().layout.trust_kept.write_bytes(before)
    other = real_stick(device.stick.folder.parent / "other")
    export_to(other, parts_for(device.files, package("gannet-d2"), device="gannet-d2", site="fulmar"))
    found = install_from(bench.agent(), other)
    assert found.returned == -1 and "does not know who may read" in found.problem


@pytest.mark.parametrize(
    "said",
    [
        {"recipients": {}, "plain": False, "format": 1},
        {"recipients": {"x": "age1" + "q" * 58}, "plain": False, "format": 1},
        {"recipients": {"x": "ssh-ed25519 AAAA"}, "plain": False, "format": 1},
        {"recipients": {"x": THIEF.public}, "plain": False, "format": 9},
        {"recipients": {"../x": THIEF.public}, "plain": False, "format": 1},
        {"recipients": {"x": THIEF.public, "y": THIEF.public}, "plain": False, "format": 1},
        [],
        None,
    ],
    ids=["no recipient", "no key", "another kind of key", "unknown format", "odd name", "one key twice", "a list", "nothing"],
)
def test_words_that_cannot_be_followed_return_nothing_and_install_all_the_same(device: DeviceScene, said: Any) -> None:
    """Signed, and wrong: the pump gets its model, but nothing leaves the device until the words are put right."""

    def say(signed: dict[str, Any]) -> None:
        signed["pumpdeck_returns"] = said
        signed["version"] += 1

    found = device.visit(edited(device.files, device.bench.site.keys, "targets", say))
    assert (found.outcome, found.returned) == ("committed", -1), found
    assert found.problem
    assert not (return_folder(device.stick.folder, device.bench.device) / "return.json").exists()
