"""A site with real trust, real packages with real graphs, and devices that run the real agent in this process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.config import AgentConfig, AgentLimits, PumpConfig
from pumpdeck_agent.enrol import DeviceIdentity, create_device
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.rpc_server import answer_frame
from pumpdeck_agent.trial import TrialReport, TrialRequest
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem, OpenFile
from pumpdeck_fleet.core.receipts import RECEIPT_PAYLOAD_TYPE, SelfTest
from pumpdeck_fleet.core.rpc import FrameDecoder, Op
from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from pumpdeck_sample.drills.packages import (
    CENTRE,
    CHANNELS,
    LIMIT,
    NAMES,
    NOW_MS,
    SCALE,
    WINDOW_S,
    block,
    golden,
    package,
    quiet_rows,
)
from support.trust import SampleSite

__all__ = ["CENTRE", "CHANNELS", "LIMIT", "NAMES", "NOW_MS", "SCALE", "WINDOW_S", "block", "golden", "package", "quiet_rows"]

PASSED = TrialReport(True, "", SelfTest(24, 0.0, True, 20.0, 40.0, 60.0))


class UnsyncedFileSystem(RealFileSystem):
    """A real disk without syncs: what a cut would take is asked of `ForgetfulDisk`, not of this machine."""

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        handle = super().open_write(path, truncate=truncate)
        handle.fsync = lambda: None  # type: ignore[method-assign]
        return handle

    def fsync_dir(self, path: Path) -> None:
        pass


class MemoryLocks:
    """Locks for devices on a disk in memory: one thread, nobody to keep out."""

    def hold(self, path: Path, wait_s: float) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass
class ScriptedRunner:
    """A trial runner that says what the test wants and counts how often it was asked."""

    report: TrialReport = PASSED
    requests: list[TrialRequest] = field(default_factory=list)

    def run(self, request: TrialRequest) -> TrialReport:
        self.requests.append(request)
        return self.report


class LoopChannel(RpcClient):
    """A conversation with an agent in this process: every frame is encoded and decoded on both sides."""

    def __init__(self, agent: Agent) -> None:
        self._decoding = FrameDecoder()
        self._answers = bytearray()
        self.agent = agent
        super().__init__(self._deliver, self._answer, name=agent.config.device)

    def _deliver(self, data: bytes) -> None:
        for frame in self._decoding.feed(data):
            self._answers += answer_frame(self.agent, frame)

    def _answer(self, count: int) -> bytes:
        data = bytes(self._answers[:count])
        del self._answers[:count]
        return data


class Bench:
    """One site, one device, and what tests do with them again and again."""

    def __init__(
        self,
        folder: Path,
        *,
        fs: FileSystem | None = None,
        root: Path | None = None,
        runner: Any = None,
        limits: AgentLimits | None = None,
        locks: Any = None,
        tags: tuple[str, ...] = ("P-101A", "P-101B"),
        site: SampleSite | None = None,
        device: str = "gannet-d1",
    ) -> None:
        self.site = site or SampleSite(folder)
        self.device = device
        self.tags = tags
        self.fs = fs or UnsyncedFileSystem()
        self.root = root or folder / "devices" / device
        self.clock = FixedClock(NOW_MS)
        self.runner = runner or ScriptedRunner()
        self.limits = limits or AgentLimits(keep_free_bytes=0, lock_wait_s=0.5)
        self.platform = Platform(self.fs, self.clock, locks or MemoryLocks(), lambda: False)
        self.config = AgentConfig(1, device, "gannet", "edge-x86", tuple(PumpConfig(tag, "esp") for tag in tags))
        self.identity: DeviceIdentity = create_device(self.fs, self.root, self.config, self.site.root)

    def agent(self) -> Agent:
        """The agent, as after a restart."""
        return Agent(self.root, platform=self.platform, runner=self.runner, limits=self.limits)

    def channel(self) -> LoopChannel:
        """A new conversation with a restarted agent."""
        return LoopChannel(self.agent())

    def assign(self, built: BuiltPackage, task: str = "task-1") -> dict[str, bytes]:
        """Release and assign at the site; the files for the device."""
        self.site.trust.release([PackageRelease(built, {"esp-health": 1})], self.site.keys.release)
        request = AssignmentRequest(self.device, built.sha256, task)
        self.site.trust.assign([request], self.site.keys.laptops[0])
        return dict(self.site.trust.files_for(self.device))

    def install(self, built: BuiltPackage, task: str = "task-1") -> dict[str, Any]:
        """Push, assign and answer: the header of the `assign` answer with the verified receipt under `receipt`."""
        files = self.assign(built, task)
        channel = self.channel()
        push_blob(channel, built.sha256, built.data)
        return self.send_assignment(channel, files)

    def send_assignment(self, channel: RpcClient, files: Mapping[str, bytes]) -> dict[str, Any]:
        listed = [{"name": name, "bytes": len(data)} for name, data in files.items()]
        header, body = channel.call(Op.ASSIGN, {"files": listed}, b"".join(files.values()))
        return {**header, "receipt": self.receipt(body) if body else None}

    def receipt(self, envelope: bytes) -> dict[str, Any]:
        """The verified payload of a receipt envelope."""
        keys = {self.identity.key_id: self.identity.public_pem}
        payload = verify_dsse(envelope, RECEIPT_PAYLOAD_TYPE, keys, 64 * 1024)
        return dict(canonical.parse_json(payload, "receipt", max_bytes=64 * 1024))

    def status(self) -> dict[str, Any]:
        """The device's status."""
        return dict(self.agent().status().fields["state"])

    def spool(self, name: str, rows: Mapping[str, np.ndarray], at_ms: np.ndarray) -> None:
        """Write a spool CSV with these rows for each tag."""
        lines = [",".join(["time", "pump", *NAMES])]
        for place, at in enumerate(at_ms.tolist()):
            for tag, values in rows.items():
                cells = ["" if np.isnan(v) else repr(float(v)) for v in values[place]]
                lines.append(",".join([str(at), tag, *cells]))
        handle = self.fs.open_write(self.root / "spool" / "in" / name)
        handle.write(("\n".join(lines) + "\n").encode("utf-8"))
        handle.fsync()
        handle.close()
        self.fs.fsync_dir(self.root / "spool" / "in")


def without_limits(limits: AgentLimits, **changes: Any) -> AgentLimits:
    """Other limits."""
    return replace(limits, **changes)


