"""What a device is asked to do while the power fails: from which disk, by which commands, and how it must end."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.shadow_file import (
    SHADOW_FORMAT,
    ShadowFigures,
    ShadowRecord,
    ShadowStart,
    encode_shadow,
    shadow_path,
)
from pumpdeck_agent.state import Attempt
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.receipts import NO_TERMS, SHADOW_EDGES, Outcome, ReturnIndex, ShadowSketch, Terms
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_sample.drills import bad_models
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, TrialBench, enrol, install, push
from pumpdeck_sample.drills.disk import Image, RecordingDisk
from pumpdeck_sample.drills.packages import NAMES, NOW_MS, package

COLLECT_BYTES = 1 << 20
SHADOW_S = 3600


class Said(enum.Enum):
    """What the device has answered; from then on it must hold, whatever fails."""

    SEALED = "the package is here"
    ANSWERED = "the receipt"
    COLLECTED = "a return index"
    ACKED = "the receipt was taken"


@dataclass(frozen=True)
class Word:
    """One answer: what it says, and its bytes (the receipt) or its number (the counter of the return index)."""

    said: Said
    data: bytes = b""
    number: int = 0


@dataclass(frozen=True)
class Scenario:
    """One story. `before` runs at its start ("" for none); it must end with `outcome` for `built`. `run` yields each answer.

    `replay`: a later assignment with the same downgrade word, which must be refused in the end. `is_shadowed`: the package is
    committed only after shadow scoring.
    """

    name: str
    start: Image
    built: BuiltPackage
    files: Mapping[str, bytes]
    task: str
    before: str
    outcome: Outcome
    replay: Mapping[str, bytes] = field(default_factory=dict)
    is_shadowed: bool = False

    @property
    def after(self) -> str:
        """What must be active in the end."""
        return self.built.sha256 if self.outcome is Outcome.COMMITTED else self.before

    def run(self, agent: Agent) -> Iterator[Word]:
        """Push, assign, collect, acknowledge."""
        push(agent, self.built)
        yield Word(Said.SEALED)
        answer = agent.assign(self.files)
        if self.is_shadowed and not answer.body:
            score_beside(agent, self.built)
            answer = agent.assign(self.files)
        yield Word(Said.ANSWERED, answer.body)
        answer = agent.collect(COLLECT_BYTES)
        yield Word(Said.COLLECTED, number=_index_counter(answer.body))
        agent.ack([item["digest"] for item in answer.fields["items"]])
        yield Word(Said.ACKED)


@dataclass(frozen=True)
class Stories:
    """The scenarios of one device, and every package's true bytes by digest: what the checks compare with."""

    maker: DeviceMaker
    trials: TrialBench
    scenarios: tuple[Scenario, ...]
    truth: Mapping[str, Mapping[str, bytes]]

    def named(self, name: str) -> Scenario:
        """The scenario of that name."""
        return next(one for one in self.scenarios if one.name == name)

    def is_true(self, disk: RecordingDisk, digest: str) -> bool:
        """Is the unpacked package on the disk, byte for byte, and nothing else in its folder?"""
        return folder_of(disk, self.maker.layout.package(digest)) == self.truth.get(digest)


def folder_of(disk: RecordingDisk, folder: Path) -> dict[str, bytes]:
    """The files under a folder of the disk by their path in it."""
    top = folder.parts
    return {
        "/".join(path[len(top) :]): data
        for path, data in disk.image().items()
        if path[: len(top)] == top and data is not None
    }


def _index_counter(body: bytes) -> int:
    size = int.from_bytes(body[:4], "big")
    envelope = canonical.parse_json(body[4 : 4 + size], "return index", max_bytes=COLLECT_BYTES)
    payload = base64.b64decode(dict(envelope)["payload"])
    return canonical.decode(ReturnIndex, payload, "return index", max_bytes=COLLECT_BYTES).counter


def score_beside(agent: Agent, built: BuiltPackage) -> None:
    """What the scoring process leaves behind when the hours are over. It may be lost: then it is only done again."""
    fs, layout, tag = agent.platform.fs, agent.layout, agent.config.pumps[0].tag
    sketch = ShadowSketch(rows=60, watched_ms=SHADOW_S * 1000, differences=(0,) * (len(SHADOW_EDGES) + 1))
    figures = ShadowFigures(SHADOW_FORMAT, tag, built.sha256, NOW_MS, sketch, 0, 0)
    start = canonical.encode(ShadowStart(SHADOW_FORMAT, built.sha256, 1, (tag,)))
    fs.mkdir(layout.shadow)
    for path, data in (
        (layout.shadow / "start.json", start),
        (shadow_path(layout, tag), encode_shadow(ShadowRecord(figures, b"", b""))),
    ):
        handle = fs.open_write(path)
        handle.write(data)
        handle.close()


def make_stories(folder: Path, trials: TrialBench) -> Stories:
    """A first install, an update, a bad model, that model once more, the way back, a package that waited for a veto to end,
    one that was given up, one that is scored in the shadow first, and the way to an older package by two people's word.
    """
    site, disk = DrillSite(folder, keep_packages=9), RecordingDisk()
    maker = enrol(disk, site)
    first, second, third, fourth = (package(shift=shift) for shift in (0.0, 0.5, 0.9, 1.3))
    bad = package(onnx=bad_models.other_answers(len(NAMES)), seed=3)
    found: list[Scenario] = []

    def tell(
        name: str,
        built: BuiltPackage,
        before: BuiltPackage | None,
        outcome: Outcome = Outcome.COMMITTED,
        terms: Terms = NO_TERMS,
    ) -> None:
        task = f"task-{len(found)}"
        files = site.assign(built, task, terms)
        previous = before.sha256 if before else ""
        is_shadowed = bool(terms.shadow_s)
        found.append(Scenario(name, disk.image(), built, files, task, previous, outcome, is_shadowed=is_shadowed))

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
    act(lambda agent: install(agent, bad, found[-1].files))
    tell("bad model again", bad, second, Outcome.ROLLED_BACK, Terms(permit="WO-1", retry=True))
    tell("way back", first, second)
    set_veto(disk, maker.agent(disk, trials.on(disk)).layout, Veto("drill", 0))
    waiting = site.assign(third, "task-4")
    act(lambda agent: install(agent, third, waiting))
    lift_veto(disk, maker.agent(disk, trials.on(disk)).layout)
    found.append(Scenario("veto ended", disk.image(), third, waiting, "task-4", second.sha256, Outcome.COMMITTED))
    worn = _worn_out(disk, maker)
    found.append(Scenario("given up", worn, third, waiting, "task-4", second.sha256, Outcome.FAILED_INCONSISTENT))
    act(lambda agent: agent.resume())
    tell("shadow hours", fourth, third, terms=Terms(shadow_s=SHADOW_S))
    token = site.downgrade_word(first)
    files = site.assign(first, "task-down", token=token)
    replay = site.assign(first, "task-replay", token=token)
    down = Scenario("downgrade", disk.image(), first, files, "task-down", third.sha256, Outcome.COMMITTED, replay)
    found.append(down)
    truth = {built.sha256: _members(built) for built in (first, second, third, fourth, bad)}
    return Stories(maker, trials, tuple(found), truth)


def _worn_out(disk: RecordingDisk, maker: DeviceMaker) -> Image:
    """The disk, with an assignment that has cost as many records as it may."""
    worn = RecordingDisk(disk.image())
    files = StateFiles(worn, maker.layout)
    state = files.load()
    if state is None or state.candidate is None:
        raise PumpdeckError("nothing is staged", "drill")
    spent = Attempt(state.candidate.seq, maker.limits.max_moves)
    files.save(replace(state, record=state.record + 1, attempt=spent))
    return worn.image()


def _members(built: BuiltPackage) -> Mapping[str, bytes]:
    return read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=1 << 28).members()

