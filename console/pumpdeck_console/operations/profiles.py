"""Kept profiles: what `models profile` measured of a version, read back without measuring anything."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.registry import ModelVersion
from pumpdeck_trainer.profile import ProfileFigures

PROFILE_ACTION = "model.profile"
PROFILE_FORMAT = 1
PROFILE_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ClassAdvice:
    """What the rule says for one device class, for the device that holds most pumps of this model, and whether it holds."""

    device_class: str
    pumps: int
    threads: int
    spinning: bool
    latency_limit_us: float
    memory_limit_mb: int
    memory_max_mb: int
    cpu_quota_pct: int
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """What was measured, on what, and the rule beside it. agrees: the rule's setting is within a fifth of the fastest."""

    model: str
    version: int
    onnx_digest: str
    machine: str
    cadence_s: float
    figures: tuple[ProfileFigures, ...]
    classes: tuple[ClassAdvice, ...]
    fastest_threads: int
    fastest_spinning: bool
    agrees: bool
    format: int = PROFILE_FORMAT
    profile_digest: str = ""


def latest_profile(workspace: Workspace, version: ModelVersion) -> ProfileReport | None:
    """The newest profile that was kept of this content; None where there is none.

    Raises:
        NotFoundError, DamagedError: it was kept and is not here, or was altered.
    """
    found = ""
    for entry in entries(workspace):
        if entry.action == PROFILE_ACTION and entry.digests.get("content") == version.content_digest:
            found = entry.digests["profile"]
    return parse_profile(workspace.artifacts.get(found), found) if found else None


def parse_profile(data: bytes, digest: str) -> ProfileReport:
    """A kept profile.

    Raises:
        FormatError: these are not the bytes of one.
    """
    report = canonical.decode(ProfileReport, data, f"profile {digest[:12]}", max_bytes=PROFILE_MAX_BYTES)
    if report.format != PROFILE_FORMAT:
        raise FormatError("has an unknown format", f"profile {digest[:12]}", expected=PROFILE_FORMAT, found=report.format)
    return replace(report, profile_digest=digest)
