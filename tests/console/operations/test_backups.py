"""Backup of a workspace that is being worked in, and what a restore knows about itself."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.backups import COUNTERS_AHEAD, backup, restore
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.vouching import seal_chains
from pumpdeck_console.operations.workspace import doctor
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, NotFoundError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.services import deploy
from pumpdeck_fleet.store.merge import dump
from pumpdeck_packaging.backup import BackupFolder
from pumpdeck_packaging.bundle_layout import DEPLOY_SLOTS
from support.courier_fleet import MODEL, POLICY, CourierFleet, courier_fleet


@pytest.fixture
def fleet(tmp_path: Path) -> CourierFleet:
    fleet = courier_fleet(tmp_path / "fleet")
    fleet.release(1)
    return fleet


def restored(fleet: CourierFleet, source: Path, name: str = "restored") -> Workspace:
    fleet.clock.advance(1000)
    restore(source, fleet.folder / name, clock=fleet.clock)
    shutil.copy(fleet.workspace.root / "settings.toml", fleet.folder / name / "settings.toml")
    return Workspace(fleet.folder / name, fleet.clock, RealFileSystem(), keys=fleet.workspace.keys)


def planned(workspace: Workspace, fleet: CourierFleet) -> str:
    request = deploy.PlanRequest({MODEL: 1}, tuple(device.id for device in fleet.devices), POLICY)
    now_ms = fleet.clock.now_ms()
    return deploy.plan(workspace.store, workspace.fleet, request, actor="actor-a", now_ms=now_ms).id


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_everything_comes_back(fleet: CourierFleet, tmp_path: Path, name: str) -> None:
    fleet.start()
    report = backup(fleet.workspace, to=str(tmp_path / name))
    # Two files with the same bytes are written once.
    assert 0 < report.new_bytes <= report.bytes
    again = restored(fleet, tmp_path / name)
    ours = dump(fleet.workspace.store, with_audit=False)
    theirs = dump(again.store, with_audit=False)
    for table in ("package", "alias", "receipt", "device_key", "label", "telemetry", "person"):
        rows = [row for row in theirs[table] if row in ours[table]]
        assert rows == ours[table], table
    for source in fleet.workspace.artifacts_path.glob("sha256/*/*"):
        assert again.artifacts.get(source.name) == source.read_bytes()
    site = fleet.workspace.fleet.sites[0].id
    assert again.trust(site).current_files() == fleet.workspace.trust(site).current_files()
    assert again.store.audit.verify().chain == again.store.workspace != fleet.workspace.store.workspace
    assert fleet.workspace.store.workspace in again.store.audit.chains()


def test_what_training_keeps_beside_the_artifacts_is_no_artifact(fleet: CourierFleet, tmp_path: Path) -> None:
    """The index of results that a later run may use again."""
    index = fleet.workspace.artifacts_path / "runs" / "index.json"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"{}")
    assert backup(fleet.workspace, to=str(tmp_path / "backup")).files > 0
    assert not any("index.json" in path for path in BackupFolder(tmp_path / "backup").read().files)


def test_no_private_key_is_in_a_backup(fleet: CourierFleet, tmp_path: Path) -> None:
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    for data in contents(tmp_path / "backup").values():
        assert b"PRIVATE KEY" not in data
    listed = json.loads((tmp_path / "backup" / "backup.json").read_bytes())
    assert not [path for path in listed["files"] if "key" in path or path == "settings.toml"]


def test_a_second_backup_writes_only_what_is_new(fleet: CourierFleet, tmp_path: Path) -> None:
    fleet.workspace.artifacts.put(bytes(300_000))
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    report = backup(fleet.workspace, to=str(tmp_path / "backup"))
    # The store alone changed, as the first backup wrote its audit entry, and with it the signature over all.
    assert report.new_bytes < report.bytes - 300_000
    assert report.dropped == 2


def test_a_backup_taken_while_others_write_holds_one_moment(fleet: CourierFleet, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        with fleet.workspace.twin() as mine:
            number = 0
            while not stop.is_set():
                with mine.store.atomic() as store:
                    for _ in range(3):
                        store.audit.append("actor-x", "work", f"number {number}")
                    digest = mine.artifacts.put(f"artifact {number}".encode())
                    store.audit.append("actor-x", "work.done", f"number {number}", digests={"artifact": digest})
                number += 1
                stop.wait(0.002)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(3):
            backup(fleet.workspace, to=str(tmp_path / "backup"))
            again = restored(fleet, tmp_path / "backup", f"restored-{number}")
            chain = again.store.audit.entries(limit=100_000, chain=fleet.workspace.store.workspace)
            done = [entry for entry in chain if entry.action == "work.done"]
            assert len([entry for entry in chain if entry.action == "work"]) == 3 * len(done)
            for entry in done:
                assert again.artifacts.has(entry.digests["artifact"])
            again.close()
    finally:
        stop.set()
        worker.join()


def test_every_damaged_file_is_named_and_nothing_is_restored(fleet: CourierFleet, tmp_path: Path) -> None:
    """Every file of the backup altered, cut and removed in turn: each time refused, each time nothing stands at the target."""
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    tried = 0
    for path in sorted((tmp_path / "backup").rglob("*")):
        if not path.is_file():
            continue
        good = path.read_bytes()
        middle = len(good) // 2
        altered = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        for bad in (good[:-1], b"", altered, None):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises((DamagedError, NotFoundError)):
                restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock)
            assert not (tmp_path / "new").exists()
            tried += 1
        path.write_bytes(good)
    assert tried >= 80
    restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock)


def test_an_existing_workspace_is_never_overwritten(fleet: CourierFleet, tmp_path: Path) -> None:
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    before = (fleet.workspace.root / "fleet.toml").read_bytes()
    with pytest.raises(ConflictError, match="is there already"):
        restore(tmp_path / "backup", fleet.workspace.root, clock=fleet.clock)
    assert (fleet.workspace.root / "fleet.toml").read_bytes() == before


def test_a_folder_with_other_things_is_refused(fleet: CourierFleet, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"photo")
    with pytest.raises(RefusedError, match="other things"):
        backup(fleet.workspace, to=str(tmp_path / "holiday"))
    assert contents(tmp_path / "holiday") == {"photo.jpg": b"photo"}
    with pytest.raises(RefusedError, match="inside the workspace"):
        backup(fleet.workspace, to=str(fleet.workspace.root / "backup"))
    other = courier_fleet(tmp_path / "other")
    backup(other.workspace, to=str(tmp_path / "theirs"))
    with pytest.raises(ConflictError, match="another workspace"):
        backup(fleet.workspace, to=str(tmp_path / "theirs"))


def test_a_path_that_leads_outside_is_refused(fleet: CourierFleet, tmp_path: Path) -> None:
    """Attack: the list of an altered backup names a file above the new workspace."""
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    path = tmp_path / "backup" / "backup.json"
    good = json.loads(path.read_bytes())
    for bad in ("../evil.toml", "/evil.toml", "a/../../evil.toml", "C:evil.toml", "a\\evil.toml", "a//b", "nul\0", "a/."):
        listed = {**good, "files": {**good["files"], bad: good["files"]["fleet.toml"]}}
        path.write_text(json.dumps(listed, sort_keys=True, separators=(",", ":")), encoding="utf-8", newline="")
        with pytest.raises(DamagedError):
            restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock)
        assert not list(tmp_path.rglob("evil.toml"))


def test_a_restored_workspace_sends_nothing_before_it_has_heard(fleet: CourierFleet, tmp_path: Path) -> None:
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    fleet.start()
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    for device in fleet.devices:
        fleet.visit(device.id)
    again = restored(fleet, tmp_path / "backup")
    assert [one.verdict for one in doctor(again) if one.what == "restore"] == ["warn"]
    rollout = planned(again, fleet)
    with pytest.raises(RefusedError, match="said nothing since"):
        rollout_operations.approve(again, rollout_id=rollout)
    assert again.store.rollouts.live_tasks() == {}
    fleet.clock.advance(1000)
    intake_bundle(again, folder=str(fleet.stick().folder))
    assert [one.verdict for one in doctor(again) if one.what == "restore"] == ["ok"]
    rollout_operations.approve(again, rollout_id=rollout)
    tasks = again.store.rollouts.load(rollout).tasks.values()
    seen = max(row.receipt.seq for row in again.store.receipts.all())
    assert all(task.seq > seen for task in tasks)


def test_a_restored_workspace_signs_above_all_that_was_signed(fleet: CourierFleet, tmp_path: Path) -> None:
    """The device has believed metadata that the backup knows nothing of, and believes the restored workspace all the same."""
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    first = fleet.devices[0]
    fleet.start()
    export_bundle(fleet.workspace, to=str(fleet.stick().folder))
    fleet.visit(first.id)
    again = restored(fleet, tmp_path / "backup")
    version = max(again.trust(first.site).status().versions.values())
    rollout = planned(again, fleet)
    rollout_operations.approve(again, rollout_id=rollout, unheard=True)
    export_bundle(again, to=str(fleet.stick("new").folder))
    assert max(again.trust(first.site).status().versions.values()) > version + COUNTERS_AHEAD * (DEPLOY_SLOTS - 1)
    fleet.visit(first.id, fleet.stick("new"))
    intake_bundle(again, folder=str(fleet.stick("new").folder))
    assert again.store.rollouts.load(rollout).tasks[first.id].state in (TaskState.COMMITTED, TaskState.ALREADY)


def test_the_restored_and_the_old_workspace_can_meet(fleet: CourierFleet, tmp_path: Path) -> None:
    """The laptop that was given up for lost comes back: what it did after the backup is not lost either."""
    rollout = fleet.start().id
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    again = restored(fleet, tmp_path / "backup")
    with fleet.workspace.store.atomic() as store:
        store.audit.append("actor-x", "work", "after the backup")
    seal_chains(fleet.workspace)
    result = sync(again, folder=str(fleet.workspace.root))
    assert result.report.taken["audit"] == 1
    sync(fleet.workspace, folder=str(again.root))
    assert fleet.workspace.store.rollouts.homes() == {rollout: again.store.workspace}
    assert dump(fleet.workspace.store) == dump(again.store)


def test_an_interrupted_restore_is_simply_run_again(fleet: CourierFleet, tmp_path: Path) -> None:
    backup(fleet.workspace, to=str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock, on_progress=_interrupt)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new.restoring").mkdir()
    (tmp_path / "new.restoring" / "pumpdeck.db").write_bytes(b"half")
    restore(tmp_path / "backup", tmp_path / "new", clock=fleet.clock)
    with open_workspace(tmp_path / "new", clock=fleet.clock) as workspace:
        assert workspace.store.audit.verify()


def _interrupt(_step: str, _done: int, _total: int) -> None:
    raise KeyboardInterrupt
