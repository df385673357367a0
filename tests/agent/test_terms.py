"""Terms of an assignment on the device: permits, a second try of what failed, and an end to assignments that lead nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, failed
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import FormatError, PumpdeckError, UsageError
from pumpdeck_fleet.core.receipts import Assignment, Terms, parse_terms
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.devices import PASSED, Bench, ScriptedRunner, package
from support.forge import reassigned

FIRST, SECOND = package(shift=0.0), package(shift=0.5)


class Cut(BaseException):
    """The power is gone."""


class CuttingRunner(ScriptedRunner):
    def run(self, request: TrialRequest) -> TrialReport:
        super().run(request)
        raise Cut


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def state(bench: Bench) -> DeviceState:
    found = StateFiles(bench.fs, bench.agent().layout).load()
    assert found is not None
    return found


def install(bench: Bench, built: BuiltPackage, task: str, **terms: Any) -> dict[str, Any]:
    bench.site.trust.release([PackageRelease(built, {"esp-health": 1})], bench.site.keys.release)
    request = AssignmentRequest(bench.device, built.sha256, task, terms=Terms(**terms))
    bench.site.trust.assign([request], bench.site.keys.laptops[0])
    channel = bench.channel()
    push_blob(channel, built.sha256, built.data)
    return bench.send_assignment(channel, dict(bench.site.trust.files_for(bench.device)))


# -- the bytes --------------------------------------------------------------------------------------------------------


def test_an_assignment_without_terms_has_the_bytes_it_always_had() -> None:
    plain = Assignment(1, "d", "a" * 64, 1, 2, 3, "t")
    assert set(canonical.to_plain(plain)) == {
        "format", "device", "package_sha256", "seq", "issued_at_ms", "soft_until_ms", "task"
    }  # fmt: skip


@pytest.mark.parametrize("permit", ["", " WO-1", "WO\n1", "x" * 65, "-1"])
def test_a_permit_of_another_form_is_no_term(permit: str) -> None:
    with pytest.raises(ValueError, match="permit"):
        Terms(permit)


def test_a_person_is_told_what_a_permit_looks_like() -> None:
    with pytest.raises(UsageError, match="1-64 letters"):
        parse_terms("WO;1", False, 0)
    assert parse_terms(" WO-17 ", True, 1.5) == Terms("WO-17", True, 5400)
    assert parse_terms("", False, 0.0).are_ordinary


def test_impossible_terms_are_refused_by_the_device(bench: Bench) -> None:
    files = bench.assign(FIRST)
    forged = reassigned(files, bench.site.keys, bench.device, shadow_s=-5)
    with pytest.raises(FormatError, match="impossible terms"):
        bench.agent().assign(forged)
    assert state(bench).seq == 0


# -- permits ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def strict(bench: Bench) -> Bench:
    """A device that takes nothing without a permit."""
    (bench.root / "agent.json").write_bytes(canonical.encode(replace(bench.config, needs_permit=True)))
    return bench


def test_without_a_permit_nothing_is_taken_where_one_is_needed(strict: Bench) -> None:
    answer = install(strict, FIRST, "t-1")
    assert (answer["outcome"], answer["active"], strict.runner.requests) == ("refused", "", [])
    assert "permit or work-order number" in answer["reason"]


def test_with_a_permit_it_is_taken_and_the_receipt_names_it(strict: Bench) -> None:
    answer = install(strict, FIRST, "t-1", permit="WO-2031/7")
    assert (answer["outcome"], answer["receipt"]["permit"]) == ("committed", "WO-2031/7")


def test_a_permit_stands_in_the_receipt_even_where_none_is_needed(bench: Bench) -> None:
    bench.runner.report = failed("NaN")
    answer = install(bench, FIRST, "t-1", permit="PTW 12")
    assert (answer["outcome"], answer["receipt"]["permit"]) == ("rolled_back", "PTW 12")
    assert "permit" not in install(bench, SECOND, "t-2")["receipt"]


# -- a second try -----------------------------------------------------------------------------------------------------


def test_what_failed_is_tried_again_only_when_asked_for(bench: Bench) -> None:
    bench.install(FIRST)
    bench.runner.report = failed("too slow")
    install(bench, SECOND, "t-2")
    bench.runner.report = PASSED
    refused = install(bench, SECOND, "t-3")
    assert (refused["outcome"], refused["active"], len(bench.runner.requests)) == ("refused", FIRST.sha256, 2)
    again = install(bench, SECOND, "t-4", retry=True)
    assert (again["outcome"], again["active"], state(bench).failed) == ("committed", SECOND.sha256, ())


def test_a_second_try_that_fails_is_remembered_again(bench: Bench) -> None:
    bench.runner.report = failed("too slow")
    install(bench, FIRST, "t-1")
    assert install(bench, FIRST, "t-2", retry=True)["outcome"] == "rolled_back"
    assert state(bench).failed == (FIRST.sha256,)
    files = dict(bench.site.trust.files_for(bench.device))
    again = bench.send_assignment(bench.channel(), files)
    assert (again["outcome"], len(bench.runner.requests)) == ("rolled_back", 2), "the same word is no third try"


# -- an end -----------------------------------------------------------------------------------------------------------


def test_a_package_whose_copy_is_damaged_again_and_again_is_given_up(tmp_path: Path) -> None:
    limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5, max_moves=12)
    bench = Bench(tmp_path, limits=limits)
    bench.install(FIRST)
    set_veto(bench.fs, bench.agent().layout, Veto("welding", 0))
    install(bench, SECOND, "t-2")
    files = dict(bench.site.trust.files_for(bench.device))
    for _ in range(30):
        for path in (bench.root / "store" / SECOND.sha256).glob("*.json"):
            path.write_bytes(b"{}")
        channel = bench.channel()
        push_blob(channel, SECOND.sha256, SECOND.data)
        answer = bench.send_assignment(channel, files)
        if answer["outcome"]:
            break
    assert (answer["outcome"], answer["state"], answer["active"]) == ("failed_inconsistent", "FAILED_INCONSISTENT", FIRST.sha256)
    assert "gave up after 12 state records" in answer["reason"]
    lift_veto(bench.fs, bench.agent().layout)
    again = bench.send_assignment(bench.channel(), files)
    assert again["receipt"] == answer["receipt"], "the same word leads to the same end"
    assert bench.status()["state"] == "FAILED_INCONSISTENT"
    assert install(bench, SECOND, "t-3")["state"] == "ACTIVE"
    assert bench.status()["active"] == SECOND.sha256


def test_a_crash_loop_counts_over_restarts(tmp_path: Path) -> None:
    """Every trial takes the device down, and the tries alone would allow a hundred of them."""
    limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5, max_moves=11, max_tries=100)
    bench = Bench(tmp_path, limits=limits)
    bench.install(FIRST)
    bench.runner = CuttingRunner()
    with pytest.raises(Cut):
        install(bench, SECOND, "t-2")
    starts = 0
    while state(bench).phase in (Phase.STAGED, Phase.TRIAL):
        starts += 1
        assert starts < 20
        try:
            bench.agent().resume()
        except Cut:
            continue
    assert (state(bench).phase, state(bench).active_sha256) == (Phase.FAILED_INCONSISTENT, FIRST.sha256)
    assert len(bench.runner.requests) <= 5
    assert bench.agent().resume().fields["state"] == "FAILED_INCONSISTENT", "a restart does not leave it"
    assert [r.outcome.value for r in state(bench).receipts][-1] == "failed_inconsistent"


def test_patience_does_not_wear_out_the_disk(bench: Bench) -> None:
    """A console that asks every hour while a veto stands for weeks writes no record and reaches no cap."""
    bench.install(FIRST)
    set_veto(bench.fs, bench.agent().layout, Veto("welding", 0))
    install(bench, SECOND, "t-2")
    files = dict(bench.site.trust.files_for(bench.device))
    before = state(bench)
    for _ in range(60):
        answer = bench.send_assignment(bench.channel(), files)
        bench.agent().resume()
    assert (answer["outcome"], answer["state"], answer["reason"]) == ("", "STAGED", "local veto: welding")
    assert state(bench) == before
    lift_veto(bench.fs, bench.agent().layout)
    assert bench.agent().resume().fields["outcome"] == "committed"


def test_an_active_model_named_anew_ends_the_inconsistency(tmp_path: Path) -> None:
    limits = AgentLimits(keep_free_bytes=0, lock_wait_s=0.5, max_moves=3, max_tries=100)
    bench = Bench(tmp_path, limits=limits)
    bench.limits = replace(limits, max_moves=40)
    bench.install(FIRST)
    bench.limits = limits
    bench.runner = CuttingRunner()
    with pytest.raises((Cut, PumpdeckError)):
        install(bench, SECOND, "t-2")
    bench.agent().resume()
    assert state(bench).phase is Phase.FAILED_INCONSISTENT
    bench.runner = ScriptedRunner()
    answer = install(bench, FIRST, "t-3")
    assert (answer["outcome"], answer["state"]) == ("already", "ACTIVE")
