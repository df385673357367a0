"""The shell command that does what a screen shows or an action does, ready to be copied."""

from __future__ import annotations

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,=")


def quoted(word: str) -> str:
    """One shell word that bash, PowerShell and cmd take alike: double quotes where it needs any."""
    if word and set(word) <= _SAFE:
        return word
    return '"' + word.replace('"', '\\"') + '"'


def command(*words: str) -> str:
    """``pumpdeck`` and its words; empty words are left out."""
    return " ".join(["pumpdeck", *(quoted(word) for word in words if word)])


def pumps_command(query: str, site: str, pump_id: str = "") -> str:
    """The list a fleet screen shows, or the pump its detail pane shows."""
    if pump_id:
        return command("pumps", "show", pump_id)
    parts = [f"site:{site}" if site else "", f"({query})" if site and " or " in query else query]
    return command("pumps", "list", " ".join(part for part in parts if part))
