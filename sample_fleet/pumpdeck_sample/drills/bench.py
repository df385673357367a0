"""What every drill stands on: a site with throwaway keys, a device of it on any file system, and trials that are real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.config import CONFIG_FORMAT, AgentConfig, AgentLimits, Layout, PumpConfig
from pumpdeck_agent.enrol import DeviceIdentity, create_device
from pumpdeck_agent.platform_port import Locks, Platform
from pumpdeck_agent.rpc_server import Answer
from pumpdeck_agent.trial import TrialReport, TrialRequest, TrialRunner, WarmPoolRunner
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import Clock, FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem, OpenFile
from pumpdeck_fleet.core.receipts import (
    NO_TERMS,
    RECEIPT_MAX_BYTES,
    RECEIPT_PAYLOAD_TYPE,
    DowngradeWord,
    Receipt,
    ReturnKind,
    Terms,
)
from pumpdeck_fleet.core.rpc import CHUNK_BYTES
from pumpdeck_packaging.agent_desk import AgentContent, AgentDesk
from pumpdeck_packaging.agent_release import agent_version
from pumpdeck_packaging.downgrade import DOWNGRADE_FORMAT, add_signature, sign_downgrade
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.release_entries import PackageRelease
from pumpdeck_packaging.signing import Ed25519Signer, PublicKey, generate_key, verify_dsse
from pumpdeck_packaging.site_keys import DeployKey, SiteKeys, SiteSigners
from pumpdeck_packaging.trust_repository import AssignmentRequest, SiteTrust, TrustSettings
from pumpdeck_sample.drills.disk import RecordingDisk
from pumpdeck_sample.drills.packages import DEVICE, EDGE, NOW_MS, SITE, TAGS

ROOT = Path("/device")
# Two cuts in one trial must not use up its tries: what happens then is drill D7.
LIMITS = AgentLimits(keep_free_bytes=0, max_tries=3, trial_wall_s=20.0)


class NoLocks:
    """Locks for a device that nobody else touches."""

    def hold(self, path: Path, wait_s: float) -> AbstractContextManager[None]:
        """Nobody to keep out."""
        del path, wait_s
        return nullcontext()


class UnsyncedFileSystem(RealFileSystem):
    """A real disk without syncs, for drills that kill processes and not the power: the kernel keeps what was written."""

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        handle = super().open_write(path, truncate=truncate)
        handle.fsync = lambda: None  # type: ignore[method-assign]
        return handle

    def fsync_dir(self, path: Path) -> None:
        """Nothing: see the class."""


class DrillSite:
    """A founded site in a folder, one deploy key, keys that are thrown away."""

    def __init__(self, folder: Path, keep_packages: int = 2) -> None:
        root = [generate_key() for _ in range(3)]
        targets, self._release, self._laptop = generate_key(), generate_key(), generate_key()
        self._people = (self._laptop, root[0])
        keys = SiteKeys(_publics(root), targets.public, (self._release.public,), (DeployKey(self._laptop.public, 0),))
        settings = TrustSettings(keep_packages=keep_packages)
        self._trust = SiteTrust(folder / SITE, RealFileSystem(), FixedClock(NOW_MS), settings)
        self._desk = AgentDesk(folder / SITE, self._trust, RealFileSystem(), FixedClock(NOW_MS))
        self.root = self._trust.create(keys, SiteSigners(tuple(root), targets, (self._release,), self._laptop))

    def assign(self, built: BuiltPackage, task: str, terms: Terms = NO_TERMS, token: str | None = None) -> dict[str, bytes]:
        """Release and assign; the files for the drill's device."""
        self._trust.release([PackageRelease(built, {"esp-health": 1})], [self._release])
        self._trust.assign([AssignmentRequest(DEVICE, built.sha256, task, terms=terms, token=token)], self._laptop)
        return dict(self._trust.files_for(DEVICE))

    def downgrade_word(self, built: BuiltPackage, nonce: str = "0" * 32) -> str:
        """Two people's word that the drill's device may go back to this package, once."""
        until_seq = self._trust.next_seq() + 64 * 1024
        word = DowngradeWord(DOWNGRADE_FORMAT, SITE, DEVICE, built.sha256, until_seq, nonce, NOW_MS, "a drill")
        first, second = self._people
        return add_signature(sign_downgrade(word, first), second).decode("utf-8")

    def release_agent(self, data: bytes, *, anew: bool = False) -> dict[str, bytes]:
        """Release this agent for the site, `anew` under another serial; the files for the device."""
        content = AgentContent(agent_version(data), canonical.digest(data), len(data))
        if anew:
            # Another release in between: its serial stands between the two.
            self._desk.release(AgentContent("0", "0" * 64, 1), [self._release])
        self._desk.release(content, [self._release])
        return dict(self._desk.files())


def _publics(keys: list[Ed25519Signer]) -> tuple[PublicKey, ...]:
    return tuple(key.public for key in keys)


@dataclass
class TrialBench:
    """Real trials for devices on disks in memory: the staged copy is written out byte for byte and tried by the warm pool.

    The same bytes are tried once; their report is used again, so that thousands of states can be looked at.
    """

    folder: Path
    pool: TrialRunner
    reports: dict[object, TrialReport] = field(default_factory=dict)

    def on(self, disk: RecordingDisk) -> TrialRunner:
        """The runner of a device on this disk."""
        return _ExportingRunner(self, disk)

    def run(self, disk: RecordingDisk, request: TrialRequest) -> TrialReport:
        """The report on the copy that `disk` holds."""
        top = Path(request.folder).parts
        files = {path[len(top) :]: data for path, data in disk.image().items() if path[: len(top)] == top and data is not None}
        key = (request.manifest_digest, frozenset(files.items()))
        if key not in self.reports:
            copy = self.folder / str(len(self.reports)) / top[-1]
            for path, data in files.items():
                target = copy.joinpath(*path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            self.reports[key] = self.pool.run(replace(request, folder=str(copy)))
        return self.reports[key]


@dataclass(frozen=True)
class _ExportingRunner:
    bench: TrialBench
    disk: RecordingDisk

    def run(self, request: TrialRequest) -> TrialReport:
        return self.bench.run(self.disk, request)


@contextmanager
def warm_pool() -> Iterator[WarmPoolRunner]:
    """A warm trial process during the block."""
    pool = WarmPoolRunner()
    try:
        yield pool
    finally:
        pool.close()


@dataclass(frozen=True)
class DeviceMaker:
    """Makes agents of one enrolled device, as after a restart. `agent_type` is another class only where the drill is drilled."""

    identity: DeviceIdentity
    root: Path = ROOT
    limits: AgentLimits = LIMITS
    agent_type: type[Agent] = Agent

    @property
    def layout(self) -> Layout:
        """Where everything stands on the device."""
        return Layout(self.root)

    def agent(self, fs: FileSystem, runner: TrialRunner, clock: Clock | None = None, locks: Locks | None = None) -> Agent:
        """The agent on this file system."""
        platform = Platform(fs, clock or FixedClock(NOW_MS), locks or NoLocks(), lambda: False)
        return self.agent_type(self.root, platform=platform, runner=runner, limits=self.limits)


def enrol(fs: FileSystem, site: DrillSite, root: Path = ROOT) -> DeviceMaker:
    """A new device of the site."""
    config = AgentConfig(CONFIG_FORMAT, DEVICE, SITE, EDGE.id, tuple(PumpConfig(tag, "esp") for tag in TAGS))
    return DeviceMaker(create_device(fs, root, config, site.root), root)


def push(agent: Agent, built: BuiltPackage) -> None:
    """Hand over the package's bytes as a console does: only the chunks that are missing."""
    pieces = [built.data[at : at + CHUNK_BYTES] for at in range(0, len(built.data), CHUNK_BYTES)]
    hashes = b"".join(bytes.fromhex(canonical.digest(piece)) for piece in pieces)
    answer = agent.have(built.sha256, len(built.data), hashes).fields
    if not answer["complete"]:
        for first, count in answer["missing"]:
            for index in range(first, first + count):
                agent.chunk(built.sha256, index, pieces[index])
        agent.seal(built.sha256, len(built.data))


def install(agent: Agent, built: BuiltPackage, files: Mapping[str, bytes]) -> Answer:
    """Push and assign."""
    push(agent, built)
    return agent.assign(files)


def receipts(agent: Agent, maker: DeviceMaker) -> list[Receipt]:
    """The receipts that wait in the outbox, each verified with the device's key, by counter."""
    items, _ = agent.outbox.take(1 << 24)
    found = [parse_receipt(data, maker.identity) for item, data in items if item.kind is ReturnKind.RECEIPT]
    return sorted(found, key=lambda receipt: receipt.counter)


def parse_receipt(envelope: bytes, identity: DeviceIdentity) -> Receipt:
    """The verified receipt in an envelope."""
    payload = verify_dsse(envelope, RECEIPT_PAYLOAD_TYPE, {identity.key_id: identity.public_pem}, RECEIPT_MAX_BYTES)
    return canonical.decode(Receipt, payload, "receipt", max_bytes=RECEIPT_MAX_BYTES)
