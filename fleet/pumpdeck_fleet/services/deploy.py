"""Rollouts as people use them: plan, approve, start, halt, resume, abort, revert; and what time brings (`advance`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import NotFoundError, RefusedError
from pumpdeck_fleet.core.inventory import Device, Fleet, Link
from pumpdeck_fleet.core.receipts import NO_TERMS, Terms
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import PlanDevice, RolloutPlan, RolloutPolicy, VersionRef, plan_rollout
from pumpdeck_fleet.core.rollout_states import GOOD, RolloutState, WaveState
from pumpdeck_fleet.services.deploy_feed import feed, keep
from pumpdeck_fleet.services.site_windows import closed_sites
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.models import PackageRow

DRIFT_PSI = 0.25


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a person asks for: these model versions (number by model) on these devices, by these rules."""

    versions: Mapping[str, int]
    devices: tuple[str, ...]
    policy: RolloutPolicy
    terms: Terms = NO_TERMS


def draft_plan(store: Store, fleet: Fleet, request: PlanRequest, now_ms: int) -> RolloutPlan:
    """The plan that the request would become: the dry run, nothing is stored.

    Raises:
        NotFoundError: no such model version or device.
        RefusedError: no device can take part.
    """
    versions = []
    for model, number in sorted(request.versions.items()):
        versions.append(VersionRef(model, number, store.registry.version(model, number).content_digest))
    enrolled, active = store.devices.identities(), store.devices.active()
    retired = store.devices.retired()
    entries = []
    for name in sorted(set(request.devices)):
        device = fleet.device(name)
        package = _package_for(store, device, request.versions)
        entries.append(
            PlanDevice(
                device=device.id,
                site=device.site,
                link=fleet.site(device.site).link,
                package_sha256=package.sha256 if package else "",
                package_bytes=package.bytes if package else 0,
                pumps=len(fleet.pumps_by_device.get(device.id, ())),
                criticality=min((pump.criticality for pump in fleet.pumps_by_device.get(device.id, ())), default=3),
                groups=redundancy_groups(fleet, device.id),
                active_sha256=active.get(device.id, ""),
                exclusion="it is retired"
                if device.id in retired
                else _exclusion(fleet, device, is_enrolled=device.id in enrolled),
            )
        )
    plan = plan_rollout(_new_id(store, now_ms), versions, entries, request.policy, created_ms=now_ms)
    return plan if request.terms.are_ordinary else replace(plan, terms=request.terms)


def plan(store: Store, fleet: Fleet, request: PlanRequest, *, actor: str, now_ms: int) -> Rollout:
    """A planned rollout, stored; from here on nothing in its plan can change. Raises as `draft_plan`."""
    with store.atomic():
        return _freeze(store, draft_plan(store, fleet, request, now_ms), actor, now_ms)


def approve(store: Store, rollout_id: str, plan_digest: str, *, actor: str, now_ms: int, person: str = "") -> Rollout:
    """The rollout with this person's approval of exactly that plan. Raises: NotFoundError, RefusedError.

    `person` is whose key signs it, empty where none does.

    One that another workspace drives keeps its state here: the approval counts when that workspace hears of it by sync.
    """
    if rollout_id not in store.rollouts.homes():
        return feed(store, rollout_id, [ev.Approve(now_ms, actor, plan_digest, person)]).rollout
    with store.atomic():
        before = store.rollouts.load(rollout_id)
        after, _ = before.receive(ev.Approve(now_ms, actor, plan_digest, person))
        rollout = replace(before, approvals=after.approvals)
        store.rollouts.save(rollout)
        store.audit.append(actor, "rollout.approve", rollout_id, digests={"plan": plan_digest})
        return rollout


def start(
    store: Store,
    rollout_id: str,
    *,
    actor: str,
    now_ms: int,
    supersede: bool = False,
    trust_seqs: Mapping[str, int] | None = None,
    unheard: bool = False,
) -> Rollout:
    """Let an approved rollout run. With `supersede`, tasks of other rollouts that were not handed over give way.

    `trust_seqs` is the highest number by device that its site's trust repository has used: no task gets one at or below it.
    In a restored workspace every device must have been heard of since, unless `unheard` says that a person takes that on.

    Raises:
        ConflictError: a device has a live task in another rollout.
        RefusedError: it is not approved.
    """
    with store.atomic():
        rollout = store.rollouts.load(rollout_id)
        if not unheard:
            _check_heard(store, rollout.tasks)
        live = {
            device: other
            for device, (_, other) in store.rollouts.live_tasks().items()
            if device in rollout.tasks and other != rollout_id
        }
        if supersede:
            for device, other in live.items():
                feed(store, other, [ev.Supersede(now_ms, actor, device, rollout_id)])
            live = {}
        known, used = _last_seqs(store, rollout.tasks), trust_seqs or {}
        last_seqs = {device: max(seq, used.get(device, 0)) for device, seq in known.items()}
        return feed(store, rollout_id, [ev.Start(now_ms, actor, last_seqs, live)]).rollout


def halt(store: Store, rollout_id: str, reason: str, *, actor: str, now_ms: int) -> Rollout:
    """Stop sending; what is on its way still ends. Raises: NotFoundError, RefusedError."""
    return feed(store, rollout_id, [ev.Halt(now_ms, actor, reason)]).rollout


def resume(store: Store, rollout_id: str, reason: str, *, actor: str, now_ms: int, override: bool = False) -> Rollout:
    """Go on after a halt; a failed wave needs an override. Raises: NotFoundError, RefusedError."""
    return feed(store, rollout_id, [ev.Resume(now_ms, actor, reason, override)]).rollout


def abort(store: Store, rollout_id: str, reason: str, *, actor: str, now_ms: int) -> Rollout:
    """End it; what was not handed over is cancelled. Raises: NotFoundError, RefusedError."""
    return feed(store, rollout_id, [ev.Abort(now_ms, actor, reason)]).rollout


def revert(store: Store, rollout_id: str, reason: str, *, actor: str, now_ms: int) -> Rollout:
    """A planned rollout that brings back what the devices of this one ran before; it needs approval like any other.

    Raises:
        RefusedError: no device has anything to go back to, or the rollout cannot be reverted now.
    """
    with store.atomic():
        old = store.rollouts.load(rollout_id)
        entries, versions = [], {}
        for device, task in old.tasks.items():
            if task.state not in GOOD:
                continue
            planned = old.plan.by_device[device]
            package = store.packages.get(task.previous_sha256) if task.previous_sha256 else None
            if package is not None:
                versions.update(package.versions)
            entries.append(
                PlanDevice(
                    device=device,
                    site=planned.site,
                    link=planned.link,
                    package_sha256=package.sha256 if package else "",
                    package_bytes=package.bytes if package else 0,
                    pumps=planned.pumps,
                    groups=planned.groups,
                    exclusion="" if package else "it had no model before",
                )
            )
        refs = [
            VersionRef(model, number, store.registry.version(model, number).content_digest)
            for model, number in sorted(versions.items())
        ]
        frozen = plan_rollout(
            _new_id(store, now_ms), refs, entries, old.plan.policy, created_ms=now_ms, reverts=rollout_id
        )
        feed(store, rollout_id, [ev.Revert(now_ms, actor, reason, frozen.id)])
        return _freeze(store, frozen, actor, now_ms)


def advance(store: Store, fleet: Fleet, now_ms: int) -> tuple[Rollout, ...]:
    """Let time pass in every rollout that is not over: deadlines, soaks, next waves. Those still running or halted.

    Each rollout's step is a transaction of its own.
    """
    states, elsewhere = store.rollouts.states(), store.rollouts.homes()
    waiting = {rollout for _, rollout in store.rollouts.live_tasks().values()}
    moving = [
        rollout_id
        for rollout_id, state in states.items()
        if state in (RolloutState.RUNNING, RolloutState.HALTED) or rollout_id in waiting
    ]
    after = []
    for rollout_id in [one for one in moving if one not in elsewhere]:
        with store.atomic():
            rollout = store.rollouts.load(rollout_id)
            others = [store.rollouts.load(other) for other in moving if other != rollout_id]
            busy = {group: other.id for other in others for group in other.held_groups()}
            closed = closed_sites(fleet, [rollout, *others], rollout.plan.policy, now_ms)
            events = [*_retired(store, rollout, now_ms), *_observations(store, fleet, rollout, now_ms)]
            events.append(ev.Tick(now_ms, closed, busy))
            after.append(feed(store, rollout_id, events).rollout)
    return tuple(after)


def adopt(store: Store, rollout_id: str, reason: str, *, actor: str, now_ms: int) -> Rollout:
    """Drive a rollout here from now on that another workspace drove; what is under way goes on from here.

    The other workspace learns of it at its next sync and stops; until then the devices decide by number, as always.
    """
    with store.atomic():
        rollout = store.rollouts.load(rollout_id)
        if rollout_id not in store.rollouts.homes():
            return rollout
        store.rollouts.set_home(rollout_id, store.workspace)
        store.outbox.add([one for one in rollout.outstanding(now_ms) if isinstance(one, ev.Deliver)])
        store.audit.append(actor, "rollout.adopt", rollout_id, reason, {"plan": rollout.plan_digest})
        return rollout


def redundancy_groups(fleet: Fleet, device: str) -> tuple[str, ...]:
    """The redundancy groups of a device's pumps, unique over the fleet: `<site>/<group>`."""
    pumps = fleet.pumps_by_device.get(device, ())
    return tuple(sorted({f"{pump.site}/{pump.redundancy_group}" for pump in pumps if pump.redundancy_group}))


def _freeze(store: Store, frozen: RolloutPlan, actor: str, now_ms: int) -> Rollout:
    draft = Rollout.draft(frozen)
    rollout, commands = draft.receive(ev.Freeze(now_ms, actor))
    keep(store, draft, rollout, commands)
    return rollout


def _new_id(store: Store, now_ms: int) -> str:
    # The tail keeps the names of two laptops apart when their stores are merged.
    number = len(store.rollouts.states()) + 1
    return f"r{number:04d}-{canonical.digest(f'{store.workspace}/{number}/{now_ms}'.encode())[:6]}"


def _package_for(store: Store, device: Device, versions: Mapping[str, int]) -> PackageRow | None:
    for package in store.packages.for_device(device.id):
        wanted = {model: number for model, number in versions.items() if model in package.versions}
        if wanted and all(package.versions[model] == number for model, number in wanted.items()):
            return package
    return None


def _exclusion(fleet: Fleet, device: Device, *, is_enrolled: bool) -> str:
    link = fleet.site(device.site).link
    if not is_enrolled:
        return "it is not enrolled: its key is not known"
    if link is not Link.COURIER and not device.address:
        return "it has no address"
    return ""


def _last_seqs(store: Store, devices: Mapping[str, object]) -> dict[str, int]:
    """The highest assignment number known of each device: from its status, its receipts and our own tasks."""
    seqs = dict.fromkeys(devices, 0)
    for device, row in store.devices.statuses().items():
        if device in seqs:
            seqs[device] = max(seqs[device], row.status.seq)
    for rollout in store.rollouts.all():
        for device in rollout.tasks.keys() & seqs.keys():
            seqs[device] = max(seqs[device], rollout.tasks[device].seq)
    for device in seqs:
        receipts = store.receipts.of(device)
        seqs[device] = max([seqs[device], *(row.receipt.seq for row in receipts)])
    return seqs


def unheard_devices(store: Store, devices: Iterable[str]) -> list[str]:
    """Devices that have said nothing since this workspace was restored: they may run what it has forgotten."""
    restored = store.lives.restored
    if restored is None:
        return []
    asked = {device for device, row in store.devices.statuses().items() if row.at_ms > restored.at_ms}
    spoke = {row.receipt.device for row in store.receipts.all(restored.at_ms)}
    return sorted(set(devices) - asked - spoke)


def _check_heard(store: Store, devices: Iterable[str]) -> None:
    silent, restored = unheard_devices(store, devices), store.lives.restored
    if silent and restored is not None:
        raise RefusedError(
            f"{len(silent)} devices have said nothing since this workspace was restored from a backup; they may have been told"
            " more than it knows",
            ", ".join(silent[:3]),
            expected=f"word from each after {format_ms(restored.at_ms)}",
            hint="collect from them, take in their sticks, or sync with a workspace that has heard of them",
        )


def _retired(store: Store, rollout: Rollout, now_ms: int) -> Sequence[ev.Event]:
    """Live tasks of devices that were retired, here or in a workspace that has been merged since."""
    live = [device for device, task in rollout.tasks.items() if task.is_live]
    ended = store.devices.retired() if live else {}
    return [ev.Retire(now_ms, ev.SYSTEM, device, ended[device].ended) for device in live if device in ended]


def _observations(store: Store, fleet: Fleet, rollout: Rollout, now_ms: int) -> Sequence[ev.Event]:
    """How the pumps of a soaking wave behave under their new package."""
    number = rollout.current_wave
    if rollout.state is not RolloutState.RUNNING or rollout.waves[number].state is not WaveState.SOAKING:
        return ()
    drift = store.drift.latest()
    events = []
    for name in rollout.plan.waves[number]:
        task, planned = rollout.tasks[name], rollout.plan.by_device[name]
        if task.state not in GOOD:
            continue
        alarmed = drifting = 0
        for pump in fleet.pumps_by_device.get(name, ()):
            notices = store.alarms.of(pump.id)
            alarmed += any(notice.raised and notice.package_sha256 == planned.package_sha256 for notice in notices)
            row = drift.get(pump.id)
            drifting += row is not None and row.at_ms >= task.changed_ms and row.worst > DRIFT_PSI
        events.append(ev.Observed(now_ms, name, alarmed, drifting))
    return events


def find_rollout(store: Store, rollout_id: str) -> Rollout:
    """The rollout of that name, or the only one whose name begins so.

    Raises:
        NotFoundError: none, or several.
    """
    matches = [name for name in store.rollouts.states() if name.startswith(rollout_id)]
    if len(matches) != 1 and rollout_id not in matches:
        found = ", ".join(matches[:5]) or "none"
        raise NotFoundError("no such rollout", rollout_id, found=found, hint="list them with: pumpdeck rollout list")
    return store.rollouts.load(rollout_id if rollout_id in matches else matches[0])


def check_sendable(rollout: Rollout, command: ev.Deliver) -> None:
    """Nothing is sent outside the approved plan.

    Raises:
        RefusedError: the command is not of this plan, or nobody approved it.
    """
    planned = rollout.plan.by_device.get(command.device)
    approved = {approval.plan_digest for approval in rollout.approvals}
    if planned is None or command.plan_digest != rollout.plan.digest or approved != {command.plan_digest}:
        raise RefusedError("is not of the approved plan", command.id, expected=rollout.plan.digest)
    if (planned.package_sha256, rollout.tasks[command.device].seq) != (command.package_sha256, command.seq):
        raise RefusedError("names another package than the plan", command.id, expected=planned.package_sha256)
