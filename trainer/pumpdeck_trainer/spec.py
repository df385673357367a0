"""Pipeline spec: what `pipelines/<pump type>.toml` says about training one pump type. Parsed once, frozen inside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import tomli

from pumpdeck_fleet.core.canonical import digest, encode
from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_fleet.numeric.alarm import AlarmSettings
from pumpdeck_fleet.numeric.features import FeatureSpec
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.gate_thresholds import GatesTable, GateThresholds, read_thresholds
from pumpdeck_trainer.labelled import SUPERVISED
from pumpdeck_trainer.limits import AlarmBudget, BlockRule
from pumpdeck_trainer.search_spec import AXES, SearchSpec, check_search, check_split, grid_points
from pumpdeck_trainer.statements import STATEMENT_MAX, CardStatements

__all__ = ["ChannelSpec", "GateThresholds", "PipelineSpec", "default_pipeline", "parse_pipeline"]

FORMAT = 1
MODEL_TYPES = ("maxz", "pca", "iforest", "ocsvm", "gmm", *SUPERVISED)
SPEC_MAX_BYTES = 65_536
DAY_S = 86_400.0
RAW_BLOCK_S = 3600.0


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One input of the model: its unit, what the inventory says of the sensor's resolution, and whether it votes."""

    name: str
    unit: str
    low: float
    high: float
    resolution: float
    votes: bool


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Everything that decides a training run, besides its rows. `holdout` is the share of the reference window, at its end,
    on which a model fitted to the rest is judged; between the two lies a purge of one feature window. foreign: of imported
    versions, whose model type is `foreign`; no pipeline file can ask for it."""

    pump_type: str
    channels: tuple[ChannelSpec, ...]
    window_s: float
    model_type: str = "maxz"
    reference_days: float = 30.0
    budget: AlarmBudget = field(default_factory=AlarmBudget)
    alarm: AlarmSettings = field(default_factory=AlarmSettings)
    holdout: float = 0.25
    gates: GateThresholds = field(default_factory=GateThresholds)
    seed: int = 1
    card: CardStatements = field(default_factory=CardStatements)
    search: SearchSpec = field(default_factory=SearchSpec)
    foreign: ForeignInput | None = None

    @property
    def model(self) -> str:
        """The model line this pipeline feeds: `<pump type>-health`."""
        return f"{self.pump_type}-health"

    @property
    def features(self) -> FeatureSpec:
        """The ordered inputs and the window."""
        return FeatureSpec(tuple(channel.name for channel in self.channels), self.window_s)

    @property
    def blocks(self) -> BlockRule:
        """How scores are cut into blocks for the limit; raw rows, which an import may ask for, as if by hourly windows."""
        window_s = max(self.window_s, RAW_BLOCK_S) if self.foreign else self.window_s
        return BlockRule(window_s, self.alarm.persistence_s)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical spec: the pipeline digest of a run's lineage."""
        return digest(encode(self))

    @property
    def learning_digest(self) -> str:
        """SHA-256 of what decides what is learned and replayed: gates judge that, they do not change it."""
        return digest(encode(replace(self, gates=GateThresholds(), card=CardStatements(), search=SearchSpec())))


class _Features(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    window_s: float | None = None
    channels: list[str] = []


class _Reference(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    days: float = 30.0


class _Alarm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    budget_alarms: float = 1.0
    budget_days: float = 30.0
    deadband: float = 0.7
    persistence_s: float | None = None
    tau_s: float = DAY_S


class _Validation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    split: str = "time"
    holdout: float = 0.25


class _Card(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    provider: str = ""
    intended_use: str = ""
    not_for: str = ""
    instructions: str = ""
    human_oversight: str = ""
    risk_management: str = ""
    standards: str = ""
    declaration: str = ""
    post_market: str = ""
    tested_by: str = ""


class _Search(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    model_type: list[str] = []
    window_s: list[float] = []
    persistence_s: list[float] = []
    tau_s: list[float] = []
    deadband: list[float] = []
    folds: int = 2
    pumps: int = 24
    label_horizon_s: float = 6 * 3600.0
    split: str = "time"


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    format: int
    pump_type: str
    model_type: str = "maxz"
    seed: int = 1
    features: _Features = msgspec.field(default_factory=_Features)
    reference: _Reference = msgspec.field(default_factory=_Reference)
    alarm: _Alarm = msgspec.field(default_factory=_Alarm)
    validation: _Validation = msgspec.field(default_factory=_Validation)
    gates: GatesTable = msgspec.field(default_factory=GatesTable)
    card: _Card = msgspec.field(default_factory=_Card)
    search: _Search = msgspec.field(default_factory=_Search)


def default_pipeline(pump_type: PumpType) -> PipelineSpec:
    """The spec of a pump type that has no file: a window of an hour or 10 rows, persistence of half of it."""
    return _build(_File(format=FORMAT, pump_type=pump_type.id), pump_type, pump_type.id)


def parse_pipeline(text: str, pump_type: PumpType, what: str) -> PipelineSpec:
    """The spec in a `pipelines/*.toml` file, completed by the pump type it names (see `docs/pipeline.example.toml`).

    Raises:
        InputError: `what` (the file) and the key, what was expected and found.
    """
    if len(text) > SPEC_MAX_BYTES:
        raise InputError("is too large", what, expected=f"at most {SPEC_MAX_BYTES} characters", found=len(text))
    try:
        parsed = msgspec.convert(tomli.loads(text), _File)
    except msgspec.ValidationError as error:
        raise InputError(str(error), what, hint="docs/pipeline.example.toml shows every key") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML ({error})", what) from error
    if parsed.format != FORMAT:
        raise InputError("has an unknown format", f"{what}: format", expected=FORMAT, found=parsed.format)
    if parsed.pump_type != pump_type.id:
        raise InputError(
            "is for another pump type", f"{what}: pump_type", expected=pump_type.id, found=parsed.pump_type
        )
    return _build(parsed, pump_type, what)


def _build(parsed: _File, pump_type: PumpType, what: str) -> PipelineSpec:
    for key, names in (("model_type", [parsed.model_type]), ("search.model_type", parsed.search.model_type)):
        for name in names:
            if name not in MODEL_TYPES:
                raise InputError("is unknown", f"{what}: {key}", expected=", ".join(MODEL_TYPES), found=repr(name))
    check_split(parsed.validation.split, f"{what}: validation.split")
    names = parsed.features.channels or [channel.name for channel in pump_type.channels]
    window_s = parsed.features.window_s or max(3600.0, 10 * pump_type.cadence_s)
    alarm = parsed.alarm
    try:
        return PipelineSpec(
            pump_type=check_name(parsed.pump_type, f"{what}: pump_type"),
            channels=tuple(_channel(pump_type, name) for name in names),
            window_s=_positive(window_s, "features.window_s"),
            model_type=parsed.model_type,
            reference_days=_positive(parsed.reference.days, "reference.days"),
            budget=AlarmBudget(alarm.budget_alarms, alarm.budget_days * DAY_S),
            alarm=AlarmSettings(
                deadband=alarm.deadband,
                persistence_s=window_s / 2 if alarm.persistence_s is None else alarm.persistence_s,
                tau_s=alarm.tau_s,
            ),
            holdout=_share(parsed.validation.holdout, "validation.holdout"),
            gates=read_thresholds(parsed.gates, what),
            seed=parsed.seed,
            card=_statements(parsed.card, what),
            search=_search(parsed, window_s, what),
        )
    except ValueError as error:
        raise InputError(str(error), what) from error


def _search(parsed: _File, window_s: float, what: str) -> SearchSpec:
    asked, alarm = parsed.search, parsed.alarm
    axes = {name: getattr(asked, name) for name in AXES}
    base = {
        "model_type": parsed.model_type,
        "window_s": window_s,
        "persistence_s": alarm.persistence_s,
        "tau_s": alarm.tau_s,
        "deadband": alarm.deadband,
    }
    points = grid_points(axes, base, what) if any(axes.values()) else ()
    for point in points:
        if point.model_type in SUPERVISED:
            raise InputError(
                "cannot be searched over: a grid is judged by steps and alarms, a supervised type by pumps left out",
                f"{what}: search",
                expected="a type that learns without labels",
                found=repr(point.model_type),
                hint="leave [search] empty, and compare the versions (pumpdeck models compare)",
            )
        _positive(point.window_s, "search.window_s")
        AlarmSettings(deadband=point.deadband, persistence_s=point.persistence_s, tau_s=point.tau_s)
    return check_search(SearchSpec(points, asked.folds, asked.pumps, asked.label_horizon_s), asked.split, what)


def _statements(card: _Card, what: str) -> CardStatements:
    found = {name: " ".join(text.split()) for name, text in msgspec.structs.asdict(card).items()}
    for name, text in found.items():
        if len(text) > STATEMENT_MAX or "|" in text:
            expected = f"at most {STATEMENT_MAX} characters and no |"
            raise InputError("cannot stand in a card", f"{what}: card.{name}", expected=expected, found=len(text))
    return CardStatements(**found)


def _channel(pump_type: PumpType, name: str) -> ChannelSpec:
    found = pump_type.channel(name)
    return ChannelSpec(found.name, found.unit, found.low, found.high, found.resolution, found.votes)


def _positive(number: float, key: str) -> float:
    if not 0 < number < 1e9:
        raise ValueError(f"{key} must be more than 0")
    return float(number)


def _share(number: float, key: str) -> float:
    if not 0 <= number <= 0.5:
        raise ValueError(f"{key} must lie in 0..0.5")
    return float(number)
