"""Plans that the worker works out, such as a sync: its plain result in words, to be shown before anybody says yes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pumpdeck_console.operations.views import PlanView

_MOST = 6


def plan_of_result(operation: str, arguments: Mapping[str, str], result: object) -> PlanView:
    """The plan of `sync` from what `sync.plan` found, of `trip.prepare` from `trip.plan`. `result` is plain JSON."""
    found: Mapping[str, Any] = result if isinstance(result, Mapping) else {}
    return _sync(arguments, found) if operation == "sync" else _trip(arguments, found)


def _sync(arguments: Mapping[str, str], found: Mapping[str, Any]) -> PlanView:
    report: Mapping[str, Any] = found.get("report") or {}
    taken = {name: int(count) for name, count in sorted(dict(report.get("taken") or {}).items()) if count}
    conflicts, refused = list(report.get("conflicts") or ()), list(report.get("refused") or ())
    folder = arguments.get("folder", "")
    lines = [("workspace", str(report.get("workspace", ""))), ("from", f"{folder}; it is only read")]
    lines += [(name.replace("_", " "), f"{count:,} rows") for name, count in list(taken.items())[:_MOST]]
    if len(taken) > _MOST:
        lines.append(("and", f"{sum(list(taken.values())[_MOST:]):,} rows of {len(taken) - _MOST} other tables"))
    if artifacts := int(found.get("artifacts") or 0):
        lines.append(("artifacts", f"{artifacts:,} files"))
    if not taken:
        lines.append(("brings", "no row that is not here already"))
    lines.append(("receipts", f"{report.get('receipts', 0)} that rollouts here wait for"))
    warnings = [f"{one['kind']} {one['which']}: here {one['kept']}, there {one['other']}" for one in conflicts[:_MOST]]
    warnings += [f"not believed: {which}: {reason}" for which, reason in refused[:_MOST]]
    hidden = len(conflicts) + len(refused) - len(warnings)
    more = (f"and {hidden} more; pumpdeck sync {folder} --plan lists them",) if hidden > 0 else ()
    return PlanView("sync", "Take in another workspace", tuple(lines), f"pumpdeck sync {folder}", (*warnings, *more))


def _trip(arguments: Mapping[str, str], found: Mapping[str, Any]) -> PlanView:
    trip: Mapping[str, Any] = found.get("trip") or {}
    findings, work = list(found.get("findings") or ()), list(found.get("work") or ())
    devices = list(trip.get("devices") or ())
    to, query = arguments.get("to", ""), arguments.get("query", "")
    todo = sum(len(one["todo"]) for one in work)
    lent = list(trip.get("lent") or ())
    lines = (
        ("to", f"{to}; it becomes a workspace of its own"),
        ("devices", f"{len(devices)}: {', '.join(devices[:_MOST])}{' ..' if len(devices) > _MOST else ''}"),
        ("work", f"{todo} things to do; WORK.md lists them device by device"),
        ("lends", f"{', '.join(lent)}: the trip drives them until it returns" if lent else "no rollout"),
        *[(str(one["what"]), str(one["found"])) for one in findings if one["verdict"] == "ok"][:_MOST],
    )
    warnings = tuple(f"{one['what']}: {one['found']}" for one in findings if one["verdict"] != "ok")
    words = f'pumpdeck trip prepare "{query}" --to {to}' if query else f"pumpdeck trip prepare --to {to}"
    return PlanView("trip.prepare", "Prepare a trip", lines, words, warnings)
