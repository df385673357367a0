"""What people may change beside the inventory: `policies.toml` (goes with the fleet) and `settings.toml` (this computer only).

Both are TOML, read strictly into frozen types: an unknown key or a wrong type is refused with file, key, expected and found.
docs/policies.example.toml is normative for the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import tomli

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, InputError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.health import HealthRules
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy

_FORMAT = 1
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class TransportPolicy:
    """How devices are spoken to: how many at once, how long a silent link is waited for, most bytes taken in one collect."""

    concurrency: int = 8
    connect_timeout_s: float = 15.0
    answer_timeout_s: float = 180.0
    collect_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """How many people must sign a release: 2 at the sites named (four eyes), 1 elsewhere. The signed metadata is what binds.

    `signed_approvals`: an approval counts only when it is signed, also in the workspace where it is given.
    """

    four_eyes: tuple[str, ...] = ()
    signed_approvals: bool = False

    def release_signers(self, site: str) -> int:
        """How many people this site asks for."""
        return 2 if site in self.four_eyes or "*" in self.four_eyes else 1


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long telemetry is kept; 0 keeps all. What a live version was trained from is kept longer (docs/data.md)."""

    telemetry_days: float = 0.0


@dataclass(frozen=True, slots=True)
class ExperimentPolicy:
    """How many people must say that an experiment shall change its pipeline."""

    merge_approvals: int = 1


@dataclass(frozen=True, slots=True)
class ForeignPolicy:
    """How many people must accept an imported model before it may be promoted or packaged."""

    approvals: int = 1


@dataclass(frozen=True, slots=True)
class Policies:
    """`policies.toml`."""

    format: int = _FORMAT
    health: HealthRules = field(default_factory=HealthRules)
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    transport: TransportPolicy = field(default_factory=TransportPolicy)
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    experiments: ExperimentPolicy = field(default_factory=ExperimentPolicy)
    foreign: ForeignPolicy = field(default_factory=ForeignPolicy)


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Where private keys are looked for besides the keyring: `folder`, a relative one seen from the workspace.

    `insecure_storage` allows 0600 files without a passphrase.
    """

    folder: str = ""
    insecure_storage: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """`settings.toml`: who sits at this computer and where its keys are. Never holds a secret."""

    format: int = _FORMAT
    person: str = ""
    keys: KeySettings = field(default_factory=KeySettings)


T = TypeVar("T", Policies, Settings)


def load_policies(root: Path) -> Policies:
    """The workspace's policies; the defaults where the file is absent.

    Raises:
        InputError: the file is not TOML, or a key or a value is wrong.
    """
    return _load(root / "policies.toml", Policies)


def load_settings(root: Path) -> Settings:
    """This computer's settings for the workspace; the defaults where the file is absent.

    Raises:
        InputError: as `load_policies`.
    """
    return _load(root / "settings.toml", Settings)


def _load(path: Path, cls: type[T]) -> T:
    try:
        data = RealFileSystem().read_bytes(path, _MAX_BYTES)
    except FileNotFoundError:
        return cls()
    try:
        found = canonical.from_plain(cls, tomli.loads(data.decode("utf-8")), str(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML in UTF-8 ({error})", str(path)) from error
    except FormatError as error:
        raise InputError(error.what, error.which, expected=error.expected, found=error.found) from error
    if found.format != _FORMAT:
        raise InputError("has a format this program does not know", str(path), expected=_FORMAT, found=found.format)
    return found
