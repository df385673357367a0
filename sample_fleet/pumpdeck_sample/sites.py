"""The twelve invented sites of the sample fleet: where they are, their climate, and which pump types their devices serve."""

from __future__ import annotations

from dataclasses import dataclass

from .channels import PumpType
from .climate import Climate

_ESP, _EXPORT, _INJECTION, _PCP = PumpType.ESP, PumpType.EXPORT, PumpType.INJECTION, PumpType.PCP

# The types served by the devices of a site, in turn; a device with two types shares its pumps between them.
OFFSHORE: tuple[tuple[PumpType, ...], ...] = (
    (_EXPORT,),
    (_INJECTION,),
    (_EXPORT, _INJECTION),
    (_ESP,),
    (_EXPORT, _INJECTION),
)
ONSHORE: tuple[tuple[PumpType, ...], ...] = ((_ESP,), (_PCP,), (_ESP, _PCP), (_PCP,), (_ESP,))


@dataclass(frozen=True)
class SiteSketch:
    """One site of the catalogue. Where `csv_maker` stands, all its pumps are of that maker, whose loggers write CSV."""

    id: str
    name: str
    kind: str
    time_zone: str
    position: tuple[float, float]
    climate: Climate
    device_types: tuple[tuple[PumpType, ...], ...]
    bandwidth_kbit_s: float = 0.0
    csv_maker: str = ""


_NORTH_SEA = Climate(mean_c=9.0, seasonal_c=2.0, daily_c=3.0, weather_sd_c=0.4, utc_offset_h=0.0)
_BARENTS = Climate(mean_c=4.0, seasonal_c=2.5, daily_c=2.0, weather_sd_c=1.0, utc_offset_h=1.0)
_GULF = Climate(mean_c=24.0, seasonal_c=3.0, daily_c=4.0, weather_sd_c=0.4, utc_offset_h=-6.0)
_DESERT = Climate(mean_c=26.0, seasonal_c=5.0, daily_c=6.5, weather_sd_c=0.6, utc_offset_h=4.0)
_PRAIRIE = Climate(mean_c=11.0, seasonal_c=5.0, daily_c=6.0, weather_sd_c=0.6, utc_offset_h=-6.0)

SITES: tuple[SiteSketch, ...] = (
    SiteSketch("gannet", "Gannet Alpha", "platform", "Europe/London", (57.18, 1.00), _NORTH_SEA, OFFSHORE, 512.0),
    SiteSketch("wadi-rahl", "Wadi Rahl", "pad", "Asia/Dubai", (22.71, 55.34), _DESERT, ONSHORE, 2048.0, "northfield"),
    SiteSketch("petrel", "Petrel Bravo", "platform", "Europe/London", (58.42, 0.31), _NORTH_SEA, OFFSHORE, 1024.0),
    SiteSketch("marlin-deep", "Marlin Deep", "fpso", "America/Chicago", (27.40, -90.12), _GULF, OFFSHORE, 2048.0),
    SiteSketch("dune-seven", "Dune Seven", "pad", "Asia/Dubai", (23.05, 54.60), _DESERT, ONSHORE, 1024.0),
    SiteSketch("storfjell", "Storfjell", "platform", "Europe/Oslo", (71.54, 22.10), _BARENTS, OFFSHORE, 256.0),
    SiteSketch(
        "bitter-lake", "Bitter Lake", "pad", "America/Regina", (49.62, -103.11), _PRAIRIE, ONSHORE, 4096.0, "mirador"
    ),
    SiteSketch("tarpon", "Tarpon Ridge", "platform", "America/Chicago", (28.11, -89.44), _GULF, OFFSHORE, 1024.0),
    SiteSketch("al-sahra", "Al Sahra", "station", "Asia/Dubai", (24.18, 53.77), _DESERT, ONSHORE, 8192.0),
    SiteSketch("fulmar-east", "Fulmar East", "fpso", "Europe/London", (56.49, 2.15), _NORTH_SEA, OFFSHORE, 512.0),
    SiteSketch("cedar-flat", "Cedar Flat", "pad", "America/Regina", (49.20, -102.40), _PRAIRIE, ONSHORE, 512.0),
    SiteSketch("qasr-umm", "Qasr Umm", "pad", "Asia/Dubai", (21.90, 56.02), _DESERT, ONSHORE, 1024.0),
)
SITE_BY_ID = {site.id: site for site in SITES}
