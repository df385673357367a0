"""What a running agent does about its own slot: confirm that it works, notice that another shall run. Signs nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pumpdeck_agent import slot_record as moves
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, SlotRecord
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_fleet.core.receipts import AgentReceipt, Outcome

RECEIPT_FORMAT = 1
_REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class AgentReceipts:
    """Writes this device's receipts on its agent."""

    device: str
    platform: Platform

    def write(self, record: SlotRecord, build: AgentBuild, outcome: Outcome, reason: str = "") -> AgentReceipt:
        """The receipt for a release that ends in `outcome`; `record` is the one before the record that will carry it."""
        return AgentReceipt(
            format=RECEIPT_FORMAT,
            device=self.device,
            sha256=build.sha256,
            version=build.version,
            serial=build.serial,
            outcome=outcome,
            reason=reason[:_REASON_MAX],
            active_sha256=record.active.sha256,
            previous_sha256=record.previous.sha256 if record.previous else "",
            counter=record.counter + 1,
            at_ms=self.platform.clock.now_ms(),
            clock_synced=self.platform.is_clock_synced(),
        )


def is_on_probation(slots: SlotFiles) -> bool:
    """True when this very process is the agent that must still show that it works."""
    record = slots.load()
    return record is not None and record.phase is SlotPhase.PROBATION and slots.runs(record.active)


def confirm(slots: SlotFiles, receipts: AgentReceipts) -> bool:
    """Called by an agent that has shown that it works: when it is on probation it stays. True when that was done now."""
    if not is_on_probation(slots):
        return False
    with slots.lock():
        record = slots.load()
        if record is None or record.phase is not SlotPhase.PROBATION:
            return False
        slots.save(moves.confirm(record, receipts.write(record, record.active, Outcome.COMMITTED)))
    return True


def successor_command(slots: SlotFiles) -> list[str]:
    """How this process starts anew as the agent that shall run now; empty while it is that agent, or stands in no slot."""
    record = slots.load()
    if record is None or slots.runs(record.active) or not slots.is_own():
        return []
    return [sys.executable, "-s", str(slots.launcher), *sys.argv[1:]]
