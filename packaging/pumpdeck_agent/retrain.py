"""Retrain requests: a device says that a pump needs a new model; the console decides."""

from __future__ import annotations

from pumpdeck_agent.config import AgentConfig
from pumpdeck_agent.outbox import Outgoing
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from pumpdeck_fleet.core.receipts import RetrainRequest, ReturnKind

REQUEST_FORMAT = 1
REASON_MAX_CHARACTERS = 500
# One request says it all; more of them would only push telemetry out of the outbox.
EVERY_MS = 600_000


class RetrainDesk:
    """Puts retrain requests into the outbox, one a pump and ten minutes."""

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
        last_ms = self._asked_ms.get(pump.tag)
        if last_ms is not None and 0 <= now_ms - last_ms < EVERY_MS:
            return False
        package = self._scorer.loaded
        sha256 = "" if package is None else package.sha256
        request = RetrainRequest(REQUEST_FORMAT, self._config.device, pump.tag, now_ms, trigger, reason.strip(), sha256)
        self._scorer.put([Outgoing(ReturnKind.RETRAIN_REQUEST, canonical.encode(request), pump.tag, now_ms)])
        self._asked_ms[pump.tag] = now_ms
        return True
