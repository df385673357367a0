"""How a rollout takes events in: one handler for each, then the gates judge. Pure; time comes in events only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import ConflictError, GateRefusedError, RefusedError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Outcome, Receipt
from pumpdeck_fleet.core.rollout_gates import Judgement
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_records import Approval, DeviceTask, held_groups, voices_of
from pumpdeck_fleet.core.rollout_states import (
    GOOD,
    ROLLOUT_MOVES,
    TASK_MOVES,
    TASK_OF_OUTCOME,
    UNSENT,
    RolloutState,
    TaskState,
    WaveState,
    check_move,
)
from pumpdeck_fleet.core.rollout_work import Work
from pumpdeck_fleet.core.statements import Voice, count_people, has_spoken

if TYPE_CHECKING:
    from pumpdeck_fleet.core.rollout import Rollout

_STARTED = frozenset(RolloutState) - {RolloutState.DRAFT, RolloutState.PLANNED, RolloutState.APPROVED}


def receive(rollout: Rollout, events: Iterable[ev.Event]) -> tuple[Rollout, tuple[ev.Command, ...]]:
    """The rollout after all events in order, and their commands in order.

    Raises:
        RefusedError, ConflictError: a person's event is not allowed now.
    """
    work = Work(rollout)
    for event in events:
        work.begin(event.now_ms, getattr(event, "actor", ev.SYSTEM))
        _HANDLERS[type(event)](work, event)
        work.actor = ev.SYSTEM
        if work.state is RolloutState.RUNNING:
            _judge_wave(work)
        work.end()
    return work.result(), tuple(work.commands)


# What people ask for


def _freeze(work: Work, _event: ev.Freeze) -> None:
    terms = work.plan.terms
    work.move(RolloutState.PLANNED, terms.words if terms else "")


def _approve(work: Work, event: ev.Approve) -> None:
    check_move(ROLLOUT_MOVES, work.state, RolloutState.APPROVED, work.plan.id)
    if event.plan_digest != work.plan.digest:
        raise RefusedError(
            "the approval is for another plan", work.plan.id, expected=work.plan.digest, found=event.plan_digest
        )
    if has_spoken(voices_of(work.approvals), Voice(event.actor, event.person)):
        raise RefusedError("this person has approved already", work.plan.id, expected="another approver")
    work.approvals = (*work.approvals, Approval(event.actor, event.now_ms, event.plan_digest, person=event.person))
    work.announce("rollout.approve", work.plan.id, plan=work.plan.digest)
    if count_people(voices_of(work.approvals)) >= work.policy.approvals:
        work.move(RolloutState.APPROVED, "")


def _start(work: Work, event: ev.Start) -> None:
    if work.state is not RolloutState.APPROVED:
        check_move(ROLLOUT_MOVES, work.state, RolloutState.APPROVED, work.plan.id)
        raise RefusedError("is not approved", work.plan.id, hint=f"show its plan and: pumpdeck approve {work.plan.id}")
    for device in work.tasks:
        if device in event.live:
            raise ConflictError(
                "has a live task in another rollout",
                device,
                found=event.live[device],
                hint="wait for it, abort it, or let this rollout supersede it",
            )
    for device in work.tasks:
        work.change(device, seq=event.last_seqs.get(device, 0) + 1)
    work.move(RolloutState.RUNNING, "")
    work.open_wave(0)


def _halt(work: Work, event: ev.Halt) -> None:
    work.stop(event.reason)


def _resume(work: Work, event: ev.Resume) -> None:
    if work.state is not RolloutState.HALTED:
        raise RefusedError("is not halted", work.plan.id, expected=RolloutState.HALTED, found=work.state)
    number = work.current_wave
    if work.waves[number].state is WaveState.FAILED:
        judgement, story = work.judge(number)
        if event.override and event.reason.strip():
            work.override_wave(number, event.reason)
        elif event.override:
            raise RefusedError("an override needs a reason", work.plan.id)
        elif judgement is Judgement.FAILS:
            raise GateRefusedError(
                f"wave {number + 1} failed", work.plan.id, found=story, hint="resume with an override and a reason"
            )
        else:
            work.move_wave(number, WaveState.OPEN, event.reason)
    _prolong(work, event.now_ms - work.halted_ms)
    work.move(RolloutState.RUNNING, event.reason)


def _prolong(work: Work, halted_for_ms: int) -> None:
    # What was held back while the rollout was halted could not be answered; its deadline moves along.
    for device, task in list(work.tasks.items()):
        if task.is_live and task.deadline_ms and not task.assign_ms:
            work.change(device, deadline_ms=task.deadline_ms + max(halted_for_ms, 0))


def _abort(work: Work, event: ev.Abort) -> None:
    work.move(RolloutState.ABORTED, event.reason)
    work.cancel_unassigned(event.reason)


def _supersede(work: Work, event: ev.Supersede) -> None:
    task = work.live_task(event.device)
    if task is None:
        return
    if task.assign_ms:
        raise ConflictError("holds an assignment already", event.device, found=f"{task.state} in {work.plan.id}")
    work.end_task(event.device, TaskState.SUPERSEDED, f"taken over by {event.by}")


def _give_way(work: Work, event: ev.GiveWay) -> None:
    task = work.live_task(event.device)
    if task is not None:
        target = TaskState.UNKNOWN if task.assign_ms else TaskState.SUPERSEDED
        work.end_task(event.device, target, f"gives way to {event.by}, which another workspace started")


def _retire(work: Work, event: ev.Retire) -> None:
    task = work.live_task(event.device)
    if task is not None:
        # What was handed over may run by now, and nobody will ever prove it.
        target = TaskState.UNKNOWN if task.assign_ms else TaskState.CANCELLED
        work.end_task(event.device, target, f"its device was {event.reason}")


def _revert(work: Work, event: ev.Revert) -> None:
    work.move(RolloutState.REVERTING, f"{event.reason} (by {event.by})")
    work.cancel_unassigned(event.reason)


def _revert_ended(work: Work, event: ev.RevertEnded) -> None:
    if work.state is RolloutState.REVERTING:
        work.move(RolloutState.REVERTED if event.complete else RolloutState.REVERT_INCOMPLETE, work.reason)


# What time brings


def _tick(work: Work, event: ev.Tick) -> None:
    if work.state not in _STARTED:
        return
    _expire(work)
    if work.state is RolloutState.RUNNING:
        _judge_wave(work)
    while work.state is RolloutState.RUNNING and _advance(work):
        pass
    if work.state is RolloutState.RUNNING:
        _dispatch(work, event)


def _expire(work: Work) -> None:
    for device, task in list(work.tasks.items()):
        # A halted rollout holds back what was not handed over, so that silence is ours and not the device's.
        is_held_back = work.state is RolloutState.HALTED and not task.assign_ms
        if task.is_live and task.deadline_ms and work.now_ms >= task.deadline_ms and not is_held_back:
            last = f", last: {task.note}" if task.note else ""
            work.end_task(device, TaskState.UNKNOWN, f"silent until its deadline{last}")


def _advance(work: Work) -> bool:
    """One step onwards, if one is due: open a wave, pass it, or complete the rollout."""
    number = work.current_wave
    wave = work.waves[number]
    if wave.is_over:
        if not any(tally.counts.live for tally in work.tally):
            work.complete()
        return False
    if wave.state is WaveState.PENDING:
        work.open_wave(number)
        _judge_wave(work)
        return True
    is_last = number == len(work.waves) - 1
    if wave.state is not WaveState.SOAKING or work.now_ms < wave.soak_until_ms:
        return False
    if is_last and any(tally.counts.live for tally in work.tally):
        return False
    if problem := work.judge_behaviour(number):
        work.fail_wave(number, problem)
        return False
    work.move_wave(number, WaveState.PASSED, work.judge(number)[1])
    return True


def _dispatch(work: Work, tick: ev.Tick) -> None:
    held = {group: f"rollout {other} holds it" for group, other in tick.busy_groups.items()}
    mine = held_groups(work.plan, work.tasks)
    held.update((group, f"{device} is not settled") for group, device in mine.items())
    for wave in range(work.current_wave + 1):
        if not work.tally[wave].has(UNSENT):
            continue
        for device in work.plan.waves[wave]:
            if work.tasks[device].state in UNSENT:
                _dispatch_one(work, device, tick.closed, held)


def _dispatch_one(work: Work, device: str, closed: Mapping[str, str], held: dict[str, str]) -> None:
    planned, state = work.plan.by_device[device], work.tasks[device].state
    if planned.site in closed:
        if state is not TaskState.WAIT_WINDOW:
            work.move_task(device, TaskState.WAIT_WINDOW)
        work.note(device, closed[planned.site])
        return
    blocking = [f"redundancy group {group}: {held[group]}" for group in planned.groups if group in held]
    if blocking:
        if state is TaskState.WAIT_WINDOW:
            work.move_task(device, TaskState.QUEUED)
        work.note(device, blocking[0])
        return
    held.update((group, f"{device} is not settled") for group in planned.groups)
    work.move_task(device, TaskState.WAIT_COURIER if planned.link is Link.COURIER else TaskState.SENDING)
    work.note(device, "")
    work.commands.append(_deliver(work, device))


def _deliver(work: Work, device: str) -> ev.Deliver:
    return deliver_command(work.plan, work.tasks[device], work.now_ms)


def deliver_command(plan: RolloutPlan, task: DeviceTask, now_ms: int) -> ev.Deliver:
    """The command that brings a task's package and assignment to its device."""
    planned = plan.by_device[task.device]
    return ev.Deliver(
        id=task.id,
        rollout=plan.id,
        device=task.device,
        site=planned.site,
        link=planned.link,
        package_sha256=planned.package_sha256,
        package_bytes=planned.package_bytes,
        seq=task.seq,
        plan_digest=plan.digest,
        not_before_ms=now_ms,
    )


def _judge_wave(work: Work) -> None:
    number = work.current_wave
    wave = work.waves[number]
    if wave.state not in (WaveState.OPEN, WaveState.SOAKING):
        return
    judgement, story = work.judge(number)
    if judgement is Judgement.FAILS:
        work.fail_wave(number, story)
    elif judgement is Judgement.HOLDS and wave.state is WaveState.OPEN:
        work.move_wave(number, WaveState.SOAKING, story)


# What devices say, and what those who talk to them say


def _staged(work: Work, event: ev.Staged) -> None:
    task = work.live_task(event.device)
    if task is None or work.state is not RolloutState.RUNNING:
        return
    # A courier may be on the way with the same assignment: then this is not the first that leaves.
    is_first = task.state is TaskState.SENDING and not task.assign_ms
    if task.state is TaskState.SENDING:
        work.move_task(event.device, TaskState.STAGED)
    elif task.state not in (TaskState.STAGED, TaskState.TRIAL):
        return
    if is_first:
        work.change(event.device, assign_ms=event.now_ms, note="")
        work.announce("task.assign", event.device, package=work.plan.by_device[event.device].package_sha256)
    work.commands.append(ev.Assign(task.id, event.device, is_first))


def _handed_out(work: Work, event: ev.HandedOut) -> None:
    task = work.live_task(event.device)
    if task is None or work.state is not RolloutState.RUNNING or task.state in UNSENT:
        return
    if task.state is TaskState.WAIT_COURIER:
        work.move_task(event.device, TaskState.SENDING)
    elif work.plan.by_device[event.device].link is not Link.COURIER:
        # Its link is down, so a courier goes as well: he takes days where the link takes minutes.
        deadline_ms = event.now_ms + work.policy.deadline_ms(Link.COURIER)
        if deadline_ms > task.deadline_ms:
            work.change(event.device, deadline_ms=deadline_ms)
    if not task.assign_ms:
        work.change(event.device, assign_ms=event.now_ms, note="a courier has it")
        work.announce("task.assign", event.device, "handed to a courier")


def _progressed(work: Work, event: ev.Progressed) -> None:
    task = work.live_task(event.device)
    if task is None or task.state not in (TaskState.STAGED, TaskState.TRIAL):
        return
    if event.state is TaskState.TRIAL and task.state is TaskState.STAGED:
        work.move_task(event.device, TaskState.TRIAL)
    work.note(event.device, event.reason)


def _attempt_failed(work: Work, event: ev.AttemptFailed) -> None:
    task = work.live_task(event.device)
    if task is None:
        return
    work.change(event.device, attempts=task.attempts + 1, note=event.reason)
    if not event.retryable and not task.assign_ms:
        work.end_task(event.device, TaskState.REFUSED, event.reason)


def _declined(work: Work, event: ev.Declined) -> None:
    task = work.live_task(event.device)
    if task is not None and task.state is TaskState.STAGED:
        work.end_task(event.device, TaskState.REFUSED, event.reason)


def _observed(work: Work, event: ev.Observed) -> None:
    task = work.tasks.get(event.device)
    if task is None or task.state not in GOOD:
        return
    if (task.alarmed_pumps, task.drifting_pumps) != (event.alarmed_pumps, event.drifting_pumps):
        work.change(event.device, alarmed_pumps=event.alarmed_pumps, drifting_pumps=event.drifting_pumps)


def _receipted(work: Work, event: ev.Receipted) -> None:
    receipt = event.receipt
    task = work.tasks.get(receipt.device)
    if task is None or task.id != receipt.task or task.receipt_digest == event.digest:
        return
    planned = work.plan.by_device[receipt.device]
    if receipt.package_sha256 != planned.package_sha256 or receipt.seq != task.seq:
        work.announce("receipt.ignored", receipt.device, "it is for another assignment", receipt=event.digest)
        return
    target = _state_told(receipt)
    if target not in TASK_MOVES[task.state]:
        _contradicted(work, task, target, event)
        return
    work.change(
        receipt.device,
        receipt_digest=event.digest,
        key_id=event.key_id,
        previous_sha256=receipt.previous_sha256,
        self_test=receipt.self_test,
    )
    digests = {"receipt": event.digest, "package": receipt.package_sha256}
    if receipt.token is not None:
        digests["downgrade"] = receipt.token
    permit = f"permit {receipt.permit}" if receipt.permit else ""
    work.end_task(receipt.device, target, "; ".join(word for word in (receipt.reason, permit) if word), **digests)
    _judge_earlier_wave(work, planned.wave)


def _contradicted(work: Work, task: DeviceTask, target: TaskState, event: ev.Receipted) -> None:
    # Repeating a command makes the device repeat its word; only another word is news.
    if target is task.state or {target, task.state} <= GOOD:
        return
    reason = f"it said {task.state} before and says {target} now"
    work.announce("receipt.contradicts", task.device, reason, receipt=event.digest)
    if work.state is RolloutState.RUNNING and task.state in GOOD:
        work.stop(f"{task.device}: {reason}")


def _judge_earlier_wave(work: Work, number: int) -> None:
    # A late receipt may turn a passed wave bad; the next ones must not go on as if nothing were.
    if work.state is not RolloutState.RUNNING or work.waves[number].state is not WaveState.PASSED:
        return
    judgement, story = work.judge(number)
    if judgement is Judgement.FAILS:
        work.stop(f"wave {number + 1} after it passed: {story}")


def _state_told(receipt: Receipt) -> TaskState:
    # A device that says "committed" and runs something else contradicts itself.
    is_good = receipt.outcome in (Outcome.COMMITTED, Outcome.ALREADY)
    if is_good and receipt.active_sha256 != receipt.package_sha256:
        return TaskState.FAILED_INCONSISTENT
    return TASK_OF_OUTCOME[receipt.outcome]


_HANDLERS: Mapping[type[Any], Callable[[Work, Any], None]] = {
    ev.Freeze: _freeze,
    ev.Approve: _approve,
    ev.Start: _start,
    ev.Tick: _tick,
    ev.Staged: _staged,
    ev.HandedOut: _handed_out,
    ev.Progressed: _progressed,
    ev.AttemptFailed: _attempt_failed,
    ev.Declined: _declined,
    ev.Receipted: _receipted,
    ev.Observed: _observed,
    ev.Halt: _halt,
    ev.Resume: _resume,
    ev.Abort: _abort,
    ev.Supersede: _supersede,
    ev.GiveWay: _give_way,
    ev.Retire: _retire,
    ev.Revert: _revert,
    ev.RevertEnded: _revert_ended,
}
