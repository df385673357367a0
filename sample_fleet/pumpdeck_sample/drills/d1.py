"""D1: the power fails before, after and within every storage operation, three file systems over, also while it recovers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.receipts import Outcome, Receipt
from pumpdeck_sample.drills.bench import parse_receipt, receipts
from pumpdeck_sample.drills.disk import Forgotten, Image, RecordingDisk, Step
from pumpdeck_sample.drills.losses import Medium, Model
from pumpdeck_sample.drills.scenarios import Said, Scenario, Stories, Word

FAILURES = ("bricked", "wrong_model", "cannot_retry", "lost", "leaked")
Key = frozenset[tuple[tuple[str, ...], bytes | None]]


@dataclass(frozen=True)
class Effort:
    """How hard to try: subsets of names at a point, subsets while it recovers, and every how many-th state is cut again."""

    subsets: int = 24
    again_subsets: int = 4
    again_every: int = 4


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
        self._seen: dict[object, tuple[str, str] | None] = {}
        self._finished: dict[object, tuple[str, str] | None] = {}

    def run(self, scenario: Scenario, seed: int, *, stop_at_first: bool = False) -> None:
        """Record one good run, then look at each point of it."""
        disk = RecordingDisk(scenario.start, forgotten=self._forgotten)
        words: list[tuple[int, Word]] = []
        for word in scenario.run(self._agent(disk)):
            words.append((len(disk.steps), word))
        for point, image, model in self._cuts(scenario.start, disk.steps, self._effort.subsets, seed):
            said = [word for at, word in words if at <= point]
            self._tally.tried += 1
            self._judge(scenario, image, said, f"{scenario.name}, {model.value}, after step {point} of {len(disk.steps)}")
            if self._tally.distinct % self._effort.again_every == 0:
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
        key = (scenario.name, len(said), frozenset(image.items()))
        if key not in self._seen:
            self._tally.distinct += 1
            self._seen[key] = self._verdict(scenario, image, said)
        found = self._seen[key]
        if found is not None:
            self._tally.blame(found[0], f"{where}: {found[1]}")

    def _verdict(self, scenario: Scenario, image: Image, said: list[Word]) -> tuple[str, str] | None:
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

    def _look(self, scenario: Scenario, agent: Agent, disk: RecordingDisk, said: list[Word]) -> tuple[str, str] | None:
        """Does it run what it should, and does all it ever answered still hold?"""
        state = StateFiles(disk, agent.layout).load()
        active = state.active_sha256 if state else ""
        if state is None or (scenario.before and not active):
            return "bricked", "nothing runs"
        answer = next((word for word in said if word.said is Said.ANSWERED), None)
        allowed = {scenario.after} if answer else {scenario.before, scenario.after}
        if active not in allowed:
            return "wrong_model", f"{active[:12] or 'nothing'} runs"
        if active and not self._is_true(disk, agent, active):
            return "wrong_model", f"{active[:12]} is not what it was"
        waiting = receipts(agent, self._stories.maker)
        if any(receipt.outcome is Outcome.FAILED_INCONSISTENT for receipt in waiting):
            return "lost", "the device found itself inconsistent"
        kept = {word.said for word in said}
        if answer and Said.ACKED not in kept and self._parsed(answer) not in waiting:
            return "lost", "the receipt is not in the outbox"
        return self._lost_bytes(scenario, agent, disk, said)

    def _lost_bytes(self, scenario: Scenario, agent: Agent, disk: RecordingDisk, said: list[Word]) -> tuple[str, str] | None:
        kept = {word.said for word in said}
        digest = scenario.built.sha256
        if kept == {Said.SEALED} and not agent.installer.is_installed(digest):
            sealed = disk.files.get(disk._find(agent.layout.incoming / digest) or 0)
            state = StateFiles(disk, agent.layout).load()
            if sealed != scenario.built.data and not (state and digest in state.failed):
                return "lost", "the sealed package is gone"
        return None

    def _is_true(self, disk: RecordingDisk, agent: Agent, digest: str) -> bool:
        top = agent.layout.package(digest).parts
        found = {
            "/".join(path[len(top) :]): data
            for path, data in disk.image().items()
            if path[: len(top)] == top and data is not None
        }
        return found == self._stories.truth.get(digest)

    def _parsed(self, word: Word) -> Receipt:
        return parse_receipt(word.data, self._stories.maker.identity)

    def _finish(self, scenario: Scenario, disk: RecordingDisk, said: list[Word]) -> tuple[str, str] | None:
        """Ask for the same again: it must come to the same end, once, and leave nothing lying about."""
        is_acked = any(word.said is Said.ACKED for word in said)
        key: object = (scenario.name, len(said), frozenset(disk.image().items()))
        if key not in self._finished:
            self._finished[key] = self._retry(scenario, disk, is_acked, said)
        return self._finished[key]

    def _retry(
        self, scenario: Scenario, disk: RecordingDisk, is_acked: bool, said: list[Word]
    ) -> tuple[str, str] | None:
        try:
            words = {word.said: word for word in scenario.run(self._agent(disk))}
            agent = self._agent(disk)
            agent.resume()
        except (PumpdeckError, OSError) as error:
            return "cannot_retry", f"{type(error).__name__}: {error}"
        receipt = self._parsed(words[Said.ANSWERED])
        if (receipt.task, receipt.outcome) != (scenario.task, scenario.outcome):
            return "cannot_retry", f"ends with {receipt.outcome.value}: {receipt.reason}"
        for word in said:
            if word.said is Said.ANSWERED and word.data != words[Said.ANSWERED].data:
                return "lost", "the same assignment got another receipt"
            if word.said is Said.COLLECTED and not _counter(word) < _counter(words[Said.COLLECTED]):
                return "lost", "a return index's counter was given twice"
        del is_acked
        return self._end(scenario, agent, disk)

    def _end(self, scenario: Scenario, agent: Agent, disk: RecordingDisk) -> tuple[str, str] | None:
        state = StateFiles(disk, agent.layout).load()
        if state is None or state.active_sha256 != scenario.after or not self._is_true(disk, agent, scenario.after):
            return "wrong_model", "another model runs in the end"
        if scenario.outcome is Outcome.COMMITTED and state.previous_sha256 != scenario.before:
            return "lost", "the way back is gone"
        left = [path for path in disk.image() if path[-1].endswith(".part")]
        stored = {path[3] for path in disk.image() if path[2:3] == ("store",) and len(path) > 3}
        waiting = [path[-1] for path in disk.image() if path[2:3] in (("incoming",), ("outbox",)) and len(path) > 3]
        if left or waiting or stored != state.packages_in_use:
            return "leaked", f"{(*left, *waiting, *(stored - state.packages_in_use))[:2]}"
        return None


def _counter(word: Word) -> int:
    from base64 import b64decode

    from pumpdeck_fleet.core import canonical

    size = int.from_bytes(word.data[:4], "big")
    envelope = canonical.parse_json(word.data[4 : 4 + size], "index", max_bytes=1 << 24)
    payload = canonical.parse_json(b64decode(envelope["payload"]), "index", max_bytes=1 << 24)
    return int(payload["counter"])


def drill_crashes(stories: Stories, effort: Effort, seed: int = 1) -> Tally:
    """D1 over all scenarios."""
    tally = Tally()
    for number, scenario in enumerate(stories.scenarios):
        CrashDrill(stories, effort, tally).run(scenario, seed + number)
    return tally
