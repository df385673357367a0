"""A stick in the wrong hands, at the console: what comes back is a device's own word, whole, or it is not believed."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console.operations.bundles import IntakeReport, export_bundle, intake_bundle
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import (
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AlarmNotice,
    Receipt,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
)
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_packaging.bundle_returns import return_folder
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, sign_dsse, verify_dsse
from support.courier_fleet import CourierFleet, courier_fleet
from support.small_fleet import NOW_MS

Item = tuple[ReturnItem, bytes]


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut would take is asked in tests/faults; here syncs only cost time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@dataclass
class Scene:
    """A stick that has been at the first device and carries its honest return; nothing was taken in yet."""

    yard: CourierFleet

    @property
    def device(self) -> str:
        return self.yard.devices[0].id

    @property
    def neighbour(self) -> str:
        return self.yard.devices[1].id

    @property
    def signer(self) -> Ed25519Signer:
        return self.yard.agent(self.device).pen.signer

    def folder(self, device: str = "") -> Path:
        return return_folder(self.yard.folder / "stick", device or self.device)

    def items(self) -> list[Item]:
        envelope = (self.folder() / "return.json").read_bytes()
        keys = {self.signer.key_id: self.signer.public_pem}
        payload = verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20)
        index = canonical.decode(ReturnIndex, payload, "return", max_bytes=1 << 20)
        return [(item, (self.folder() / item.digest).read_bytes()) for item in index.items]

    def forge(
        self,
        listed: list[Item],
        signer: Ed25519Signer | None = None,
        *,
        device: str = "",
        counter: int = 7,
        lay: bool = True,
        **changes: Any,
    ) -> None:
        """Lay another return in the place of the device's: with its own key (a thief of the device), or another."""
        index = ReturnIndex(1, device or self.device, counter, NOW_MS, tuple(item for item, _ in listed))
        plain = {**canonical.to_plain(index), **changes}
        envelope = sign_dsse(canonical.encode(plain), RETURN_PAYLOAD_TYPE, signer or self.signer)
        (self.folder() / "return.json").write_bytes(envelope)
        for item, data in listed if lay else ():
            (self.folder() / item.digest).write_bytes(data)

    def receipt(self, signer: Ed25519Signer | None = None, **changes: Any) -> Item:
        """The device's receipt with other words, signed by that key."""
        envelope = next(data for item, data in self.items() if item.kind is ReturnKind.RECEIPT)
        keys = {self.signer.key_id: self.signer.public_pem}
        payload = verify_dsse(envelope, RECEIPT_PAYLOAD_TYPE, keys, 1 << 16)
        honest = canonical.decode(Receipt, payload, "receipt", max_bytes=1 << 16)
        plain = {**canonical.to_plain(honest), **changes}
        data = sign_dsse(canonical.encode(plain), RECEIPT_PAYLOAD_TYPE, signer or self.signer)
        return ReturnItem(ReturnKind.RECEIPT, canonical.digest(data), len(data)), data

    def standing(self) -> tuple[Any, ...]:
        """Everything in the store that a false return could change."""
        store = self.yard.workspace.store
        return (
            store.receipts.all(),
            store.alarms.all(),
            store.telemetry.total_rows(),
            store.scores.total_rows(),
            sorted(store.devices.active().items()),
            self.states(),
            [row.command.id for row in store.outbox.waiting()],
            (self.yard.workspace.root / "returns").exists(),
        )

    def states(self) -> dict[str, TaskState]:
        return {task.device: task.state for task in self.yard.rollout().tasks.values()}

    def intake(self) -> IntakeReport:
        return intake_bundle(self.yard.workspace, folder=str(self.yard.folder / "stick"))

    def refused(self, match: str = "") -> IntakeReport:
        """Assert that nothing of this stick is believed, for that reason."""
        before = self.standing()
        report = self.intake()
        said = [reason for _, reason in report.problems] + [text for one in report.devices for text in one.problems]
        assert said and any(match in text for text in said), said
        assert not report.stored
        assert self.standing() == before
        return report


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yard = courier_fleet(tmp_path)
    yard.start()
    export_bundle(yard.workspace, to=str(tmp_path / "stick"))
    assert yard.visit(yard.devices[0].id).outcome == "committed"
    yield Scene(yard)
    yard.workspace.close()


def test_the_honest_return_is_taken(scene: Scene) -> None:
    """Without an attack it is believed: the cases below fail for their own reason."""
    assert scene.intake().problems == ()
    assert scene.states()[scene.device] is TaskState.COMMITTED


def test_a_return_signed_by_a_stranger_is_refused(scene: Scene) -> None:
    """Somebody makes up a whole return."""
    scene.forge(scene.items(), generate_key())
    scene.refused("unknown key")


def test_a_return_of_the_neighbour_under_this_name_is_refused(scene: Scene) -> None:
    """The neighbour's folder is copied over ours: foreign, and honest in itself."""
    scene.yard.visit(scene.neighbour)
    shutil.rmtree(scene.folder())
    shutil.copytree(scene.folder(scene.neighbour), scene.folder())
    before = scene.states()[scene.device]
    report = scene.intake()
    assert [device for device, _ in report.problems] == [scene.device]
    assert scene.states()[scene.device] is before
    assert scene.states()[scene.neighbour] is TaskState.COMMITTED


def test_a_device_nobody_knows_is_refused(scene: Scene) -> None:
    """A folder with a name that is not in the inventory."""
    scene.folder().rename(scene.folder("nobody"))
    scene.refused("nobody")


def test_a_device_that_was_never_enrolled_is_refused(scene: Scene) -> None:
    """It is in the inventory, but no person has seen its key."""
    with scene.yard.workspace.store.atomic() as store:
        store._sql.write("UPDATE device SET public_pem = NULL WHERE device = ?", (scene.device,))
        store._sql.write("DELETE FROM device_key WHERE device = ?", (scene.device,))
    scene.refused("not enrolled")


def test_the_key_of_a_device_that_was_replaced_is_not_believed(scene: Scene) -> None:
    """The old device's key lies in a skip somewhere; somebody found it."""
    new = generate_key()
    with scene.yard.workspace.store.atomic() as store:
        store.devices.put_identity(scene.device, new.public_pem, new.key_id, "", NOW_MS)
    scene.refused("which was replaced on")


def test_a_receipt_signed_by_another_device_is_refused(scene: Scene) -> None:
    """Forged receipt: the index is the device's own, the receipt in it is not."""
    scene.forge([scene.receipt(generate_key())])
    scene.refused("unknown key")


def test_a_receipt_that_speaks_for_the_neighbour_is_refused(scene: Scene) -> None:
    """A stolen device claims that its neighbour has committed."""
    scene.forge([scene.receipt(device=scene.neighbour)])
    scene.refused("another device")


@pytest.mark.parametrize("field", ["task", "package_sha256", "seq"])
def test_a_receipt_for_something_else_ends_no_task(scene: Scene, field: str) -> None:
    """Signed by the device, about another task, package or number: kept as its word, but the rollout does not move."""
    value: Any = {"task": "another-task", "package_sha256": "0" * 64, "seq": 1}[field]
    scene.forge([scene.receipt(**{field: value})])
    before = scene.states()
    scene.intake()
    assert scene.states() == before


def test_a_receipt_that_contradicts_itself_is_no_success(scene: Scene) -> None:
    """It says committed and names another active package."""
    scene.forge([scene.receipt(active_sha256="0" * 64)])
    scene.intake()
    assert scene.states()[scene.device] is TaskState.FAILED_INCONSISTENT


def test_two_receipts_under_one_counter_are_refused(scene: Scene) -> None:
    """A receipt that was taken in is followed by another one of the same counter."""
    scene.intake()
    before = scene.standing()
    scene.forge([scene.receipt(reason="another story")], counter=9)
    report = scene.intake()
    assert "two receipts carry one counter" in str(report.devices[0].problems)
    assert scene.standing()[:6] == before[:6]


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _longer(data: bytes) -> bytes:
    return data + b" "


def _empty(_data: bytes) -> bytes:
    return b""


def _flipped(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def _huge(_data: bytes) -> bytes:
    return b" " * (5 << 20)


CHANGES = [_cut, _longer, _empty, _flipped, _huge]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("what", ["return.json", "item"])
def test_a_return_of_other_bytes_is_refused(scene: Scene, what: str, change: Callable[[bytes], bytes]) -> None:
    """The signed index or an item it lists is cut, longer, empty, altered or huge."""
    name = what if what == "return.json" else scene.items()[0][0].digest
    path = scene.folder() / name
    path.write_bytes(change(path.read_bytes()))
    scene.refused()


def test_a_missing_item_refuses_the_whole_return(scene: Scene) -> None:
    """The carrier takes out what he does not like."""
    (scene.folder() / scene.items()[0][0].digest).unlink()
    scene.refused("gone from the stick")


def test_a_missing_index_refuses_the_whole_return(scene: Scene) -> None:
    """Items without the signed list, as after a pulled stick."""
    (scene.folder() / "return.json").unlink()
    scene.refused("not finished")


def test_items_beside_the_index_are_not_looked_at(scene: Scene) -> None:
    """Things that the device never signed lie in its folder."""
    (scene.folder() / ("f" * 64)).write_bytes(b"evil")
    (scene.folder() / "autorun.inf").write_bytes(b"[autorun]")
    assert scene.intake().problems == ()
    assert len(scene.yard.workspace.store.receipts.all()) == 1


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "loop"])
@pytest.mark.parametrize("what", ["return.json", "item", "folder"])
def test_a_link_is_not_followed(scene: Scene, what: str, target: str) -> None:
    """Links to files of the console's computer, to endless devices, to themselves."""
    names = {"return.json": "return.json", "item": scene.items()[0][0].digest, "folder": ""}
    path = scene.folder() / names[what]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path if target == "loop" else target)
    scene.refused()


@pytest.mark.parametrize("what", ["return.json", "item"])
def test_a_pipe_does_not_hold_intake_up(scene: Scene, what: str) -> None:
    """A FIFO that nobody writes stands where a file should."""
    path = scene.folder() / ("return.json" if what == "return.json" else scene.items()[0][0].digest)
    path.unlink()
    os.mkfifo(path)
    scene.refused("not a plain file")


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "/etc/passwd", "A" * 64, "", "..", "a" * 63])
def test_an_item_whose_digest_is_a_path_is_refused(scene: Scene, digest: str) -> None:
    """A stolen device signs an index that would make the console read elsewhere."""
    scene.forge([(ReturnItem(ReturnKind.ALARM, digest, 10), b"")], lay=False)
    scene.refused()


@pytest.mark.parametrize("size", [-1, 5 << 20, 1 << 50])
def test_an_item_of_an_impossible_length_is_refused_unread(scene: Scene, size: int) -> None:
    """A stolen device signs a length that would fill the console's memory."""
    scene.forge([(ReturnItem(ReturnKind.SEGMENT, "0" * 64, size), b"")], lay=False)
    scene.refused("too large")


def test_an_index_that_adds_up_to_too_much_is_refused_unread(scene: Scene) -> None:
    """Each item is small enough, all together are not."""
    items = [(ReturnItem(ReturnKind.SEGMENT, f"{n:064x}", 4 << 20), b"") for n in range(40)]
    scene.forge(items, lay=False)
    scene.refused("too large")


@pytest.mark.parametrize("changes", [{"format": 2}, {"counter": "7"}, {"items": {}}, {"device": "x/y"}, {"extra": 1}], ids=repr)
def test_a_bent_index_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    """Every field is checked, nothing unknown is passed over."""
    scene.forge(scene.items(), **changes)
    scene.refused()


def test_an_alarm_for_a_pump_of_another_device_is_refused(scene: Scene) -> None:
    """A stolen device raises alarms on pumps that are not its own."""
    pump = scene.yard.workspace.fleet.pumps_by_device[scene.neighbour][0].tag
    data = canonical.encode(AlarmNotice(1, scene.device, pump, NOW_MS, True, 9.0, 3.0, "flow_m3_h", "a" * 64))
    scene.forge([(ReturnItem(ReturnKind.ALARM, canonical.digest(data), len(data), pump), data)])
    before = scene.standing()[:6]
    report = scene.intake()
    assert "no such pump" in str(report.devices[0].problems)
    assert scene.standing()[:6] == before


@pytest.mark.parametrize("name", ["..evil", "CON", "con", "UPPER", "a b", "x" * 65, "ünicode", "trailing."])
def test_a_folder_with_an_odd_name_is_named_and_left(scene: Scene, name: str) -> None:
    """Folders that no device can have made stand beside the honest one."""
    scene.folder().rename(scene.folder().with_name(name))
    report = scene.refused("not the name of a device")
    assert report.problems[0][0] == name[:80]


def test_an_older_return_played_again_changes_nothing(scene: Scene) -> None:
    """Replayed receipt, and all that came with it: a copy of last month's stick is handed in after this month's."""
    shutil.copytree(scene.yard.folder / "stick", scene.yard.folder / "copy")
    scene.yard.visit(scene.device)
    scene.intake()
    before = scene.standing()
    report = intake_bundle(scene.yard.workspace, folder=str(scene.yard.folder / "copy"))
    assert not report.stored
    assert scene.standing() == before


def test_a_return_that_changes_all_the_time_is_the_devices_own_word_or_none(scene: Scene) -> None:
    """Verification-to-use race on the stick: a thread swaps index and items for strangers', halves and links at intake."""
    honest = {path: path.read_bytes() for path in scene.folder().iterdir() if path.is_file()}
    index = scene.folder() / "return.json"
    own = index.read_bytes()
    scene.forge([scene.receipt(outcome="refused", reason="made up")], generate_key(), lay=False)
    stranger = index.read_bytes()
    index.write_bytes(own)
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            for path, data in honest.items():
                turn += 1
                others = (data, stranger, data[: len(data) // 2], b"")
                beside = path.with_name("swap.part")
                with suppress(OSError):
                    if turn % 9 == 0:
                        beside.symlink_to(scene.yard.folder / "elsewhere")
                    else:
                        beside.write_bytes(others[turn % 4])
                    beside.replace(path)

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        for _ in range(8):
            scene.intake()
            assert all(row.receipt.outcome.value == "committed" for row in scene.yard.workspace.store.receipts.all())
    finally:
        stop.set()
        thread.join()
    (scene.folder() / "swap.part").unlink(missing_ok=True)
    for path, data in honest.items():
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    scene.intake()
    assert scene.states()[scene.device] is TaskState.COMMITTED
    assert len(scene.yard.workspace.store.receipts.all()) == 1
