"""Retrain requests: a device says that a pump needs a new model; the console decides."""

from __future__ import annotations

from pumpdeck_agent.config import AgentConfig, Layout
from pumpdeck_agent.local_schedule import PumpMemory, RetrainReason, RetrainRules, decide, load_memories, save_memories
from pumpdeck_agent.outbox import Outgoing
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from pumpdeck_fleet.core.receipts import RetrainRequest, ReturnKind

REQUEST_FORMAT = 1
REASON_MAX_CHARACTERS = 500
# One request says it all; more of them would only push telemetry out of the outbox.
EVERY_MS = 600_000


class RetrainDesk:
    """Puts retrain requests into the outbox, one a pump, trigger and ten minutes."""

    def __init__(self, config: AgentConfig, scorer: Scorer) -> None:
        self._config = config
        self._scorer = scorer
        self._asked_ms: dict[str, int] = {}

    def ask(self, tag: str, reason: str, now_ms: int, trigger: str = "request") -> bool:
        """Ask for a new model of this pump; False: asked a moment ago already, nothing is added.

        Raises:
            NotFoundError: the pump is not of this device.
            UsageError: no reason, or too long a one.
        """
        pump = self._config.pump(tag)
        if pump is None:
            known = ", ".join(one.tag for one in self._config.pumps)
            raise NotFoundError("is not a pump of this device", tag[:40], expected=known)
        if not 0 < len(reason.strip()) <= REASON_MAX_CHARACTERS or not reason.isprintable():
            raise UsageError("is not a reason", "reason", expected=f"1-{REASON_MAX_CHARACTERS} printable characters")
        key = f"{pump.tag} {trigger}"
        last_ms = self._asked_ms.get(key)
        if last_ms is not None and 0 <= now_ms - last_ms < EVERY_MS:
            return False
        package = self._scorer.loaded
        sha256 = "" if package is None else package.sha256
        request = RetrainRequest(REQUEST_FORMAT, self._config.device, pump.tag, now_ms, trigger, reason.strip(), sha256)
        self._scorer.put([Outgoing(ReturnKind.RETRAIN_REQUEST, canonical.encode(request), pump.tag, now_ms)])
        self._asked_ms[key] = now_ms
        return True

    def look(self, world: tuple[Platform, Layout], rules: RetrainRules) -> list[RetrainReason]:
        """Let the device's own scheduler decide on every pump, and put what it asks for into the outbox.

        Raises: OSError: the disk did not take it; the next look decides again.
        """
        platform, layout = world
        before = load_memories(platform.fs, layout)
        after: dict[str, PumpMemory] = dict(before)
        asked: list[RetrainReason] = []
        for tag, figures in self._scorer.figures().items():
            pump = self._scorer.pump(tag.lower())
            if pump is not None and figures.last_row_ms is not None:
                after[tag], reasons = decide(figures, pump.block.limit, before.get(tag), rules)
                asked += reasons
        for reason in asked:
            self.ask(reason.pump, reason.reason, platform.clock.now_ms(), reason.trigger)
            if reason.trigger == "drift":
                self._scorer.capture(reason.pump)
        # Outbox first: a cut in between asks twice, never not at all.
        if after != before:
            save_memories(platform.fs, layout, after)
        return asked
