"""What a person says of a file from outside: `spec.toml` beside it (docs/foreign.example.toml is normative)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec
import tomli

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.inventory import PumpType
from pumpdeck_trainer.foreign_input import FOREIGN, NEVER_FOLLOWS_S, ForeignInput
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, ChannelSpec, PipelineSpec

FORMAT = 1
TEXT_MAX = 1000
EXAMPLE = "docs/foreign.example.toml shows every key"


class _Channel(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    unit: str


class _Origin(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    made_by: str
    licence: str
    says: str


class _Inputs(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    channels: list[_Channel]
    rows: str = "window"
    window_s: float | None = None
    values: str = "units"
    tensor: str = ""


class _Score(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    meaning: str
    worse: str
    output: str = ""
    column: int = 0
    zero: float | None = None
    unit: float | None = None
    limit: float | None = None
    contributions: str = ""


class _Alarm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    persistence_s: float | None = None
    deadband: float | None = None
    tau_s: float | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    format: int
    pump_type: str
    origin: _Origin
    inputs: _Inputs
    score: _Score
    alarm: _Alarm = msgspec.field(default_factory=_Alarm)


@dataclass(frozen=True)
class ForeignSpec:
    """The pipeline that judges the file, with what was said of it; digests of files are filled in by the import."""

    pipeline: PipelineSpec
    said: ForeignInput


def parse_foreign(text: str, pump_type: PumpType, base: PipelineSpec, what: str) -> ForeignSpec:
    """The spec in a TOML file, over the workspace's own pipeline of that pump type: same budget, gates and reference window.

    Raises:
        InputError: `what` (the file) and the key, what was expected and found.
    """
    parsed = _parsed(text, what)
    if parsed.pump_type != pump_type.id:
        raise InputError("is for another pump type", f"{what}: pump_type", expected=pump_type.id, found=parsed.pump_type)
    inputs, alarm = parsed.inputs, parsed.alarm
    window_s = _window(inputs, pump_type, base, what)
    try:
        settings = replace(
            base.alarm,
            persistence_s=base.alarm.persistence_s if alarm.persistence_s is None else alarm.persistence_s,
            deadband=base.alarm.deadband if alarm.deadband is None else alarm.deadband,
            tau_s=NEVER_FOLLOWS_S if alarm.tau_s is None else alarm.tau_s,
        )
    except ValueError as error:
        raise InputError(str(error), f"{what}: alarm") from error
    pipeline = replace(
        base,
        channels=_channels(inputs, pump_type, what),
        window_s=window_s,
        model_type=FOREIGN,
        alarm=settings,
        search=type(base.search)(),
    )
    return ForeignSpec(pipeline, _said(parsed, what))


def _parsed(text: str, what: str) -> _File:
    if len(text) > SPEC_MAX_BYTES:
        raise InputError("is too large", what, expected=f"at most {SPEC_MAX_BYTES} characters", found=len(text))
    try:
        parsed = msgspec.convert(tomli.loads(text), _File)
    except msgspec.ValidationError as error:
        raise InputError(str(error), what, hint=EXAMPLE) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML ({error})", what) from error
    if parsed.format != FORMAT:
        raise InputError("has an unknown format", f"{what}: format", expected=FORMAT, found=parsed.format)
    return parsed


def _window(inputs: _Inputs, pump_type: PumpType, base: PipelineSpec, what: str) -> float:
    _one_of(inputs.rows, ("raw", "window"), f"{what}: inputs.rows")
    if inputs.rows == "raw":
        if inputs.window_s is not None:
            raise InputError("does not go with raw rows", f"{what}: inputs.window_s", hint='leave it out, or rows = "window"')
        # The mean over half a cadence is the row itself, even when a row comes a little early.
        return pump_type.cadence_s / 2
    found = base.window_s if inputs.window_s is None else inputs.window_s
    if not 0 < found < 1e9:
        raise InputError("must be more than 0", f"{what}: inputs.window_s", found=found)
    return float(found)


def _channels(inputs: _Inputs, pump_type: PumpType, what: str) -> tuple[ChannelSpec, ...]:
    names = [one.name for one in inputs.channels]
    if not names or len(set(names)) != len(names):
        raise InputError("names no channel, or one twice", f"{what}: inputs.channels", hint=EXAMPLE)
    found = []
    for one in inputs.channels:
        held = pump_type.channel(one.name)
        if one.unit != held.unit:
            raise InputError(
                "is in another unit than the fleet measures",
                f"{what}: inputs.channels {one.name}",
                expected=held.unit,
                found=one.unit,
                hint="put the conversion into the model, or correct the spec",
            )
        found.append(ChannelSpec(held.name, held.unit, held.low, held.high, held.resolution, held.votes))
    if not any(one.votes for one in found):
        raise InputError("has no channel that votes", f"{what}: inputs.channels")
    return tuple(found)


def _said(parsed: _File, what: str) -> ForeignInput:
    inputs, score, origin = parsed.inputs, parsed.score, parsed.origin
    _one_of(inputs.values, ("units", "widths"), f"{what}: inputs.values")
    _one_of(score.worse, ("higher", "lower"), f"{what}: score.worse")
    for key, number in (("zero", score.zero), ("unit", score.unit), ("limit", score.limit)):
        if number is not None and not (math.isfinite(number) and abs(number) < 1e9):
            raise InputError("is no number that a score can have", f"{what}: score.{key}", found=number)
    if score.unit is not None and score.unit < 1e-9:
        raise InputError("must be more than 0", f"{what}: score.unit", found=score.unit)
    if not 0 <= score.column < 1024:
        raise InputError("is no column", f"{what}: score.column", expected="0 to 1023", found=score.column)
    return ForeignInput(
        made_by=_text(origin.made_by, f"{what}: origin.made_by"),
        licence=_text(origin.licence, f"{what}: origin.licence"),
        says=_text(origin.says, f"{what}: origin.says"),
        meaning=_text(score.meaning, f"{what}: score.meaning"),
        tensor=inputs.tensor,
        in_widths=inputs.values == "widths",
        output=score.output,
        column=score.column,
        is_lower_worse=score.worse == "lower",
        zero=score.zero,
        unit=score.unit,
        limit=score.limit,
        contributions=score.contributions,
    )


def _text(text: str, key: str) -> str:
    found = " ".join(text.split())
    if not found:
        raise InputError("is empty", key, hint="nobody can promote a model of which nobody says where it comes from")
    if len(found) > TEXT_MAX or "|" in found or not found.isprintable():
        raise InputError("cannot stand in a card", key, expected=f"at most {TEXT_MAX} characters, no |", found=len(found))
    return found


def _one_of(value: str, choices: tuple[str, ...], key: str) -> None:
    if value not in choices:
        raise InputError("is unknown", key, expected=" or ".join(choices), found=repr(value[:40]))
