"""What to say when an action has ended: more than "done" where the result holds something people must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outcome_words(operation: str, title: str, result: object) -> tuple[str, str]:
    """The line for the operator and its level (``info``, ``warn``). ``result`` is what the worker answered, plain values."""
    if isinstance(result, Mapping):
        if operation == "bundle.intake":
            return _intake(result)
        if operation in ("bundle.export", "bundle.tar", "bundle.reissue"):
            files = f"{result.get('written', 0)} files written and read back, {result.get('already', 0)} were there"
            return f"Stick {result.get('bundle', '')}: {files}", "info"
        if operation == "bundle.lost":
            return " ".join(str(one) for one in list(result.get("advice", ()))[-2:]), "warn"
    return f"Done: {title}", "info"


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
