"""What the trust screen shows: who may sign what until when, who reads returns, devices that ended, devices behind on keys."""

from __future__ import annotations

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.recipients import list_recipients
from pumpdeck_console.operations.trust_contact import exposed
from pumpdeck_console.operations.trust_rows import KeysView, RetiredLine, RoleKey
from pumpdeck_console.operations.trust_view import list_keys
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import PumpdeckError


@operation("view.keys", runs_in="reader")
def keys_view(workspace: Workspace) -> KeysView:
    """The newest state of it all. A site whose repository does not hold is named and leaves the others readable."""
    keys: list[RoleKey] = []
    damaged: list[tuple[str, str]] = []
    founded = [site.id for site in workspace.fleet.sites if workspace.trust(site.id).exists]
    for site in founded:
        try:
            keys += list_keys(workspace, sites=(site,))
        except PumpdeckError as error:
            damaged.append((site, error.sentence()))
    keys.sort(key=lambda row: (not row.warning, row.expires_ms if row.warning else 0))
    return KeysView(
        as_of_ms=workspace.clock.now_ms(),
        keys=tuple(keys),
        readers=list_recipients(workspace).rows if not damaged else (),
        retired=_retired(workspace),
        behind=exposed(workspace),
        unfounded=tuple(site.id for site in workspace.fleet.sites if site.id not in founded),
        damaged=tuple(damaged),
    )


def _retired(workspace: Workspace) -> tuple[RetiredLine, ...]:
    store, known = workspace.store, workspace.fleet.device_by_id
    rows = [
        RetiredLine(
            name, known[name].site if name in known else "", row.key_id, row.enrolled_ms, row.ended_ms or 0, row.ended,
            len(store.receipts.of(name)),
        )
        for name, row in store.devices.retired().items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: -row.ended_ms))
