"""What must hold on a device after a fault, each asked of the disk itself and not only of the agent."""

from __future__ import annotations

from collections.abc import Collection

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.agent import Agent
from pumpdeck_agent.config import Layout
from pumpdeck_agent.receipts import Returned
from pumpdeck_agent.recovery import OWN_TASK
from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError, ReplayError
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_sample.drills.bench import DeviceMaker, parse_receipt, receipts
from pumpdeck_sample.drills.disk import RecordingDisk
from pumpdeck_sample.drills.scenarios import Said, Scenario, Word

Finding = tuple[str, str]
"""The kind of failure, and words."""


def is_answered(said: Collection[Word]) -> bool:
    """True when the device gave its receipt already."""
    return any(word.said is Said.ANSWERED for word in said)


def lost_receipt(agent: Agent, maker: DeviceMaker, said: Collection[Word]) -> Finding | None:
    """A receipt that was handed out is in the outbox until it was taken; counters rise; no task ends twice."""
    waiting = receipts(agent, maker)
    counters = [receipt.counter for receipt in waiting]
    if len(set(counters)) != len(counters) or len({receipt.task for receipt in waiting}) != len(waiting):
        return "lost", "two receipts with one counter or for one task"
    if any(receipt.outcome is Outcome.FAILED_INCONSISTENT and receipt.task == OWN_TASK for receipt in waiting):
        return "lost", "the device found itself inconsistent"
    if any(word.said is Said.ACKED for word in said):
        return None
    answers = [parse_receipt(word.data, maker.identity) for word in said if word.said is Said.ANSWERED]
    return ("lost", "the receipt is not in the outbox") if any(one not in waiting for one in answers) else None


def lost_bytes(agent: Agent, disk: RecordingDisk, scenario: Scenario, said: Collection[Word]) -> Finding | None:
    """A sealed package stays until its task ended."""
    digest = scenario.built.sha256
    if is_answered(said) or not said or agent.installer.is_installed(digest):
        return None
    state = StateFiles(disk, agent.layout).load()
    if state is not None and (digest in state.failed or digest in state.given_up):
        return None
    sealed = disk.image().get((agent.layout.incoming / digest).parts)
    return None if sealed == scenario.built.data else ("lost", "the sealed package is gone")


def lost_metadata(agent: Agent, disk: RecordingDisk, scenario: Scenario, said: Collection[Word]) -> Finding | None:
    """What was accepted with an answered assignment is kept, and so is the counter of a return index that was handed out."""
    if is_answered(said):
        accepted = Accepted(disk, agent.layout, agent.config).load()
        if dict(accepted.kept).get("assign.json") != scenario.files["assign.json"]:
            return "lost", "the accepted metadata"
    for word in said:
        if word.said is Said.COLLECTED:
            try:
                data = disk.read_bytes(agent.layout.returned, 1024)
                counter = canonical.decode(Returned, data, "returned.json", max_bytes=1024).counter
            except (PumpdeckError, OSError):
                counter = -1
            if counter < word.number:
                return "lost", "the counter of return indexes"
    return None


def unused_word(scenario: Scenario, state: DeviceState, active: str) -> Finding | None:
    """An older package that runs was let in by a downgrade word, and that word is used up."""
    if not scenario.replay or active != scenario.after or state.tokens:
        return None
    return "lost", "the older package runs and its downgrade word is not used up"


def word_taken_twice(scenario: Scenario, agent: Agent, disk: RecordingDisk) -> Finding | None:
    """The same downgrade word in a later assignment must be refused, and change nothing."""
    if not scenario.replay:
        return None
    before = StateFiles(disk, agent.layout).load()
    try:
        agent.assign(scenario.replay)
    except ReplayError:
        same = StateFiles(disk, agent.layout).load() == before
        return None if same else ("lost", "a refused downgrade word changed the state")
    return "lost", "a downgrade word was taken twice"


def leftovers(disk: RecordingDisk, layout: Layout, in_use: Collection[str]) -> list[str]:
    """What lies on the disk and serves nothing, when nothing is under way and everything was collected."""
    found = []
    for path in disk.image():
        folder = "/".join(path[len(layout.root.parts) : -1])
        is_waiting = folder in ("incoming", "outbox")
        is_stranger = folder == "store" and path[-1] not in in_use
        if path[-1].endswith(".part") or is_waiting or is_stranger:
            found.append(f"{folder}/{path[-1]}")
    return found
