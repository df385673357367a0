"""Planning: waves, order, exclusions, the plan hash."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.rollout_gates import limits
from pumpdeck_fleet.core.rollout_plan import RolloutPlan, RolloutPolicy, plan_rollout, wave_sizes
from support.rollouts import POLICY, T0, VERSIONS, make_plan, plan_device


@pytest.mark.parametrize(
    ("devices", "waves", "sizes"),
    [
        (60, ("1", "5%", "25%", "rest"), (1, 2, 12, 45)),
        (5000, ("1", "5%", "25%", "rest"), (1, 249, 1000, 3750)),
        (60, ("1", "3", "rest"), (1, 3, 56)),
        (1, ("1", "5%", "25%", "rest"), (1,)),
        (3, ("1", "3", "rest"), (1, 2)),
        (10, ("2",), (2, 8)),
        (10, ("rest",), (10,)),
    ],
)
def test_waves_have_the_sizes_the_policy_says(devices: int, waves: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    assert wave_sizes(devices, waves) == sizes


@given(
    st.integers(1, 6000),
    st.lists(
        st.one_of(st.integers(1, 500).map(str), st.integers(1, 100).map(lambda n: f"{n}%")), min_size=1, max_size=6
    ),
)
def test_every_device_stands_in_exactly_one_wave(devices: int, waves: list[str]) -> None:
    sizes = wave_sizes(devices, waves)
    assert sum(sizes) == devices
    assert min(sizes) >= 1


@given(st.integers(1, 6000), st.integers(0, 5))
def test_the_gate_can_always_be_passed_and_never_by_silence(size: int, wave: int) -> None:
    gate = limits(size, wave, RolloutPolicy())
    assert 1 <= gate.needed <= size
    assert gate.bad + gate.unknown < size
    assert gate.bad <= 0.02 * size
    assert gate.unknown <= 0.05 * size


@pytest.mark.parametrize("waves", [(), ("rest", "1"), ("0",), ("101%",), ("-1",), ("all",), ("1.5",)])
def test_odd_wave_sizes_are_refused(waves: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="wave"):
        replace(POLICY, waves=waves)


def test_a_policy_from_json_names_what_is_wrong() -> None:
    plain = {**canonical.to_plain(POLICY), "bad_pct": 101.0}
    with pytest.raises(canonical.FormatError, match="per cent"):
        canonical.from_plain(RolloutPolicy, plain, "policy")


def test_the_least_critical_come_first_sites_take_turns_and_couriers_come_last() -> None:
    entries = [
        replace(plan_device(0, site="a"), criticality=1),
        plan_device(1, site="a"),
        plan_device(2, site="a"),
        plan_device(3, site="b"),
        replace(plan_device(4, site="b", link=Link.COURIER), criticality=5),
    ]
    plan = plan_rollout("r1", VERSIONS, entries, POLICY, created_ms=T0)
    assert [task.device for task in plan.tasks] == ["d001", "d003", "d002", "d000", "d004"]


def test_excluded_devices_say_why() -> None:
    entries = [
        plan_device(0),
        replace(plan_device(1), exclusion="no device key: enrol it first"),
        replace(plan_device(2), package_sha256=""),
        replace(plan_device(3), active_sha256=plan_device(3).package_sha256),
    ]
    plan = plan_rollout("r1", VERSIONS, entries, POLICY, created_ms=T0)
    assert [(entry.device, entry.reason) for entry in plan.excluded] == [
        ("d001", "no device key: enrol it first"),
        ("d002", "there is no package for it"),
        ("d003", "it runs this package already"),
    ]
    assert [task.device for task in plan.tasks] == ["d000"]


def test_a_plan_for_nobody_is_refused_with_the_reasons() -> None:
    with pytest.raises(RefusedError, match="no package"):
        plan_rollout("r1", VERSIONS, [replace(plan_device(1), package_sha256="")], POLICY, created_ms=T0)
    with pytest.raises(RefusedError, match="twice"):
        plan_rollout("r1", VERSIONS, [plan_device(1), plan_device(1)], POLICY, created_ms=T0)


def test_the_plan_hash_covers_everything() -> None:
    plan = make_plan(6)
    others = [
        replace(plan, id="r2"),
        replace(plan, versions=()),
        replace(plan, tasks=(replace(plan.tasks[0], package_sha256="0" * 64), *plan.tasks[1:])),
        replace(plan, policy=replace(POLICY, soak_s=0.0)),
        replace(plan, created_ms=T0 + 1),
        replace(plan, reverts="r0"),
        replace(plan, tasks=tuple(reversed(plan.tasks[:1])) + tuple(reversed(plan.tasks[1:]))),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == len(others) + 1


def test_a_plan_survives_the_store() -> None:
    plan = make_plan(6)
    again = canonical.decode(RolloutPlan, canonical.encode(plan), "plan", max_bytes=10**6)
    assert again == plan
    assert again.digest == plan.digest


def test_the_same_devices_in_another_order_give_the_same_plan() -> None:
    entries = [plan_device(number) for number in range(20)]
    one = plan_rollout("r1", VERSIONS, entries, POLICY, created_ms=T0)
    two = plan_rollout("r1", VERSIONS, list(reversed(entries)), POLICY, created_ms=T0)
    assert one.digest == two.digest


def test_task_names_are_safe_and_differ() -> None:
    plan = make_plan(20)
    names = {plan.task_id(task.device) for task in plan.tasks}
    assert len(names) == 20
    assert all(len(name) == 26 and name.startswith("t-") for name in names)


def test_retries_back_off_up_to_the_ceiling() -> None:
    policy = RolloutPolicy(retry_after_s=30, retry_ceiling_s=100)
    assert [policy.retry_ms(n) for n in (0, 1, 2, 3, 99)] == [30_000, 30_000, 60_000, 100_000, 100_000]
