"""Which model versions each device should hold: those a person names, else the candidate, else the champion of each type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.accepting import still_to_accept
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.operations.overriding import missing
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from pumpdeck_fleet.core.inventory import Device, Pump
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.registry import Alias, ModelVersion


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """One device, all its pumps, the version for each of its pump types, and why it cannot have a package (empty: it can)."""

    device: Device
    pumps: tuple[Pump, ...]
    versions: Mapping[str, ModelVersion]
    lacking: str = ""


def parse_models(words: Sequence[str]) -> dict[str, str]:
    """Model -> number or alias, from words such as `esp-health`, `esp-health=3` or `esp-health=champion`."""
    found: dict[str, str] = {}
    for word in words:
        model, _, which = word.partition("=")
        if not model or model in found:
            raise UsageError("names no model, or one twice", repr(word), expected="MODEL, MODEL=NUMBER or MODEL=ALIAS")
        found[model] = which.removeprefix("v") if which.removeprefix("v").isdecimal() else which
    return found


def versions_by_type(workspace: Workspace, models: Mapping[str, str]) -> dict[str, ModelVersion]:
    """Pump type -> version. `models` names what a person chose; the rest is the candidate, else the champion.

    Raises:
        NotFoundError: a named model, number or alias does not exist.
    """
    from pumpdeck_console.operations.models import find_version  # deferred: selection stands below the model operations

    found: dict[str, ModelVersion] = {}
    registry = workspace.store.registry
    for model in registry.models():
        if model in models:
            version: ModelVersion | None = find_version(workspace, model, models[model])
        else:
            version = registry.alias(model, Alias.CANDIDATE) or registry.alias(model, Alias.CHAMPION)
        if version is not None and (model in models or version.pump_type not in found):
            found[version.pump_type] = version
    if unknown := sorted(set(models) - set(registry.models())):
        raise NotFoundError("no such model", unknown[0], hint="list them with: pumpdeck models")
    return found


def wanted_devices(workspace: Workspace, *, query: str, models: Mapping[str, str]) -> tuple[WantedDevice, ...]:
    """Devices with a pump that `query` selects and, when models are named, with a pump of such a model's type.

    A package is built for a whole device, so all pumps of a chosen device are in it.
    """
    versions = versions_by_type(workspace, models)
    named_types = {pump_type for pump_type, version in versions.items() if version.model in models}
    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    by_device = workspace.fleet.pumps_by_device
    found = []
    for device in workspace.fleet.devices:
        pumps = by_device.get(device.id, ())
        types = sorted({pump.type for pump in pumps})
        if device.id in chosen and (not models or named_types & set(types)):
            held = {pump_type: versions[pump_type] for pump_type in types if pump_type in versions}
            found.append(WantedDevice(device, pumps, held, _lacking(workspace, pumps, held)))
    return tuple(found)


def _lacking(workspace: Workspace, pumps: Sequence[Pump], versions: Mapping[str, ModelVersion]) -> str:
    for pump in pumps:
        version = versions.get(pump.type)
        if version is None:
            return f"there is no model for pump type {pump.type}"
        if version.refusals and missing(workspace, version):
            return f"quality gate {version.refusals[0].name} refused {version.model} v{version_name(version.number)}"
        if unaccepted := still_to_accept(workspace, version):
            people = "a person" if unaccepted == 1 else f"{unaccepted} people"
            return f"{version.model} v{version_name(version.number)} is foreign and {people} must accept it first"
        if pump.id not in {held.pump for held in version.pumps}:
            return f"{version.model} v{version_name(version.number)} was not trained for {pump.tag}"
    return ""
