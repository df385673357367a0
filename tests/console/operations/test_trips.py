"""A trip works alone: real trust, real devices, the part of the workspace goes out and comes home."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.agent_releases import agent_desk, build_agent_release
from pumpdeck_console.operations.bundles import export_bundle, intake_bundle
from pumpdeck_console.operations.trip_checks import RETURN_BYTES, trip_place, try_place, try_sticks
from pumpdeck_console.operations.trips import TripWish, plan_trip, prepare_trip, return_trip
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_fleet.services import deploy
from pumpdeck_packaging.agent_release import agent_version
from pumpdeck_packaging.bundle_stick import StickFileSystem
from support.courier_fleet import MODEL, POLICY, CourierFleet, courier_fleet
from support.small_fleet import NOW_MS


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CourierFleet:
    # How much is tried decides how good the figures are, not what is done with them.
    monkeypatch.setattr("pumpdeck_console.operations.trip_checks.TRIAL_BYTES", 100_000)
    fleet = courier_fleet(tmp_path / "fleet")
    fleet.release(1)
    with fleet.workspace.store.atomic() as store:
        for pump in fleet.workspace.fleet.pumps:
            at_ms = np.arange(NOW_MS - 2 * DAY_MS, NOW_MS, 600_000, dtype=np.int64)
            rows = TelemetryFrame(("flow_m3_h",), at_ms, np.ones((288, 1), np.float32), np.zeros(288, np.uint16))
            store.telemetry.append(pump.id, rows)
    return fleet


def rollout_of(fleet: CourierFleet, workspace: Workspace, devices: tuple[str, ...]) -> str:
    number = workspace.store.registry.versions(MODEL)[0].number
    request = deploy.PlanRequest({MODEL: number}, devices, POLICY)
    now_ms = fleet.clock.now_ms()
    rollout = deploy.plan(workspace.store, workspace.fleet, request, actor="actor-a", now_ms=now_ms)
    rollout_operations.approve(workspace, rollout_id=rollout.id)
    return rollout.id


def test_a_plan_writes_nothing(fleet: CourierFleet, tmp_path: Path) -> None:
    report = plan_trip(fleet.workspace, TripWish(query="site:gannet", to=str(tmp_path / "trip")))
    assert report.is_plan and report.is_ready
    assert [one.device for one in report.work] == ["gannet-d1"]
    assert not (tmp_path / "trip").exists()


def test_what_goes_out_comes_home(fleet: CourierFleet, tmp_path: Path) -> None:
    first = fleet.devices[0].id
    rollout = rollout_of(fleet, fleet.workspace, (first,))
    report = prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip")))
    assert report.trip.lent == (rollout,)
    assert report.rows == 4 * 288 and report.bytes > 0
    assert rollout in (tmp_path / "trip" / "WORK.md").read_text(encoding="utf-8")
    with pytest.raises(RefusedError, match="driven by another workspace"):
        rollout_operations.halt(fleet.workspace, rollout_id=rollout, reason="no")
    fleet.clock.advance(HOUR_MS)
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip:
        assert trip.store.telemetry.pumps() == sorted(pump.id for pump in trip.fleet.pumps if pump.device == first)
        assert [version.number for version in trip.store.registry.versions(MODEL)] == [1]
        export_bundle(trip, query=f"device:{first}", to=str(fleet.stick().folder))
        fleet.visit(first)
        intake_bundle(trip, folder=str(fleet.stick().folder))
        assert trip.store.rollouts.load(rollout).tasks[first].state is TaskState.COMMITTED
        with trip.store.atomic() as store:
            pump = trip.store.telemetry.pumps()[0]
            at_ms = fleet.clock.now_ms()
            store.labels.add(Label(pump, at_ms - HOUR_MS, at_ms, Verdict.FAULT, "bearing", trip.actor, at_ms))
    home = return_trip(fleet.workspace, folder=str(tmp_path / "trip"))
    assert home.taken_back == (rollout,)
    assert not home.sync.report.refused and not home.sync.report.conflicts
    (device,) = home.devices
    assert device.receipts[0].startswith("committed") and device.labels == 1
    page = (tmp_path / "trip" / "RETURN.md").read_text(encoding="utf-8")
    assert f"## {first}" in page and "signed by the device: committed" in page and "what was found: 1" in page
    assert "To be settled" not in page
    task = fleet.workspace.store.rollouts.load(rollout).tasks[first]
    assert task.state is TaskState.COMMITTED and task.receipt_digest
    assert fleet.workspace.store.rollouts.homes() == {}
    again = return_trip(fleet.workspace, folder=str(tmp_path / "trip"))
    assert not again.sync.report.is_news and again.taken_back == ()


def test_a_rollout_made_on_the_trip_goes_on_at_home(fleet: CourierFleet, tmp_path: Path) -> None:
    first = fleet.devices[0].id
    prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip")))
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip:
        rollout = rollout_of(fleet, trip, (first,))
        export_bundle(trip, query=f"device:{first}", to=str(fleet.stick().folder))
    home = return_trip(fleet.workspace, folder=str(tmp_path / "trip"))
    assert home.taken_back == (rollout,)
    assert any("fetch its receipt" in what for what in home.devices[0].todo)
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip, pytest.raises(RefusedError, match="driven by"):
        rollout_operations.halt(trip, rollout_id=rollout, reason="no")
    fleet.visit(first)
    intake_bundle(fleet.workspace, folder=str(fleet.stick().folder))
    assert fleet.workspace.store.rollouts.load(rollout).tasks[first].state is TaskState.COMMITTED


def test_a_rollout_of_other_devices_too_stays_at_home(fleet: CourierFleet, tmp_path: Path) -> None:
    first, second = (device.id for device in fleet.devices)
    rollout = rollout_of(fleet, fleet.workspace, (first, second))
    report = prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip")))
    assert report.trip.lent == ()
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip:
        # Its task is live at home: another one must not be started on the trip.
        with pytest.raises(ConflictError, match="live task"):
            rollout_of(fleet, trip, (first,))
        assert trip.store.rollouts.homes() == {rollout: fleet.workspace.store.workspace}


def test_the_part_holds_nothing_of_other_devices(fleet: CourierFleet, tmp_path: Path) -> None:
    first, second = (device.id for device in fleet.devices)
    prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip"), history_days=1.0))
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip:
        assert list(trip.store.devices.identities()) == [first]
        assert trip.store.packages.for_device(second) == []
        span = trip.store.telemetry.span(trip.store.telemetry.pumps()[0])
        assert span is not None and span[0] >= NOW_MS - 2 * DAY_MS and span[2] < 288
        other = fleet.packages[second].sha256
        assert not trip.artifacts.has(other)


def test_keys_that_run_out_on_the_way_are_named(fleet: CourierFleet, tmp_path: Path) -> None:
    report = plan_trip(fleet.workspace, TripWish(query="", days=4000.0, to=str(tmp_path / "trip")))
    assert not report.is_ready
    assert any("runs out on the way" in one.found for one in report.findings if one.verdict == "bad")


def test_a_laptop_without_the_key_is_told_before_it_leaves(fleet: CourierFleet, tmp_path: Path) -> None:
    keys = list(fleet.folder.rglob("deploy.key"))
    assert keys
    for path in keys:
        path.unlink()
    fleet.workspace.forget_settings()
    report = plan_trip(fleet.workspace, TripWish(query="site:gannet", to=str(tmp_path / "trip")))
    assert [one.what for one in report.findings if one.verdict == "bad"] == ["deploy key for gannet"]


def test_what_is_no_trip_of_ours_is_refused(fleet: CourierFleet, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is no trip"):
        return_trip(fleet.workspace, folder=str(tmp_path))
    prepare_trip(fleet.workspace, TripWish(query="site:gannet", to=str(tmp_path / "trip")))
    with pytest.raises(ConflictError, match="is there already"):
        prepare_trip(fleet.workspace, TripWish(query="site:gannet", to=str(tmp_path / "trip")))
    path = tmp_path / "trip" / "trip.json"
    told = json.loads(path.read_bytes()) | {"parent": "ws-000000000000"}
    path.write_text(json.dumps(told, sort_keys=True, separators=(",", ":")), encoding="utf-8", newline="")
    with pytest.raises(RefusedError, match="another workspace"):
        return_trip(fleet.workspace, folder=str(tmp_path / "trip"))


def test_the_folder_of_a_trip_holds_what_is_needed_without_a_network(fleet: CourierFleet, tmp_path: Path) -> None:
    first = fleet.devices[0].id
    report = prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip")))
    trip = tmp_path / "trip"
    assert (trip / "docs" / "bundles.txt").read_text(encoding="utf-8").startswith("Sites without a network")
    assert "bundles.txt" in (trip / "docs" / "index.txt").read_text(encoding="utf-8")
    assert agent_version((trip / "agent" / "agent.pyz").read_bytes())
    told = json.loads((trip / "work.json").read_bytes())
    assert [one["device"] for one in told["devices"]] == [first] and told["until_ms"] == report.trip.until_ms
    place = next(one for one in report.findings if one.what.startswith("place "))
    assert place.verdict == "ok" and "writes" in place.found
    assert not list(tmp_path.rglob("pumpdeck-trial-*"))


def test_a_stick_that_goes_along_is_tried_and_measured(fleet: CourierFleet, tmp_path: Path) -> None:
    fleet.start()
    wish = TripWish(query="", to=str(tmp_path / "trip"), sticks=(str(tmp_path / "stick" / "pumpdeck"),))
    (tmp_path / "stick").mkdir()
    planned = plan_trip(fleet.workspace, wish)
    assert not list((tmp_path / "stick").iterdir()) and not planned.sticks
    report = prepare_trip(fleet.workspace, wish)
    (figures,) = report.sticks
    assert figures.folder == str(tmp_path / "stick") and figures.write_bytes_per_s > 0 < figures.read_bytes_per_s
    stick = next(one for one in report.findings if one.what.startswith("stick "))
    assert "a bundle of" in stick.found and report.is_ready
    assert not list((tmp_path / "stick").iterdir())


def test_without_a_stick_for_those_who_need_one_somebody_says_so(fleet: CourierFleet, tmp_path: Path) -> None:
    report = plan_trip(fleet.workspace, TripWish(to=str(tmp_path / "trip")))
    (stick,) = [one for one in report.findings if one.what == "stick"]
    assert stick.verdict == "warn" and "no stick was named" in stick.found


def test_a_bad_stick_is_known_before_the_helicopter_leaves(
    fleet: CourierFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad").mkdir()
    real = StickFileSystem.reread_bytes

    def lying(self: StickFileSystem, path: Path, max_bytes: int) -> bytes:
        data = real(self, path, max_bytes)
        return data if "bad" not in path.parts else bytes(len(data))

    monkeypatch.setattr(StickFileSystem, "reread_bytes", lying)
    report = prepare_trip(fleet.workspace, TripWish(to=str(tmp_path / "trip"), sticks=(str(tmp_path / "bad"),)))
    (stick,) = [one for one in report.findings if one.what.startswith("stick ")]
    assert stick.verdict == "bad" and "other bytes than were written" in stick.found and not report.is_ready
    assert stick.found.count(". ") <= 1
    assert (tmp_path / "trip" / "trip.json").is_file() and not list((tmp_path / "bad").iterdir())


def test_a_stick_too_small_for_what_comes_back_is_named(
    fleet: CourierFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    fleet.start()
    for free, verdict in ((45_000_000, "bad"), (RETURN_BYTES + 1_000_000, "warn")):
        monkeypatch.setattr(StickFileSystem, "free_bytes", lambda _self, _path, free=free: free)
        place = trip_place(fleet.workspace, fleet.devices, str(tmp_path / "trip"), [str(tmp_path / "small")])
        (stick,), (figures,) = try_sticks(fleet.workspace, fleet.devices, place, time.monotonic, lambda *_: None)
        assert (stick.verdict, figures.free_bytes) == (verdict, free)


def test_a_disk_without_room_is_refused_before_a_rollout_is_lent(
    fleet: CourierFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.devices[0].id
    rollout_of(fleet, fleet.workspace, (first,))
    monkeypatch.setattr(RealFileSystem, "free_bytes", lambda _self, _path: 1000)
    wish = TripWish(query=f"device:{first}", to=str(tmp_path / "trip"))
    (disk,) = [one for one in plan_trip(fleet.workspace, wish).findings if one.what == "disk"]
    assert disk.verdict == "bad" and "the trip takes" in disk.found
    with pytest.raises(RefusedError, match="no room for this trip"):
        prepare_trip(fleet.workspace, wish)
    assert fleet.workspace.store.rollouts.homes() == {} and not list(tmp_path.glob("trip*"))


def test_a_disk_that_takes_two_files_for_one_is_named(
    fleet: CourierFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT: two makers' files that differ by case alone, and one whose name Windows keeps for itself."""
    place = trip_place(fleet.workspace, fleet.devices, str(tmp_path / "trip"), [])
    place = replace(place, sizes=[*place.sizes, ("makers/ABB.toml", 1), ("makers/abb.toml", 1), ("makers/nul.toml", 1)])
    (good,) = try_place(place, time.monotonic, lambda *_: None)
    assert good.verdict == "ok"
    monkeypatch.setattr("pumpdeck_console.operations.trip_checks.file_system_of", lambda _path: "vfat")
    (bad,) = try_place(place, time.monotonic, lambda *_: None)
    assert bad.verdict == "bad" and "makers/nul.toml" in bad.found
    real = StickFileSystem.exists
    monkeypatch.setattr(StickFileSystem, "exists", lambda self, path: "CASE" in path.name or real(self, path))
    (bad,) = try_place(place, time.monotonic, lambda *_: None)
    assert bad.found.count("but for its case") == 2


def test_the_agent_released_for_a_site_comes_along(fleet: CourierFleet, tmp_path: Path) -> None:
    first = fleet.devices[0].id
    released = build_agent_release(fleet.workspace, release=True)
    prepare_trip(fleet.workspace, TripWish(query=f"device:{first}", to=str(tmp_path / "trip")))
    with open_workspace(tmp_path / "trip", clock=fleet.clock) as trip:
        site = trip.fleet.device(first).site
        assert agent_desk(trip, site).word().sha256 == released.sha256
        assert trip.artifacts.has(released.sha256)
