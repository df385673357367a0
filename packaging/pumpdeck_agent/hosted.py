"""One device of many in one process: what a simulator hosts. The same classes as on a device, over a shared graph cache."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pumpdeck_agent.agent import DEFAULT_LIMITS, Agent
from pumpdeck_agent.config import AgentLimits
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.rpc_server import serve_rpc
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.trial import TrialRunner


class HostedDevice:
    """Agent and scorer of one root folder; conversations and scoring may run in different threads."""

    def __init__(
        self,
        root: Path,
        *,
        platform: Platform,
        runner: TrialRunner,
        models: ModelCache,
        limits: AgentLimits = DEFAULT_LIMITS,
    ) -> None:
        self.agent = Agent(root, platform=platform, runner=runner, limits=limits)
        self._scorer = Scorer(platform, self.agent.layout, self.agent.config, limits, models)

    def rpc(self, read: BinaryIO, write: BinaryIO) -> int:
        """Carry one conversation to its end; returns the exit status."""
        serve_rpc(self.agent, read, write)
        return 0

    def score(self) -> int:
        """Score what waits in the spool; returns the number of rows."""
        return self._scorer.score_spool().rows

    def close(self) -> None:
        """Nothing is held open between calls."""
