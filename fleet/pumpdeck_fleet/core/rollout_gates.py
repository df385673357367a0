"""When a wave passes, when it must halt the rollout, and why. Pure counting over device tasks; silence is never success."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pumpdeck_fleet.core.receipts import SelfTest
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy
from pumpdeck_fleet.core.rollout_states import BAD, GOOD, LIVE, TaskState


class Judgement(enum.Enum):
    """What the counts of a wave say."""

    WAIT = "wait"
    HOLDS = "holds"
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class WaveCounts:
    """How a wave's frozen `size` splits up now. `committed` holds those that ran the package before, too."""

    size: int
    committed: int
    bad: int
    inconsistent: int
    unknown: int
    live: int


@dataclass(frozen=True, slots=True)
class WaveLimits:
    """The gate of one wave in whole devices."""

    needed: int
    bad: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one committed device behaves: its own self test and what its pumps showed since."""

    device: str
    pumps: int
    alarmed_pumps: int
    drifting_pumps: int
    self_test: SelfTest | None


class Tally:
    """How many tasks of one wave stand in each state; follows single moves, so thousands cost no more than three."""

    def __init__(self, states: Iterable[TaskState]) -> None:
        self._of = Counter(states)

    def move(self, state: TaskState, target: TaskState) -> None:
        self._of[state] -= 1
        self._of[target] += 1

    def has(self, states: Iterable[TaskState]) -> bool:
        return any(self._of[state] for state in states)

    @property
    def counts(self) -> WaveCounts:
        return WaveCounts(
            size=self._of.total(),
            committed=sum(self._of[state] for state in GOOD),
            bad=sum(self._of[state] for state in BAD),
            inconsistent=self._of[TaskState.FAILED_INCONSISTENT],
            unknown=self._of[TaskState.UNKNOWN],
            live=sum(self._of[state] for state in LIVE),
        )


def limits(size: int, wave: int, policy: RolloutPolicy) -> WaveLimits:
    """The gate of wave number `wave` (from 0) with `size` planned devices: in the first wave one failure is too many."""
    # Rounding guards against 0.07 * 100 = 7.000000000000001, which would ask for one device more than the policy says.
    needed = math.ceil(round(size * policy.committed_pct / 100, 9))
    bad = 0 if wave == 0 else math.floor(round(size * policy.bad_pct / 100, 9))
    return WaveLimits(needed, bad, math.floor(round(size * policy.unknown_pct / 100, 9)))


def judge_counts(counts: WaveCounts, gate: WaveLimits) -> tuple[Judgement, str]:
    """Whether the counts hold, fail, or must be waited for, and the reason in words.

    A task still under way counts like an unknown one: a wave never passes on silence.
    """
    if counts.inconsistent:
        return Judgement.FAILS, "a device cannot say what it runs"
    if counts.bad > gate.bad:
        return Judgement.FAILS, f"{counts.bad} of {counts.size} failed, {gate.bad} allowed"
    if counts.unknown > gate.unknown:
        return Judgement.FAILS, f"{counts.unknown} of {counts.size} unknown, {gate.unknown} allowed"
    if counts.committed + counts.live < gate.needed:
        return (
            Judgement.FAILS,
            f"at most {counts.committed + counts.live} of {counts.size} can commit, {gate.needed} needed",
        )
    if counts.committed < gate.needed or counts.unknown + counts.live > gate.unknown:
        return (
            Judgement.WAIT,
            f"{counts.committed} of {counts.size} committed, {gate.needed} needed, {counts.live} under way",
        )
    return Judgement.HOLDS, f"{counts.committed} of {counts.size} committed"


def judge_behaviour(behaviours: Iterable[Behaviour], policy: RolloutPolicy) -> str:
    """Why the wave's devices do not behave, or nothing when they do: same answer, latency, alarm rate, drift."""
    pumps = alarmed = drifting = 0
    for behaviour in behaviours:
        if (reason := _judge_self_test(behaviour, policy)) != "":
            return reason
        pumps += behaviour.pumps
        alarmed += behaviour.alarmed_pumps
        drifting += behaviour.drifting_pumps
    if alarmed * 100 > policy.alarmed_pct * pumps:
        return f"{alarmed} of {pumps} pumps alarmed since the commit, {policy.alarmed_pct:g} % allowed"
    if drifting * 100 > policy.drifting_pct * pumps:
        return f"{drifting} of {pumps} pumps drift since the commit, {policy.drifting_pct:g} % allowed"
    return ""


def _judge_self_test(behaviour: Behaviour, policy: RolloutPolicy) -> str:
    test = behaviour.self_test
    if test is None:
        return ""
    if not test.flags_equal or test.largest_difference > policy.largest_difference:
        return f"{behaviour.device} gives other answers than the golden ones (difference {test.largest_difference:g})"
    if test.p99_us > policy.latency_p99_us:
        return f"{behaviour.device} needs {test.p99_us:g} us a row (p99), {policy.latency_p99_us:g} allowed"
    return ""
