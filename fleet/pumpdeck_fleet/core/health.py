"""A pump's health: one pure function over facts, worst wins. No fact stays `None` and is shown as `-`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Health(enum.IntEnum):
    """Ordered from good to bad, so that the worst is the maximum."""

    OK = 0
    DRIFT = 1
    NO_MODEL = 2
    STALE = 3
    SENSOR_FAULT = 4
    ALARM = 5


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a pump counts as stale or drifting."""

    stale_after_s: float = 6 * 3600.0
    drift_psi: float = 0.25


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What is known of one pump; `None` is not known."""

    is_alarmed: bool | None = None
    has_sensor_fault: bool | None = None
    last_seen_ms: int | None = None
    has_model: bool | None = None
    drift_psi: float | None = None


def health_of(facts: HealthFacts, now_ms: int, rules: HealthRules) -> Health | None:
    """The worst that the facts show; `None` when nothing at all is known."""
    if facts == HealthFacts():
        return None
    if facts.is_alarmed:
        return Health.ALARM
    if facts.has_sensor_fault:
        return Health.SENSOR_FAULT
    if facts.last_seen_ms is None or now_ms - facts.last_seen_ms > rules.stale_after_s * 1000:
        return Health.STALE
    if not facts.has_model:
        return Health.NO_MODEL
    if facts.drift_psi is not None and facts.drift_psi > rules.drift_psi:
        return Health.DRIFT
    return Health.OK


def worst(healths: Iterable[Health | None]) -> Health | None:
    """The worst of those that are known."""
    known = [health for health in healths if health is not None]
    return max(known) if known else None
