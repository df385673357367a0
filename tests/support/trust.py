"""A small site with throwaway keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, load_key
from pumpdeck_packaging.site_keys import DeployKey, SiteKeys, SiteSigners
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease, SiteTrust
from pumpdeck_packaging.verify import TrustState, VerifiedAssignment, verify_assignment
from support.packages import built_package

NOW_MS = 1_770_000_000_000


@dataclass
class SampleKeys:
    """Private keys of every role; `laptops` are deploy keys in slots 0, 1, .."""

    root: list[Ed25519Signer] = field(default_factory=lambda: [generate_key() for _ in range(3)])
    targets: Ed25519Signer = field(default_factory=generate_key)
    release: list[Ed25519Signer] = field(default_factory=lambda: [generate_key()])
    laptops: list[Ed25519Signer] = field(default_factory=lambda: [generate_key() for _ in range(2)])
    release_threshold: int = 1

    def public(self) -> SiteKeys:
        deploy = tuple(DeployKey(key.public, slot) for slot, key in enumerate(self.laptops))
        release = tuple(key.public for key in self.release)
        root = tuple(key.public for key in self.root)
        return SiteKeys(root, self.targets.public, release, deploy, 2, self.release_threshold)

    def signers(self, laptop: int = 0) -> SiteSigners:
        return SiteSigners(tuple(self.root), self.targets, tuple(self.release), self.laptops[laptop])


class SampleSite:
    """A founded site in a folder, with shortcuts for what tests do again and again."""

    def __init__(self, folder: Path, site: str = "gannet", keys: SampleKeys | None = None) -> None:
        self.keys = keys or SampleKeys()
        self.clock = FixedClock(NOW_MS)
        self.trust = SiteTrust(folder / site, RealFileSystem(), self.clock)
        self.root = self.trust.create(self.keys.public(), self.keys.signers())

    def deliver(self, device: str = "gannet-d1", onnx: bytes = b"graph", laptop: int = 0) -> BuiltPackage:
        """Build, release and assign a package."""
        built = built_package(device, onnx=onnx)
        self.trust.release([PackageRelease(built, {"esp-health": 1})], self.keys.release)
        self.trust.assign([AssignmentRequest(device, built.sha256, f"task-{device}")], self.keys.laptops[laptop])
        return built

    def state(self, device: str = "gannet-d1") -> TrustState:
        return TrustState(device, self.trust.site, self.root)

    def files(self, device: str = "gannet-d1") -> dict[str, bytes]:
        return dict(self.trust.files_for(device))


def verify(state: TrustState, files: dict[str, bytes], **more: object) -> VerifiedAssignment:
    """`verify_assignment` at the sample time with an unproven clock, unless said otherwise."""
    arguments: dict[str, object] = {"now_ms": NOW_MS, "clock_synced": False} | more
    return verify_assignment(state, files, **arguments)  # type: ignore[arg-type]


def assign_many(folder: str, key: bytes, device: str, sha256: str, count: int) -> None:
    """For another process: assign `count` times, each time another task."""
    trust = SiteTrust(Path(folder), RealFileSystem(), FixedClock(NOW_MS))
    for number in range(count):
        trust.assign([AssignmentRequest(device, sha256, f"{device}-{number}")], load_key(key))
