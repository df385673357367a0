"""The sample fleet is the one that is promised, and the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.ids import check_name, check_tag
from pumpdeck_fleet.core.inventory import Fleet
from pumpdeck_sample.channels import PumpType
from pumpdeck_sample.faults import PUMP_FAULTS, FaultKind
from pumpdeck_sample.fleet import Endpoint, FleetSize, build_fleet, with_endpoints
from pumpdeck_sample.makers import MAKERS
from pumpdeck_sample.scenario import demo_scenario, is_alarm_expected

END_MS = 1_760_000_040_000


def fleet_of(*size: int, seed: int = 7) -> Fleet:
    return build_fleet(FleetSize(*size), seed, architecture="x86_64", os_name="linux")


def test_the_full_fleet_has_the_promised_numbers() -> None:
    fleet = fleet_of()
    assert (len(fleet.sites), len(fleet.devices), len(fleet.pumps)) == (12, 60, 240)
    assert {pump.maker for pump in fleet.pumps} == set(fleet.makers) == {maker.id for maker in MAKERS}
    assert len(MAKERS) == 5
    by_type = Counter(pump.type for pump in fleet.pumps)
    assert set(by_type) == set(fleet.pump_types) == {pump_type.value for pump_type in PumpType}
    assert min(by_type.values()) >= 40
    assert all(len(pumps) == 4 for pumps in fleet.pumps_by_device.values())


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 4), (3, 2, 3), (12, 6, 5)])
def test_any_size_has_unique_safe_names_and_known_references(size) -> None:
    fleet = fleet_of(*size)
    assert len({pump.id.lower() for pump in fleet.pumps}) == len(fleet.pumps) == size[0] * size[1] * size[2]
    for pump in fleet.pumps:
        check_tag(pump.tag, "tag")
        assert fleet.device(pump.device).site == pump.site
        assert pump.type in fleet.pump_types
    for device in fleet.devices:
        check_name(device.id, "device")
        assert fleet.device_classes[device.device_class].architecture == "x86_64"


def test_the_two_of_a_redundancy_group_stand_at_different_devices() -> None:
    groups = defaultdict(list)
    for pump in fleet_of().pumps:
        if pump.redundancy_group:
            groups[pump.site, pump.redundancy_group].append(pump)
    assert len(groups) > 20
    for pair in groups.values():
        assert len(pair) == 2
        assert pair[0].device != pair[1].device
        assert pair[0].type == pair[1].type


def test_the_same_seed_gives_the_same_fleet_and_another_seed_another() -> None:
    assert fleet_of() == fleet_of()
    assert fleet_of() != fleet_of(seed=8)


def test_a_size_out_of_range_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="1-12 sites"):
        fleet_of(13, 5, 4)


def test_endpoints_are_written_into_their_devices_only() -> None:
    fleet = with_endpoints(fleet_of(2, 1, 4), {"gannet-d1": Endpoint(2201, "ssh-ed25519 AAAA", "PEM")})
    reached, other = fleet.devices
    assert (reached.address, reached.port, reached.host_key, reached.device_key) == (
        "127.0.0.1",
        2201,
        "ssh-ed25519 AAAA",
        "PEM",
    )
    assert (other.address, other.host_key) == ("", "")


def test_the_full_scenario_has_eight_faults_of_several_kinds_on_pumps_that_can_show_them() -> None:
    for seed in range(20):
        fleet = fleet_of(seed=seed)
        scenario = demo_scenario(fleet, END_MS, seed)
        assert len(scenario.faults) == 8
        assert len({fault.kind for fault in scenario.faults}) == 8
        assert len({fault.pump_id for fault in scenario.faults} | {drift.pump_id for drift in scenario.drifts}) == 11
        assert sum(fault.kind.is_sensor_fault for fault in scenario.faults) == 2
        assert sum(fault.onset_ms > END_MS - DAY_MS for fault in scenario.faults) == 7
        assert sum(is_alarm_expected(fault, END_MS - DAY_MS, END_MS) for fault in scenario.faults) == 6
        for fault in scenario.faults:
            pump_type = PumpType(fleet.pump(fault.pump_id).type)
            assert fault.kind.is_sensor_fault or fault.kind in PUMP_FAULTS[pump_type]
            names = [channel.name for channel in fleet.pump_types[pump_type].channels]
            assert fault.channel is None or fault.channel in names


def test_a_small_fleet_has_at_least_one_fault_that_should_alarm() -> None:
    for seed in range(20):
        scenario = demo_scenario(fleet_of(2, 1, 4), END_MS, seed)
        assert scenario.faults[0].kind is FaultKind.BEARING_WEAR
        assert is_alarm_expected(scenario.faults[0], END_MS - DAY_MS, END_MS)


def test_every_maker_names_every_channel_once() -> None:
    channels = {channel.name for of_type in fleet_of().pump_types.values() for channel in of_type.channels}
    for maker in MAKERS:
        assert set(maker.profile.aliases.values()) == channels
        assert set(maker.profile.scales) <= set(maker.profile.aliases)
