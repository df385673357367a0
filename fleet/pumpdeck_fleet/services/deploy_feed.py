"""Events into a stored rollout: its new state, its commands and their audit entries are one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutKind, task_id
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.store import Store

_REVERT_ENDS = {RolloutState.COMPLETED: True, RolloutState.ABORTED: False}


@dataclass(frozen=True, slots=True)
class Fed:
    """A rollout after its events, and the commands that were stored with it."""

    rollout: Rollout
    commands: tuple[ev.Command, ...]

    def leave(self, device: str) -> ev.Assign | None:
        """The leave to hand this device its assignment now, if there is one."""
        found = (one for one in self.commands if isinstance(one, ev.Assign) and one.device == device)
        return next(found, None)


def feed(store: Store, rollout_id: str, events: Iterable[ev.Event]) -> Fed:
    """The rollout after the events. When this returns, all of it is stored; when it raises, none of it.

    Raises:
        NotFoundError: no such rollout.
        RefusedError, ConflictError: a person's event is not allowed now, or another workspace drives the rollout.
    """
    with store.atomic():
        store.rollouts.check_home(rollout_id)
        before = store.rollouts.load(rollout_id)
        rollout, commands = before.receive_all(events)
        keep(store, before, rollout, commands)
    return Fed(rollout, commands)


def keep(store: Store, before: Rollout | None, rollout: Rollout, commands: Sequence[ev.Command]) -> None:
    """Store a rollout with what it asked for; call inside `store.atomic()`."""
    if rollout is not before:
        store.rollouts.save(rollout)
    store.outbox.add([command for command in commands if isinstance(command, ev.Deliver)])
    for command in commands:
        match command:
            case ev.Withdraw():
                store.outbox.done(command.id)
            case ev.MoveAlias():
                _move_alias(store, command)
            case ev.Announce():
                store.audit.append(
                    command.actor, command.action, command.subject, command.reason, dict(command.digests)
                )
    if rollout.plan.kind is RolloutKind.REVERT and before is not None and before.state is not rollout.state:
        _end_revert(store, rollout)


def feed_receipts(store: Store, receipts: Sequence[ev.Receipted]) -> dict[str, Fed]:
    """Give verified receipts to the rollouts that wait for them, or that had given the device up; by rollout.

    A rollout that another workspace drives learns of them there, by sync.
    """
    by_rollout: dict[str, list[ev.Event]] = {}
    with store.atomic():
        elsewhere = store.rollouts.homes()
        rollouts = [rollout_id for rollout_id in store.rollouts.states() if rollout_id not in elsewhere]
        for event in receipts:
            for rollout_id in rollouts:
                if task_id(rollout_id, event.receipt.device) == event.receipt.task:
                    by_rollout.setdefault(rollout_id, []).append(event)
        return {rollout_id: feed(store, rollout_id, events) for rollout_id, events in by_rollout.items()}


def _move_alias(store: Store, command: ev.MoveAlias) -> None:
    version = store.registry.version(command.model, command.number)
    if version.content_digest != command.content_digest:
        raise DamagedError(
            "is not the version that was approved",
            f"{command.model} {command.number}",
            expected=command.content_digest,
            found=version.content_digest,
        )
    champion = store.registry.alias(command.model, Alias.CHAMPION)
    if champion is not None and champion.number == command.number:
        return
    digests = {"version": command.content_digest}
    if champion is not None:
        store.registry.set_alias(command.model, Alias.PREVIOUS, champion.number)
        digests["previous"] = champion.content_digest
    store.registry.set_alias(command.model, command.alias, command.number)
    reason = f"version {command.number}, rollout {command.id.partition(':')[0]}"
    store.audit.append(ev.SYSTEM, f"alias.{command.alias}", command.model, reason, digests)


def _end_revert(store: Store, revert: Rollout) -> None:
    if revert.state in _REVERT_ENDS:
        feed(store, revert.plan.reverts, [ev.RevertEnded(revert.changed_ms, _REVERT_ENDS[revert.state])])
