"""Plans, receipts and a small driver for rollout tests."""

from __future__ import annotations

from collections.abc import Sequence

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.receipts import Outcome, Receipt, SelfTest
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPlan, RolloutPolicy, VersionRef, plan_rollout

T0 = 1_767_225_600_000
VERSIONS = (VersionRef("esp-health", 2, "c" * 64),)
POLICY = RolloutPolicy(waves=("1", "3", "rest"), soak_s=60.0, deadline_s=3600.0, courier_deadline_s=7200.0)
GOOD_TEST = SelfTest(64, 1e-7, True, 20.0, 40.0, 48.0)


def sha(text: str) -> str:
    return canonical.digest(text.encode())


def plan_device(number: int, *, site: str = "", groups: Sequence[str] = (), link: Link = Link.SSH) -> PlanDevice:
    site = site or f"site{number % 3}"
    return PlanDevice(f"d{number:03d}", site, link, sha(f"package {number}"), 8_000 + number, 4, 3, tuple(groups))


def make_plan(devices: int = 10, policy: RolloutPolicy = POLICY, **more: object) -> RolloutPlan:
    entries = [plan_device(number, **more) for number in range(devices)]  # type: ignore[arg-type]
    return plan_rollout("r1", VERSIONS, entries, policy, created_ms=T0)


def started(plan: RolloutPlan, now_ms: int = T0) -> Rollout:
    """A running rollout: frozen, approved and started, no tick yet."""
    rollout, _ = Rollout.draft(plan).receive(ev.Freeze(now_ms, "actor-author"))
    for number in range(plan.policy.approvals):
        rollout, _ = rollout.receive(ev.Approve(now_ms, f"actor-approver{number}", plan.digest))
    rollout, _ = rollout.receive(ev.Start(now_ms, "actor-operator"))
    return rollout


def receipt(
    rollout: Rollout, device: str, outcome: Outcome = Outcome.COMMITTED, *, at_ms: int = T0, **changes: object
) -> Receipt:
    planned, task = rollout.plan.by_device[device], rollout.tasks[device]
    is_good = outcome in (Outcome.COMMITTED, Outcome.ALREADY)
    fields: dict[str, object] = {
        "format": 1,
        "device": device,
        "task": task.id,
        "package_sha256": planned.package_sha256,
        "seq": task.seq,
        "outcome": outcome,
        "reason": "" if is_good else f"{outcome} in a test",
        "active_sha256": planned.package_sha256 if is_good else sha("previous"),
        "previous_sha256": sha("previous"),
        "counter": 1,
        "at_ms": at_ms,
        "clock_synced": True,
        "agent_version": "0.1.0",
        "runtime_version": "1.18",
        "self_test": GOOD_TEST if outcome is Outcome.COMMITTED else None,
    }
    return Receipt(**{**fields, **changes})  # type: ignore[arg-type]


def receipted(rollout: Rollout, device: str, outcome: Outcome = Outcome.COMMITTED, *, now_ms: int = T0) -> ev.Receipted:
    word = receipt(rollout, device, outcome, at_ms=now_ms)
    return ev.Receipted(now_ms, word, canonical.digest(canonical.encode(word)), "device-key")


def delivers(commands: Sequence[ev.Command]) -> list[ev.Deliver]:
    return [command for command in commands if isinstance(command, ev.Deliver)]


def finish_wave(rollout: Rollout, now_ms: int) -> tuple[Rollout, int]:
    """Every device of the current wave is sent to, commits, and the soak passes; returns the time after it."""
    wave = rollout.current_wave
    while rollout.current_wave == wave and rollout.waves[wave].state in ("OPEN", "SOAKING"):
        now_ms += 1_000
        rollout, _ = rollout.receive(ev.Tick(now_ms))
        for device in rollout.plan.waves[wave]:
            if rollout.tasks[device].state == "SENDING":
                rollout, _ = rollout.receive(ev.Staged(now_ms, device))
                rollout, _ = rollout.receive(receipted(rollout, device, now_ms=now_ms))
        if rollout.waves[wave].state == "SOAKING":
            now_ms = max(now_ms, rollout.waves[wave].soak_until_ms)
    return rollout, now_ms
