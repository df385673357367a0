"""D5: every byte that the device keeps is flipped in turn. It must fall back or refuse, and never run what is not true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.journal import Journal
from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core.errors import PumpdeckError, TrustError
from pumpdeck_fleet.core.receipts import Outcome, ReturnKind
from pumpdeck_sample.drills.bench import install
from pumpdeck_sample.drills.disk import Image, RecordingDisk
from pumpdeck_sample.drills.scenarios import Said, Scenario, Stories

FAILURES = ("bricked", "silent", "cannot_retry")


@dataclass
class Flips:
    """What was flipped, and what came of it."""

    tried: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    evidence: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """The flat figures."""
        ends = {name: self.ends[name] for name in ("unchanged", "fell_back", "refused", *FAILURES)}
        return {"tried": self.tried, **ends}

    def end(self, how: str, where: str) -> None:
        """One flip came to this."""
        self.ends[how] += 1
        if how in FAILURES and len(self.evidence) < 20:
            self.evidence.append(f"{how}: {where}")


@dataclass(frozen=True)
class _Ground:
    """The device before a flip: its disk, its state, what it accepted, what waits in its outbox."""

    image: Image
    state: DeviceState
    floor: object
    waiting: frozenset[bytes]


@dataclass(frozen=True)
class Extent:
    """Which bytes: every how many-th, of files whose path under the root begins so; every how many-th is also used again."""

    every: int = 1
    retry_every: int = 16
    begins: str = ""
    stop_at_first: bool = False


def drill_flips(stories: Stories, extent: Extent) -> Flips:
    """D5 on a device with an active and a previous package, and a receipt that waits."""
    flips = Flips()
    scenario = stories.named("way back")
    # A bad model was just rolled back: its receipt waits, and the previous package is the one that will be wanted next.
    ground = _ground(stories, stories.named("bad model"))
    for number, (path, at, image) in enumerate(_flipped(ground.image, extent)):
        flips.tried += 1
        where = f"byte {at} of {'/'.join(path[2:])[:60]}"
        try:
            how = _look(stories, ground, image)
            if path[-1] == "journal" and how not in FAILURES:
                how = _rebuild(stories, ground, image) or how
            if how not in FAILURES and number % extent.retry_every == 0:
                how = _retry(stories, scenario, image, is_trust=path[2:3] == ("trust",)) or how
        except (PumpdeckError, OSError) as error:
            how, where = "bricked", f"{where}: {type(error).__name__}: {error}"
        flips.end(how, where)
        if extent.stop_at_first and how in FAILURES:
            break
    return flips


def _ground(stories: Stories, scenario: Scenario) -> _Ground:
    disk = RecordingDisk(scenario.start)
    agent = stories.maker.agent(disk, stories.trials.on(disk))
    for word in scenario.run(agent):
        if word.said is Said.ANSWERED:
            break
    state = StateFiles(disk, agent.layout).load()
    if state is None:
        raise PumpdeckError("the device has no state", "drill")
    return _Ground(disk.image(), state, Accepted(disk, agent.layout, agent.config).load().floor, _outbox(agent))


def _outbox(agent: Any) -> frozenset[bytes]:
    items, _ = agent.outbox.take(1 << 24)
    return frozenset(data for item, data in items if item.kind is ReturnKind.RECEIPT)


def _flipped(image: Image, extent: Extent) -> Iterator[tuple[tuple[str, ...], int, Image]]:
    count = 0
    for path, data in sorted(image.items()):
        # What the device was told once at enrolment is not its store or state, and is not written again.
        if data is None or path[-1] in ("agent.json", "device.key", "device.pub"):
            continue
        if not "/".join(path[2:]).startswith(extent.begins):
            continue
        for at in range(len(data)):
            count += 1
            if count % extent.every == 0:
                bad = bytes([data[at] ^ 1])
                yield path, at, {**image, path: data[:at] + bad + data[at + 1 :]}


def _look(stories: Stories, ground: _Ground, image: Mapping[tuple[str, ...], bytes | None]) -> str:
    disk = RecordingDisk(image)
    agent = stories.maker.agent(disk, stories.trials.on(disk))
    agent.resume()
    state = StateFiles(disk, agent.layout).load()
    if state is None or not state.active:
        return "bricked"
    if not stories.is_true(disk, state.active.sha256):
        return "silent"
    told = any(receipt.outcome is Outcome.FAILED_INCONSISTENT for receipt in state.receipts)
    if not told and not _is_same(state, ground.state):
        return "silent"
    try:
        trust = Accepted(disk, agent.layout, agent.config).load()
    except TrustError:
        return "refused"
    if trust.floor != ground.floor:
        return "silent"
    waiting = _outbox(agent)
    if not told and not waiting <= ground.waiting:
        return "silent"
    if told or state.record != ground.state.record or waiting != ground.waiting:
        return "fell_back"
    return "unchanged"


def _rebuild(stories: Stories, ground: _Ground, image: Image) -> str:
    """With both copies of the state gone too, what the journal says must be one of its true lines, or nothing."""
    layout = stories.maker.layout
    copies = {layout.state_copy(which).parts for which in (0, 1)}
    disk = RecordingDisk({path: data for path, data in image.items() if path not in copies})
    stories.maker.agent(disk, stories.trials.on(disk)).resume()
    state = StateFiles(disk, layout).load()
    true = Journal(RecordingDisk(ground.image), layout.journal).lines()
    said = {(line.active, line.seq) for line in true} | {("", 0)}
    return "silent" if state is None or (state.active_sha256, state.seq) not in said else ""


def _is_same(found: DeviceState, before: DeviceState) -> bool:
    return replace(found, record=0) == replace(before, record=0)


def _retry(stories: Stories, scenario: Scenario, image: Image, *, is_trust: bool) -> str:
    """The way back to the previous package, which may be the damaged one, still leads there."""
    disk = RecordingDisk(image)
    agent = stories.maker.agent(disk, stories.trials.on(disk))
    agent.resume()
    try:
        install(agent, scenario.built, scenario.files)
    except PumpdeckError:
        # Without what it trusts a device must not believe anybody; it goes on with what it runs.
        return "refused" if is_trust else "cannot_retry"
    state = StateFiles(disk, agent.layout).load()
    is_there = state is not None and state.active_sha256 == scenario.after and stories.is_true(disk, scenario.after)
    return "" if is_there else "cannot_retry"
