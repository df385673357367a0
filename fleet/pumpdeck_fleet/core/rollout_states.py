"""The states of a rollout, its waves and its device tasks, and the tables of their moves. What no table holds cannot happen."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

from pumpdeck_fleet.core.errors import IllegalMoveError
from pumpdeck_fleet.core.receipts import Outcome


class RolloutState(enum.StrEnum):
    """Where a rollout stands."""

    DRAFT = "DRAFT"
    PLANNED = "PLANNED"
    APPROVED = "APPROVED"
    RUNNING = "RUNNING"
    HALTED = "HALTED"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"
    REVERT_INCOMPLETE = "REVERT_INCOMPLETE"


class WaveState(enum.StrEnum):
    """Where a wave stands."""

    PENDING = "PENDING"
    OPEN = "OPEN"
    SOAKING = "SOAKING"
    PASSED = "PASSED"
    FAILED = "FAILED"


class TaskState(enum.StrEnum):
    """Where one device's task stands."""

    QUEUED = "QUEUED"
    WAIT_WINDOW = "WAIT_WINDOW"
    WAIT_COURIER = "WAIT_COURIER"
    SENDING = "SENDING"
    STAGED = "STAGED"
    TRIAL = "TRIAL"
    COMMITTED = "COMMITTED"
    REFUSED = "REFUSED"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED_INCONSISTENT = "FAILED_INCONSISTENT"
    UNKNOWN = "UNKNOWN"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    ALREADY = "ALREADY"


GOOD = frozenset({TaskState.COMMITTED, TaskState.ALREADY})
BAD = frozenset({TaskState.REFUSED, TaskState.ROLLED_BACK, TaskState.FAILED_INCONSISTENT})
UNSENT = frozenset({TaskState.QUEUED, TaskState.WAIT_WINDOW})
LIVE = UNSENT | {TaskState.WAIT_COURIER, TaskState.SENDING, TaskState.STAGED, TaskState.TRIAL}
"""A live task may still change what its device runs; a device has at most one over all rollouts."""

TASK_OF_OUTCOME: Mapping[Outcome, TaskState] = {
    Outcome.COMMITTED: TaskState.COMMITTED,
    Outcome.ALREADY: TaskState.ALREADY,
    Outcome.REFUSED: TaskState.REFUSED,
    Outcome.ROLLED_BACK: TaskState.ROLLED_BACK,
    Outcome.FAILED_INCONSISTENT: TaskState.FAILED_INCONSISTENT,
}
RECEIPTED = frozenset(TASK_OF_OUTCOME.values())

ROLLOUT_MOVES: Mapping[RolloutState, frozenset[RolloutState]] = {
    RolloutState.DRAFT: frozenset({RolloutState.PLANNED, RolloutState.ABORTED}),
    RolloutState.PLANNED: frozenset({RolloutState.APPROVED, RolloutState.ABORTED}),
    RolloutState.APPROVED: frozenset({RolloutState.RUNNING, RolloutState.ABORTED}),
    RolloutState.RUNNING: frozenset(
        {RolloutState.HALTED, RolloutState.COMPLETED, RolloutState.ABORTED, RolloutState.REVERTING}
    ),
    RolloutState.HALTED: frozenset({RolloutState.RUNNING, RolloutState.ABORTED, RolloutState.REVERTING}),
    RolloutState.COMPLETED: frozenset({RolloutState.REVERTING}),
    RolloutState.ABORTED: frozenset({RolloutState.REVERTING}),
    RolloutState.REVERTING: frozenset({RolloutState.REVERTED, RolloutState.REVERT_INCOMPLETE}),
    RolloutState.REVERTED: frozenset(),
    RolloutState.REVERT_INCOMPLETE: frozenset({RolloutState.REVERTING}),
}

# FAILED leads back to OPEN only when a person resumes and the counts hold by then, after late receipts.
WAVE_MOVES: Mapping[WaveState, frozenset[WaveState]] = {
    WaveState.PENDING: frozenset({WaveState.OPEN}),
    WaveState.OPEN: frozenset({WaveState.SOAKING, WaveState.FAILED}),
    WaveState.SOAKING: frozenset({WaveState.PASSED, WaveState.FAILED}),
    WaveState.FAILED: frozenset({WaveState.OPEN}),
    WaveState.PASSED: frozenset(),
}

_LEFT_ALONE = frozenset({TaskState.UNKNOWN, TaskState.CANCELLED, TaskState.SUPERSEDED})
TASK_MOVES: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.WAIT_WINDOW, TaskState.WAIT_COURIER, TaskState.SENDING})
    | RECEIPTED
    | _LEFT_ALONE,
    TaskState.WAIT_WINDOW: frozenset({TaskState.QUEUED, TaskState.WAIT_COURIER, TaskState.SENDING})
    | RECEIPTED
    | _LEFT_ALONE,
    TaskState.WAIT_COURIER: frozenset({TaskState.SENDING}) | RECEIPTED | _LEFT_ALONE,
    TaskState.SENDING: frozenset({TaskState.STAGED, TaskState.TRIAL}) | RECEIPTED | _LEFT_ALONE,
    # From here on the assignment may be in the device's hands: nothing but a receipt or silence ends it.
    TaskState.STAGED: frozenset({TaskState.TRIAL, TaskState.UNKNOWN}) | RECEIPTED,
    TaskState.TRIAL: frozenset({TaskState.UNKNOWN}) | RECEIPTED,
    TaskState.UNKNOWN: RECEIPTED,
    TaskState.COMMITTED: frozenset(),
    TaskState.ALREADY: frozenset(),
    TaskState.REFUSED: frozenset(),
    TaskState.ROLLED_BACK: frozenset(),
    TaskState.FAILED_INCONSISTENT: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.SUPERSEDED: frozenset(),
}

S = TypeVar("S", bound=enum.StrEnum)


def check_move(table: Mapping[S, frozenset[S]], state: S, target: S, which: str) -> S:
    """`target`, when the table leads there from `state`.

    Raises:
        IllegalMoveError: it does not.
    """
    if target not in table[state]:
        raise IllegalMoveError(state.value, target.value, which)
    return target
