"""The page on the stick for the person who carries it: three lines, plain words, no digest to compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pumpdeck_agent.upgrade_from import NO_AGENT, AgentVisit
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.sizes import size_words

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

_LINE_MAX = 300
_STORIES = {
    "committed": "The new model was tried, is good and runs now.",
    "already": "The model on this stick runs already. Nothing was changed.",
    "rolled_back": "The new model failed its trial. The model from before runs on.",
    "failed_inconsistent": "The new model failed. The device went back to a model it can prove.",
    "refused": "Nothing was changed.",
    "waits": "The new model is on the device and waits to be tried.",
    "none": "The stick brings nothing for this device. Nothing was changed.",
}
_AGENT_STORIES = {
    "committed": " The program on the device was renewed.",
    "rolled_back": " The new program failed; the one from before runs on.",
    "refused": " The program on the device was not renewed.",
    "probation": " The program on the device is renewed at its next start.",
}


@dataclass(frozen=True, slots=True)
class VisitWords:
    """What the page tells: how the installing ended and what was put on the stick. `is_done`: the stick may go.

    `problem` says why nothing goes back to the office, `readers` who can read what does (none: anybody).
    """

    outcome: str
    reason: str
    active: str
    returned: int
    returned_bytes: int
    is_done: bool
    problem: str = ""
    readers: tuple[str, ...] = ()
    agent: AgentVisit = NO_AGENT


def page(agent: Agent, words: VisitWords) -> str:
    """Three lines."""
    platform = agent.platform
    clock = "" if platform.is_clock_synced() else " (by a clock that is not proven)"
    pumps = ", ".join(pump.tag for pump in agent.config.pumps)
    story = _STORIES.get(words.outcome, "Nothing was changed.")
    reason = " ".join(words.reason.split())
    why = f" Why: {reason}" if reason and words.outcome not in ("committed", "already") else ""
    why += _AGENT_STORIES.get(words.agent.outcome, "")
    if words.agent.outcome in ("refused", "rolled_back") and words.agent.reason:
        why += f" Why: {' '.join(words.agent.reason.split())}"
    if words.problem:
        last = f"Use another stick: nothing goes back to the office on this one. Why: {words.problem}"
    elif not words.is_done:
        last = "Leave the stick in: the device is still writing what goes back to the office."
    else:
        size = size_words(words.returned_bytes)
        whose = f", readable by {', '.join(words.readers)} alone" if words.readers else ""
        last = f"You may pull the stick. Take it back to the office: {words.returned} things ({size}) are on it{whose}."
    lines = (
        f"{agent.config.device} at {agent.config.site}, pumps {pumps}, {format_ms(platform.clock.now_ms())}{clock}",
        f"{story}{why}"[:_LINE_MAX],
        last[:_LINE_MAX],
    )
    return "\n".join(lines) + "\n"
