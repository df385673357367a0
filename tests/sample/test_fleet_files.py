"""The files of the sample fleet are TOML in the form of the examples under docs."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_sample.fleet import Endpoint, FleetSize, build_fleet, with_endpoints
from pumpdeck_sample.fleet_files import fleet_toml, write_fleet_files

FLEET = build_fleet(FleetSize(), 7, architecture="x86_64", os_name="linux")
DOCS = Path(__file__).parents[2] / "docs"


def test_the_inventory_uses_only_keys_of_the_normative_example() -> None:
    def keys(value: object, at: str = "") -> set[str]:
        if isinstance(value, dict):
            named = at in ("/device_classes", "/pump_types")
            return {
                path
                for key, item in value.items()
                for path in ({f"{at}/{key}"} if not named else set()) | keys(item, at + ("/*" if named else f"/{key}"))
            }
        if isinstance(value, list):
            return {path for item in value for path in keys(item, f"{at}[]")}
        return set()

    example = keys(tomli.loads((DOCS / "fleet.example.toml").read_text(encoding="utf-8")))
    assert keys(tomli.loads(fleet_toml(FLEET))) <= example


def test_the_inventory_says_what_the_fleet_is() -> None:
    parsed = tomli.loads(fleet_toml(FLEET))
    pumps = [pump for site in parsed["sites"] for device in site["devices"] for pump in device["pumps"]]
    assert [(pump["tag"], pump["type"], pump["maker"]) for pump in pumps] == [
        (pump.tag, pump.type, pump.maker) for pump in FLEET.pumps
    ]
    assert list(parsed["pump_types"]) == list(FLEET.pump_types)
    channels = parsed["pump_types"]["esp"]["channels"]
    assert [channel["name"] for channel in channels] == [c.name for c in FLEET.pump_types["esp"].channels]


def test_all_files_are_written_and_parse(tmp_path: Path) -> None:
    written = write_fleet_files(FLEET, tmp_path, RealFileSystem())
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "fleet.toml",
        "policies.toml",
        *(f"makers/{maker}.toml" for maker in FLEET.makers),
        *(f"pipelines/{pump_type}.toml" for pump_type in FLEET.pump_types),
    }
    for path in written:
        assert tomli.loads(path.read_text(encoding="utf-8"))["format"] == 1
    mirador = tomli.loads((tmp_path / "makers" / "mirador.toml").read_text(encoding="utf-8"))
    assert mirador["aliases"]["Caudal"] == "flow_m3_h"
    assert mirador["scales"]["Caudal"][0] * 24 == pytest.approx(1.0)


def test_the_products_own_readers_take_the_files(tmp_path: Path) -> None:
    """What is written is what the inventory reader and the trainer's parser understand: the same fleet comes back."""
    from pumpdeck_console.config import load_policies
    from pumpdeck_fleet.services.inventory_file import load_fleet
    from pumpdeck_trainer.spec import parse_pipeline

    reached = with_endpoints(FLEET, {"gannet-d1": Endpoint(2201, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "PEM")})
    write_fleet_files(reached, tmp_path, RealFileSystem())
    loaded = load_fleet(tmp_path)
    assert (loaded.sites, loaded.devices, loaded.pumps) == (reached.sites, reached.devices, reached.pumps)
    assert dict(loaded.pump_types) == dict(reached.pump_types)
    assert dict(loaded.device_classes) == dict(reached.device_classes)
    assert {maker: dict(one.aliases) for maker, one in loaded.makers.items()} == {
        maker: dict(one.aliases) for maker, one in reached.makers.items()
    }
    for pump_type in loaded.pump_types.values():
        text = (tmp_path / "pipelines" / f"{pump_type.id}.toml").read_text(encoding="utf-8")
        assert parse_pipeline(text, pump_type, pump_type.id).window_s == 1800
    policies = load_policies(tmp_path)
    assert policies.rollout.waves == ("1", "3", "rest")
    assert policies.rollout.soak_s == 1
