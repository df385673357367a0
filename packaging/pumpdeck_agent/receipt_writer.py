"""What a receipt says: a pure function of the state, the task and how it ended. Signing is `receipts.Pen`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.state import Candidate, DeviceState
from pumpdeck_fleet.core.receipts import Outcome, Receipt, SelfTest, ShadowSketch

RECEIPT_FORMAT = 1
_REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured on the way: the trial's figures, and what shadow scoring saw by tag."""

    self_test: SelfTest | None = None
    shadow: Mapping[str, ShadowSketch] | None = None


_NONE = Evidence()


@dataclass(frozen=True, slots=True)
class ReceiptWriter:
    """Writes this device's receipts."""

    device: str
    platform: Platform
    runtime_version: str

    def write(
        self, state: DeviceState, task: Candidate, outcome: Outcome, reason: str, evidence: Evidence = _NONE
    ) -> Receipt:
        """The receipt for a task that ends in `outcome`; `state` is the one before the record that will carry it."""
        is_commit = outcome is Outcome.COMMITTED
        return Receipt(
            format=RECEIPT_FORMAT,
            device=self.device,
            task=task.task,
            package_sha256=task.package.sha256,
            seq=task.seq,
            outcome=outcome,
            reason=reason[:_REASON_MAX],
            active_sha256=task.package.sha256 if is_commit else state.active_sha256,
            previous_sha256=state.active_sha256 if is_commit else state.previous_sha256,
            counter=state.counter + 1,
            at_ms=self.platform.clock.now_ms(),
            clock_synced=self.platform.is_clock_synced(),
            agent_version=AGENT_VERSION,
            runtime_version=self.runtime_version,
            self_test=evidence.self_test,
            permit=task.permit,
            token=task.token,
            shadow=evidence.shadow,
        )
