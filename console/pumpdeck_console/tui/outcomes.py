"""What to say when an action has ended: more than "done" where the result holds something people must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pumpdeck_fleet.core.merging import version_name


def outcome_words(operation: str, title: str, result: object) -> tuple[str, str]:
    """The line for the operator and its level (``info``, ``warn``). ``result`` is what the worker answered, plain values."""
    if isinstance(result, Mapping):
        if operation == "bundle.intake":
            return _intake(result)
        if operation in ("bundle.export", "bundle.tar", "bundle.reissue"):
            files = f"{result.get('written', 0)} files written and read back, {result.get('already', 0)} were there"
            return f"Stick {result.get('bundle', '')}: {files}", "info"
        if operation in _RESULTS:
            return _RESULTS[operation](result)
        if result.get("not_signed"):
            return f"Done: {title}; it counts in this workspace alone: {result['not_signed']}", "warn"
        if operation == "bundle.lost":
            return " ".join(str(one) for one in list(result.get("advice", ()))[-2:]), "warn"
    return f"Done: {title}", "info"


_GATES = {"pass": "every gate passed", "warn": "a gate warns", "refuse": "a gate refused it"}


def _train(result: Mapping[str, Any]) -> tuple[str, str]:
    told = []
    for one in result.get("models", ()):
        words = f"{one['model']} v{one['version']}, {_GATES.get(one['verdict'], one['verdict'])}"
        told.append(f"{words} ({one['reason']})" if one["reason"] else words)
    bad = any(one["verdict"] != "pass" for one in result.get("models", ()))
    return f"Trained: {'; '.join(told) or 'nothing'}", "warn" if bad else "info"


def _promote(result: Mapping[str, Any]) -> tuple[str, str]:
    model, missing = result.get("model", ""), int(result.get("missing_people") or 0)
    if missing:
        return f"Noted for {model}; {missing} more must say the same before anything changes", "warn"
    champion = version_name(int(result.get("champion") or 0))
    return f"Champion of {model} is v{champion}; devices run what they ran until a rollout brings it", "info"


def _verified(result: Mapping[str, Any]) -> tuple[str, str]:
    found = result.get("found") or {}
    size = f"{int(found.get('bytes') or 0) / 1e6:,.1f} MB"
    words = f"The backup holds: {found.get('files', 0)} files, {size}. {found.get('signature', '')}"
    if result.get("is_own"):
        return words, "info" if found.get("key_id") else "warn"
    return f"{words} It is of another workspace, {found.get('workspace', '')}", "warn"


def _backed_up(result: Mapping[str, Any]) -> tuple[str, str]:
    new, size = int(result.get("new_bytes") or 0), int(result.get("bytes") or 0)
    return f"Backed up to {result.get('to', '')}: {size / 1e6:,.1f} MB, {new / 1e6:,.1f} MB of it new, all read back", "info"


def _synced(result: Mapping[str, Any]) -> tuple[str, str]:
    report: Mapping[str, Any] = (result.get("sync") or result).get("report") or {}
    rows = sum(int(count) for count in dict(report.get("taken") or {}).values())
    conflicts, refused = len(report.get("conflicts") or ()), len(report.get("refused") or ())
    words = f"Taken in from {report.get('workspace', '')}: {rows:,} rows, {conflicts} conflicts, {refused} not believed"
    return words, "warn" if conflicts or refused else "info"


def _prepared(result: Mapping[str, Any]) -> tuple[str, str]:
    bad = [one["what"] for one in result.get("findings") or () if one["verdict"] == "bad"]
    words = f"The trip is in {result.get('to', '')}; open it with: pumpdeck -w {result.get('to', '')}"
    return (f"{words}. Before you leave: {', '.join(bad)}", "warn") if bad else (words, "info")


_RESULTS = {
    "train": _train,
    "models.promote": _promote,
    "models.demote": _promote,
    "backup": _backed_up,
    "backup.verify": _verified,
    "sync": _synced,
    "trip.return": _synced,
    "trip.prepare_to": _prepared,
}


def _intake(result: Mapping[str, Any]) -> tuple[str, str]:
    devices, problems = list(result.get("devices", ())), list(result.get("problems", ()))
    stored = dict(result.get("stored") or {})
    brought = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(stored.items()) if count)
    text = f"Taken in from {len(devices)} devices: {brought or 'nothing new'}; {result.get('rows', 0)} rows"
    if not problems:
        return text, "info"
    device, reason = problems[0]
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"Refused: {device}: {reason}{more}. {text}", "warn"
