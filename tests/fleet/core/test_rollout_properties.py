"""The ten invariants of rollouts, for any order of events: two rollouts over shared devices and redundancy groups.

The world below is what the product's shell is to the core: an outbox, devices that answer now, later, twice or never, people who
halt, resume, override, abort and supersede, sites that close, and a store that a process may be restarted from at any point.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPolicy, plan_rollout
from pumpdeck_fleet.core.rollout_states import BAD, GOOD, LIVE, RolloutState, TaskState, WaveState
from support.rollouts import T0, VERSIONS, receipt, sha

DEVICES = [f"d{number}" for number in range(8)]
GROUPS = {
    device: ("s/P-1",) if number < 3 else ("s/P-2",) if number < 5 else () for number, device in enumerate(DEVICES)
}
NAMES = ("r1", "r2")
names = st.sampled_from(NAMES)
places = st.integers(0, 7)
devices = st.sampled_from(DEVICES)


def make_plan(name: str, waves: tuple[str, ...], tolerance: float) -> Any:
    policy = RolloutPolicy(
        waves=waves, soak_s=5.0, deadline_s=60.0, courier_deadline_s=90.0, unknown_pct=tolerance, bad_pct=tolerance,
        committed_pct=max(1.0, 100.0 - 2 * tolerance),
    )  # fmt: skip
    entries = [
        PlanDevice(
            device,
            f"s{number % 2}",
            Link.COURIER if device == "d7" else Link.SSH,
            sha(f"{name} {device}"),
            1000,
            2,
            groups=GROUPS[device],
        )
        for number, device in enumerate(DEVICES)
    ]
    return plan_rollout(name, VERSIONS, entries, policy, created_ms=T0)


class RolloutWorld(RuleBasedStateMachine):
    """Two rollouts, one set of devices."""

    @initialize(
        waves=st.sampled_from([("1", "3", "rest"), ("2", "rest"), ("rest",), ("1", "50%", "rest")]),
        tolerance=st.sampled_from([0.0, 20.0, 40.0]),
        silent=st.sampled_from([(), ("d0",), ("d4", "d5")]),
        is_second=st.booleans(),
    )
    def begin(self, waves: tuple[str, ...], tolerance: float, silent: tuple[str, ...], is_second: bool) -> None:
        self.now_ms = T0
        self.silent = silent
        self.rollouts = {name: Rollout.draft(make_plan(name, waves, tolerance)) for name in NAMES}
        self.drafts = dict(self.rollouts)
        self.said: dict[str, list[ev.Command]] = {name: [] for name in NAMES}
        self.log: dict[str, list[ev.Event]] = {name: [] for name in NAMES}
        self.outbox: dict[str, ev.Deliver] = {}
        self.assigned: dict[tuple[str, str], bool] = {}  # (rollout, device) -> the device has ended it
        self.receipts: dict[str, set[str]] = {name: set() for name in NAMES}
        self.good: dict[str, set[str]] = {name: set() for name in NAMES}
        self.seqs: dict[str, list[int]] = {device: [] for device in DEVICES}
        self.kept: list[tuple[str, ev.Receipted]] = []
        for name in NAMES:
            self.feed(name, ev.Freeze(T0, "author"))
        self.approve_and_start("r1")
        if is_second:
            self.a_good_hour("r1")
            self.feed("r1", ev.Abort(self.now_ms, "operator", "the next version is there"))
            self.approve_and_start("r2")

    # The shell

    def feed(self, name: str, event: ev.Event) -> tuple[ev.Command, ...]:
        before = self.rollouts[name]
        after, commands = before.receive(event)
        self.log[name].append(event)
        self.said[name] += commands
        self.rollouts[name] = after
        self.check_step(before, after, event, commands)
        for command in commands:
            if isinstance(command, ev.Deliver):
                self.outbox[command.id] = command
                self.seqs[command.device].append(command.seq)
            elif isinstance(command, ev.Withdraw):
                self.outbox.pop(command.id, None)
            elif isinstance(command, ev.Assign):
                self.assigned.setdefault((name, command.device), False)
        return commands

    def check_step(self, before: Rollout, after: Rollout, event: ev.Event, commands: tuple[ev.Command, ...]) -> None:
        sends = [command for command in commands if isinstance(command, ev.Deliver | ev.Assign)]
        # Nothing is sent after HALTED is stored, nor with it, nor in any state but RUNNING.
        assert not sends or after.state is RolloutState.RUNNING
        for command in commands:
            if isinstance(command, ev.Deliver):
                # No send outside the approved plan hash.
                assert {approval.plan_digest for approval in after.approvals} == {command.plan_digest}
                planned = after.plan.by_device[command.device]
                assert command.package_sha256 == planned.package_sha256
                # Wave n+1 only after wave n passed or a signed override.
                assert all(wave.is_over for wave in after.waves[: planned.wave])
                assert all(wave.state is not WaveState.PENDING for wave in after.waves[: planned.wave + 1])
        self.check_announced(before, after, commands)

    def check_announced(self, before: Rollout, after: Rollout, commands: tuple[ev.Command, ...]) -> None:
        """Whatever ends or changes hands has its audit entry among the commands of the same step."""
        said = {(command.action, command.subject) for command in commands if isinstance(command, ev.Announce)}
        if after.state is not before.state:
            assert (f"rollout.{after.state.value.lower()}", after.id) in said
        for number, (old, new) in enumerate(zip(before.waves, after.waves, strict=True), 1):
            if old.state is not new.state:
                assert any(subject == f"{after.id} wave {number}" for _, subject in said)
            if old.override is not new.override:
                assert ("wave.override", f"{after.id} wave {number}") in said
        for device, task in after.tasks.items():
            if task.state is not before.tasks[device].state and task.state not in LIVE:
                assert (f"task.{task.state.value.lower()}", device) in said
            if task.assign_ms and not before.tasks[device].assign_ms:
                assert ("task.assign", device) in said
        if not said and not commands:
            assert after.state is before.state

    def person(self, name: str, event: ev.Event) -> None:
        """A person may ask for anything; refused means unchanged."""
        before = self.rollouts[name]
        try:
            self.feed(name, event)
        except PumpdeckError:
            assert self.rollouts[name] is before

    def live(self, but: str) -> dict[str, str]:
        return {
            device: name
            for name, rollout in self.rollouts.items()
            if name != but
            for device, task in rollout.tasks.items()
            if task.is_live
        }

    # Time

    @rule(name=names, step_s=st.sampled_from([0, 1, 6, 6, 20, 61]), closed=st.sampled_from([(), ("s0",), ("s0", "s1")]))
    def tick(self, name: str, step_s: int, closed: tuple[str, ...]) -> None:
        self.now_ms += step_s * 1000
        others = [rollout for other, rollout in self.rollouts.items() if other != name]
        busy = {group: other.id for other in others for group in other.held_groups()}
        self.feed(name, ev.Tick(self.now_ms, dict.fromkeys(closed, "closed"), busy))

    @rule(name=names)
    def a_good_hour(self, name: str) -> None:
        """What mostly happens: the wave is sent, its devices commit but for the silent ones, and the soak passes."""
        self.tick(name, 1, ())
        for command in list(self.outbox.values()):
            if command.rollout == name:
                self.hand_over(command)
        for rollout, device in self.in_the_field():
            if rollout == name and device not in self.silent:
                self.end(name, device, Outcome.COMMITTED)
        self.tick(name, 1, ())
        self.tick(name, 6, ())

    # People

    @rule(name=names)
    def approve_and_start(self, name: str) -> None:
        rollout = self.rollouts[name]
        self.person(name, ev.Approve(self.now_ms, "approver", rollout.plan.digest))
        last = {device: max(seqs, default=0) for device, seqs in self.seqs.items()}
        for other in self.rollouts.values():
            for device, task in other.tasks.items():
                last[device] = max(last[device], task.seq)
        self.person(name, ev.Start(self.now_ms, "operator", last, self.live(name)))

    @precondition(lambda self: self.now_ms > T0 + 30_000)
    @rule(name=names, device=devices)
    def supersede(self, name: str, device: str) -> None:
        self.person(name, ev.Supersede(self.now_ms, "operator", device, "r9"))

    @rule(name=names, device=devices)
    def retire(self, name: str, device: str) -> None:
        self.person(name, ev.Retire(self.now_ms, "operator", device, "retired"))

    @rule(name=names)
    def approve_another_plan(self, name: str) -> None:
        self.person(name, ev.Approve(self.now_ms, "attacker", "0" * 64))

    @rule(name=names)
    def halt(self, name: str) -> None:
        self.person(name, ev.Halt(self.now_ms, "operator", "storm"))

    @precondition(lambda self: any(rollout.state is RolloutState.HALTED for rollout in self.rollouts.values()))
    @rule(override=st.sampled_from([True, True, False]))
    def resume(self, override: bool) -> None:
        for name in NAMES:
            self.person(name, ev.Resume(self.now_ms, "operator", "go on", override))

    @precondition(lambda self: self.now_ms > T0 + 100_000)
    @rule(name=names)
    def abort(self, name: str) -> None:
        self.person(name, ev.Abort(self.now_ms, "operator", "enough"))

    # Devices and those who talk to them

    def waiting(self, place: int) -> ev.Deliver:
        commands = [self.outbox[key] for key in sorted(self.outbox)]
        return commands[place % len(commands)]

    @precondition(lambda self: self.outbox)
    @rule(place=places)
    def deliver(self, place: int) -> None:
        """The package lies on the device, and the assignment goes if the core lets it."""
        self.hand_over(self.waiting(place))

    @precondition(lambda self: self.outbox)
    @rule()
    def deliver_all(self) -> None:
        for command in list(self.outbox.values()):
            self.hand_over(command)

    @precondition(lambda self: self.outbox)
    @rule(place=places)
    def device_declines(self, place: int) -> None:
        """The device does not believe its first assignment and takes nothing on."""
        command = self.waiting(place)
        said = self.feed(command.rollout, ev.Staged(self.now_ms, command.device))
        if ev.Assign(command.id, command.device, is_first=True) in said:
            self.assigned[command.rollout, command.device] = True
            self.feed(command.rollout, ev.Declined(self.now_ms, command.device, "the signature does not hold"))

    def hand_over(self, command: ev.Deliver) -> None:
        if command.link is Link.COURIER:
            self.feed(command.rollout, ev.HandedOut(self.now_ms, command.device))
            if self.rollouts[command.rollout].tasks[command.device].assign_ms:
                self.assigned.setdefault((command.rollout, command.device), False)
        else:
            self.feed(command.rollout, ev.Staged(self.now_ms, command.device))

    @precondition(lambda self: self.outbox)
    @rule(place=places)
    def a_courier_takes_it_too(self, place: int) -> None:
        """The link is down, or only slow: the stick carries what SSH carries."""
        command = self.waiting(place)
        self.feed(command.rollout, ev.HandedOut(self.now_ms, command.device))
        if self.rollouts[command.rollout].tasks[command.device].assign_ms:
            self.assigned.setdefault((command.rollout, command.device), False)

    @precondition(lambda self: self.outbox)
    @rule(place=places, retryable=st.booleans())
    def attempt_fails(self, place: int, retryable: bool) -> None:
        command = self.waiting(place)
        self.feed(command.rollout, ev.AttemptFailed(self.now_ms, command.device, "no answer", retryable))

    @precondition(lambda self: self.outbox)
    @rule(place=places, state=st.sampled_from([TaskState.STAGED, TaskState.TRIAL]))
    def device_waits(self, place: int, state: TaskState) -> None:
        command = self.waiting(place)
        self.feed(command.rollout, ev.Progressed(self.now_ms, command.device, state, "veto"))

    @precondition(lambda self: self.in_the_field())
    @rule(place=places, outcome=st.sampled_from(list(Outcome)))
    def device_ends(self, place: int, outcome: Outcome) -> None:
        """A device that got its assignment says how it ended, perhaps long after everybody gave it up."""
        open_ones = self.in_the_field()
        self.end(*open_ones[place % len(open_ones)], outcome)

    @precondition(lambda self: self.in_the_field())
    @rule()
    def devices_commit(self) -> None:
        for name, device in self.in_the_field():
            self.end(name, device, Outcome.COMMITTED)

    def in_the_field(self) -> list[tuple[str, str]]:
        return sorted(key for key, is_ended in self.assigned.items() if not is_ended)

    def end(self, name: str, device: str, outcome: Outcome) -> None:
        self.assigned[name, device] = True
        word = receipt(self.rollouts[name], device, outcome, at_ms=self.now_ms)
        event = ev.Receipted(self.now_ms, word, canonical.digest(canonical.encode(word)), "key")
        self.receipts[name].add(event.digest)
        if outcome in (Outcome.COMMITTED, Outcome.ALREADY):
            self.good[name].add(device)
        self.kept.append((name, event))
        self.feed(name, event)

    @precondition(lambda self: self.kept)
    @rule(place=places)
    def receipt_again(self, place: int) -> None:
        name, event = self.kept[place % len(self.kept)]
        before = self.rollouts[name]
        assert self.feed(name, event) == ()
        assert self.rollouts[name] is before

    @rule(name=names, device=devices, alarmed=st.integers(0, 2))
    def pumps_alarm(self, name: str, device: str, alarmed: int) -> None:
        self.feed(name, ev.Observed(self.now_ms, device, alarmed, 0))

    @rule(name=names)
    def restart_from_the_store(self, name: str) -> None:
        again = Rollout.parse(self.rollouts[name].encode())
        assert again == self.rollouts[name]
        self.rollouts[name] = again

    # What always holds

    @invariant()
    def one_live_task_a_device(self) -> None:
        for device in DEVICES:
            assert sum(rollout.tasks[device].is_live for rollout in self.rollouts.values()) <= 1

    @invariant()
    def never_two_in_trial_in_a_group(self) -> None:
        """A device that was handed an assignment and has not ended it may be in trial, however silent it is."""
        trying: dict[str, set[str]] = {}
        for (_, device), is_ended in self.assigned.items():
            if not is_ended:
                for group in GROUPS[device]:
                    trying.setdefault(group, set()).add(device)
        assert all(len(found) <= 1 for found in trying.values()), trying

    @invariant()
    def good_only_from_a_receipt(self) -> None:
        for name, rollout in self.rollouts.items():
            for device, task in rollout.tasks.items():
                if task.state in GOOD:
                    assert device in self.good[name]
                    assert task.receipt_digest in self.receipts[name]

    @invariant()
    def counters_never_fall(self) -> None:
        assert all(seqs == sorted(set(seqs)) for seqs in self.seqs.values())

    @invariant()
    def silence_is_never_success(self) -> None:
        for name, rollout in self.rollouts.items():
            for number, wave in enumerate(rollout.waves):
                if wave.state is WaveState.PASSED:
                    told = sum(device in self.good[name] for device in rollout.plan.waves[number])
                    assert told >= rollout.limits(number).needed
            if rollout.state is RolloutState.COMPLETED:
                assert all(wave.is_over for wave in rollout.waves)
                assert not any(task.is_live for task in rollout.tasks.values())

    @invariant()
    def too_many_failures_never_go_on(self) -> None:
        for rollout in self.rollouts.values():
            if rollout.state is RolloutState.RUNNING:
                number = rollout.current_wave
                bad = sum(rollout.tasks[device].state in BAD for device in rollout.plan.waves[number])
                is_open = rollout.waves[number].state in (WaveState.OPEN, WaveState.SOAKING)
                assert not is_open or bad <= rollout.limits(number).bad

    @invariant()
    def the_frozen_plan_stays(self) -> None:
        for name, rollout in self.rollouts.items():
            assert rollout.plan == self.drafts[name].plan

    def teardown(self) -> None:
        """Replaying the events gives the same state, one by one or all at once."""
        for name, events in getattr(self, "log", {}).items():
            again, commands = self.drafts[name].receive_all(events)
            assert list(commands) == self.said[name]
            assert again == self.rollouts[name]
            assert again.encode() == self.rollouts[name].encode()


TestRolloutWorld = RolloutWorld.TestCase
TestRolloutWorld.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
