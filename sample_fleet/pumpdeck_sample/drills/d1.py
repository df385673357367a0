"""D1: the power fails before, after and within every storage operation, three file systems over, also while it recovers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_sample.drills.bench import parse_receipt
from pumpdeck_sample.drills.checks import (
    Finding,
    is_answered,
    leftovers,
    lost_bytes,
    lost_metadata,
    lost_receipt,
    unused_word,
    word_taken_twice,
)
from pumpdeck_sample.drills.disk import Forgotten, Image, RecordingDisk, Step
from pumpdeck_sample.drills.losses import Medium, Model
from pumpdeck_sample.drills.scenarios import Said, Scenario, Stories, Word

FAILURES = ("bricked", "wrong_model", "cannot_retry", "lost", "leaked")


@dataclass(frozen=True)
class Effort:
    """How hard to try: subsets of names at a point, subsets while it recovers, and every how many-th state is cut again.

    A state that several cuts leave is cut again once, in as many ways as those cuts together would have tried.
    """

    subsets: int = 64
    again_subsets: int = 24
    again_every: int = 1


QUICK = Effort(subsets=4, again_subsets=1, again_every=40)
FULL = Effort()


@dataclass
class Tally:
    """What was tried and what was found. `evidence` holds the first few failures in words."""

    tried: int = 0
    distinct: int = 0
    points: int = 0
    again: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    evidence: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """The flat figures."""
        failed = {name: self.failures[name] for name in FAILURES}
        return {"tried": self.tried, "distinct": self.distinct, "points": self.points, "cut_again": self.again, **failed}

    def blame(self, failure: str, words: str) -> None:
        """One more failure."""
        self.failures[failure] += 1
        if len(self.evidence) < 20:
            self.evidence.append(f"{failure}: {words}")


class CrashDrill:
    """Cuts one scenario everywhere. `forgotten` makes the disk ignore syncs, and another agent class may have defects: D1m."""

    def __init__(self, stories: Stories, effort: Effort, tally: Tally, forgotten: Forgotten | None = None) -> None:
        self._stories = stories
        self._effort = effort
        self._tally = tally
        self._forgotten = forgotten
        self._seen: dict[int, Finding | None] = {}
        self._finished: dict[int, Finding | None] = {}
        self._rebuilt: dict[int, DeviceState | None] = {}
        self._cut_again_at: set[int] = set()

    def run(self, scenario: Scenario, seed: int, *, stop_at_first: bool = False) -> None:
        """Record one good run, then look at each point of it."""
        disk = RecordingDisk(scenario.start, forgotten=self._forgotten)
        words: list[tuple[int, Word]] = []
        for word in scenario.run(self._agent(disk)):
            words.append((len(disk.steps), word))
        for point, image, model in self._cuts(scenario.start, disk.steps, self._effort.subsets, seed):
            said = [word for at, word in words if at <= point]
            self._tally.tried += 1
            state = _key(image, said)
            self._judge(scenario, image, said, f"{scenario.name}, {model.value}, after step {point} of {len(disk.steps)}")
            if state not in self._cut_again_at and self._tally.distinct % self._effort.again_every == 0:
                self._cut_again_at.add(state)
                self._cut_again(scenario, image, said, seed + point)
            if stop_at_first and self._tally.failures.total():
                return
        self._tally.points += len(disk.steps) + 1

    def _cuts(self, start: Image, steps: list[Step], subsets: int, seed: int) -> Iterator[tuple[int, Image, Model]]:
        medium, chance = Medium(start), random.Random(seed)
        for point, step in enumerate([*steps, None]):
            for model in Model:
                for image in medium.images(model, step, chance, subsets):
                    yield point, image, model
            if step is not None:
                medium.apply(step)

    def _cut_again(self, scenario: Scenario, image: Image, said: list[Word], seed: int) -> None:
        disk = RecordingDisk(image, forgotten=self._forgotten)
        self._recover(self._agent(disk))
        for point, again, model in self._cuts(image, disk.steps, self._effort.again_subsets, seed):
            self._tally.tried += 1
            self._tally.again += 1
            self._judge(scenario, again, said, f"{scenario.name}, {model.value}, cut again after step {point} of its recovery")

    def _judge(self, scenario: Scenario, image: Image, said: list[Word], where: str) -> None:
        key = _key(image, said)
        if key not in self._seen:
            self._tally.distinct += 1
            self._seen[key] = self.verdict(scenario, image, said)
        found = self._seen[key]
        if found is not None:
            self._tally.blame(found[0], f"{where}: {found[1]}")

    def verdict(self, scenario: Scenario, image: Image, said: list[Word]) -> Finding | None:
        """Start the device on what is left: None when it is alive, true to its word, and can finish; else what failed."""
        disk = RecordingDisk(image, forgotten=self._forgotten)
        try:
            agent = self._agent(disk)
            self._recover(agent)
            return self._look(scenario, agent, disk, said) or self._finish(scenario, disk, said)
        except (PumpdeckError, OSError) as error:
            return "bricked", f"{type(error).__name__}: {error}"

    def _agent(self, disk: RecordingDisk) -> Agent:
        return self._stories.maker.agent(disk, self._stories.trials.on(disk))

    @staticmethod
    def _recover(agent: Agent) -> None:
        """What `serve` does when the device starts. A staged copy that the cut damaged is dropped, and the console is told."""
        try:
            agent.resume()
        except PumpdeckError:
            agent.resume()

    def _look(self, scenario: Scenario, agent: Agent, disk: RecordingDisk, said: list[Word]) -> Finding | None:
        """Does it run what it should, and does all it ever answered still hold?"""
        state = StateFiles(disk, agent.layout).load()
        active = state.active_sha256 if state else ""
        if state is None or (scenario.before and not active):
            return "bricked", "nothing runs"
        if active not in ({scenario.after} if is_answered(said) else {scenario.before, scenario.after}):
            return "wrong_model", f"{active[:12] or 'nothing'} runs"
        if active and not self._stories.is_true(disk, active):
            return "wrong_model", f"{active[:12]} is not what it was"
        return (
            unused_word(scenario, state, active)
            or lost_receipt(agent, self._stories.maker, said)
            or lost_bytes(agent, disk, scenario, said)
            or lost_metadata(agent, disk, scenario, said)
            or self._lost_journal(disk, active)
        )

    def _lost_journal(self, disk: RecordingDisk, active: str) -> Finding | None:
        """With both copies of the state gone the journal alone must tell what runs."""
        layout = self._stories.maker.layout
        copies = {layout.state_copy(which).parts for which in (0, 1)}
        image = {path: data for path, data in disk.image().items() if path not in copies}
        key = _key(image, ())
        if key not in self._rebuilt:
            bare = RecordingDisk(image)
            self._recover(self._agent(bare))
            self._rebuilt[key] = StateFiles(bare, layout).load()
        rebuilt = self._rebuilt[key]
        found = rebuilt.active_sha256 if rebuilt else ""
        whole = StateFiles(disk, layout).load()
        if whole is not None and whole.tokens and not (rebuilt and rebuilt.tokens):
            return "lost", "the journal does not know the downgrade word that was used up"
        return None if found == active else ("lost", f"the journal says {found[:12] or 'nothing'} runs")

    def _finish(self, scenario: Scenario, disk: RecordingDisk, said: list[Word]) -> Finding | None:
        """Ask for the same again: it must come to the same end, once, and leave nothing lying about."""
        key = _key(disk.image(), said)
        if key not in self._finished:
            self._finished[key] = self._retry(scenario, disk, said)
        return self._finished[key]

    def _retry(self, scenario: Scenario, disk: RecordingDisk, said: list[Word]) -> Finding | None:
        try:
            words = {word.said: word for word in scenario.run(self._agent(disk))}
            agent = self._agent(disk)
            agent.resume()
        except (PumpdeckError, OSError) as error:
            return "cannot_retry", f"{type(error).__name__}: {error}"
        receipt = parse_receipt(words[Said.ANSWERED].data, self._stories.maker.identity)
        if (receipt.task, receipt.outcome) != (scenario.task, scenario.outcome):
            return "cannot_retry", f"ends with {receipt.outcome.value}: {receipt.reason}"
        for word in said:
            if word.said is Said.ANSWERED and word.data != words[Said.ANSWERED].data:
                return "lost", "the same assignment got another receipt"
            if word.said is Said.COLLECTED and word.number >= words[Said.COLLECTED].number:
                return "lost", "a return index's counter was given twice"
        if scenario.is_shadowed and not receipt.shadow:
            return "wrong_model", "committed without its shadow hours"
        return word_taken_twice(scenario, agent, disk) or self._end(scenario, agent, disk)

    def _end(self, scenario: Scenario, agent: Agent, disk: RecordingDisk) -> Finding | None:
        state = StateFiles(disk, agent.layout).load()
        if state is None or state.active_sha256 != scenario.after or not self._stories.is_true(disk, scenario.after):
            return "wrong_model", "another model runs in the end"
        if scenario.outcome is Outcome.COMMITTED and state.previous_sha256 != scenario.before:
            return "lost", "the way back is gone"
        left = leftovers(disk, agent.layout, state.packages_in_use)
        return ("leaked", ", ".join(left[:2])) if left else None


def _key(image: Image, said: Collection[Word]) -> int:
    """One number for a disk and how much was answered. Two states share one by chance once in 2**64."""
    return hash((len(said), frozenset(image.items())))


def drill_crashes(stories: Stories, effort: Effort, seed: int = 1) -> Tally:
    """D1 over all scenarios."""
    tally = Tally()
    for number, scenario in enumerate(stories.scenarios):
        CrashDrill(stories, effort, tally).run(scenario, seed + number)
    return tally
