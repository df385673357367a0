"""The working copy of one rollout: the few ways in which anything in it may change. Every change passes its move table here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pumpdeck_fleet.core import rollout_gates as gates
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout_events import SYSTEM, Announce, Command, MoveAlias, Withdraw
from pumpdeck_fleet.core.rollout_records import Approval, DeviceTask, current_wave
from pumpdeck_fleet.core.rollout_states import (
    GOOD,
    LIVE,
    ROLLOUT_MOVES,
    TASK_MOVES,
    UNSENT,
    WAVE_MOVES,
    RolloutState,
    TaskState,
    WaveState,
    check_move,
)

if TYPE_CHECKING:
    from pumpdeck_fleet.core.rollout import Rollout


class Work:
    """A rollout being changed; lives no longer than one call of `receive`."""

    def __init__(self, rollout: Rollout) -> None:
        self.before = rollout
        self.plan = rollout.plan
        self.policy = rollout.plan.policy
        self.state = rollout.state
        self.reason = rollout.reason
        self.halted_ms = rollout.halted_ms
        self.approvals = rollout.approvals
        self.waves = list(rollout.waves)
        self.tasks = dict(rollout.tasks)
        self.tally = [gates.Tally(self.tasks[device].state for device in devices) for devices in self.plan.waves]
        self.commands: list[Command] = []
        self.now_ms = self._changed_ms = rollout.changed_ms
        self.actor = SYSTEM
        self._moves = rollout.moves
        self._announced = 0
        self._is_changed = False

    def begin(self, now_ms: int, actor: str) -> None:
        """An event comes in: what changes from here on happened then and through this actor."""
        self.now_ms, self.actor = now_ms, actor
        self._announced, self._is_changed = 0, False

    def end(self) -> None:
        """The event is done; one that changed nothing leaves no trace."""
        if self._is_changed:
            self._moves += 1
            self._changed_ms = self.now_ms

    def result(self) -> Rollout:
        """The frozen outcome; the very same value when nothing changed."""
        if self._moves == self.before.moves:
            return self.before
        return replace(
            self.before,
            state=self.state,
            waves=tuple(self.waves),
            tasks=self.tasks,
            approvals=self.approvals,
            moves=self._moves,
            changed_ms=self._changed_ms,
            halted_ms=self.halted_ms,
            reason=self.reason,
        )

    def announce(self, action: str, subject: str, reason: str = "", **digests: str) -> None:
        """Say what happened, for the audit chain."""
        self._announced += 1
        self._is_changed = True
        identity = f"{self.plan.id}:{self._moves + 1}:{self._announced}"
        self.commands.append(Announce(identity, self.actor, action, subject, reason, digests))

    # The rollout

    def move(self, target: RolloutState, reason: str) -> None:
        self.state = check_move(ROLLOUT_MOVES, self.state, target, self.plan.id)
        self.reason = reason
        self.announce(f"rollout.{target.value.lower()}", self.plan.id, reason, plan=self.plan.digest)

    def stop(self, reason: str) -> None:
        """Halt: from the moment this is stored nothing more is sent."""
        self.move(RolloutState.HALTED, reason)
        self.halted_ms = self.now_ms

    def complete(self) -> None:
        self.move(RolloutState.COMPLETED, "")
        for version in self.plan.versions:
            identity = f"{self.plan.id}:{version.model}"
            self.commands.append(
                MoveAlias(identity, version.model, Alias.CHAMPION, version.number, version.content_digest)
            )

    def cancel_unassigned(self, reason: str) -> None:
        """End every task whose assignment was not let go; the others can only be waited for."""
        for device, task in list(self.tasks.items()):
            if task.state in LIVE and not task.assign_ms:
                self.end_task(device, TaskState.CANCELLED, reason)

    # Waves

    @property
    def current_wave(self) -> int:
        return current_wave(self.waves)

    def judge(self, number: int) -> tuple[gates.Judgement, str]:
        """What the gate of that wave says now."""
        gate = gates.limits(self.plan.wave_sizes[number], number, self.policy)
        return gates.judge_counts(self.tally[number].counts, gate)

    def judge_behaviour(self, number: int) -> str:
        """Why the committed devices of that wave do not behave; empty when they do."""
        good = (self.tasks[name] for name in self.plan.waves[number] if self.tasks[name].state in GOOD)
        behaviours = (
            gates.Behaviour(
                task.device,
                self.plan.by_device[task.device].pumps,
                task.alarmed_pumps,
                task.drifting_pumps,
                task.self_test,
            )
            for task in good
        )
        return gates.judge_behaviour(behaviours, self.policy)

    def move_wave(self, number: int, target: WaveState, reason: str) -> None:
        wave = self.waves[number]
        check_move(WAVE_MOVES, wave.state, target, f"{self.plan.id} wave {number + 1}")
        changes: dict[str, Any] = {"state": target, "reason": reason}
        if target is WaveState.OPEN and not wave.opened_ms:
            changes["opened_ms"] = self.now_ms
        elif target is WaveState.SOAKING:
            changes["soak_until_ms"] = self.now_ms + round(self.policy.soak_s * 1000)
        elif target in (WaveState.PASSED, WaveState.FAILED):
            changes["ended_ms"] = self.now_ms
        self.waves[number] = replace(wave, **changes)
        self.announce(f"wave.{target.value.lower()}", f"{self.plan.id} wave {number + 1}", reason)

    def open_wave(self, number: int) -> None:
        self.move_wave(number, WaveState.OPEN, f"{self.plan.wave_sizes[number]} devices")
        for device in self.plan.waves[number]:
            if self.tasks[device].is_live:
                span_ms = self.policy.deadline_ms(self.plan.by_device[device].link)
                self.change(device, deadline_ms=self.now_ms + span_ms)

    def fail_wave(self, number: int, reason: str) -> None:
        self.move_wave(number, WaveState.FAILED, reason)
        self.stop(f"wave {number + 1}: {reason}")

    def override_wave(self, number: int, reason: str) -> None:
        approval = Approval(self.actor, self.now_ms, self.plan.digest, reason)
        self.waves[number] = replace(self.waves[number], override=approval)
        self.announce("wave.override", f"{self.plan.id} wave {number + 1}", reason, plan=self.plan.digest)

    # Tasks

    def move_task(self, device: str, target: TaskState) -> None:
        task = self.tasks[device]
        check_move(TASK_MOVES, task.state, target, device)
        self.tally[self.plan.by_device[device].wave].move(task.state, target)
        self.change(device, state=target, changed_ms=self.now_ms)

    def end_task(self, device: str, target: TaskState, reason: str, **digests: str) -> None:
        """Move a task to a state that is not live; its command in the outbox, if any, falls away."""
        was_sent = self.tasks[device].state not in UNSENT
        self.move_task(device, target)
        self.note(device, reason)
        if was_sent:
            self.commands.append(Withdraw(self.tasks[device].id))
        self.announce(f"task.{target.value.lower()}", device, reason, **digests)

    def change(self, device: str, **changes: Any) -> None:
        self.tasks[device] = replace(self.tasks[device], **changes)
        self._is_changed = True

    def note(self, device: str, reason: str) -> None:
        """Remember the last reason; the same one again is no change."""
        if self.tasks[device].note != reason:
            self.change(device, note=reason)

    def live_task(self, device: str) -> DeviceTask | None:
        task = self.tasks.get(device)
        return task if task is not None and task.is_live else None
