"""Install on one device: what is committed, what is refused, and what runs afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.enrol import create_device
from pumpdeck_agent.state import Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, failed
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, PumpdeckError, ReplayError, TrustError
from pumpdeck_fleet.core.inventory import DeviceClass
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.package import build_package
from support.devices import PASSED, Bench, ScriptedRunner, package
from support.packages import EDGE

FIRST = package(shift=0.0)
SECOND = package(shift=0.5)
THIRD = package(shift=0.9)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def active(bench: Bench) -> str:
    return str(bench.status()["active"])


def receipts(bench: Bench) -> list[dict[str, object]]:
    items, _ = bench.agent().outbox.take(1 << 20)
    return [bench.receipt(data) for item, data in items if item.kind is ReturnKind.RECEIPT]


def test_a_good_package_is_tried_committed_and_receipted(bench: Bench) -> None:
    answer = bench.install(FIRST)
    assert (answer["outcome"], answer["state"], answer["active"]) == ("committed", "ACTIVE", FIRST.sha256)
    receipt = answer["receipt"]
    assert (receipt["task"], receipt["package_sha256"], receipt["counter"]) == ("task-1", FIRST.sha256, 1)
    assert receipt["self_test"]["golden_rows"] == 24
    assert receipts(bench) == [receipt]
    assert list((bench.root / "incoming").iterdir()) == []
    assert [path.name for path in (bench.root / "store").iterdir()] == [FIRST.sha256]


def test_the_trial_sees_the_staged_copy_before_anything_is_active(bench: Bench) -> None:
    seen: list[str] = []

    class Looking(ScriptedRunner):
        def run(self, request: TrialRequest) -> TrialReport:
            seen.append(f"{active(bench)}|{bench.status()['state']}|{Path(request.folder, 'manifest.json').exists()}")
            return super().run(request)

    bench.runner = Looking()
    bench.install(FIRST)
    assert seen == ["|TRIAL|True"]


def test_repeating_an_assignment_gives_the_same_receipt_and_changes_nothing(bench: Bench) -> None:
    first = bench.install(FIRST)
    files = dict(bench.site.trust.files_for(bench.device))
    before = StateFiles(bench.fs, bench.agent().layout).load()
    again = bench.send_assignment(bench.channel(), files)
    assert again["receipt"] == first["receipt"]
    assert StateFiles(bench.fs, bench.agent().layout).load() == before
    assert len(bench.runner.requests) == 1
    assert len(receipts(bench)) == 1


def test_a_new_assignment_of_the_active_package_is_answered_already(bench: Bench) -> None:
    bench.install(FIRST)
    answer = bench.send_assignment(bench.channel(), bench.assign(FIRST, "task-2"))
    assert answer["outcome"] == "already"
    assert (active(bench), len(bench.runner.requests)) == (FIRST.sha256, 1)


def test_a_failed_trial_keeps_the_previous_and_is_refused_from_then_on(bench: Bench) -> None:
    bench.install(FIRST)
    bench.runner.report = failed("too slow")
    answer = bench.install(SECOND, "task-2")
    assert (answer["outcome"], answer["reason"], answer["active"]) == ("rolled_back", "too slow", FIRST.sha256)
    assert [path.name for path in (bench.root / "store").iterdir()] == [FIRST.sha256]
    bench.runner.report = PASSED
    again = bench.install(SECOND, "task-3")
    assert again["outcome"] == "refused"
    assert (active(bench), len(bench.runner.requests)) == (FIRST.sha256, 2)


def test_a_failed_first_trial_returns_to_no_model(bench: Bench) -> None:
    bench.runner.report = failed("NaN")
    assert bench.install(FIRST)["state"] == "NO_MODEL"
    assert active(bench) == ""


def test_the_previous_package_comes_back_without_being_sent_again(bench: Bench) -> None:
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    files = bench.assign(FIRST, "task-3")
    channel = bench.channel()
    assert push_blob(channel, FIRST.sha256, FIRST.data) == 0
    assert bench.send_assignment(channel, files)["outcome"] == "committed"
    assert (bench.status()["active"], bench.status()["previous"]) == (FIRST.sha256, SECOND.sha256)
    assert len(bench.runner.requests) == 3


def test_garbage_collection_keeps_active_and_previous(bench: Bench) -> None:
    for number, built in enumerate((FIRST, SECOND, THIRD)):
        bench.install(built, f"task-{number}")
    assert {path.name for path in (bench.root / "store").iterdir()} == {SECOND.sha256, THIRD.sha256}


def test_an_assignment_before_its_package_changes_nothing(bench: Bench) -> None:
    files = bench.assign(FIRST)
    with pytest.raises(NotFoundError):
        bench.send_assignment(bench.channel(), files)
    status = bench.status()
    assert (status["seq"], status["counter"], status["state"]) == (0, 0, "NO_MODEL")
    channel = bench.channel()
    push_blob(channel, FIRST.sha256, FIRST.data)
    assert bench.send_assignment(channel, files)["outcome"] == "committed"


def test_an_older_assignment_is_refused_and_the_newer_package_stays(bench: Bench) -> None:
    old = bench.assign(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    channel = bench.channel()
    push_blob(channel, FIRST.sha256, FIRST.data)
    with pytest.raises(ReplayError):
        bench.send_assignment(channel, old)
    assert active(bench) == SECOND.sha256


def test_an_unsigned_change_is_refused_and_nothing_moves(bench: Bench) -> None:
    bench.install(FIRST)
    files = bench.assign(SECOND, "task-2")
    push_blob(bench.channel(), SECOND.sha256, SECOND.data)
    for name in files:
        spoilt = {**files, name: files[name].replace(b"gannet", b"gannex", 1)}
        if spoilt == files:
            continue
        with pytest.raises(PumpdeckError):
            bench.send_assignment(bench.channel(), spoilt)
        assert active(bench) == FIRST.sha256
    assert len(bench.runner.requests) == 1


def test_another_devices_assignment_is_refused(bench: Bench) -> None:
    other = package("gannet-d2")
    bench.device = "gannet-d2"
    files = bench.assign(other)
    bench.device = "gannet-d1"
    push_blob(bench.channel(), other.sha256, other.data)
    with pytest.raises(TrustError):
        bench.send_assignment(bench.channel(), files)
    assert active(bench) == ""


@pytest.mark.parametrize(
    ("device_class", "tags", "word"),
    [
        (replace(EDGE, id="edge-arm64"), ("P-101A",), "device class"),
        (replace(EDGE, onnxruntime="99.0"), ("P-101A",), "newer ONNX Runtime"),
        (EDGE, ("P-999",), "not at this device"),
    ],
)
def test_a_package_that_is_not_for_this_device_is_refused_before_a_trial(
    bench: Bench, device_class: DeviceClass, tags: tuple[str, ...], word: str
) -> None:
    bench.install(FIRST)
    content = package_content_for(device_class, tags)
    answer = bench.install(build_package(content), "task-2")
    assert (answer["outcome"], active(bench)) == ("refused", FIRST.sha256)
    assert word in answer["reason"]
    assert len(bench.runner.requests) == 1


def package_content_for(device_class: DeviceClass, tags: tuple[str, ...]) -> object:
    from support.packages import PackageContent, model_content, pump_content

    return PackageContent("gannet-d1", device_class, (model_content(),), tuple(map(pump_content, tags)), 1)


def test_a_vetoed_device_stages_and_waits_with_the_reason(bench: Bench) -> None:
    bench.install(FIRST)
    layout = bench.agent().layout
    set_veto(bench.fs, layout, Veto("welding near P-101A", 0))
    answer = bench.install(SECOND, "task-2")
    assert (answer["state"], answer["outcome"], answer["receipt"]) == ("STAGED", "", None)
    assert "welding" in answer["reason"]
    assert (active(bench), len(bench.runner.requests)) == (FIRST.sha256, 1)
    assert bench.status()["staged"]["package"] == SECOND.sha256
    lift_veto(bench.fs, layout)
    again = bench.send_assignment(bench.channel(), dict(bench.site.trust.files_for(bench.device)))
    assert (again["outcome"], active(bench)) == ("committed", SECOND.sha256)


def test_a_waiting_package_is_tried_by_resume_once_the_veto_ran_out(bench: Bench) -> None:
    set_veto(bench.fs, bench.agent().layout, Veto("maintenance", bench.clock.now_ms() + 1000))
    assert bench.install(FIRST)["state"] == "STAGED"
    assert bench.agent().resume().fields["state"] == "STAGED"
    bench.clock.advance(1000)
    assert bench.agent().resume().fields["outcome"] == "committed"


def test_a_veto_that_cannot_be_read_is_a_veto(bench: Bench) -> None:
    (bench.root / "veto.json").write_bytes(b"stop!")
    assert bench.install(FIRST)["state"] == "STAGED"


def test_a_newer_assignment_takes_the_place_of_a_waiting_one(bench: Bench) -> None:
    set_veto(bench.fs, bench.agent().layout, Veto("maintenance", 0))
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    assert bench.status()["staged"]["package"] == SECOND.sha256
    lift_veto(bench.fs, bench.agent().layout)
    assert bench.agent().resume().fields["active"] == SECOND.sha256


class Crash(BaseException):
    """The device restarts in the middle of a trial."""


class CrashingRunner(ScriptedRunner):
    crashes = 1

    def run(self, request: TrialRequest) -> TrialReport:
        report = super().run(request)
        if len(self.requests) <= self.crashes:
            raise Crash
        return report


def test_a_restart_in_the_middle_of_a_trial_keeps_the_old_model_and_tries_again(bench: Bench) -> None:
    bench.install(FIRST)
    bench.runner = CrashingRunner()
    with pytest.raises(Crash):
        bench.install(SECOND, "task-2")
    assert (bench.status()["state"], active(bench)) == ("TRIAL", FIRST.sha256)
    answer = bench.send_assignment(bench.channel(), dict(bench.site.trust.files_for(bench.device)))
    assert (answer["outcome"], active(bench)) == ("committed", SECOND.sha256)


def test_a_package_that_restarts_the_device_each_time_is_rolled_back(bench: Bench) -> None:
    bench.install(FIRST)
    bench.runner = CrashingRunner()
    bench.runner.crashes = 99
    files = None
    for _ in range(bench.limits.max_tries):
        with pytest.raises(Crash):
            if files is None:
                files = bench.assign(SECOND, "task-2")
                push_blob(bench.channel(), SECOND.sha256, SECOND.data)
            bench.send_assignment(bench.channel(), files)
    answer = bench.send_assignment(bench.channel(), files or {})
    assert (answer["outcome"], active(bench)) == ("rolled_back", FIRST.sha256)
    assert "restarted" in answer["reason"]
    assert len(bench.runner.requests) == bench.limits.max_tries


def test_a_damaged_active_package_falls_back_to_the_previous_and_says_so(bench: Bench) -> None:
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    graph = bench.root / "store" / SECOND.sha256 / "model-esp.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    assert bench.agent().resume().fields["active"] == FIRST.sha256
    last = receipts(bench)[-1]
    assert (last["outcome"], last["active_sha256"], last["counter"]) == ("failed_inconsistent", FIRST.sha256, 3)


def test_status_looks_at_what_runs_before_it_says_so(bench: Bench) -> None:
    """An agent that has been up for long finds damage without a restart, and the receipt that tells of it waits."""
    agent = bench.agent()
    bench.install(FIRST)
    assert agent.status().fields["state"]["active"] == FIRST.sha256
    graph = bench.root / "store" / FIRST.sha256 / "model-esp.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    told = agent.status().fields["state"]
    assert (told["state"], told["active"]) == ("FAILED_INCONSISTENT", "")
    assert (receipts(bench)[-1]["outcome"], receipts(bench)[-1]["active_sha256"]) == ("failed_inconsistent", "")
    counter = told["counter"]
    assert agent.status().fields["state"]["counter"] == counter


def test_with_active_and_previous_damaged_nothing_runs_and_a_new_package_heals_it(bench: Bench) -> None:
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    for built in (FIRST, SECOND):
        (bench.root / "store" / built.sha256 / "manifest.json").write_bytes(b"{}")
    assert bench.agent().resume().fields["state"] == "FAILED_INCONSISTENT"
    assert bench.install(THIRD, "task-3")["state"] == "ACTIVE"


def test_a_staged_copy_that_the_disk_spoiled_is_not_tried_and_may_come_again(bench: Bench) -> None:
    bench.install(FIRST)
    set_veto(bench.fs, bench.agent().layout, Veto("wait", 0))
    bench.install(SECOND, "task-2")
    (bench.root / "store" / SECOND.sha256 / "model-esp.onnx").write_bytes(b"x")
    lift_veto(bench.fs, bench.agent().layout)
    with pytest.raises(DamagedError):
        bench.agent().resume()
    assert (active(bench), len(bench.runner.requests)) == (FIRST.sha256, 1)
    channel = bench.channel()
    assert push_blob(channel, SECOND.sha256, SECOND.data) >= 0
    files = dict(bench.site.trust.files_for(bench.device))
    assert bench.send_assignment(channel, files)["outcome"] == "committed"


@pytest.mark.parametrize("spoil", [b"", b"garbage", None])
def test_with_both_state_copies_lost_the_journal_says_what_runs(bench: Bench, spoil: bytes | None) -> None:
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    bench.runner.report = failed("slow")
    bench.install(THIRD, "task-3")
    for which in (0, 1):
        path = bench.root / f"state.{which}"
        path.unlink() if spoil is None else path.write_bytes(spoil)
    assert bench.agent().resume().fields["active"] == SECOND.sha256
    last = receipts(bench)[-1]
    assert last["outcome"] == "failed_inconsistent"
    assert last["counter"] > 3


def test_with_the_journal_gone_too_nothing_runs(bench: Bench) -> None:
    bench.install(FIRST)
    for name in ("state.0", "state.1", "journal"):
        (bench.root / name).unlink(missing_ok=True)
    answer = bench.agent().resume().fields
    assert (answer["state"], answer["active"]) == ("FAILED_INCONSISTENT", "")
    assert bench.install(SECOND, "task-2")["state"] == "ACTIVE"


def test_one_lost_copy_of_the_state_costs_nothing_that_was_committed(bench: Bench) -> None:
    bench.install(FIRST, "task-1")
    bench.install(SECOND, "task-2")
    newest = StateFiles(bench.fs, bench.agent().layout).load()
    assert newest is not None
    (bench.root / f"state.{newest.record % 2}").write_bytes(b"torn")
    assert bench.agent().resume().fields["active"] == SECOND.sha256


def test_a_device_without_its_floor_refuses_rather_than_guess(bench: Bench) -> None:
    bench.install(FIRST)
    (bench.root / "trust" / "floor.json").unlink()
    with pytest.raises(TrustError):
        bench.install(SECOND, "task-2")
    assert active(bench) == FIRST.sha256


def test_a_wiped_device_believes_nothing_below_its_enrolment(bench: Bench, tmp_path: Path) -> None:
    old = bench.assign(FIRST)
    config = replace(bench.config, min_seq=100_000)
    bench.root = tmp_path / "wiped"
    bench.identity = create_device(bench.fs, bench.root, config, bench.site.root)
    push_blob(bench.channel(), FIRST.sha256, FIRST.data)
    with pytest.raises(ReplayError):
        bench.send_assignment(bench.channel(), old)
    assert bench.status()["state"] == Phase.NO_MODEL.value


def test_counters_of_receipts_rise_by_one(bench: Bench) -> None:
    bench.install(FIRST, "task-1")
    bench.runner.report = failed("slow")
    bench.install(SECOND, "task-2")
    bench.install(SECOND, "task-3")
    bench.install(FIRST, "task-4")
    assert [one["counter"] for one in receipts(bench)] == [1, 2, 3, 4]
    assert [one["outcome"] for one in receipts(bench)] == ["committed", "rolled_back", "refused", "already"]


def test_limits_are_the_callers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=AgentLimits(trial_wall_s=7.5, keep_free_bytes=0))
    bench.install(FIRST)
    assert bench.runner.requests[0].wall_s == 7.5
