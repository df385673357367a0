"""The rollout machine, move by move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import ConflictError, FormatError, GateRefusedError, IllegalMoveError, RefusedError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import plan_rollout
from pumpdeck_fleet.core.rollout_states import RolloutState, TaskState, WaveState
from support.rollouts import (
    GOOD_TEST,
    POLICY,
    T0,
    VERSIONS,
    delivers,
    finish_wave,
    make_plan,
    plan_device,
    receipt,
    receipted,
    started,
)


def first_sent(rollout: Rollout, now_ms: int = T0 + 1_000) -> tuple[Rollout, str]:
    """The rollout after its first device was sent to and got its assignment."""
    rollout, commands = rollout.receive(ev.Tick(now_ms))
    (deliver,) = delivers(commands)
    rollout, _ = rollout.receive(ev.Staged(now_ms, deliver.device))
    return rollout, deliver.device


def in_wave(number: int, devices: int = 30) -> tuple[Rollout, int]:
    """A rollout whose waves before `number` have passed."""
    rollout, now_ms = started(make_plan(devices)), T0
    for _ in range(number):
        rollout, now_ms = finish_wave(rollout, now_ms)
    assert rollout.current_wave == number
    return rollout, now_ms


def test_the_whole_way_from_draft_to_completed_moves_the_champion() -> None:
    plan = make_plan(10)
    rollout, now_ms = started(plan), T0
    assert rollout.state is RolloutState.RUNNING
    for _ in plan.wave_sizes:
        rollout, now_ms = finish_wave(rollout, now_ms)
    rollout, commands = rollout.receive(ev.Tick(now_ms))
    assert rollout.state is RolloutState.COMPLETED
    assert {task.state for task in rollout.tasks.values()} == {TaskState.COMMITTED}
    assert all(wave.state is WaveState.PASSED for wave in rollout.waves)
    assert commands == ()


def test_the_last_tick_of_a_completed_rollout_asks_for_the_alias() -> None:
    rollout, device = first_sent(started(make_plan(1)))
    rollout, _ = rollout.receive(receipted(rollout, device))
    rollout, commands = rollout.receive(ev.Tick(T0 + 120_000))
    assert rollout.state is RolloutState.COMPLETED
    assert [c for c in commands if isinstance(c, ev.MoveAlias)] == [
        ev.MoveAlias("r1:esp-health", "esp-health", Alias.CHAMPION, 2, "c" * 64)
    ]


def test_a_stored_rollout_is_the_same_rollout() -> None:
    rollout, _ = in_wave(1)
    assert Rollout.parse(rollout.encode()) == rollout
    assert Rollout.parse(rollout.encode()).encode() == rollout.encode()


def test_a_stored_rollout_with_an_altered_plan_is_refused() -> None:
    data = started(make_plan(3)).encode()
    altered = data.replace(make_plan(3).tasks[0].package_sha256.encode(), b"0" * 64)
    assert altered != data
    with pytest.raises(FormatError, match="altered"):
        Rollout.parse(altered)


def test_a_stored_commit_without_a_receipt_is_refused() -> None:
    rollout = started(make_plan(1))
    plain = canonical.parse_json(rollout.encode(), "rollout", max_bytes=10**6)
    plain["tasks"]["d000"]["state"] = "COMMITTED"
    with pytest.raises(FormatError, match="needs the receipt of d000"):
        Rollout.parse(canonical.encode(plain))


def test_an_approval_of_another_plan_is_refused_and_nothing_changes() -> None:
    rollout, _ = Rollout.draft(make_plan(3)).receive(ev.Freeze(T0, "actor-a"))
    with pytest.raises(RefusedError, match="another plan"):
        rollout.receive(ev.Approve(T0, "actor-b", "0" * 64))
    assert rollout.state is RolloutState.PLANNED
    assert rollout.approvals == ()


def test_two_approvals_need_two_people() -> None:
    plan = make_plan(3, replace(POLICY, approvals=2))
    rollout, _ = Rollout.draft(plan).receive(ev.Freeze(T0, "actor-a"))
    rollout, _ = rollout.receive(ev.Approve(T0, "actor-b", plan.digest))
    assert rollout.state is RolloutState.PLANNED
    with pytest.raises(RefusedError, match="approved already"):
        rollout.receive(ev.Approve(T0, "actor-b", plan.digest))
    with pytest.raises(RefusedError):
        rollout.receive(ev.Start(T0, "actor-b"))
    rollout, _ = rollout.receive(ev.Approve(T0, "actor-c", plan.digest))
    assert rollout.state is RolloutState.APPROVED


def test_a_device_with_a_live_task_elsewhere_stops_the_start() -> None:
    plan = make_plan(3)
    rollout, _ = Rollout.draft(plan).receive_all([ev.Freeze(T0, "actor-a"), ev.Approve(T0, "actor-b", plan.digest)])
    with pytest.raises(ConflictError, match="d001"):
        rollout.receive(ev.Start(T0, "actor-a", live={"d001": "r0"}))
    assert rollout.state is RolloutState.APPROVED


def test_assignment_numbers_go_on_from_the_highest_known() -> None:
    plan = make_plan(3)
    rollout, _ = Rollout.draft(plan).receive_all(
        [
            ev.Freeze(T0, "actor-a"),
            ev.Approve(T0, "actor-b", plan.digest),
            ev.Start(T0, "actor-a", last_seqs={"d001": 41}),
        ]
    )
    assert (rollout.tasks["d000"].seq, rollout.tasks["d001"].seq) == (1, 42)


def test_only_the_open_wave_is_sent_to() -> None:
    rollout, commands = started(make_plan(10)).receive(ev.Tick(T0))
    assert [command.device for command in delivers(commands)] == list(rollout.plan.waves[0])
    again, commands = rollout.receive(ev.Tick(T0 + 1_000))
    assert commands == ()
    assert again is rollout


def test_the_soak_must_be_over_before_the_next_wave() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(receipted(rollout, device, now_ms=T0 + 2_000))
    assert rollout.waves[0].state is WaveState.SOAKING
    rollout, commands = rollout.receive(ev.Tick(T0 + 61_999))
    assert delivers(commands) == []
    rollout, commands = rollout.receive(ev.Tick(T0 + 62_000))
    assert len(delivers(commands)) == 3


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.ROLLED_BACK, Outcome.FAILED_INCONSISTENT])
def test_the_first_failure_halts_the_first_wave(outcome: Outcome) -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, commands = rollout.receive(receipted(rollout, device, outcome))
    assert rollout.state is RolloutState.HALTED
    assert rollout.waves[0].state is WaveState.FAILED
    assert "1 of 1 failed" in rollout.reason or "cannot say" in rollout.reason
    assert ev.Withdraw(rollout.tasks[device].id) in commands


def test_a_halted_rollout_sends_nothing() -> None:
    rollout, now_ms = in_wave(1)
    rollout, commands = rollout.receive(ev.Tick(now_ms))
    assert delivers(commands) == []  # opening the wave sent already
    sending = [task.device for task in rollout.tasks.values() if task.state is TaskState.SENDING]
    rollout, _ = rollout.receive(ev.Halt(now_ms, "actor-a", "storm"))
    for event in (ev.Tick(now_ms + 1), *(ev.Staged(now_ms + 2, device) for device in sending)):
        rollout, commands = rollout.receive(event)
        assert not [c for c in commands if isinstance(c, ev.Deliver | ev.Assign)]
    assert {rollout.tasks[device].state for device in sending} == {TaskState.SENDING}


def test_two_per_cent_may_fail_in_a_large_wave() -> None:
    rollout, now_ms = started(make_plan(204)), T0
    for _ in range(2):
        rollout, now_ms = finish_wave(rollout, now_ms)
    devices = rollout.plan.waves[2]
    assert len(devices) == 200
    for number, device in enumerate(devices):
        outcome = Outcome.ROLLED_BACK if number < 4 else Outcome.COMMITTED
        rollout, _ = rollout.receive(receipted(rollout, device, outcome, now_ms=now_ms))
    assert rollout.state is RolloutState.RUNNING
    assert rollout.waves[2].state is WaveState.SOAKING


def test_the_fifth_failure_of_two_hundred_halts() -> None:
    rollout, now_ms = started(make_plan(204)), T0
    for _ in range(2):
        rollout, now_ms = finish_wave(rollout, now_ms)
    for device in rollout.plan.waves[2][:4]:
        rollout, _ = rollout.receive(receipted(rollout, device, Outcome.REFUSED, now_ms=now_ms))
    assert rollout.state is RolloutState.RUNNING
    rollout, _ = rollout.receive(receipted(rollout, rollout.plan.waves[2][4], Outcome.REFUSED, now_ms=now_ms))
    assert rollout.state is RolloutState.HALTED
    assert "5 of 200 failed, 4 allowed" in rollout.reason


def test_silence_becomes_unknown_at_the_deadline_and_halts() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_599_999))
    assert rollout.tasks[device].state is TaskState.STAGED
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_600_000))
    assert rollout.tasks[device].state is TaskState.UNKNOWN
    assert rollout.state is RolloutState.HALTED


def test_only_a_late_receipt_leaves_unknown() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_600_000))
    for event in (
        ev.Staged(T0 + 3_600_001, device),
        ev.Progressed(T0 + 3_600_001, device, TaskState.TRIAL, "late"),
        ev.AttemptFailed(T0 + 3_600_001, device, "login refused", False),
        ev.Tick(T0 + 9_999_999),
    ):
        rollout, _ = rollout.receive(event)
        assert rollout.tasks[device].state is TaskState.UNKNOWN
    rollout, _ = rollout.receive(receipted(rollout, device, now_ms=T0 + 10_000_000))
    assert rollout.tasks[device].state is TaskState.COMMITTED


def test_a_resume_looks_again_after_a_late_receipt() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_600_000))
    with pytest.raises(GateRefusedError, match="wave 1 failed"):
        rollout.receive(ev.Resume(T0 + 3_600_001, "actor-a", "go on"))
    rollout, _ = rollout.receive(receipted(rollout, device, now_ms=T0 + 3_700_000))
    rollout, _ = rollout.receive(ev.Resume(T0 + 3_700_001, "actor-a", "it was the radio"))
    assert rollout.state is RolloutState.RUNNING
    assert rollout.waves[0].state is WaveState.SOAKING
    assert rollout.waves[0].override is None


def test_an_override_opens_the_next_wave_and_keeps_the_name_of_who_did_it() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(receipted(rollout, device, Outcome.ROLLED_BACK))
    with pytest.raises(RefusedError, match="reason"):
        rollout.receive(ev.Resume(T0 + 1, "actor-a", "  ", override=True))
    rollout, commands = rollout.receive(ev.Resume(T0 + 1, "actor-a", "a broken sensor there", override=True))
    assert rollout.waves[0].override is not None
    assert rollout.waves[0].override.actor == "actor-a"
    assert any(isinstance(c, ev.Announce) and c.action == "wave.override" for c in commands)
    rollout, commands = rollout.receive(ev.Tick(T0 + 2))
    assert [c.device for c in delivers(commands)] == list(rollout.plan.waves[1])


def test_redundant_pumps_on_two_devices_are_never_tried_at_once() -> None:
    entries = [plan_device(n, site="gannet", groups=("gannet/P-101",)) for n in range(2)]
    plan = plan_rollout("r1", VERSIONS, entries, replace(POLICY, waves=("rest",)), created_ms=T0)
    rollout, commands = started(plan).receive(ev.Tick(T0))
    (deliver,) = delivers(commands)
    (other,) = {"d000", "d001"} - {deliver.device}
    assert rollout.why(other) == (
        f"{deliver.device} of redundancy group gannet/P-101 is not settled (SENDING)",
        f"redundancy group gannet/P-101: {deliver.device} is not settled",
    )
    rollout, _ = rollout.receive(ev.Staged(T0 + 1, deliver.device))
    rollout, _ = rollout.receive(receipted(rollout, deliver.device))
    rollout, commands = rollout.receive(ev.Tick(T0 + 2))
    assert [c.device for c in delivers(commands)] == [other]


def test_a_silent_device_keeps_its_redundancy_group() -> None:
    """Nobody knows whether it is in trial, so its partner must not be, not even after an override."""
    entries = [plan_device(n, site="gannet", groups=("gannet/P-101",)) for n in range(2)]
    plan = plan_rollout("r1", VERSIONS, entries, replace(POLICY, waves=("1", "rest")), created_ms=T0)
    rollout, device = first_sent(started(plan))
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_600_000))
    assert rollout.tasks[device].state is TaskState.UNKNOWN
    rollout, _ = rollout.receive(ev.Resume(T0 + 3_600_001, "actor-a", "the radio is down", override=True))
    rollout, commands = rollout.receive(ev.Tick(T0 + 3_600_002))
    assert rollout.waves[1].state is WaveState.OPEN
    assert delivers(commands) == []
    assert rollout.held_groups() == {"gannet/P-101": device}
    rollout, _ = rollout.receive(receipted(rollout, device, now_ms=T0 + 3_600_003))
    _, commands = rollout.receive(ev.Tick(T0 + 3_600_004))
    assert len(delivers(commands)) == 1


def test_a_rollout_is_not_complete_while_a_device_is_under_way() -> None:
    policy = replace(POLICY, waves=("rest",), unknown_pct=50.0, committed_pct=50.0)
    rollout, _ = started(make_plan(2, policy)).receive(ev.Tick(T0))
    first, second = rollout.plan.waves[0]
    rollout, _ = rollout.receive(ev.Staged(T0, second))
    rollout, _ = rollout.receive(receipted(rollout, first))
    rollout, _ = rollout.receive(ev.Tick(T0 + 70_000))
    assert (rollout.state, rollout.waves[0].state) == (RolloutState.RUNNING, WaveState.SOAKING)
    rollout, _ = rollout.receive(ev.Tick(T0 + 3_600_000))
    assert rollout.tasks[second].state is TaskState.UNKNOWN
    assert rollout.state is RolloutState.COMPLETED


def test_a_group_held_by_another_rollout_blocks() -> None:
    entries = [plan_device(0, site="gannet", groups=("gannet/P-101",))]
    plan = plan_rollout("r1", VERSIONS, entries, POLICY, created_ms=T0)
    rollout, commands = started(plan).receive(ev.Tick(T0, busy_groups={"gannet/P-101": "r0"}))
    assert delivers(commands) == []
    assert "rollout r0 holds it" in rollout.why("d000")[0]


def test_a_closed_site_waits_for_its_window_and_says_so() -> None:
    rollout = started(make_plan(1, site="gannet"))
    rollout, commands = rollout.receive(ev.Tick(T0, closed={"gannet": "outside the window 02:00-05:00"}))
    assert delivers(commands) == []
    assert rollout.tasks["d000"].state is TaskState.WAIT_WINDOW
    assert rollout.why("d000") == ("outside the window 02:00-05:00",)
    rollout, commands = rollout.receive(ev.Tick(T0 + 1))
    assert len(delivers(commands)) == 1


def test_a_courier_device_waits_for_its_courier_and_its_own_deadline() -> None:
    rollout, commands = started(make_plan(1, link=Link.COURIER)).receive(ev.Tick(T0))
    assert [c.link for c in delivers(commands)] == [Link.COURIER]
    assert rollout.tasks["d000"].state is TaskState.WAIT_COURIER
    assert rollout.why("d000") == ("it waits for a courier",)
    rollout, _ = rollout.receive(ev.HandedOut(T0 + 1, "d000"))
    rollout, _ = rollout.receive(ev.Tick(T0 + 7_199_999))
    assert rollout.tasks["d000"].state is TaskState.SENDING
    rollout, _ = rollout.receive(ev.Tick(T0 + 7_200_000))
    assert rollout.tasks["d000"].state is TaskState.UNKNOWN


def test_a_courier_may_go_where_the_link_is_down_and_both_may_arrive() -> None:
    rollout, commands = started(make_plan(1)).receive(ev.Tick(T0))
    device = delivers(commands)[0].device
    rollout, said = rollout.receive(ev.HandedOut(T0 + 1, device))
    task = rollout.tasks[device]
    assert (task.state, task.assign_ms) == (TaskState.SENDING, T0 + 1)
    assert task.deadline_ms == T0 + 1 + rollout.plan.policy.deadline_ms(Link.COURIER)
    assert [one.action for one in said if isinstance(one, ev.Announce)] == ["task.assign"]
    again, said = rollout.receive(ev.HandedOut(T0 + 1, device))
    assert again is rollout and said == ()
    rollout, said = rollout.receive(ev.Staged(T0 + 2, device))
    assert rollout.tasks[device].state is TaskState.STAGED
    assert [one for one in said if isinstance(one, ev.Assign)] == [ev.Assign(task.id, device, is_first=False)]
    assert not [one for one in said if isinstance(one, ev.Announce)]


def test_nothing_leaves_with_a_courier_before_it_may_be_sent() -> None:
    rollout = started(make_plan(2, site="gannet"))
    rollout, _ = rollout.receive(ev.Tick(T0, closed={"gannet": "outside the window"}))
    device = next(iter(rollout.tasks))
    assert rollout.receive(ev.HandedOut(T0 + 1, device)) == (rollout, ())


def test_a_refused_login_ends_the_task_but_a_broken_link_does_not() -> None:
    rollout, commands = started(make_plan(10)).receive(ev.Tick(T0))
    device = delivers(commands)[0].device
    rollout, _ = rollout.receive(ev.AttemptFailed(T0 + 1, device, "no answer", True))
    assert rollout.tasks[device].state is TaskState.SENDING
    assert rollout.why(device) == ("no answer (attempt 1)",)
    rollout, _ = rollout.receive(ev.AttemptFailed(T0 + 2, device, "the host key is another one", False))
    assert rollout.tasks[device].state is TaskState.REFUSED
    assert rollout.state is RolloutState.HALTED


def test_a_refused_login_after_the_assignment_left_is_no_word_of_the_device() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.AttemptFailed(T0 + 2, device, "the host key is another one", False))
    assert rollout.tasks[device].state is TaskState.STAGED


def test_a_vetoed_device_stays_staged_and_says_why() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.Progressed(T0 + 5, device, TaskState.STAGED, "veto: pump tripped"))
    assert rollout.why(device) == ("veto: pump tripped",)
    rollout, _ = rollout.receive(ev.Progressed(T0 + 6, device, TaskState.TRIAL, "shadow"))
    assert rollout.tasks[device].state is TaskState.TRIAL


def test_repeating_the_staged_event_asks_for_the_same_assignment_again() -> None:
    """After a crash nobody knows whether the assignment left: it goes again, the device takes it once."""
    rollout, device = first_sent(started(make_plan(10)))
    again, commands = rollout.receive(ev.Staged(T0 + 5, device))
    assert commands == (ev.Assign(rollout.tasks[device].id, device, is_first=False),)
    assert again is rollout


def test_a_device_that_declines_its_assignment_has_refused() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(ev.Declined(T0 + 5, device, "the signature does not hold"))
    assert rollout.tasks[device].state is TaskState.REFUSED
    assert rollout.state is RolloutState.HALTED


def test_a_repeated_receipt_changes_nothing() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    event = receipted(rollout, device)
    rollout, _ = rollout.receive(event)
    again, commands = rollout.receive(event)
    assert again is rollout
    assert commands == ()


@pytest.mark.parametrize("changes", [{"seq": 9}, {"package_sha256": "1" * 64}])
def test_a_receipt_for_another_assignment_is_ignored_and_announced(changes: dict[str, object]) -> None:
    rollout, device = first_sent(started(make_plan(10)))
    word = receipt(rollout, device, **changes)  # type: ignore[arg-type]
    after, commands = rollout.receive(ev.Receipted(T0, word, "f" * 64, "key"))
    assert after.tasks == rollout.tasks
    assert [c.action for c in commands if isinstance(c, ev.Announce)] == ["receipt.ignored"]


def test_a_receipt_of_another_task_is_none_of_ours() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    word = receipt(rollout, device, task="t-other")
    after, commands = rollout.receive(ev.Receipted(T0, word, "f" * 64, "key"))
    assert (after is rollout, commands) == (True, ())


def test_a_device_that_commits_one_thing_and_runs_another_halts_any_wave() -> None:
    rollout, now_ms = started(make_plan(204)), T0
    for _ in range(2):
        rollout, now_ms = finish_wave(rollout, now_ms)
    device = rollout.plan.waves[2][0]
    word = receipt(rollout, device, active_sha256="e" * 64)
    rollout, _ = rollout.receive(ev.Receipted(now_ms, word, "f" * 64, "key"))
    assert rollout.tasks[device].state is TaskState.FAILED_INCONSISTENT
    assert rollout.state is RolloutState.HALTED


def test_a_device_that_takes_its_commit_back_halts_the_rollout() -> None:
    rollout, now_ms = in_wave(1)
    device = rollout.plan.waves[0][0]
    word = receipt(rollout, device, Outcome.ROLLED_BACK, counter=2)
    rollout, commands = rollout.receive(ev.Receipted(now_ms, word, "f" * 64, "key"))
    assert rollout.state is RolloutState.HALTED
    assert rollout.tasks[device].state is TaskState.COMMITTED
    assert any(isinstance(c, ev.Announce) and c.action == "receipt.contradicts" for c in commands)


def test_a_late_failure_in_a_passed_wave_halts() -> None:
    policy = replace(POLICY, waves=("1", "20", "rest"), committed_pct=90.0)
    rollout, now_ms = finish_wave(started(make_plan(40, policy)), T0)
    silent, *others = rollout.plan.waves[1]
    for device in others:
        rollout, _ = rollout.receive(receipted(rollout, device, now_ms=now_ms))
    rollout, _ = rollout.receive(ev.Tick(now_ms + 60_000))
    assert rollout.current_wave == 2
    rollout, _ = rollout.receive(receipted(rollout, silent, Outcome.ROLLED_BACK, now_ms=now_ms + 61_000))
    assert rollout.state is RolloutState.HALTED
    assert rollout.reason.startswith("wave 2 after it passed")


@pytest.mark.parametrize(
    ("self_test", "words"),
    [
        (replace(GOOD_TEST, flags_equal=False), "other answers"),
        (replace(GOOD_TEST, largest_difference=0.1), "other answers"),
        (replace(GOOD_TEST, p99_us=1e6), "us a row"),
    ],
)
def test_a_wave_whose_devices_misbehave_does_not_pass(self_test: object, words: str) -> None:
    rollout, device = first_sent(started(make_plan(10)))
    word = receipt(rollout, device, self_test=self_test)
    rollout, _ = rollout.receive(ev.Receipted(T0, word, "f" * 64, "key"))
    rollout, commands = rollout.receive(ev.Tick(T0 + 60_000))
    assert rollout.state is RolloutState.HALTED
    assert words in rollout.reason
    assert delivers(commands) == []


def test_a_wave_that_alarms_too_much_in_its_soak_does_not_pass() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(receipted(rollout, device))
    rollout, _ = rollout.receive(ev.Observed(T0 + 30_000, device, alarmed_pumps=3, drifting_pumps=4))
    rollout, _ = rollout.receive(ev.Tick(T0 + 60_000))
    assert rollout.state is RolloutState.HALTED
    assert "3 of 4 pumps alarmed" in rollout.reason


def test_two_of_four_alarmed_pumps_are_within_the_default_policy() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(receipted(rollout, device))
    rollout, _ = rollout.receive(ev.Observed(T0 + 30_000, device, alarmed_pumps=2, drifting_pumps=4))
    rollout, _ = rollout.receive(ev.Tick(T0 + 60_000))
    assert rollout.current_wave == 1


def test_an_abort_cancels_what_was_not_handed_over_and_waits_for_the_rest() -> None:
    rollout, now_ms = in_wave(1)
    first, second, third = rollout.plan.waves[1]
    rollout, _ = rollout.receive(ev.Staged(now_ms, first))
    rollout, commands = rollout.receive(ev.Abort(now_ms, "actor-a", "wrong version"))
    assert rollout.tasks[first].state is TaskState.STAGED
    assert {rollout.tasks[name].state for name in (second, third)} == {TaskState.CANCELLED}
    assert ev.Withdraw(rollout.tasks[second].id) in commands
    assert ev.Withdraw(rollout.tasks[first].id) not in commands
    rollout, _ = rollout.receive(receipted(rollout, first, now_ms=now_ms + 5))
    assert rollout.tasks[first].state is TaskState.COMMITTED
    assert rollout.state is RolloutState.ABORTED


def test_the_deadline_of_what_a_halt_held_back_moves_along() -> None:
    rollout, now_ms = in_wave(1)
    device = rollout.plan.waves[1][0]
    deadline_ms = rollout.tasks[device].deadline_ms
    rollout, _ = rollout.receive(ev.Halt(now_ms, "actor-a", "storm"))
    rollout, _ = rollout.receive(ev.Tick(now_ms + 10_000_000))
    assert rollout.tasks[device].state is TaskState.SENDING
    rollout, _ = rollout.receive(ev.Resume(now_ms + 10_000_000, "actor-a", "calm again"))
    assert rollout.tasks[device].deadline_ms == deadline_ms + 10_000_000


def test_a_task_that_was_not_handed_over_can_be_superseded_and_another_cannot() -> None:
    rollout, now_ms = in_wave(1)
    first, second, _ = rollout.plan.waves[1]
    rollout, _ = rollout.receive(ev.Staged(now_ms, first))
    with pytest.raises(ConflictError, match="assignment"):
        rollout.receive(ev.Supersede(now_ms, "actor-a", first, "r2"))
    rollout, _ = rollout.receive(ev.Supersede(now_ms, "actor-a", second, "r2"))
    assert rollout.tasks[second].state is TaskState.SUPERSEDED


def test_the_task_of_a_retired_device_ends_at_once() -> None:
    """What was not handed over is cancelled; of what was, nobody will prove what became of it."""
    rollout, now_ms = in_wave(1)
    first, second, _ = rollout.plan.waves[1]
    rollout, _ = rollout.receive(ev.Staged(now_ms, first))
    for device in (first, second):
        rollout, commands = rollout.receive(ev.Retire(now_ms, "actor-a", device, "retired: scrapped"))
        assert any(isinstance(command, ev.Withdraw) for command in commands)
    found = {device: rollout.tasks[device] for device in (first, second)}
    assert [task.state for task in found.values()] == [TaskState.UNKNOWN, TaskState.CANCELLED]
    assert {task.note for task in found.values()} == {"its device was retired: scrapped"}


def test_a_revert_ends_the_rollout_through_another() -> None:
    rollout, now_ms = in_wave(1)
    rollout, _ = rollout.receive(ev.Revert(now_ms, "actor-a", "worse than before", "r2"))
    assert rollout.state is RolloutState.REVERTING
    incomplete, _ = rollout.receive(ev.RevertEnded(now_ms + 1, False))
    assert incomplete.state is RolloutState.REVERT_INCOMPLETE
    complete, _ = rollout.receive(ev.RevertEnded(now_ms + 1, True))
    assert complete.state is RolloutState.REVERTED


@pytest.mark.parametrize(
    "event",
    [
        ev.Halt(T0, "a", "r"),
        ev.Resume(T0, "a", "r"),
        ev.Revert(T0, "a", "r", "r2"),
        ev.Start(T0, "a"),
        ev.Freeze(T0, "a"),
    ],
)
def test_people_cannot_make_moves_that_are_in_no_table(event: ev.Event) -> None:
    rollout, _ = Rollout.draft(make_plan(3)).receive(ev.Freeze(T0, "actor-a"))
    with pytest.raises((IllegalMoveError, RefusedError)):
        rollout.receive(event)
    assert rollout.state is RolloutState.PLANNED


def test_why_names_the_reasons_in_order() -> None:
    plan = make_plan(10)
    rollout, _ = Rollout.draft(plan).receive(ev.Freeze(T0, "actor-a"))
    last = plan.waves[2][0]
    assert rollout.why(last) == (
        "the rollout is PLANNED and lacks 1 approval",
        "its wave 3 has not opened: wave 1 is PENDING (0 of 1 committed, 1 needed, 1 under way)",
    )
    assert rollout.why("elsewhere") == ("not part of rollout r1",)


def test_a_committed_device_has_no_reason_to_give() -> None:
    rollout, device = first_sent(started(make_plan(10)))
    rollout, _ = rollout.receive(receipted(rollout, device))
    assert rollout.why(device) == ()


def test_one_batch_gives_what_single_events_give() -> None:
    plan = make_plan(10)
    events: list[ev.Event] = [
        ev.Freeze(T0, "actor-a"),
        ev.Approve(T0, "actor-b", plan.digest),
        ev.Start(T0, "actor-a"),
        ev.Tick(T0),
        ev.Tick(T0 + 1),
        ev.Staged(T0 + 2, plan.waves[0][0]),
        ev.Tick(T0 + 3),
    ]
    single, singles = Rollout.draft(plan), []
    for event in events:
        single, commands = single.receive(event)
        singles += commands
    batch, commands = Rollout.draft(plan).receive_all(events)
    assert batch == single
    assert list(commands) == singles
