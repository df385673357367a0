"""The five fictional makers of the sample fleet: their models, how coarse their sensors are, how their loggers name channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pumpdeck_fleet.core.inventory import MakerProfile

from .channels import PumpType

PSI_TO_BAR = (0.0689475729, 0.0)
FAHRENHEIT_TO_C = (0.5555555556, -17.7777777778)
HOURLY_FROM_DAILY = (0.0416666667, 0.0)


@dataclass(frozen=True)
class Maker:
    """A maker: its profile, a model name for each pump type, and by how much its sensors are coarser than the finest."""

    profile: MakerProfile
    models: Mapping[PumpType, str]
    coarseness: int = 1

    @property
    def id(self) -> str:
        """The maker's name in the inventory."""
        return self.profile.id


def _maker(
    profile: tuple[str, str],
    stem: str,
    aliases: dict[str, str],
    scales: dict[str, tuple[float, float]],
    coarseness: int = 1,
) -> Maker:
    channel_of = {alias: channel for channel, alias in aliases.items()}
    models = {
        PumpType.ESP: f"{stem}-E538",
        PumpType.EXPORT: f"{stem}-X10",
        PumpType.INJECTION: f"{stem}-W8",
        PumpType.PCP: f"{stem}-C220",
    }
    by_alias = {aliases[channel]: scale for channel, scale in scales.items()}
    maker_profile = MakerProfile(profile[0], profile[1], MappingProxyType(channel_of), MappingProxyType(by_alias))
    return Maker(maker_profile, MappingProxyType(models), coarseness)


_CHANNELS = (
    *(
        "intake_pressure_bar",
        "suction_pressure_bar",
        "discharge_pressure_bar",
        "flow_m3_h",
        "speed_rpm",
        "motor_current_a",
    ),
    *(
        "vibration_mm_s",
        "bearing_temperature_c",
        "motor_temperature_c",
        "leakage_current_ma",
        "seal_leak_l_h",
        "torque_n_m",
    ),
)


def _named(*aliases: str) -> dict[str, str]:
    return dict(zip(_CHANNELS, aliases, strict=True))


MAKERS: tuple[Maker, ...] = (
    _maker(
        ("northfield", "Northfield Pumps"),
        "NF",
        _named(
            *("Intake.Press", "Suct.Press", "Disch.Press", "Flow", "Speed", "MotAmps"),
            *("Vib", "BrgTemp", "MotTemp", "LeakCurr", "SealLeak", "Torque"),
        ),
        {
            "intake_pressure_bar": PSI_TO_BAR,
            "suction_pressure_bar": PSI_TO_BAR,
            "discharge_pressure_bar": PSI_TO_BAR,
            "bearing_temperature_c": FAHRENHEIT_TO_C,
            "motor_temperature_c": FAHRENHEIT_TO_C,
        },
    ),
    _maker(
        ("halvorsen", "Halvorsen Rotating"),
        "HR",
        _named(
            *("PT-INTAKE", "PT-SUCTION", "PT-DISCHARGE", "FT-OUT", "ST-SHAFT", "IT-MOTOR"),
            *("VT-CASING", "TT-BEARING", "TT-WINDING", "IT-EARTH", "FT-SEAL", "WT-SHAFT"),
        ),
        {},
    ),
    _maker(
        ("mirador", "Mirador Bombas"),
        "MB",
        _named(
            *("Presion entrada", "Presion aspiracion", "Presion descarga", "Caudal", "Velocidad", "Corriente motor"),
            *("Vibracion", "Temp cojinete", "Temp motor", "Corriente fuga", "Fuga sello", "Par"),
        ),
        {"flow_m3_h": HOURLY_FROM_DAILY},
    ),
    _maker(
        ("tanaro", "Tanaro Idraulica"),
        "TI",
        _named(
            *("p_ingresso", "p_aspirazione", "p_mandata", "portata", "giri", "corrente"),
            *("vibrazione", "t_cuscinetto", "t_motore", "i_dispersione", "perdita_tenuta", "coppia"),
        ),
        {},
        coarseness=2,
    ),
    _maker(
        ("castellan", "Castellan Fluid Machines"),
        "CF",
        _named(
            *("AI_01_PIP", "AI_02_SUC", "AI_03_DIS", "AI_04_FLW", "AI_05_RPM", "AI_06_AMP"),
            *("AI_07_VIB", "AI_08_BRG", "AI_09_WND", "AI_10_LKG", "AI_11_SEA", "AI_12_TRQ"),
        ),
        {},
        coarseness=5,
    ),
)

MAKER_BY_ID: Mapping[str, Maker] = MappingProxyType({maker.id: maker for maker in MAKERS})
