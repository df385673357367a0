"""The whole way of a stick: outbox -> bundle -> device -> return -> the very rollout that waited for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.config import Layout
from pumpdeck_agent.serve import make_scorer
from pumpdeck_console.operations.bundles import IntakeReport, awaited, export_bundle, intake_bundle, plan_bundle
from pumpdeck_fleet.core.errors import ConflictError, RefusedError
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.services import deploy
from pumpdeck_packaging.bundle_returns import return_folder
from support.courier_fleet import CourierFleet, courier_fleet
from support.devices import NAMES, quiet_rows
from support.small_fleet import NOW_MS


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    made = courier_fleet(tmp_path)
    yield made
    made.workspace.close()


def export(yard: CourierFleet, name: str = "stick", query: str = ""):
    return export_bundle(yard.workspace, query=query, to=str(yard.folder / name))


def intake(yard: CourierFleet, name: str = "stick") -> IntakeReport:
    return intake_bundle(yard.workspace, folder=str(yard.folder / name))


def states(yard: CourierFleet) -> set[TaskState]:
    return {task.state for task in yard.rollout().tasks.values()}


def score(yard: CourierFleet, device: str, seed: int = 1) -> None:
    """Twenty rows of the device's first pump go through its scorer."""
    agent = yard.agent(device)
    tag = agent.config.pumps[0].tag
    lines = [",".join(["time", "pump", *NAMES])]
    for number, row in enumerate(quiet_rows(20, seed).tolist()):
        lines.append(",".join([str(NOW_MS + seed * 3_600_000 + number * 60_000), tag, *map(repr, row)]))
    (agent.layout.spool_in / f"{seed}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert make_scorer(agent.platform, Layout(agent.layout.root)).score_spool().rows == 20


def test_a_stick_goes_out_and_comes_back(yard: CourierFleet) -> None:
    yard.start()
    assert states(yard) == {TaskState.WAIT_COURIER}
    report = export(yard)
    assert report.plan.packages == len(yard.devices)
    assert states(yard) == {TaskState.SENDING}
    for device in yard.devices:
        found = yard.visit(device.id)
        assert (found.outcome, found.reason) == ("committed", "")
        assert yard.active(device.id) == yard.packages[device.id].sha256
    assert len(awaited(yard.workspace)) == len(yard.devices)
    back = intake(yard)
    assert (back.problems, back.awaited) == ((), ())
    assert states(yard) == {TaskState.COMMITTED}
    assert not yard.workspace.store.outbox.waiting()
    actions = [entry.action for entry in yard.workspace.store.audit.entries()]
    assert "bundle.export" in actions and "return.collect" in actions


def test_one_stick_serves_several_sites_and_a_query_narrows_it(yard: CourierFleet) -> None:
    yard.start()
    first = yard.devices[0]
    report = export(yard, query=f"site:{first.site}")
    assert [row.device for row in report.plan.rows] == [first.id]
    assert {task.device: task.state for task in yard.rollout().tasks.values()}[first.id] is TaskState.SENDING
    assert TaskState.WAIT_COURIER in states(yard)
    assert yard.visit(yard.devices[1].id).outcome == "none"
    export(yard)
    assert [yard.visit(device.id).outcome for device in yard.devices] == ["committed", "committed"]


def test_the_plan_changes_nothing(yard: CourierFleet) -> None:
    yard.start()
    before = yard.workspace.store.change_token()
    plan = plan_bundle(yard.workspace, to=str(yard.folder / "stick"))
    assert plan.packages == 2 and plan.bytes > sum(len(one.data) for one in yard.packages.values())
    assert plan.free_bytes > 0 and plan.seconds > 0
    assert yard.workspace.store.change_token() == before
    assert not (yard.folder / "stick").exists()


def test_a_lost_stick_is_written_again_with_the_same_assignments(yard: CourierFleet) -> None:
    yard.start()
    export(yard)
    first = {path.name: path.read_bytes() for path in (yard.folder / "stick").rglob("assign/*")}
    shutil.rmtree(yard.folder / "stick")
    report = export(yard, "another")
    assert first == {path.name: path.read_bytes() for path in (yard.folder / "another").rglob("assign/*")}
    assert {row.note for row in report.plan.rows} == {"given to a courier before"}
    assert yard.visit(yard.devices[0].id, yard.stick("another")).outcome == "committed"


def test_exporting_again_writes_nothing_twice(yard: CourierFleet) -> None:
    yard.start()
    first = export(yard)
    again = export(yard)
    assert (again.written, again.already) == (0, first.written)
    assert again.bundle == first.bundle


def test_taking_in_twice_changes_nothing(yard: CourierFleet) -> None:
    yard.start()
    export(yard)
    device = yard.devices[0].id
    yard.visit(device)
    score(yard, device)
    yard.visit(device)
    first = intake(yard)
    assert first.rows == 40
    receipts = yard.workspace.store.receipts.all()
    again = intake(yard)
    assert (again.rows, again.stored) == (0, {})
    assert yard.workspace.store.receipts.all() == receipts


@pytest.mark.parametrize("order", [("early", "late"), ("late", "early"), ("late", "early", "late"), ("early", "late", "early")])
def test_sticks_may_come_back_in_any_order(yard: CourierFleet, order: tuple[str, ...]) -> None:
    yard.start()
    export(yard, "early")
    export(yard, "late")
    device = yard.devices[0].id
    yard.visit(device, yard.stick("early"))
    score(yard, device, 1)
    yard.visit(device, yard.stick("early"))
    score(yard, device, 2)
    yard.visit(device, yard.stick("late"))
    for name in order:
        assert intake(yard, name).problems == ()
    store = yard.workspace.store
    pump = yard.workspace.fleet.pumps_by_device[device][0].id
    frame = store.telemetry.frame(pump, NOW_MS, NOW_MS + 86_400_000)
    assert len(frame) == 40 and len(np.unique(frame.at_ms)) == 40
    sketches = store.sketches.range(pump, 0, 1 << 52)
    agent = yard.agent(device)
    newest = {item.start_ms: data for item, data in agent.outbox.take(1 << 24)[0] if item.kind.value == "sketch"}
    assert {row.day_ms: row.data for row in sketches} == newest
    assert states(yard) >= {TaskState.COMMITTED}


def test_what_came_back_leaves_the_device_with_the_next_stick(yard: CourierFleet) -> None:
    yard.start()
    export(yard)
    device = yard.devices[0].id
    yard.visit(device)
    score(yard, device)
    held = yard.visit(device).returned
    assert held > 1
    intake(yard)
    export(yard)
    after = yard.visit(device)
    assert (after.note, after.returned) == ("", 0)


def test_a_stranger_among_the_returns_is_refused_and_the_others_are_taken_in(yard: CourierFleet) -> None:
    yard.start()
    export(yard)
    one, two = (device.id for device in yard.devices)
    yard.visit(one)
    yard.visit(two)
    folder = yard.folder / "stick"
    shutil.copytree(return_folder(folder, one), return_folder(folder, "unknown-device"))
    shutil.rmtree(return_folder(folder, two))
    shutil.copytree(return_folder(folder, one), return_folder(folder, two))
    back = intake(yard)
    assert [report.device for report in back.devices] == [one]
    assert {device for device, _ in back.problems} == {"unknown-device", two}
    assert [wait.device for wait in back.awaited] == [two]


def test_a_halted_rollout_puts_nothing_on_a_stick(yard: CourierFleet) -> None:
    rollout = yard.start()
    deploy.halt(yard.workspace.store, rollout.id, "wrong wave", actor="actor-operator", now_ms=yard.clock.now_ms())
    report = export(yard)
    assert report.plan.packages == 0
    assert len(report.plan.problems) == 2
    assert not list((yard.folder / "stick").rglob("packages/*"))


def test_other_peoples_files_and_other_workspaces_are_left_alone(yard: CourierFleet, tmp_path: Path) -> None:
    yard.start()
    private = yard.folder / "private"
    private.mkdir()
    (private / "holiday.jpg").write_bytes(b"beach")
    with pytest.raises(RefusedError, match="holiday"):
        export(yard, "private")
    assert [path.name for path in private.iterdir()] == ["holiday.jpg"]
    export(yard)
    mark = yard.folder / "stick" / "bundle.id"
    mark.write_bytes(mark.read_bytes().replace(yard.workspace.store.workspace.encode(), b"ws-000000000000"))
    before = sorted(path.as_posix() for path in (yard.folder / "stick").rglob("*"))
    with pytest.raises(ConflictError, match="another workspace"):
        export(yard)
    assert before == sorted(path.as_posix() for path in (yard.folder / "stick").rglob("*"))
    assert states(yard) == {TaskState.SENDING}


def test_a_query_that_selects_nothing_is_refused(yard: CourierFleet) -> None:
    with pytest.raises(RefusedError):
        export(yard, query="site:nowhere")
    assert not (yard.folder / "stick").exists()
