"""What a device is asked to do while the power fails: from which disk, by which commands, and how it must end."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_sample.drills import bad_models
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, TrialBench, enrol, install, push
from pumpdeck_sample.drills.disk import Image, RecordingDisk
from pumpdeck_sample.drills.packages import NAMES, package

COLLECT_BYTES = 1 << 20


class Said(enum.Enum):
    """What the device has answered; from then on it must hold, whatever fails."""

    SEALED = "the package is here"
    ANSWERED = "the receipt"
    COLLECTED = "a return index"
    ACKED = "the receipt was taken"


@dataclass(frozen=True)
class Word:
    """One answer: what it says, its bytes or its number."""

    said: Said
    data: bytes = b""


@dataclass(frozen=True)
class Scenario:
    """One story. `before` runs at its start ("" for none); it must end with `outcome` for `built`. `run` yields each answer."""

    name: str
    start: Image
    built: BuiltPackage
    files: Mapping[str, bytes]
    task: str
    before: str
    outcome: Outcome

    @property
    def after(self) -> str:
        """What must be active in the end."""
        return self.built.sha256 if self.outcome is Outcome.COMMITTED else self.before

    def run(self, agent: Agent) -> Iterator[Word]:
        """Push, assign, collect, acknowledge."""
        push(agent, self.built)
        yield Word(Said.SEALED)
        yield Word(Said.ANSWERED, agent.assign(self.files).body)
        answer = agent.collect(COLLECT_BYTES)
        yield Word(Said.COLLECTED, answer.body)
        agent.ack([item["digest"] for item in answer.fields["items"]])
        yield Word(Said.ACKED)


@dataclass(frozen=True)
class Stories:
    """The scenarios of one device, and every package's true bytes by digest: what the checks compare with."""

    maker: DeviceMaker
    trials: TrialBench
    scenarios: tuple[Scenario, ...]
    truth: Mapping[str, Mapping[str, bytes]]


def make_stories(folder: Path, trials: TrialBench) -> Stories:
    """A first install, an update, a bad model, the way back, and a package that waited for a veto to end."""
    site, disk = DrillSite(folder), RecordingDisk()
    maker = enrol(disk, site)
    first, second, third = package(shift=0.0), package(shift=0.5), package(shift=0.9)
    bad = package(onnx=bad_models.other_answers(len(NAMES)), seed=3)
    found: list[Scenario] = []

    def tell(name: str, built: BuiltPackage, before: BuiltPackage | None, outcome: Outcome = Outcome.COMMITTED) -> None:
        task = f"task-{len(found)}"
        files = site.assign(built, task)
        previous = before.sha256 if before else ""
        found.append(Scenario(name, disk.image(), built, files, task, previous, outcome))

    def act(work: Callable[[Agent], object]) -> None:
        agent = maker.agent(disk, trials.on(disk))
        work(agent)
        items = agent.collect(COLLECT_BYTES).fields["items"]
        agent.ack([item["digest"] for item in items])

    tell("first install", first, None)
    act(lambda agent: install(agent, first, found[-1].files))
    tell("update", second, first)
    act(lambda agent: install(agent, second, found[-1].files))
    tell("bad model", bad, second, Outcome.ROLLED_BACK)
    tell("way back", first, second)
    set_veto(disk, maker.agent(disk, trials.on(disk)).layout, Veto("drill", 0))
    waiting = site.assign(third, "task-4")
    act(lambda agent: install(agent, third, waiting))
    lift_veto(disk, maker.agent(disk, trials.on(disk)).layout)
    found.append(Scenario("veto ended", disk.image(), third, waiting, "task-4", second.sha256, Outcome.COMMITTED))
    truth = {built.sha256: _members(built) for built in (first, second, third, bad)}
    return Stories(maker, trials, tuple(found), truth)


def _members(built: BuiltPackage) -> Mapping[str, bytes]:
    return read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=1 << 28).members()

