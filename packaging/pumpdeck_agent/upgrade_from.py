"""Another agent from a stick: the same word, the same two slots and the same probation as over SSH, the bytes from files.

The word is verified before a byte of the agent is read, so that a stranger's stick fills no disk. A stick that was pulled, or
that lacks something, leaves the agent that runs.
"""

from __future__ import annotations

import platform as interpreter
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pumpdeck_agent.incoming_blob import put_blob
from pumpdeck_agent.outbox import Outgoing
from pumpdeck_agent.rpc_server import Answer
from pumpdeck_agent.slot_record import SlotPhase
from pumpdeck_fleet.core.errors import BusyError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_packaging.agent_on_stick import AgentShelf
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_stick import Stick, StickFailedError
from pumpdeck_packaging.wheel_index import this_target

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

PROBATION = "probation"
_MOST_PIECES = 64


@dataclass(frozen=True, slots=True)
class AgentVisit:
    """What became of the agent on a stick: the outcome of its receipt, `probation`, or `refused`; empty where it brings none."""

    outcome: str = ""
    version: str = ""
    reason: str = ""

    @property
    def is_on_probation(self) -> bool:
        """True when the new agent must show now that it works."""
        return self.outcome == PROBATION


NO_AGENT = AgentVisit()


def upgrade_from(agent: Agent, stick: Stick, reader: BundleReader) -> AgentVisit:
    """Take the agent that the stick brings for this site; what is refused changes nothing. Its receipt goes into the outbox.

    Raises:
        StickFailedError: the stick failed. OSError: use inside `stick_errors`.
    """
    shelf = AgentShelf(stick.fs, stick.folder, this_target(interpreter.machine(), sys.version_info[:2]))
    word = shelf.word(agent.config.site)
    if not word:
        return AgentVisit()
    try:
        answer = _carry_out(agent, shelf, {**reader.metadata(agent.config.site), AGENT_WORD_NAME: word})
        return _visit(agent, answer)
    except StickFailedError:
        raise
    except BusyError as error:
        stand = agent.agent().fields
        is_waiting = stand["phase"] == SlotPhase.PROBATION.value
        return AgentVisit(PROBATION, str(stand["version"])) if is_waiting else AgentVisit("refused", "", error.sentence())
    except PumpdeckError as error:
        return AgentVisit("refused", "", error.sentence())


def _carry_out(agent: Agent, shelf: AgentShelf, files: dict[str, bytes]) -> Answer:
    """Ask for the upgrade; bring what the device lacks, piece by piece, until it lacks nothing."""
    brought: set[str] = set()
    while True:
        try:
            return agent.upgrade(files)
        except NotFoundError as error:
            if error.which in brought or len(brought) >= _MOST_PIECES or len(error.which) != 64:
                raise
            put_blob(agent, error.which, shelf.read(error.which))
            brought.add(error.which)


def _visit(agent: Agent, answer: Answer) -> AgentVisit:
    fields = answer.fields
    if fields["phase"] == SlotPhase.PROBATION.value:
        return AgentVisit(PROBATION, str(fields["version"]))
    if answer.body:
        # Deterministic bytes: said again at every visit with such a stick, until a console has taken it in.
        agent.outbox.add([Outgoing(ReturnKind.AGENT_RECEIPT, answer.body)])
    return AgentVisit(str(fields["outcome"]), str(fields["version"]), str(fields["reason"]))
