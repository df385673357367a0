"""What the command palette offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.app import SystemCommand

from .header import SCREENS
from .palette import PALETTES
from .terminal import GLYPHS

if TYPE_CHECKING:
    from .console_app import ConsoleApp


def console_commands(app: ConsoleApp) -> Iterator[SystemCommand]:
    """Every place and every key that works everywhere."""
    for key, name, title in SCREENS:
        yield SystemCommand(f"Go to {title.lower()}", f"key {key}", lambda name=name: app.action_go(name))
    yield SystemCommand("Filter", "key /", app.action_filter)
    yield SystemCommand("Jump to a pump, site or rollout", "key :", app.action_jump)
    yield SystemCommand("Copy the command for this view", "key c", app.action_copy_command)
    yield SystemCommand("Export the table as CSV", "key x", lambda: app.action_export("csv"))
    yield SystemCommand("Export the screen as SVG", "key X", lambda: app.action_export("svg"))
    yield SystemCommand("Read everything anew", "key R", app.action_reload)
    yield SystemCommand("Stop the running action", "key ctrl+x", app.action_cancel_action)
    yield SystemCommand("Help", "key ?", app.action_help)
    for name in PALETTES:
        yield SystemCommand(f"Theme {name}", "colours of the console", lambda name=name: app.use_palette(name))
    for glyphs in GLYPHS:
        yield SystemCommand(f"Charts in {glyphs}", "signs and charts", lambda glyphs=glyphs: app.use_glyphs(glyphs))
    yield SystemCommand("Quit", "key q", app.exit)
