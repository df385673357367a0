"""What the device has accepted so far: the root it was enrolled with, its floor of numbers, the metadata kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_agent.config import AgentConfig, Layout
from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import TakenTrust
from pumpdeck_packaging.bundle_layout import ROOT, TARGETS
from pumpdeck_packaging.trust_floor import FLOOR_MAX_BYTES, TrustFloor, encode_floor, parse_floor
from pumpdeck_packaging.verify import TrustState, VerifiedAssignment, VerifiedMetadata

_ROOT_MAX_BYTES = 64 * 1024
_KEPT_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    """TUF metadata by file name, as text: it is JSON already."""

    files: Mapping[str, str]


class Accepted:
    """The trust folder of one device."""

    def __init__(self, fs: FileSystem, layout: Layout, config: AgentConfig) -> None:
        self._fs = fs
        self._layout = layout
        self._config = config

    def load(self) -> TrustState:
        """What `verify_assignment` must know of the past.

        Raises:
            TrustError: root or floor are gone: without them an old stick could not be told from a new one.
        """
        try:
            root = self._sealed_root() or self._fs.read_bytes(self._layout.trust_root, _ROOT_MAX_BYTES)
            canonical.parse_json(root, "root.json", max_bytes=_ROOT_MAX_BYTES)
            floor = self._floor()
        except (OSError, PumpdeckError) as error:
            hint = "enrol the device again; it goes on scoring meanwhile"
            raise TrustError("the trust folder is damaged", self._config.device, hint=hint) from error
        return TrustState(self._config.device, self._config.site, root, self._kept(), floor, self._config.min_seq)

    def save(self, verified: VerifiedAssignment | VerifiedMetadata) -> None:
        """Accept: the floor first, since it is what guards; the metadata beside it is only there to compare with."""
        self.save_floor(verified.floor)
        kept = _Kept({name: data.decode("utf-8") for name, data in verified.keep.items()})
        replace_file(self._fs, self._layout.trust_kept, canonical.encode(kept))
        if self._sealed_root() is None:
            # Enrolled before roots had a sealed copy, or it was damaged: what has just been verified against is the true one.
            self.save_root(self._fs.read_bytes(self._layout.trust_root, _ROOT_MAX_BYTES))

    def save_root(self, root: bytes) -> None:
        """The root of enrolment, once more and sealed: a flipped bit in either copy is noticed and put right."""
        replace_file(self._fs, self._layout.trust_root_copy, seal(root))

    def save_news(self, before: TrustState, verified: VerifiedAssignment | VerifiedMetadata) -> bool:
        """Accept what changes nothing but the metadata; False when even that is what it was: flash is not written for nothing."""
        if (dict(verified.keep), verified.floor) == (dict(before.kept), before.floor):
            return False
        self.save(verified)
        return True

    def save_floor(self, floor: TrustFloor) -> None:
        """Never go below these numbers again."""
        replace_file(self._fs, self._layout.trust_floor, seal(encode_floor(floor)))

    def tidy(self) -> None:
        """Remove what a cut left beside the files, and put a root right that the disk damaged."""
        layout = self._layout
        for path in (layout.trust_floor, layout.trust_kept, layout.trust_root, layout.trust_root_copy):
            self._fs.unlink(path.with_name(path.name + ".part"))
        sealed = self._sealed_root()
        if sealed is not None and self._plain_root() != sealed:
            replace_file(self._fs, layout.trust_root, sealed)

    def taken(self) -> TakenTrust | None:
        """The versions this device holds to; None before the first metadata, or when nothing can be read."""
        try:
            roles = self.load().floor.roles
            return TakenTrust(roles[ROOT].number, roles[TARGETS].number)
        except (KeyError, TrustError):
            return None

    def root_version(self) -> int:
        """The version of the newest root that was accepted; 0 when nothing can be read."""
        try:
            return max(1, self.load().floor.roles["root"].number)
        except KeyError:
            return 1
        except TrustError:
            return 0

    def _sealed_root(self) -> bytes | None:
        try:
            return unseal(self._fs.read_bytes(self._layout.trust_root_copy, _ROOT_MAX_BYTES + 128), "root.sealed")
        except (OSError, PumpdeckError):
            return None

    def _plain_root(self) -> bytes | None:
        try:
            return self._fs.read_bytes(self._layout.trust_root, _ROOT_MAX_BYTES)
        except (OSError, PumpdeckError):
            return None

    def _floor(self) -> TrustFloor:
        data = self._fs.read_bytes(self._layout.trust_floor, FLOOR_MAX_BYTES)
        # Devices enrolled before floors were sealed have a bare one; it is sealed when it is next written.
        return parse_floor(data if data.startswith(b"{") else unseal(data, "floor.json"), "floor.json")

    def _kept(self) -> Mapping[str, bytes]:
        try:
            data = self._fs.read_bytes(self._layout.trust_kept, _KEPT_MAX_BYTES)
            kept = canonical.decode(_Kept, data, "kept.json", max_bytes=_KEPT_MAX_BYTES)
        except (OSError, PumpdeckError):
            return {}
        return {name: text.encode("utf-8") for name, text in kept.files.items()}
