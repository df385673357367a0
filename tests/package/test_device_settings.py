"""The rule by which a device runs models: package, service and container take it from one function."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_packaging.device_settings import ModelSize, device_settings
from support.packages import EDGE, built_package

SMALL = ModelSize(500, pumps=4)
LARGE = ModelSize(20 * 1024 * 1024)


def test_settings_are_a_rule_on_device_class_and_model() -> None:
    assert device_settings(EDGE, SMALL) == device_settings(EDGE, [SMALL])
    assert device_settings(replace(EDGE, cpu_quota_pct=25)).settings.latency_limit_us == 20_000.0
    assert device_settings(replace(EDGE, memory_mb=64)).settings.memory_limit_mb == 32


def test_a_package_holds_what_the_rule_says() -> None:
    manifest = built_package(pumps=4).manifest
    assert manifest.settings == device_settings(EDGE, SMALL).settings


def test_a_second_thread_is_for_graphs_that_are_worth_waking_it() -> None:
    class_of_four = replace(EDGE, threads=4)
    assert device_settings(class_of_four, SMALL).settings.threads == 1
    assert device_settings(class_of_four, LARGE).settings.threads == 4


def test_service_and_container_get_the_same_bounds() -> None:
    found = device_settings(EDGE, SMALL)
    assert found.unit_lines() == ("MemoryMax=384M", "CPUQuota=50%")
    assert found.container_options() == ("--memory=324m", "--cpus=0.5")
    # The agent, its models and a trial beside them must fit under the bound that would otherwise kill them.
    assert found.memory_max_mb >= found.settings.memory_limit_mb + 64
    assert device_settings(EDGE, [SMALL, LARGE]).needed_mb == found.needed_mb + 2 * (80 + 1)


def test_the_service_has_room_for_whatever_its_class_may_be_given_later() -> None:
    """Nobody has the rights to write the unit again: what it allows at enrolment is what any package may need."""
    assert device_settings(EDGE).unit_lines() == device_settings(EDGE, [SMALL, LARGE]).unit_lines()


def test_a_package_that_would_not_fit_under_the_service_is_not_built() -> None:
    with pytest.raises(GateRefusedError, match="more memory than its device class allows") as caught:
        built_package(onnx=bytes(48 * 1024 * 1024))
    assert "at most 384 MB" in caught.value.sentence()


def test_a_class_too_small_for_its_models_is_seen() -> None:
    small = device_settings(replace(EDGE, memory_mb=128), SMALL)
    assert small.needed_mb > small.memory_max_mb
    assert device_settings(EDGE, SMALL).needed_mb <= device_settings(EDGE, SMALL).memory_max_mb
