"""What people may change beside the inventory: `policies.toml` (goes with the fleet) and `settings.toml` (this computer only).

Both are TOML, read strictly: an unknown key or a wrong type is refused with file, key, expected and found.
docs/policies.example.toml is normative for the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import tomli

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.files import RealFileSystem

_MAX_BYTES = 256 * 1024
T = TypeVar("T")


class HealthPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a pump is stale or drifting."""

    stale_after_s: float = 6 * 3600.0
    drift_psi: float = 0.25


class TrainingPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much history a training reads and whether its result needs a person."""

    window_days: float = 30.0
    auto_promote: bool = False


class RolloutPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults of a rollout; shares in per cent of a wave's devices, frozen when the rollout is planned."""

    waves: tuple[str, ...] = ("1", "5%", "25%", "rest")
    committed_pct: float = 95.0
    bad_pct: float = 2.0
    unknown_pct: float = 5.0
    soak_s: float = 86_400.0
    shadow_s: float = 0.0
    deadline_s: float = 2 * 86_400.0
    courier_deadline_s: float = 30 * 86_400.0
    approvals: int = 1


class TransportPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How devices are spoken to."""

    concurrency: int = 8
    connect_timeout_s: float = 15.0
    retry_after_s: float = 30.0
    collect_bytes: int = 4 * 1024 * 1024


class Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`policies.toml`."""

    format: int = 1
    health: HealthPolicy = HealthPolicy()
    training: TrainingPolicy = TrainingPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    transport: TransportPolicy = TransportPolicy()


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where private keys are looked for besides the keyring."""

    folder: str = ""
    insecure_storage: bool = False


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`settings.toml`: who sits at this computer and where its keys are. Never holds a secret."""

    format: int = 1
    person: str = ""
    keys: KeySettings = KeySettings()


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
        found = msgspec.convert(tomli.loads(data.decode("utf-8")), cls)
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not TOML in UTF-8 ({error})", str(path)) from error
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at ")
        raise InputError(f"does not fit: {what}", f"{path}: {key.strip('`').removeprefix('$.') or 'top'}") from error
    if getattr(found, "format", 1) != 1:
        raise InputError("has a format this program does not know", str(path), expected=1, found=found.format)  # type: ignore[attr-defined]
    return found
