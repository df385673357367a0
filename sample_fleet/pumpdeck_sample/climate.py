"""Weather and demand of a site: what all its pumps share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .processes import F32, F64, I64, disturb
from .seeds import Chance

DAY_MS = 86_400_000
YEAR_DAYS = 365.2425
WEATHER_TAU_S = 3 * 86_400.0
DEMAND_TAU_S = 2 * 3_600.0
DEMAND_SD = 0.001
DEMAND_DAILY = 0.004
WARMEST_HOUR = 15.0
COLDEST_DAY = 25.0


@dataclass(frozen=True)
class Climate:
    """Air temperature of a site: yearly mean and swing, daily swing, weather (all degC), and its local time."""

    mean_c: float
    seasonal_c: float
    daily_c: float
    weather_sd_c: float
    utc_offset_h: float


@dataclass(frozen=True)
class SiteConditions:
    """Air temperature in degC and demand relative to normal, each float32[T, sites]."""

    air_c: F32
    demand: F32


class SiteProcesses:
    """Air temperature and demand of several sites, advanced together; each site draws from its own stream."""

    def __init__(self, sites: Sequence[tuple[str, Climate]], chance: Chance) -> None:
        self._climates = [climate for _, climate in sites]
        self._streams = [chance.of_episode("site", site_id) for site_id, _ in sites]
        self._state: F32 = np.zeros((2, len(sites)), dtype=np.float32)

    def advance(self, at_ms: I64, step_s: F64) -> SiteConditions:
        """Conditions at `at_ms`; `step_s` as in processes.steps_s."""
        draws = [stream.standard_normal((at_ms.size, 2), dtype=np.float32) for stream in self._streams]
        processes = np.ascontiguousarray(np.stack(draws, axis=2))
        self._state = disturb(processes, self._state, step_s, np.array([WEATHER_TAU_S, DEMAND_TAU_S]))
        mean = [_mean_air_c(climate, at_ms) for climate in self._climates]
        sd = np.array([climate.weather_sd_c for climate in self._climates], dtype=np.float32)
        daily = [_daily_wave(climate, at_ms) for climate in self._climates]
        air = np.stack(mean, axis=1).astype(np.float32) + sd * processes[:, 0]
        demand = 1.0 + DEMAND_SD * processes[:, 1] + np.stack(daily, axis=1).astype(np.float32) * DEMAND_DAILY
        return SiteConditions(air.astype(np.float32), demand.astype(np.float32))


def _mean_air_c(climate: Climate, at_ms: I64) -> F64:
    day_of_year = (at_ms / DAY_MS) % YEAR_DAYS
    season = -np.cos(2.0 * np.pi * (day_of_year - COLDEST_DAY) / YEAR_DAYS)
    wave = climate.mean_c + climate.seasonal_c * season + climate.daily_c * _daily_wave(climate, at_ms)
    return np.asarray(wave, dtype=np.float64)


def _daily_wave(climate: Climate, at_ms: I64) -> F64:
    hour = (at_ms / 3_600_000.0 + climate.utc_offset_h) % 24.0
    return np.asarray(np.cos(2.0 * np.pi * (hour - WARMEST_HOUR) / 24.0), dtype=np.float64)
