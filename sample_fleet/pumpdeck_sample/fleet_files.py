"""The sample fleet as the files that people would have written: `fleet.toml`, `makers/`, `pipelines/`, `policies.toml`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.inventory import (
    Channel,
    Device,
    DeviceClass,
    Fleet,
    InventoryEvent,
    MakerProfile,
    Pump,
    PumpType,
    Site,
)
from pumpdeck_fleet.core.ports import FileSystem

POLICIES = """\
# Policies of the sample fleet: the engine, the gates and the code path are those of a real one, only the waiting is short.
format = 1

[health]
drift_psi = 0.5               # one day against a month: weather alone moves the worst of eight channels past 0.25

[rollout]
waves = ["1", "3", "rest"]    # devices in each wave
soak_s = 1
deadline_s = 600
retry_after_s = 2
keep_windows = false
approvals = 1

[transport]
concurrency = 8
"""


_PIPELINE = """\
# How pumps of this type are trained; docs/pipeline.example.toml shows every key.
format = 1
pump_type = {pump_type}
model_type = "maxz"

[features]
window_s = 1800               # three rows of the ten-minute history, thirty of the live ones

[alarm]
budget_alarms = 1
budget_days = 30
persistence_s = 900
"""


def fleet_files(fleet: Fleet) -> dict[str, str]:
    """`fleet.toml`, `makers/`, `pipelines/` and `policies.toml`: path inside a workspace -> text."""
    texts = {"fleet.toml": fleet_toml(fleet), "policies.toml": POLICIES}
    texts |= {f"makers/{maker.id}.toml": maker_toml(maker) for maker in fleet.makers.values()}
    return texts | {f"pipelines/{one}.toml": _PIPELINE.format(pump_type=_value(one)) for one in fleet.pump_types}


def write_fleet_files(fleet: Fleet, folder: Path, fs: FileSystem) -> list[Path]:
    """Write the fleet's files into a workspace folder; returns what was written."""
    texts = {folder / name: text for name, text in fleet_files(fleet).items()}
    for path, text in texts.items():
        fs.mkdir(path.parent)
        replace_file(fs, path, text.encode("utf-8"))
    return list(texts)


def fleet_toml(fleet: Fleet) -> str:
    """The inventory as TOML text, in the order and form of docs/fleet.example.toml."""
    blocks = [f"# {fleet.name}: every name in it is invented.\nformat = 1\nname = {_value(fleet.name)}\n"]
    blocks += [_device_class(one) for one in fleet.device_classes.values()]
    blocks += [_pump_type(one) for one in fleet.pump_types.values()]
    for site in fleet.sites:
        blocks.append(_site(site))
        blocks += [
            _device(device, fleet.pumps_by_device.get(device.id, ()))
            for device in fleet.devices
            if device.site == site.id
        ]
    blocks += [_event(event) for event in fleet.events]
    return "\n".join(blocks)


def maker_toml(maker: MakerProfile) -> str:
    """A maker profile as TOML text, in the form of docs/maker.example.toml."""
    lines = ["format = 1", f"id = {_value(maker.id)}", f"title = {_value(maker.title)}", "", "[aliases]"]
    lines += [f"{_value(alias)} = {_value(channel)}" for alias, channel in maker.aliases.items()]
    if maker.scales:
        lines += ["", "[scales]", "# our value = raw * factor + offset"]
        lines += [f"{_value(alias)} = {_value(list(scale))}" for alias, scale in maker.scales.items()]
    return "\n".join(lines) + "\n"


def _device_class(one: DeviceClass) -> str:
    return f"[device_classes.{one.id}]\n" + _lines(_fields(one, without=("id",)))


def _pump_type(one: PumpType) -> str:
    channels = "".join(f"  {_inline(_channel(channel))},\n" for channel in one.channels)
    head = _lines({"title": one.title, "cadence_s": one.cadence_s})
    return f"[pump_types.{one.id}]\n{head}channels = [\n{channels}]\n"


def _channel(channel: Channel) -> dict[str, object]:
    return _fields(channel, without=())


def _site(site: Site) -> str:
    fields = _fields(site, without=("window",))
    if site.window is not None:
        start, end = site.window.start_minute, site.window.end_minute
        fields["window"] = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    return "[[sites]]\n" + _lines(fields)


def _device(device: Device, pumps: Iterable[Pump]) -> str:
    listed = "".join(f"  {_inline(_fields(pump, without=('site', 'device')))},\n" for pump in pumps)
    return "[[sites.devices]]\n" + _lines(_fields(device, without=("site",))) + f"pumps = [\n{listed}]\n"


def _event(event: InventoryEvent) -> str:
    fields = _fields(event, without=("at_ms", "until_ms"))
    until = f"until = {format_ms(event.until_ms)}\n" if event.until_ms else ""
    return f"[[events]]\nat = {format_ms(event.at_ms)}\n{until}" + _lines(fields)


def _fields(
    one: Channel | Device | DeviceClass | InventoryEvent | Pump | Site, without: tuple[str, ...]
) -> dict[str, object]:
    """The fields that say something: those that differ from their default, or have none."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if field.name not in without and value != field.default and value is not None:
            found[field.name] = value
    return found


def _lines(fields: Mapping[str, object]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in fields.items())


def _inline(fields: Mapping[str, object]) -> str:
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in fields.items()) + " }"


def _value(value: object) -> str:
    """A TOML value. A JSON string is a TOML basic string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return repr(value)
