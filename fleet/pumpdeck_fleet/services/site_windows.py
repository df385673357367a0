"""When a site may be sent to: its daily maintenance window in its own time zone, and its daily byte cap."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.inventory import Fleet, Site, Window
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy


def closed_sites(fleet: Fleet, rollouts: Iterable[Rollout], policy: RolloutPolicy, now_ms: int) -> dict[str, str]:
    """Why each site that must not be sent to now is closed."""
    left = bytes_left(fleet, rollouts, now_ms)
    closed = {}
    for site in fleet.sites:
        if policy.keep_windows and site.window is not None and not is_open(site, now_ms):
            closed[site.id] = f"outside the maintenance window {_text(site.window)} {site.time_zone}"
        elif left.get(site.id, 1) <= 0:
            closed[site.id] = f"the daily cap of {site.daily_cap_mb:g} MB is used up"
    return closed


def bytes_left(fleet: Fleet, rollouts: Iterable[Rollout], now_ms: int) -> dict[str, float]:
    """Bytes that may still be sent to each capped site within the last 24 hours' cap; sites without a cap are left out."""
    sent = _sent_bytes(rollouts, now_ms)
    return {site.id: site.daily_cap_mb * 1_000_000 - sent.get(site.id, 0) for site in fleet.sites if site.daily_cap_mb}


def is_open(site: Site, now_ms: int) -> bool:
    """True inside the site's maintenance window, and always when it has none. The window may wrap around midnight.

    Raises:
        InputError: the time zone is not known here.
    """
    if site.window is None:
        return True
    try:
        local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(site.time_zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError("is not a known time zone", f"site {site.id}", found=site.time_zone) from error
    minute = local.hour * 60 + local.minute
    start, end = site.window.start_minute, site.window.end_minute
    return start <= minute < end if start <= end else minute >= start or minute < end


def _sent_bytes(rollouts: Iterable[Rollout], now_ms: int) -> dict[str, int]:
    sent: dict[str, int] = {}
    for rollout in rollouts:
        for device, task in rollout.tasks.items():
            if task.assign_ms and task.assign_ms > now_ms - DAY_MS:
                planned = rollout.plan.by_device[device]
                sent[planned.site] = sent.get(planned.site, 0) + planned.package_bytes
    return sent


def _text(window: Window) -> str:
    hours = (divmod(minute, 60) for minute in (window.start_minute, window.end_minute))
    return "-".join(f"{hour:02d}:{minute:02d}" for hour, minute in hours)
