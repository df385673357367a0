"""The agent of one device: the operations a console may ask for. No module state, so one process can host many devices."""

from __future__ import annotations

import platform as interpreter
import sys
from collections.abc import Mapping
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import make_age_key
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout, read_config
from pumpdeck_agent.installer import Installation, Installer, InstallParts
from pumpdeck_agent.outbox import Outbox
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.receipt_writer import ReceiptWriter
from pumpdeck_agent.receipts import Pen
from pumpdeck_agent.return_items import close_open_segments
from pumpdeck_agent.rpc_server import Answer
from pumpdeck_agent.self_check import CheckRunner, ChildCheckRunner
from pumpdeck_agent.state import Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.status import device_status, why_wait
from pumpdeck_agent.trial import TrialRunner
from pumpdeck_agent.upgrade import UpgradeParts, Upgrader, UpgradeStand
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.rpc import SUPPORTED_VERSIONS
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME
from pumpdeck_packaging.wheel_index import this_target

DEFAULT_LIMITS = AgentLimits()
COLLECT_MAX_BYTES = 4 * 1024 * 1024


class Agent:
    """One device, by its root folder. Everything it needs of the world is an argument."""

    def __init__(
        self,
        root: Path,
        *,
        platform: Platform,
        runner: TrialRunner,
        limits: AgentLimits = DEFAULT_LIMITS,
        checks: CheckRunner | None = None,
    ) -> None:
        self.layout = Layout(root)
        self.platform = platform
        self.limits = limits
        self.config: AgentConfig = read_config(platform.fs, self.layout)
        self.outbox = Outbox(platform.fs, self.layout, limits)
        self.pen = Pen(platform.fs, self.layout)
        self._runner = runner
        self.checks = checks or ChildCheckRunner()
        self._states = StateFiles(platform.fs, self.layout)

    @cached_property
    def installer(self) -> Installer:
        """What changes the installed packages of this device."""
        runtime = runtime_version()
        parts = InstallParts(
            platform=self.platform,
            layout=self.layout,
            config=self.config,
            limits=self.limits,
            runner=self._runner,
            outbox=self.outbox,
            pen=self.pen,
            receipts=ReceiptWriter(self.config.device, self.platform, runtime),
            runtime_version=runtime,
            why_wait=lambda: why_wait(self.platform.fs, self.layout, self.config, self.platform.clock.now_ms()),
        )
        return Installer(parts)

    def hello(self, console: str, workspace: str) -> Answer:
        """Who this device is. The console's own words are not kept."""
        del console, workspace
        state = self._states.load()
        fields = {
            "agent": AGENT_VERSION,
            "runtime": runtime_version(),
            "device": self.config.device,
            "site": self.config.site,
            "key_id": self.pen.signer.key_id,
            "public_key": self.pen.signer.public_pem,
            "age_key": make_age_key(self.platform.fs, self.layout),
            "supported": list(SUPPORTED_VERSIONS),
            "pumps": [pump.tag for pump in self.config.pumps],
            "root_version": Accepted(self.platform.fs, self.layout, self.config).root_version(),
            "seq": state.seq if state else self.config.min_seq,
        }
        return Answer(fields)

    def have(self, digest: str, size: int, hashes: bytes) -> Answer:
        """Which chunks of a blob are still missing. Raises: FormatError, TooLargeError, RefusedError (no room)."""
        missing = self.installer.incoming.missing(digest, size, hashes)
        return Answer({"complete": missing.complete, "missing": [list(run) for run in missing.runs]})

    def chunk(self, digest: str, index: int, data: bytes) -> Answer:
        """Take one chunk. Raises: FormatError."""
        self.installer.incoming.write_chunk(digest, index, data)
        return Answer({"index": index})

    def seal(self, digest: str, size: int) -> Answer:
        """Check and keep the whole blob. Raises: NotFoundError, DigestMismatchError."""
        self.installer.incoming.seal(digest, size)
        return Answer({"digest": digest})

    def assign(self, files: Mapping[str, bytes]) -> Answer:
        """Verify the assignment and carry it out; without one, take the metadata alone.

        Raises:
            TrustError, NotFoundError, BusyError: nothing changed.
        """
        with self.platform.locks.hold(self.layout.install_lock, self.limits.lock_wait_s):
            if ASSIGNMENT_NAME not in files:
                return self._installed(self.installer.take_metadata(files))
            return self._installed(self.installer.assign(files))

    def resume(self) -> Answer:
        """Put right what a cut left behind, and go on with a staged package that may be tried now. Raises: BusyError."""
        with self.platform.locks.hold(self.layout.install_lock, self.limits.lock_wait_s):
            return self._installed(self.installer.resume())

    def status(self) -> Answer:
        """How the device stands; before it says what runs it looks whether every byte of that is still there.

        Raises:
            BusyError: what runs is damaged and somebody else is at work on it.
        """
        state = self._states.load()
        if state is not None and state.phase is not Phase.TRIAL and self.installer.is_damaged(state):
            self.resume()
            state = self._states.load()
        now_ms = self.platform.clock.now_ms()
        told = device_status(self.platform.fs, self.layout, self.config, state, now_ms)
        return Answer({"state": canonical.to_plain(told)})

    def collect(self, max_bytes: int) -> Answer:
        """What waits in the outbox, with a signed index over it; everything stays until `ack`."""
        close_open_segments(self.platform, self.layout, self.config, self.limits, self.outbox)
        items, more = self.outbox.take(min(max(max_bytes, 1), COLLECT_MAX_BYTES))
        listed = tuple(item for item, _ in items)
        envelope = self.pen.sign_index(self.config.device, self.platform.clock.now_ms(), listed)
        body = b"".join([len(envelope).to_bytes(4, "big"), envelope, *(data for _, data in items)])
        return Answer({"items": canonical.to_plain(listed), "more": more}, body)

    def ack(self, digests: list[str]) -> Answer:
        """These are safe at the console. Raises: FormatError: not digests."""
        return Answer({"removed": self.outbox.remove(digests)})

    @cached_property
    def upgrader(self) -> Upgrader:
        """What changes the agent itself."""
        incoming = self.installer.incoming
        parts = UpgradeParts(self.platform, self.layout, self.config, self.limits, incoming, self.checks)
        return Upgrader(parts)

    def agent(self) -> Answer:
        """Which agent this is, and how an upgrade of it stands. Raises: RefusedError: it does not stand in slots."""
        with self.platform.locks.hold(self.layout.install_lock, self.limits.lock_wait_s):
            return self._upgraded(self.upgrader.stand())

    def upgrade(self, files: Mapping[str, bytes]) -> Answer:
        """Carry out a signed word on another agent. Raises: TrustError, NotFoundError, BusyError; then nothing changed."""
        with self.platform.locks.hold(self.layout.install_lock, self.limits.lock_wait_s):
            return self._upgraded(self.upgrader.upgrade(files))

    def _upgraded(self, stand: UpgradeStand) -> Answer:
        record, receipt = stand.record, stand.receipt
        fields = {
            "version": AGENT_VERSION,
            "target": this_target(interpreter.machine(), sys.version_info[:2]),
            "phase": record.phase.value,
            "active": record.active.sha256,
            "previous": record.previous.sha256 if record.previous else "",
            "libraries": record.active.libraries,
            "serial": record.serial,
            "outcome": receipt.outcome.value if receipt else "",
            "reason": receipt.reason if receipt else "",
        }
        return Answer(fields, self.pen.sign_agent_receipt(receipt) if receipt else b"")

    def _installed(self, installation: Installation) -> Answer:
        state, receipt = installation.state, installation.receipt
        phase = Phase.STAGED if installation.waits_for else state.phase
        fields = {
            "outcome": receipt.outcome.value if receipt else "",
            "state": phase.value,
            "active": state.active_sha256,
            "reason": receipt.reason if receipt else installation.waits_for,
        }
        return Answer(fields, self.pen.sign_receipt(receipt) if receipt else b"")


@cache
def runtime_version() -> str:
    """The version of ONNX Runtime on this device, without loading it. A process keeps the libraries it was started with."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return "0"
