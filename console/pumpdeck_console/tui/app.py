"""The console's entry. Cheap to import: Textual and numpy come only inside ``run_console``, after the first paint."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import first_frame
from .terminal import choose_glyphs

if TYPE_CHECKING:
    from pumpdeck_console.operations.views import FleetView
    from pumpdeck_fleet.core.clock import Clock
    from pumpdeck_fleet.core.ports import FileSystem

    from .console_app import ConsoleApp
    from .readers import Actions, ReadersFactory
    from .reading import ReaderThread
    from .selecting import Selector


@dataclass(frozen=True)
class ConsoleOptions:
    """What a person or the workspace may choose; every field has a sensible default."""

    title: str = ""
    """Name of the workspace, shown in the header."""
    theme: str | None = None
    """``night``, ``high-contrast``, ``ansi-16`` or ``mono``; ``None`` asks the terminal."""
    glyphs: str = "auto"
    """``auto``, ``braille``, ``block`` or ``ascii``."""
    frame_cache: Path | None = None
    """File in which the figures of the last frame are kept for the next start."""
    export_folder: Path | None = None
    """Where ``x`` and ``X`` write; ``None`` switches export off."""
    is_paced: bool = True
    """Whether frames wait for the terminal's answer to the one before."""


@dataclass(frozen=True)
class ConsoleWorld:
    """What the console gets from outside instead of looking for it."""

    clock: Clock
    fs: FileSystem
    environ: Mapping[str, str]
    selector: Selector | None = None
    """Turns filter text into rows of a fleet view; without one, plain words are looked for."""


def run_console(
    readers_factory: ReadersFactory, actions: Actions, *, options: ConsoleOptions, world: ConsoleWorld
) -> int:
    """Run the console until the person leaves it; returns the exit code.

    ``readers_factory`` is called on the console's reader threads (see ``readers.Readers``). ``actions`` is closed at
    the end.
    """
    # Importing and composing make no garbage worth collecting; the app turns the collector on after its first screen.
    gc.disable()
    is_painted = _paint_first_frame(options, world.environ)
    try:
        app = make_app(readers_factory, actions, options, world)
    except BaseException:
        if is_painted:
            sys.stdout.write(first_frame.LEAVE)
        raise
    try:
        app.run()
    finally:
        gc.enable()
        actions.close()
    return app.return_code or 0


def make_app(
    readers_factory: ReadersFactory, actions: Actions, options: ConsoleOptions, world: ConsoleWorld
) -> ConsoleApp:
    """The app with its reader threads running; the fleet is read while Textual is still being imported."""
    from .reading import ReaderThread  # deferred: after the first paint

    reading = ReaderThread("reading", readers_factory, polls=True)
    reading.ask("fleet", lambda readers: readers.fleet(""))
    reading.ask("rollouts", lambda readers: readers.rollouts())
    reading.ask("link", lambda readers: readers.link())
    reading.start()
    asking = ReaderThread("asking", readers_factory, polls=False)
    asking.start()
    checking = ReaderThread("checking", readers_factory, polls=False)
    checking.start()
    return _build((reading, asking, checking), actions, options, world)


def _build(
    threads: tuple[ReaderThread, ReaderThread, ReaderThread], actions: Actions, options: ConsoleOptions, world: ConsoleWorld
) -> ConsoleApp:
    from pumpdeck_fleet.core.files import replace_file  # deferred with the app

    from .asking import Threads
    from .cells import clock_text
    from .console_app import ConsoleApp
    from .console_state import ConsoleSettings
    from .exporting import Exports
    from .palette import choose_palette
    from .selecting import select_words

    def keep_frame(view: FleetView) -> None:
        if options.frame_cache is not None:
            replace_file(world.fs, options.frame_cache, first_frame.cached_bytes(view, clock_text(view.as_of_ms)))

    settings = ConsoleSettings(
        title=options.title,
        clock=world.clock,
        palette=choose_palette(options.theme, world.environ),
        glyphs=choose_glyphs(options.glyphs, world.environ, sys.stdout.encoding or "", sys.platform),
        selector=world.selector or select_words,
        exports=Exports(world.fs, options.export_folder) if options.export_folder is not None else None,
        on_fleet=keep_frame,
        is_paced=options.is_paced,
    )
    return ConsoleApp(settings, Threads(*threads), actions)


def _paint_first_frame(options: ConsoleOptions, environ: Mapping[str, str]) -> bool:
    if not sys.stdout.isatty():
        return False
    size = os.get_terminal_size(sys.stdout.fileno())
    cached = first_frame.load_cached(options.frame_cache)
    first_frame.paint(sys.stdout, first_frame.frame_lines(options.title, cached, size.columns, size.lines), environ)
    return True
