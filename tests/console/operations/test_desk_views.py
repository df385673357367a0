"""What the runs, trust and upkeep screens show, and the plans of their actions, over real workspaces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import wiring
from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.backups import backup, prove_backup
from pumpdeck_console.operations.keys_view import keys_view
from pumpdeck_console.operations.models import demote, list_models, promote
from pumpdeck_console.operations.plans import plan
from pumpdeck_console.operations.retiring import retire
from pumpdeck_console.operations.rollout_view import audit_check
from pumpdeck_console.operations.run_logs import recording
from pumpdeck_console.operations.run_views import live_view, point_words, run_detail, runs_view
from pumpdeck_console.operations.runs import list_runs
from pumpdeck_console.operations.snapshots import list_snapshots
from pumpdeck_console.operations.syncing import plan_sync
from pumpdeck_console.operations.trip_actions import plan_trip_to, prepare_trip_to
from pumpdeck_console.operations.upkeep_view import upkeep_view
from pumpdeck_console.operations.worker_plans import plan_of_result
from pumpdeck_console.wiring import STORE_FILE, Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.core.errors import DamagedError, GateRefusedError, NotFoundError, QueryError
from pumpdeck_trainer.run_log import no_listener
from support.courier_fleet import CourierFleet, courier_fleet
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, make_champion, trained_row, workspace_with_rows

QUIET = "[alarm]\nbudget_alarms = 0.01\n"
LOUD = "[alarm]\nbudget_alarms = 200.0\n[gates]\nreplay_alarms_warn = 1e3\nreplay_alarms_refuse = 1e4\n"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "workspace")
    yield workspace
    workspace.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[CourierFleet]:
    yard = courier_fleet(tmp_path / "yard")
    yield yard
    yard.workspace.close()


def test_runs_snapshots_and_versions_are_selected_by_query_and_told_in_full(workspace: Workspace) -> None:
    first = trained_row(workspace, QUIET)
    make_champion(workspace, first)
    with pytest.raises(GateRefusedError):
        trained_row(workspace, LOUD)
    view = runs_view(workspace)
    assert [(row.state, row.pump_type) for row in view.runs] == [("refused", kind_of(workspace)), ("done", kind_of(workspace))]
    (refused,) = list_runs(workspace, query="state:refused at<1d")
    assert refused == view.runs[0] and list_runs(workspace, query="state:refused", limit=0) == ()
    assert list_runs(workspace, query=f"run:{first.run[:6]}*")[0].run == first.run
    detail = run_detail(workspace, run=refused.run[:10])
    assert ("champion", "refuse") in [gate[:2] for gate in detail.gates] and detail.pumps == 4 and detail.model_type == "maxz"
    assert any(line.event == "done" and line.step == "fit" for line in detail.log)
    numbers = [row.version.number for row in list_models(workspace, query=f"alias:champion type:{kind_of(workspace)}")]
    assert numbers == [first.version]
    assert [row.version.number for row in list_models(workspace, query="gates:refuse made<1d")] == [refused.version]
    assert len(list_snapshots(workspace, query="held:yes pumps>1")) == 1 and len(list_snapshots(workspace, query="held:no")) == 2
    for listed in (list_models, list_runs, list_snapshots):
        with pytest.raises(QueryError):
            listed(workspace, query="helth:ok")
    with pytest.raises(NotFoundError):
        run_detail(workspace, run="ffff")


def test_promoting_and_going_back_say_what_they_do_and_do_it(workspace: Workspace) -> None:
    model = f"{kind_of(workspace)}-health"
    assert "no version has this alias" in plan(workspace, "models.demote", {"model": model}).refusal
    first = trained_row(workspace, QUIET)
    seen = plan(workspace, "models.promote", {"model": model, "which": str(first.version)})
    assert not seen.refusal and dict(seen.lines)["champion"] == f"v1 -> v{first.version}" and not seen.arguments
    promote(workspace, model=model, which=str(first.version), reason="first")
    again = plan(workspace, "models.promote", {"model": model, "which": str(first.version)})
    assert again.refusal == "it is the champion already"
    with pytest.raises(GateRefusedError):
        trained_row(workspace, LOUD)
    second = str(first.version + 1)
    seen = plan(workspace, "models.promote", {"model": model, "which": second})
    assert seen.arguments == (("override", True),) and seen.command.endswith("--override")
    assert "2 people" in dict(seen.lines)["override"] and any("champion" in warning for warning in seen.warnings)
    report = promote(workspace, model=model, which=second, reason="we know better", **dict(seen.arguments))  # type: ignore[arg-type]
    assert report.missing_people == 1 and report.champion == first.version
    again = plan(workspace, "models.promote", {"model": model, "which": second})
    assert "yours is the last word" in dict(again.lines)["override"]


def test_going_back_names_both_versions(tmp_path: Path) -> None:
    from support.seeded_workspace import seeded_workspace  # its registry has two versions

    workspace = seeded_workspace(tmp_path / "w")
    promote(workspace, model="esp-health", which="1", reason="first")
    promote(workspace, model="esp-health", which="2", reason="better")
    seen = plan(workspace, "models.demote", {"model": "esp-health"})
    assert not seen.refusal and dict(seen.lines)["champion"] == "v2 -> v1"
    assert demote(workspace, model="esp-health", reason="worse").champion == 1
    workspace.close()


def test_a_training_under_way_is_seen_from_outside(tmp_path: Path) -> None:
    from support.seeded_workspace import seeded_workspace

    workspace = seeded_workspace(tmp_path / "w")
    assert live_view(workspace).runs == ()
    with recording(workspace, "esp", "train esp", no_listener) as recorder:
        recorder.log.progress("fit", 3, 84)
        (run,) = live_view(workspace).runs
        assert run.name.startswith("esp-") and run.lines[0].event == "begin"
        assert [(line.step, line.total) for line in run.lines if line.event == "step"] == [("fit", 84)]
    assert live_view(workspace).runs == ()
    workspace.close()


def test_a_point_of_a_search_says_only_what_makes_it_different() -> None:
    point = {"model_type": "pca", "window_s": 1800.0, "tau_s": 86400.0}
    assert point_words(point, {"tau_s"}) == "model_type pca, window_s 1800"


def test_a_halted_rollout_is_resumed_and_aborted_by_its_plan(yard: CourierFleet) -> None:
    rollout = yard.start()
    seen = plan(yard.workspace, "rollout.resume", {"rollout_id": rollout.id})
    assert seen.refusal == "it is RUNNING, not HALTED"
    assert plan(yard.workspace, "rollout.halt", {"rollout_id": rollout.id}).refusal == ""
    assert plan(yard.workspace, "tick", {}).refusal == ""
    rollout_operations.halt(yard.workspace, rollout_id=rollout.id, reason="leak")
    seen = plan(yard.workspace, "rollout.resume", {"rollout_id": rollout.id})
    assert not seen.refusal and dict(seen.lines)["halted"].endswith("leak") and dict(seen.arguments) == {"deliver": "yes"}
    rollout_operations.resume(yard.workspace, rollout_id=rollout.id, reason="mended")
    seen = plan(yard.workspace, "rollout.abort", {"rollout_id": rollout.id})
    assert not seen.refusal and "cannot be resumed" in dict(seen.lines)["for good"]
    rollout_operations.abort(yard.workspace, rollout_id=rollout.id, reason="enough")
    assert "has ended already" in plan(yard.workspace, "rollout.abort", {"rollout_id": rollout.id}).refusal


def test_keys_readers_and_what_ended(yard: CourierFleet) -> None:
    workspace, device = yard.workspace, yard.devices[0].id
    view = keys_view(workspace)
    roles = {row.role for row in view.keys}
    assert {"root", "targets", "release", "deploy"} <= roles and not view.damaged and not view.unfounded
    assert {row.site for row in view.readers} == {site.id for site in workspace.fleet.sites} and not view.retired
    retire(workspace, device=device, reason="burnt out")
    (gone,) = keys_view(workspace).retired
    assert gone.device == device and "burnt out" in gone.ended
    root = next((workspace.trust_path / workspace.fleet.sites[0].id).rglob("*root.json"))
    root.write_bytes(root.read_bytes()[:-40])
    damaged = keys_view(workspace)
    assert [site for site, _ in damaged.damaged] == [workspace.fleet.sites[0].id]
    assert {row.site for row in damaged.keys} == {site.id for site in workspace.fleet.sites[1:]}


def test_upkeep_knows_where_backups_lie_and_which_were_proven(yard: CourierFleet, tmp_path: Path) -> None:
    workspace, place = yard.workspace, tmp_path / "disk"
    assert upkeep_view(workspace).backups == () and {one.what for one in upkeep_view(workspace).checks} >= {"keys", "store"}
    assert plan(workspace, "backup", {"to": str(workspace.root / "inside")}).refusal.startswith("it lies inside")
    assert plan(workspace, "backup", {"to": ""}).refusal and plan(workspace, "backup.verify", {"source": str(place)}).refusal
    assert plan(workspace, "backup", {"to": str(place)}).refusal == ""
    backup(workspace, to=str(place))
    assert "takes its place" in dict(plan(workspace, "backup", {"to": str(place)}).lines)["there now"]
    (line,) = upkeep_view(workspace).backups
    assert (line.place, line.is_there, line.times, line.proven_ms) == (str(place), True, 1, 0)
    yard.clock.advance(DAY_MS)
    assert plan(workspace, "backup.verify", {"source": str(place)}).refusal == ""
    assert prove_backup(workspace, source=str(place)).is_own
    assert upkeep_view(workspace).backups[0].proven_ms == yard.clock.now_ms()
    victim = next(path for path in (place / "objects").rglob("*") if path.is_file())
    victim.write_bytes(victim.read_bytes() + b"x")
    head = workspace.store.audit.head()
    with pytest.raises(DamagedError):
        prove_backup(workspace, source=str(place))
    assert workspace.store.audit.head() == head
    backup(workspace, to=str(tmp_path / "letter.tar"))
    assert prove_backup(workspace, source=str(tmp_path / "letter.tar")).found.files > 5
    assert [one.times for one in upkeep_view(workspace).backups] == [1, 1]


def test_a_trip_and_a_sync_are_planned_in_words_and_the_trip_is_listed(yard: CourierFleet, tmp_path: Path) -> None:
    workspace, place = yard.workspace, str(tmp_path / "trip")
    planned = canonical.to_plain(plan_trip_to(workspace, to=place))
    seen = plan_of_result("trip.prepare_to", {"to": place, "query": ""}, planned)
    assert dict(seen.lines)["devices"].startswith(f"{len(yard.devices)}:") and seen.operation == "trip.prepare_to"
    prepare_trip_to(workspace, to=place)
    (trip,) = upkeep_view(workspace).trips
    assert trip.returned_ms == 0 and f"{len(yard.devices)} devices" in trip.words
    back = plan(workspace, "trip.return", {"folder": place})
    assert not back.refusal and dict(back.lines)["trip"].startswith(trip.trip)
    assert plan(workspace, "trip.return", {"folder": str(tmp_path)}).refusal
    report = canonical.to_plain(plan_sync(workspace, folder=place))
    sync = plan_of_result("sync", {"folder": place}, report)
    assert dict(sync.lines)["workspace"] == trip.trip and sync.command == f"pumpdeck sync {place}"


def test_a_broken_chain_is_an_answer(yard: CourierFleet) -> None:
    check = audit_check(yard.workspace)
    assert check.holds and check.entries == yard.workspace.store.audit.head().position
    with sqlite3.connect(yard.workspace.root / STORE_FILE) as sql:
        for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            sql.execute(f"DROP TRIGGER {name}")
        sql.execute("UPDATE audit SET reason = 'nothing happened' WHERE position = 2")
    broken = audit_check(yard.workspace)
    assert not broken.holds and "audit entry 2" in broken.sentence
