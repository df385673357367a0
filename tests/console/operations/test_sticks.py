"""The plan of a bundle, sites that have a link as well, and the inventory of sticks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_agent.install_from_tar import install_from_tar
from pumpdeck_console.operations.bundle_agent import add_agent
from pumpdeck_console.operations.bundles import (
    awaited,
    export_bundle,
    export_tar,
    intake_bundle,
    plan_bundle,
    reissue_stick,
)
from pumpdeck_console.operations.delivering import tick
from pumpdeck_console.operations.sticks import carry_stick, list_sticks, lose_stick
from pumpdeck_fleet.core.errors import (
    FormatError,
    IllegalMoveError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.core.sticks import StickEntry, StickKind, StickState
from pumpdeck_packaging.bundle_stick import StickFailedError
from support.courier_fleet import CourierFleet, courier_fleet
from support.devices import LoopChannel
from support.sticks import wheel_folder


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    made = courier_fleet(tmp_path)
    yield made
    made.workspace.close()


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[CourierFleet]:
    """The first site is reached by SSH, the second by couriers; the link is down."""
    made = courier_fleet(tmp_path, links=(Link.SSH,))

    def no_link(_device: object) -> object:
        raise UnreachableError("no answer", "gannet")

    made.workspace.__dict__["connect"] = no_link
    yield made
    made.workspace.close()


def export(yard: CourierFleet, name: str = "stick", **more: str):
    return export_bundle(yard.workspace, to=str(yard.folder / name), **more)


def only(yard: CourierFleet) -> StickEntry:
    (row,) = list_sticks(yard.workspace)
    return row.entry


def task(yard: CourierFleet, device: str) -> TaskState:
    return yard.rollout().tasks[device].state


def link_up(yard: CourierFleet) -> None:
    yard.workspace.__dict__["connect"] = lambda device: LoopChannel(yard.agent(device.id))


# The plan


def test_the_plan_says_minutes_by_stick_and_by_link_and_who_is_left_out(mixed: CourierFleet) -> None:
    mixed.start()
    ssh, courier = mixed.devices
    both = f"site:{ssh.site} or site:{courier.site}"
    plan = plan_bundle(mixed.workspace, query=both, to=str(mixed.folder / "stick"))
    assert [row.package for row in plan.rows] == [mixed.packages[ssh.id].sha256, mixed.packages[courier.id].sha256]
    by_site = {share.site: share for share in plan.sites}
    link = mixed.workspace.fleet.site(ssh.site)
    assert link.bandwidth_kbit_s > 0
    assert by_site[ssh.site].link_s == pytest.approx(by_site[ssh.site].bytes * 8 / (link.bandwidth_kbit_s * 1000))
    assert by_site[courier.site].link_s == -1.0
    assert sum(share.bytes for share in plan.sites) == plan.bytes
    assert (plan.speed, plan.seconds) == ("assumed", 2 * plan.bytes / 8e6)
    stated = plan_bundle(mixed.workspace, query=both, to=str(mixed.folder / "stick"), bytes_per_s=1e6)
    assert (stated.speed, stated.seconds) == ("stated", 2 * plan.bytes / 1e6)


def test_a_device_that_is_not_enrolled_is_left_out_and_said(yard: CourierFleet) -> None:
    yard.start()
    device = yard.devices[0].id
    with yard.workspace.store.atomic() as store:
        store.devices._sql.write("UPDATE device SET public_pem = NULL WHERE device = ?", (device,))
    plan = plan_bundle(yard.workspace, to=str(yard.folder / "stick"))
    assert [row.device for row in plan.rows] == [yard.devices[1].id]
    assert [(name, "not enrolled" in reason) for name, reason in plan.problems] == [(device, True)]


def test_a_wave_that_has_not_opened_is_left_out_with_the_reason(tmp_path: Path) -> None:
    made = courier_fleet(tmp_path)
    try:
        made.start(policy=RolloutPolicy(waves=("1", "rest"), soak_s=10.0))
        plan = plan_bundle(made.workspace, to=str(made.folder / "stick"))
        assert plan.packages == 1
        ((_, reason),) = plan.problems
        assert "wave 2 has not opened" in reason
    finally:
        made.workspace.close()


def test_without_a_query_only_courier_sites_are_served(mixed: CourierFleet) -> None:
    mixed.start()
    report = export(mixed)
    assert [row.device for row in report.plan.rows] == [mixed.devices[1].id]
    assert task(mixed, mixed.devices[0].id) is TaskState.SENDING
    assert mixed.rollout().tasks[mixed.devices[0].id].assign_ms == 0


# A site that has a link as well


def test_a_site_whose_link_is_down_is_served_by_stick(mixed: CourierFleet) -> None:
    mixed.start()
    device = mixed.devices[0].id
    assert tick(mixed.workspace).committed == ()
    export(mixed, query=f"site:{mixed.devices[0].site}")
    assert device in {one.device for one in awaited(mixed.workspace)}
    assert mixed.visit(device).outcome == "committed"
    back = intake_bundle(mixed.workspace, folder=str(mixed.folder / "stick"))
    assert back.problems == ()
    assert task(mixed, device) is TaskState.COMMITTED
    assert len(mixed.workspace.store.outbox.waiting(device)) == 0


@pytest.mark.parametrize("order", ["stick first", "link first", "link while the stick is away"])
def test_stick_and_link_may_both_arrive(mixed: CourierFleet, order: str) -> None:
    """One live task, one receipt, one installation, in any order."""
    mixed.start()
    device = mixed.devices[0].id
    export(mixed, query=f"site:{mixed.devices[0].site}")
    link_up(mixed)
    if order == "stick first":
        assert mixed.visit(device).outcome == "committed"
    assert tick(mixed.workspace).problems == ()
    assert task(mixed, device) is TaskState.COMMITTED
    if order == "link first":
        visit = mixed.visit(device)
        assert (visit.outcome, visit.exit_code) == ("committed", 0)
    folder = str(mixed.folder / "stick")
    assert intake_bundle(mixed.workspace, folder=folder).problems == ()
    assert task(mixed, device) is TaskState.COMMITTED
    assert len(mixed.runner.requests) == 1
    receipts = mixed.workspace.store.receipts.of(device)
    assert len(receipts) == 1


def test_a_stick_that_left_is_not_signed_otherwise_by_the_link(mixed: CourierFleet) -> None:
    mixed.start()
    device = mixed.devices[0]
    export(mixed, query=f"site:{device.site}")
    on_stick = (mixed.folder / "stick" / "sites" / device.site / "assign" / device.id).read_bytes()
    tick(mixed.workspace)
    assert dict(mixed.workspace.trust(device.site).files_for(device.id))["assign.json"] == on_stick


# The inventory


def test_the_story_of_a_stick(yard: CourierFleet) -> None:
    yard.start()
    assert list_sticks(yard.workspace) == ()
    report = export(yard, carrier="Ada Field")
    entry = only(yard)
    assert (entry.id, entry.state, entry.carrier) == (report.bundle, StickState.EXPORTED, "Ada Field")
    assert entry.sites == tuple(sorted({device.site for device in yard.devices}))
    carry_stick(yard.workspace, stick=entry.id, carrier="Bo  Hansen")
    waits = awaited(yard.workspace)
    assert {(one.stick, one.stick_state, one.carrier) for one in waits} == {(entry.id, "CARRIED", "Bo Hansen")}
    yard.visit(yard.devices[0].id)
    back = intake_bundle(yard.workspace, folder=str(yard.folder / "stick"))
    assert (back.stick, back.stick_state) == (entry.id, "RETURNED")
    assert only(yard).note == "1 of 2 receipts are still awaited"
    yard.visit(yard.devices[1].id)
    assert intake_bundle(yard.workspace, folder=str(yard.folder / "stick")).stick_state == "TAKEN_IN"
    moves = [entry.action for entry in yard.workspace.store.audit.entries() if entry.action.startswith("stick.")]
    assert moves == ["stick.carry", "stick.returned", "stick.taken_in"]
    names = [entry.reason for entry in yard.workspace.store.audit.entries()]
    assert not any("Hansen" in name or "Field" in name for name in names)


def test_a_lost_stick_is_marked_told_and_written_again(yard: CourierFleet) -> None:
    yard.start()
    first = export(yard, "one").bundle
    with pytest.raises(RefusedError, match="is not lost"):
        reissue_stick(yard.workspace, stick=first, to=str(yard.folder / "two"))
    told = lose_stick(yard.workspace, stick=first[:6], reason="fell overboard")
    assert set(told.awaited) == {device.id for device in yard.devices}
    assert any("No private key" in sentence for sentence in told.advice)
    assert any(f"bundle reissue {first}" in sentence for sentence in told.advice)
    assert {one.stick_state for one in awaited(yard.workspace)} == {"LOST"}
    again = reissue_stick(yard.workspace, stick=first, to=str(yard.folder / "two"), carrier="Bo")
    assert again.replaced == (first,)
    entries = {row.entry.id: row.entry for row in list_sticks(yard.workspace)}
    assert (entries[first].state, entries[first].replaced_by) == (StickState.REISSUED, again.bundle)
    assert {one.stick for one in awaited(yard.workspace)} == {again.bundle}
    # Found again after all, and carried to the first device: as good as the other.
    assert yard.visit(yard.devices[0].id, yard.stick("one")).outcome == "committed"
    assert intake_bundle(yard.workspace, folder=str(yard.folder / "one")).problems == ()
    assert yard.visit(yard.devices[1].id, yard.stick("two")).outcome == "committed"
    assert intake_bundle(yard.workspace, folder=str(yard.folder / "two")).stick_state == "TAKEN_IN"


def test_an_ordinary_export_replaces_a_lost_stick_too(yard: CourierFleet) -> None:
    yard.start()
    first = export(yard, "one").bundle
    lose_stick(yard.workspace, stick=first)
    assert export(yard, "part", query=f"site:{yard.devices[0].site}").replaced == ()
    assert export(yard, "whole").replaced == (first,)


def test_a_lost_stick_is_nobodys(yard: CourierFleet) -> None:
    yard.start()
    stick = export(yard).bundle
    lose_stick(yard.workspace, stick=stick)
    with pytest.raises(IllegalMoveError):
        carry_stick(yard.workspace, stick=stick, carrier="Ada")
    assert only(yard).state is StickState.LOST
    with pytest.raises(NotFoundError):
        lose_stick(yard.workspace, stick="b-unknown")
    with pytest.raises(UsageError):
        carry_stick(yard.workspace, stick=stick, carrier="  ")


def test_a_stick_that_fails_before_it_is_whole_is_in_no_inventory(yard: CourierFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from pumpdeck_packaging import bundle as module

    yard.start()
    real = module.write_proven

    def pulled(stick, path, data, what):  # type: ignore[no-untyped-def]
        if what.startswith("sites/"):
            raise OSError(5, "Input/output error")
        real(stick, path, data, what)

    monkeypatch.setattr(module, "write_proven", pulled)
    with pytest.raises(StickFailedError):
        export(yard)
    assert list_sticks(yard.workspace) == ()
    assert {one.state for one in yard.rollout().tasks.values()} == {TaskState.WAIT_COURIER}
    monkeypatch.undo()
    assert export(yard).bundle == only(yard).id


def test_a_second_export_writes_only_what_is_missing(yard: CourierFleet) -> None:
    yard.start()
    first = export(yard)
    packages = sorted((yard.folder / "stick").glob("sites/*/packages/*"))
    packages[0].write_bytes(packages[0].read_bytes()[:-1])
    packages[1].unlink()
    steps: list[str] = []
    again = export_bundle(
        yard.workspace, to=str(yard.folder / "stick"), on_progress=lambda step, _done, _total: steps.append(step)
    )
    assert (again.written, again.already) == (2, first.written - 2)
    assert again.bundle == first.bundle
    assert steps[0] == "check what lies there" and steps[-1] == "write to the stick"
    assert len(list_sticks(yard.workspace)) == 1


# By mail


def test_a_bundle_goes_and_comes_back_by_mail(mixed: CourierFleet) -> None:
    mixed.start()
    letter = mixed.folder / "letter.tar"
    both = f"site:{mixed.devices[0].site} or site:{mixed.devices[1].site}"
    report = export_tar(mixed.workspace, query=both, file=str(letter), carrier="the post")
    assert {one.state for one in mixed.rollout().tasks.values()} == {TaskState.SENDING}
    assert only(mixed).kind is StickKind.LETTER and only(mixed).id == report.bundle
    for device in mixed.devices:
        copy = mixed.folder / f"at-{device.id}.tar"
        copy.write_bytes(letter.read_bytes())
        visit = install_from_tar(mixed.agent(device.id), copy)
        assert (visit.outcome, visit.exit_code, visit.returned) == ("committed", 0, 1)
        back = intake_bundle(mixed.workspace, folder=str(mixed.folder / f"at-{device.id}.{device.id}.tar"))
        assert back.problems == () and [one.device for one in back.devices] == [device.id]
        assert back.stick == report.bundle
    assert back.stick_state == "TAKEN_IN"
    assert {one.state for one in mixed.rollout().tasks.values()} == {TaskState.COMMITTED}


def test_the_same_letter_again_has_the_same_bytes(yard: CourierFleet) -> None:
    yard.start()
    one = export_tar(yard.workspace, file=str(yard.folder / "one.tar"))
    yard.clock.advance(5_000)
    two = export_tar(yard.workspace, file=str(yard.folder / "two.tar"))
    assert (yard.folder / "one.tar").read_bytes() == (yard.folder / "two.tar").read_bytes()
    assert one.bundle == two.bundle


def test_a_letter_never_overwrites_a_file_of_another_kind(yard: CourierFleet) -> None:
    yard.start()
    path = yard.folder / "report.tar"
    path.write_bytes(b"quarterly figures")
    with pytest.raises(RefusedError, match="another file"):
        export_tar(yard.workspace, file=str(path))
    assert path.read_bytes() == b"quarterly figures"
    assert {one.state for one in yard.rollout().tasks.values()} == {TaskState.WAIT_COURIER}
    assert list_sticks(yard.workspace) == ()


def test_a_file_that_is_no_answer_is_refused_on_intake(yard: CourierFleet) -> None:
    path = yard.folder / "odd.tar"
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(FormatError):
        intake_bundle(yard.workspace, folder=str(path))
    with pytest.raises(NotFoundError):
        intake_bundle(yard.workspace, folder=str(yard.folder / "nothing.tar"))


# The agent beside the bundle


def test_the_agent_goes_along_for_the_computers_that_are_there(yard: CourierFleet) -> None:
    yard.start()
    with pytest.raises(NotFoundError, match="package agent --wheels x86_64-cp311"):
        add_agent(yard.workspace, to=str(yard.folder / "stick"))
    for target in ("x86_64-cp311", "aarch64-cp311"):
        wheel_folder(yard.workspace.root / "agent" / "wheels", target)
    export(yard)
    report = add_agent(yard.workspace, to=str(yard.folder / "stick"))
    assert report.agent.targets == ("x86_64-cp311",)
    assert report.agent.start_digest[:4] in report.paper[0]
    assert "bundle.agent" in [entry.action for entry in yard.workspace.store.audit.entries()]
    assert yard.visit(yard.devices[0].id).outcome == "committed"
    assert export(yard).written == 0
